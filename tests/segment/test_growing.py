import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unpool.models import FCN, DeconvNet
from unpool.segment.growing import GrowingLearner, Learner

TABLE = ((1, 24), (2, 48), (2, 96))


@pytest.fixture
def growing():
    torch.manual_seed(0)
    growing = GrowingLearner(DeconvNet(3, TABLE, code=None, size=64))
    for head in growing.heads:
        nn.init.normal_(head.weight, std=0.3)
        nn.init.normal_(head.bias)
    return growing.eval()


def images(count=4, side=64):
    """Smooth images, so that a score upsampled looks like the score."""
    noise = torch.randn(
        count, 3, side // 16, side // 16, generator=torch.Generator().manual_seed(1)
    )
    return F.interpolate(noise, size=(side, side), mode="bicubic") * 50


def test_every_stage_has_scores_and_the_last_head_is_the_networks_own(growing):
    x = images()
    assert [tuple(s.shape) for s in growing(x, 3)] == [
        (4, 3, 16, 16),
        (4, 3, 32, 32),
        (4, 3, 64, 64),
    ]
    assert len(growing(x, 2)) == 2
    assert growing.head(2) is growing.net.score
    torch.testing.assert_close(growing(x, 3)[-1], growing.net(x))
    (finest,) = growing(x, 3, last=True)
    torch.testing.assert_close(finest, growing.net(x))


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_stages_are_newest_older_or_unused(growing, stages):
    parts = [growing.newest(stages), growing.older(stages), growing.unused(stages)]
    decoder = [[m for m in part if m in list(growing.net.decoder)] for part in parts]
    assert [len(d) for d in decoder] == [1, stages - 1, 3 - stages]
    assert growing.head(stages - 1) in parts[0]


def test_a_plain_network_learns_as_a_whole():
    net = FCN(3, TABLE, None, stride=4, pad=1).eval()
    learner = Learner(net)
    x = images()
    (scores,) = learner(x, 1)
    torch.testing.assert_close(scores, net(x))
    learning = {id(p) for part in learner.newest(1) for p in part.parameters()}
    assert not learning & {id(p) for p in net.trunk.parameters()}
    assert learner.fixed  # the interpolation
    assert learner.fixed < learning


def test_tied_filters_are_those_of_the_mirror_image(growing):
    growing.tie()
    net = growing.net
    for mirrored, layer in [
        ("trunk.stages.2.conv3_2", "decoder.0.deconv3_1"),
        ("trunk.stages.2.conv3_1", "decoder.0.deconv3_2"),
        ("trunk.stages.1.conv2_2", "decoder.1.deconv2_1"),
        ("trunk.stages.1.conv2_1", "decoder.1.deconv2_2"),
    ]:
        tied, filters = net.get_submodule(layer).weight, net.get_submodule(mirrored).weight
        assert torch.equal(tied, filters)
    assert net.get_submodule("decoder.2.deconv1_1").weight.std() > 0.01  # no mirror image: He


@pytest.mark.parametrize("stage", [1, 2])
def test_a_grown_stage_says_what_the_stage_before_it_says(growing, stage):
    """The refinement begins as the coarser scores, upsampled; not exactly, but closely."""
    growing.tie()
    x = images(8)
    before = growing(x, stage)[-1]
    for grown in range(1, stage):
        growing.grow(grown, x)
        before = growing(x, stage)[-1]
    growing.grow(stage, x)
    after = growing(x, stage + 1)[-1]
    wanted = F.interpolate(before, scale_factor=2, mode="bilinear")
    together = torch.stack([after.flatten(), wanted.flatten()])
    assert torch.corrcoef(together)[0, 1] > 0.8
    difference = (after - wanted).abs().mean() / wanted.std()
    assert difference < 0.5
    centered = (after - wanted).mean((0, 2, 3)) / wanted.std()
    assert centered.abs().max() < 0.15  # the shifts through batch norm are made good


def test_growing_leaves_the_coarser_stages_alone(growing):
    x = images()
    before = growing(x, 1)[0]
    growing.grow(1, x)
    torch.testing.assert_close(growing(x, 1)[0], before, rtol=0, atol=0)
