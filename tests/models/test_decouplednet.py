"""DecoupledNet: sizes, the bridge and its golden values, and the inference class by class."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.models.test_segnet import by_formula
from unpool.errors import OptionError, ShapeError
from unpool.models import MEAN_BGR, DeconvNet, DecoupledNet, load_vgg
from unpool.models.decouplednet import Classification
from unpool.models.fast import fold

GOLDEN = np.load(Path(__file__).parents[1] / "golden/decouplednet_bridge.npz")
TABLE = ((1, 4), (2, 6), (1, 8))


def small(classes=4, **changes):
    sizes = {"code": 7, "seg_code": 8, "size": 32, "window": 3}
    return DecoupledNet(classes, TABLE, **{**sizes, **changes})


def gentle(net, filled):
    """Filled with values, but with scores that do not saturate the sigmoid."""
    filled(net)
    with torch.no_grad():
        net.classifier["cls-score-voc"].weight.div_(1000)
        net.classifier["cls-score-voc"].bias.copy_(torch.arange(net.classes - 1) - 1)
    return net


def photos(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return 50 * torch.randn(*shape, generator=generator, dtype=dtype)


# ---- sizes ---------------------------------------------------------------------------------------


def count(*modules):
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def test_parameters():
    with torch.device("meta"):
        net = DecoupledNet()
    trained = (net.norms, net.fc, net.decoder, net.score)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    classification, segmentation = count(net.trunk, net.classifier), count(*trained)
    bridge = sum(layer.weight.numel() for layer in net.classifier.values())
    assert classification == 134_342_484
    assert len(norms) == 18
    assert count(*norms) == 18_816
    assert segmentation == 173_089_090 + 18_816
    assert count(net) == classification + segmentation
    copies = bridge + 4096 + 4096 + 512  # with biases of their own, which are zero
    assert copies == 119_628_288
    assert classification + copies + segmentation == 427_078_678


def test_sizes_on_the_way_down_and_back():
    with torch.device("meta"):
        net = DecoupledNet()
        maps, switches = net.trunk(torch.zeros(1, 3, 320, 320))
        found = net.classify(maps)
        bridged = net.bridge(found, torch.zeros(1, 20))
        scores = net.segment(maps, switches, bridged)
    assert [s.size[0] for s in switches] == [320, 160, 80, 40, 20]
    assert maps.shape == bridged.shape == (1, 512, 10, 10)
    assert found.fc6.shape == found.fc7.shape == (1, 4096, 4, 4)
    assert found.scores.shape == (1, 20, 4, 4)
    assert scores.shape == (1, 2, 320, 320)


@torch.no_grad()
def test_a_decoder_of_fewer_stages_is_enlarged(filled):
    net = gentle(small(stages=1), filled)
    maps, switches = net.trunk(photos(2, 3, 32, 32))
    bridged = net.bridge(net.classify(maps), torch.ones(2, 3))
    assert net.segment(maps, switches, bridged).shape == (2, 2, 8, 8)
    assert net(photos(2, 3, 32, 20)).shape == (2, 4, 32, 20)
    assert DecoupledNet(**net.arguments).state_dict().keys() == net.state_dict().keys()


# ---- the bridge ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden():
    net = DecoupledNet(5, ((1, 3),), code=6, seg_code=2, size=12, window=3).double()
    net.classifier["fc7"] = nn.Conv2d(6, 5, 1).double()
    net.classifier["cls-score-voc"] = nn.Conv2d(5, 4, 1).double()
    with torch.no_grad():
        for seed, layer in enumerate(net.classifier.values(), start=1):
            by_formula(layer, seed)
    n = torch.arange(3 * 36, dtype=torch.float64).view(1, 3, 6, 6)
    return net, ((0.9 * n).sin() + 0.3).clamp_min(0)


@torch.no_grad()
def test_the_bridge_is_the_golden_one(golden):
    net, maps = golden
    found = net.classify(maps)
    average, maximum = (found.probabilities(kind) for kind in ("average", "maximum"))
    values = {
        "cls_score": found.scores,
        "avg_pooled": found.pooled("average"),
        "max_pooled": found.pooled("maximum"),
        "pool5_bp_train": net.bridge(found, maximum * torch.tensor([1, 0, 1, 0])),
        "pool5_bp_test": net.bridge(found, average * (average > 0.5)),
    }
    for name, value in values.items():
        expected = torch.from_numpy(GOLDEN[name]).double()
        torch.testing.assert_close(value[0], expected, rtol=1e-5, atol=1e-6)
    places = found.scores.flatten(2).argmax(2)[0]
    assert places.tolist() == GOLDEN["switch"].tolist()


def test_the_bridge_is_the_gradient_of_the_maxima(golden, filled):
    for net, maps in (golden, (filled(small()).double(), photos(3, 8, 4, 4).double())):
        found = net.classify(maps)
        values = torch.rand(len(maps), found.scores.shape[1], dtype=torch.float64)
        by_autograd = net.bridge_by_autograd(maps, values)
        torch.testing.assert_close(net.bridge(found, values), by_autograd, rtol=0, atol=1e-12)
        with torch.no_grad():  # and it does not touch what autograd is about to do
            assert torch.equal(net.bridge_by_autograd(maps, values), by_autograd)
    with torch.inference_mode():
        net.bridge(net.classify(maps), values)
        with pytest.raises(RuntimeError, match="grad"):
            net.bridge_by_autograd(maps, values)


@torch.no_grad()
def test_the_bridge_is_linear(golden):
    net, maps = golden
    found = net.classify(maps)
    a, b = torch.rand(2, 1, 4, dtype=torch.float64)
    torch.testing.assert_close(
        net.bridge(found, a + b), net.bridge(found, a) + net.bridge(found, b)
    )
    assert not net.bridge(found, torch.zeros(1, 4)).any()


@torch.no_grad()
def test_the_bridge_says_how_scores_change(golden):
    """For small changes of the maps, which leave the places of the maxima and the masks."""
    net, maps = golden
    values = torch.tensor([[0.2, 0.9, 0.0, 0.5]], dtype=torch.float64)

    def weighted(maps):
        return float((net.classify(maps).pooled("maximum") * values).sum())

    change = 1e-6 * torch.randn(maps.shape, dtype=torch.float64)
    expected = float((net.bridge(net.classify(maps), values) * change).sum())
    assert weighted(maps + change) - weighted(maps) == pytest.approx(expected, rel=1e-6)


# ---- segmentation --------------------------------------------------------------------------------


@torch.no_grad()
def test_the_decoder_is_that_of_deconvnet(filled):
    net, theirs = filled(small()), filled(DeconvNet(2, TABLE, None, 32))
    theirs.decoder.load_state_dict(net.decoder.state_dict())
    theirs.score.load_state_dict(net.score.state_dict())
    maps, switches = net.trunk(photos(2, 3, 32, 32))
    bridged = net.bridge(net.classify(maps), torch.ones(2, 3))
    code = net.fc(torch.cat([net.norms["pool5-bn"](maps), net.norms["pool5-bp-bn"](bridged)], 1))
    expected = theirs.score(theirs.decode(code, switches)[-1])
    torch.testing.assert_close(net.segment(maps, switches, bridged), expected)


@torch.no_grad()
def test_the_fully_connected_layers_start_as_those_of_vgg():
    net = DecoupledNet(4, TABLE, code=7, seg_code=8, size=64, window=7)
    state = {
        f"features.{i}.{part}": torch.randn_like(value)
        for i, layer in enumerate(m for m in net.trunk.modules() if isinstance(m, nn.Conv2d))
        for part, value in layer.state_dict().items()
    }
    for name, inputs in (("0", 8 * 49), ("3", 7)):
        state[f"classifier.{name}.weight"] = torch.randn(7, inputs)
        state[f"classifier.{name}.bias"] = torch.randn(7)
    assert load_vgg(net, state)[-2:] == ["fc6", "fc7"]
    assert torch.equal(net.classifier["fc6"].weight.flatten(1), state["classifier.0.weight"])


@torch.no_grad()
def test_batch_norm_folds(filled):
    net = gentle(small(), filled)
    x, folded = photos(2, 3, 32, 32), fold(net)
    norms = [name for name, m in folded.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms == ["norms.pool5-bn", "norms.pool5-bp-bn"]
    torch.testing.assert_close(folded(x), net(x), rtol=1e-3, atol=1e-3)
    assert DecoupledNet(**folded.arguments).state_dict().keys() == folded.state_dict().keys()


# ---- inference -----------------------------------------------------------------------------------


def by_hand(net, x):
    """The released script, in plain steps: a pass for each class, one after the other."""
    height, width = x.shape[-2:]
    side = max(height, width)
    canvas = torch.zeros(1, 3, side, side) - torch.tensor(MEAN_BGR).view(1, 3, 1, 1)
    canvas[..., :height, :width] = x
    size = [net.input_size] * 2
    canvas = F.interpolate(canvas, size, mode="bilinear", antialias=True)
    maps, switches = net.trunk(canvas)
    found = net.classify(maps)
    s = found.scores.mean((2, 3)).sigmoid()[0]
    entering = s if net.bridge_pooling == "average" else found.scores.amax((2, 3)).sigmoid()[0]

    def run(values):
        bridged = net.bridge_by_autograd(maps, values[None])
        return net.segment(maps, switches, bridged).softmax(1)[0]

    p = torch.zeros(net.classes, *size)
    p[0] = run(entering * (s > 0.5))[0]
    for c in (s > 0.5).nonzero()[:, 0]:
        p[c + 1] = run(entering * (torch.arange(len(s)) == c))[1]
    p = p / p.sum(0)
    p = F.interpolate(p[None], [side, side], mode="bicubic", antialias=True)
    return p[0, :, :height, :width], int((s > 0.5).sum())


@pytest.mark.parametrize("bridge", ["average", "maximum"])
@torch.no_grad()
def test_inference_is_that_of_the_released_script(filled, bridge):
    net = gentle(small(bridge=bridge), filled)
    bias, sizes = net.classifier["cls-score-voc"].bias, ((32, 32), (32, 21), (45, 50), (20, 28))
    for expected_shown, size in enumerate(sizes):
        bias.copy_(torch.tensor([2.0 if i < expected_shown else -2.0 for i in range(3)]))
        x = photos(1, 3, *size)
        (found,), (expected, shown) = net(x).exp(), by_hand(net, x)
        assert shown == expected_shown
        expected = expected.clamp_min(1e-6)
        torch.testing.assert_close(found, expected / expected.sum(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.sum(0), torch.ones(size))


class Fake(DecoupledNet):
    """Segments by constants, and counts how often the bridge is crossed."""

    crossed = 0

    def bridge(self, found: Classification, values: torch.Tensor) -> torch.Tensor:
        self.crossed, self.values = len(values), values
        return super().bridge(found, values)

    def segment(self, maps, switches, bridged):
        scores = torch.zeros(len(maps), 2, self.input_size, self.input_size)
        scores[:, 1] = torch.log(torch.tensor([1 / 3, 4.0, 1.5]))[: len(maps), None, None]
        return scores


@torch.no_grad()
def test_classes_are_normalized_together():
    net = Fake(4, TABLE, code=7, seg_code=8, size=32, window=3)
    bias = net.classifier["cls-score-voc"].bias
    net.classifier["cls-score-voc"].weight.zero_()
    for shown in ([False, True, True], [False, True, False], [False] * 3):
        bias.copy_(torch.where(torch.tensor(shown), 1.0, -1.0))
        p = net(torch.zeros(1, 3, 32, 32)).exp()[0, :, 0, 0]
        expected = torch.tensor([3 / 4, 0.0, 4 / 5 * shown[1], 3 / 5 * shown[2]])
        torch.testing.assert_close(p, expected / expected.sum(), rtol=1e-4, atol=1e-5)
        assert net.crossed == sum(shown) + 1  # one more, that of v = 0, needs no bridge
        alone = torch.diag(bias.sigmoid())[shown]
        torch.testing.assert_close(net.values, torch.cat([alone.sum(0, True), alone]))


@pytest.mark.parametrize(
    ("shown", "scores", "expected"),
    [
        ([False] * 3, [300.0], 0),  # foreground everywhere, but of no class
        ([True, False, True], [300.0, -200.0, -150.0], 3),
        ([True, False, True], [140.0, -200.0, -150.0], 0),
    ],
)
@torch.no_grad()
def test_certain_scores_have_probabilities(monkeypatch, shown, scores, expected):
    """The scores of a short training run can be so large that all softmaxes give 0."""
    net = Fake(4, TABLE, code=7, seg_code=8, size=32, window=3)

    def segment(maps, switches, bridged):
        maps = torch.zeros(len(scores), 2, 32, 32)
        maps[:, 1] = torch.tensor(scores)[:, None, None]
        return maps

    monkeypatch.setattr(net, "segment", segment)
    net.classifier["cls-score-voc"].weight.zero_()
    net.classifier["cls-score-voc"].bias.copy_(torch.where(torch.tensor(shown), 1.0, -1.0))
    log_p = net(torch.zeros(1, 3, 32, 32))
    assert log_p.isfinite().all()
    assert (log_p.argmax(1) == expected).all()
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(1, 32, 32))


@torch.no_grad()
def test_an_image_without_classes_is_background(filled):
    net = gentle(small(), filled)
    net.classifier["cls-score-voc"].weight.zero_()
    net.classifier["cls-score-voc"].bias.fill_(-1)
    assert not net(photos(2, 3, 30, 40)).argmax(1).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": 1}, "classes"),
        ({"size": 7}, "size"),
        ({"code": 0}, "code"),
        ({"bridge": "sum"}, "bridge"),
        ({"window": 5}, r"got window=5 and stages=3; the last map .* is 4 x 4 at size=32"),
        ({"stages": 4}, "got window=3 and stages=4"),
        ({"eps": -1}, "got eps=-1; wanted a number from 0 to 1, or None"),
    ],
)
def test_impossible_arguments(changes, message):
    with pytest.raises(OptionError, match=message):
        small(**changes)


def test_images_smaller_than_a_cell_are_refused():
    with pytest.raises(ShapeError, match="H and W from 8 up"):
        small()(torch.zeros(1, 3, 7, 64))
