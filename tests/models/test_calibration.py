import pytest
import torch

from unpool.devices import find_int8_obstacle
from unpool.errors import OptionError
from unpool.models import FCN, DeconvNet
from unpool.models.calibration import calibrate
from unpool.models.int8 import to_int8

pytestmark = pytest.mark.skipif(
    find_int8_obstacle(torch.device("cpu")) is not None, reason="the processor has no VNNI"
)


@pytest.fixture
def batches():
    random = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 32, 32, generator=random) * 50 for _ in range(3)]


@torch.no_grad()
def test_scales_are_those_of_the_maps(filled, batches):
    """Of layers written out by hand; the square errors of other scales are larger."""
    net = filled(DeconvNet(3, ((1, 6),), None, 32, eps=None))
    scales = calibrate(net, batches, agreement=0).layers
    first, second, last = scales.values()
    low = min(float(x.min()) for x in batches)
    high = max(float(x.max()) for x in batches)
    assert first.input == pytest.approx((high - low) / 255)
    assert first.zero == round(-low / first.input)
    maps = torch.cat([net.trunk.stages[0](x).flatten() for x in batches])

    def error(scale):
        return (((maps / scale).round().clamp(0, 255) * scale - maps) ** 2).mean()

    assert first.output == second.input
    assert error(first.output) <= min(error(first.output * f) for f in (0.8, 1.25)) * 1.02
    assert second.output == last.input
    assert last.output is None


@torch.no_grad()
def test_layers_that_lose_most_stay_in_floating_point(filled, batches):
    net = filled(DeconvNet(3, ((2, 6), (1, 8)), None, 32))
    all_int8 = calibrate(net, batches, agreement=0)
    assert set(all_int8.measured["floating_point"]) == set()
    assert all(scale.int8 for scale in all_int8.layers.values())
    before = all_int8.measured["labels_equal"]
    assert before < 1
    wanted = before + 0.5 * (1 - before)
    found = calibrate(net, batches, agreement=wanted)
    assert found.measured["labels_equal"] >= wanted
    assert found.measured["images"] == 6
    kept = found.measured["floating_point"]
    assert 0 < len(kept) < len(all_int8.layers)
    form = to_int8(net, found)
    equal = [(form(x).argmax(1) == net(x).argmax(1)).float().mean() for x in batches]
    assert sum(equal) / 3 == pytest.approx(found.measured["labels_equal"], abs=0.01)


@torch.no_grad()
def test_who_reads_a_map_is_found(filled, batches):
    """Two layers of an FCN read the same map, one of them with a factor."""
    table = ((1, 6), (1, 8), (1, 8))
    net = filled(FCN(3, table, 8, stride=4, pad=1, window=3, at_once=True))
    scales = calibrate(net, batches, agreement=0).layers
    stage = "trunk.stages.{0}.conv{1}_1"
    assert scales["score.score_pool2"].input == scales[stage.format(1, 2)].output
    assert scales[stage.format(2, 3)].input == scales[stage.format(1, 2)].output
    assert not scales["score.score_pool2"].int8
    assert scales["score.score_fr"].input == scales["fc.fc7"].output


def test_what_cannot_be_calibrated(filled, batches):
    net = filled(DeconvNet(3, ((1, 6),), None, 32))
    with pytest.raises(OptionError, match="no images to calibrate int8 on"):
        calibrate(net, [])
    with pytest.raises(OptionError, match="stay the same without int8 layers; wanted"):
        calibrate(net, batches, agreement=1.1)
