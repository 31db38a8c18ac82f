"""Progressive growing, and the parts of other networks."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unpool.errors import OptionError
from unpool.models import CRFRNN, FCN, DeconvNet, DeepLab, SegNet
from unpool.recipes import SegmentationRecipe
from unpool.recipes.relatives import DEEPLAB, DEEPLAB_LARGEFOV
from unpool.recipes.segment import NETWORKS as NAMES
from unpool.recipes.segment import OBJECTS, Phase
from unpool.segment.fit import SegmentationObjective
from unpool.segment.learner import GridLearner, GrowingLearner, Learner, MeanFieldLearner, build
from unpool.segment.networks import NETWORKS

TABLE = ((1, 24), (2, 48), (2, 96))
SMALL = ((1, 4), (2, 6))


def made(kind):
    own = {"code": None, "size": 64} if kind is DeconvNet else {}
    return kind(3, TABLE, **own)


@pytest.fixture(params=[DeconvNet, SegNet])
def growing(request):
    torch.manual_seed(0)
    growing = GrowingLearner(made(request.param))
    for head in growing.heads:
        nn.init.normal_(head.weight, std=0.3)
        nn.init.normal_(head.bias)
    return growing.eval()


def test_every_network_that_recipes_name_can_be_made():
    assert {*NETWORKS} == {*NAMES}


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


@pytest.mark.parametrize("kernel", [2, 3])
def test_a_deeplab_learns_the_labels_of_its_grid(kernel, filled):
    net = filled(DeepLab(3, SMALL[:1] * 5, 8, kernel=kernel))
    learner, side = GridLearner(net).train(), 41 + net.first
    x = 50 * torch.randn(2, 3, side, side)
    truth = torch.arange(side).expand(2, side, side)
    (scores,) = learner(x, 1)
    assert scores.shape == (2, 3, 6, 6)
    seen = learner.targets(truth)[:, ::8, ::8]
    assert seen[0, 0].tolist() == [net.first + 8 * i for i in range(6)]
    (whole,) = learner.eval()(x[..., :30], 1)
    torch.testing.assert_close(whole, net(x[..., :30]))


def test_the_scores_of_a_deeplab_learn_ten_times_as_fast():
    for recipe in (DEEPLAB, DEEPLAB_LARGEFOV):
        small = dataclasses.replace(recipe, trunk=((1, 4),) * 5, code=8)
        learner = build(small, 3)
        groups = SegmentationObjective(learner, small).groups()
        found = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
        for name, parameter in learner.net.named_parameters():
            lr = 0.01 if "fc8" in name else 0.001
            expected = (lr, 0.0005) if parameter.dim() > 1 else (2 * lr, 0)
            assert found[id(parameter)] == pytest.approx(expected), name


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_stages_are_newest_older_or_unused(growing, stages):
    parts = [growing.newest(stages), growing.older(stages), growing.unused(stages)]
    decoder = [[m for m in part if m in list(growing.net.decoder)] for part in parts]
    assert [len(d) for d in decoder] == [1, stages - 1, 3 - stages]
    assert growing.head(stages - 1) in parts[0]


def test_more_classes_than_a_new_stage_has_channels_are_refused_at_once():
    """VGG's last decoder stage has 64 channels: the recipe `objects` grows it after 790 steps."""
    assert isinstance(build(OBJECTS, 64), GrowingLearner)
    with pytest.raises(OptionError, match=r"got 65 classes, .* of 64 channels .* phases\.0\.stage"):
        build(OBJECTS, 65)
    phases = (dataclasses.replace(OBJECTS.phases[0], stages=5),)
    assert isinstance(build(dataclasses.replace(OBJECTS, phases=phases), 65), GrowingLearner)


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


def test_of_a_crf_rnn_the_crf_is_newest_and_the_fcn_older():
    learner = MeanFieldLearner(CRFRNN(3, TABLE, 8, stride=4, pad=1, window=3))
    parts = learner.newest(1), learner.older(1), [learner.net.trunk]
    newest, older, trunk = ({id(p) for m in part for p in m.parameters()} for part in parts)
    assert newest == {id(p) for p in learner.net.crf.parameters()}
    assert len(learner.fixed) == 1
    assert learner.fixed < older
    assert newest | older | trunk == {id(p) for p in learner.net.parameters()}
    assert newest.isdisjoint(older)
    assert trunk.isdisjoint(older)


@pytest.mark.parametrize("growing", [DeconvNet], indirect=True)
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


@torch.no_grad()
def test_tied_filters_of_segnet_are_the_transposes_of_those_with_the_same_name():
    """By their effect: <conv(x), y> = <x, tied(y)>, without biases."""
    net = SegNet(3, ((2, 4), (2, 6)), wide_head=True)
    GrowingLearner(net).tie()
    for name in ("2_2", "2_1", "1_2"):
        conv = net.trunk.get_submodule(f"stages.{int(name[0]) - 1}.conv{name}")
        tied = net.decoder.get_submodule(f"{2 - int(name[0])}.conv{name}_D")
        x, y = torch.randn(1, conv.in_channels, 9, 8), torch.randn(1, conv.out_channels, 9, 8)
        forth = (F.conv2d(x, conv.weight, padding=1) * y).sum()
        back = (x * F.conv2d(y, tied.weight, padding=1)).sum()
        torch.testing.assert_close(forth, back, rtol=1e-4, atol=1e-4)
    last = net.decoder.get_submodule("1.conv1_1_D")  # its mirror image has three channels: He
    assert abs(last.weight.std() / (2 / 36) ** 0.5 - 1) < 0.3


def test_segnet_has_its_own_dropout_during_training():
    """The recipe's is the network's, so nothing is dropped twice, or from a SegNet without."""
    torch.manual_seed(0)
    learner = GrowingLearner(made(SegNet)).train()
    x = images(2)
    torch.testing.assert_close(learner(x, 3, dropout=0.9)[-1], learner(x, 3)[-1])


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


@pytest.mark.parametrize("trunk_norm", [False, True])
def test_a_frozen_trunk_keeps_its_statistics_and_its_dropout(trunk_norm):
    net = SegNet(3, TABLE, dropout=0.5)
    phase = Phase("all", 3, 1, 1e-3)
    recipe = SegmentationRecipe("tiny", (phase,), trunk=TABLE, trunk_norm=trunk_norm)
    SegmentationObjective(GrowingLearner(net), recipe).set_mode()
    kinds = {
        kind: {m.training for m in net.trunk.modules() if isinstance(m, kind)}
        for kind in (nn.Dropout, nn.BatchNorm2d)
    }
    assert kinds == {nn.Dropout: {True}, nn.BatchNorm2d: {trunk_norm}}


def test_growing_leaves_the_coarser_stages_alone(growing):
    x = images()
    before = growing(x, 1)[0]
    growing.grow(1, x)
    torch.testing.assert_close(growing(x, 1)[0], before, rtol=0, atol=0)
