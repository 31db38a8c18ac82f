"""SegNet and SegNet-Basic: sizes, golden values, and their relation to DeconvNet."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.models.golden import by_formula, by_formula_image
from unpool.errors import OptionError, ShapeError
from unpool.models import DeconvNet, SegNet, SegNetBasic
from unpool.models.fast import fold
from unpool.models.segnet import brightness_norm
from unpool.ops import as_convolution, unpool

GOLDEN = np.load(Path(__file__).parents[1] / "golden/segnet.npz")
TABLE = ((1, 4), (2, 6), (2, 8))


def count(net):
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(
    ("classes", "parameters"),
    [(11, 29_449_355), (12, 29_449_932), (21, 29_455_125), (38, 29_464_934)],
)
def test_parameters_of_segnet(classes, parameters):
    with torch.device("meta"):
        assert count(SegNet(classes)) == parameters


def test_parameters_of_the_other_networks():
    with torch.device("meta"):
        assert count(SegNetBasic()) == 1_416_587
        assert count(SegNet(11, dropout=0.5, wide_head=True)) == 29_486_411
        assert count(SegNet(dropout=0.5, dropout_everywhere=True)) == count(SegNet())


@pytest.mark.parametrize(
    ("net", "size", "sizes"),
    [
        (SegNet, (360, 480), [(360, 480), (180, 240), (90, 120), (45, 60), (23, 30)]),
        (SegNetBasic, (360, 480), [(360, 480), (180, 240), (90, 120), (45, 60)]),
        (SegNetBasic, (45, 30), [(45, 30), (23, 15), (12, 8), (6, 4)]),
    ],
)
def test_sizes_on_the_way_down_and_back(net, size, sizes):
    with torch.device("meta"):
        net = net()
        maps, switches = net.trunk(torch.zeros(1, 3, *size))
        decoded = net.decode(maps, switches)
    assert [s.size for s in switches] == sizes
    assert [tuple(y.shape[-2:]) for y in decoded] == sizes[::-1]


def golden_image():
    image = by_formula_image(45, 30)
    return torch.stack([image, image.flip(-1)])


@torch.no_grad()
def test_scores_of_segnet_basic_are_the_golden_ones():
    net = SegNetBasic(3, width=4).double().train()  # batch norm of the batch
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert (len(layers), len(norms)) == (9, 8)
    for seed, layer in enumerate(layers, start=1):
        by_formula(layer, seed)
    for j, norm in enumerate(norms):
        c = torch.arange(4, dtype=torch.float64)
        norm.weight.copy_(1 + 0.1 * (c + j).sin())
        norm.bias.copy_(0.1 * (c + j).cos())
    expected = torch.from_numpy(GOLDEN["basic_scores"]).double()
    torch.testing.assert_close(net(golden_image()), expected, rtol=1e-5, atol=1e-4)


def test_brightness_norm_is_the_golden_one():
    x = golden_image()
    expected = torch.from_numpy(GOLDEN["lrn"]).double()
    torch.testing.assert_close(brightness_norm(x), expected, rtol=1e-5, atol=1e-4)
    theirs = F.local_response_norm(x, 5, 1e-4, 0.75, 1.0)
    torch.testing.assert_close(brightness_norm(x), theirs, rtol=1e-12, atol=1e-12)
    half = brightness_norm(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), expected, rtol=1e-2, atol=1e-2)


@torch.no_grad()
def test_without_its_head_it_is_deconvnet_without_a_code(filled):
    """A deconvolution is a convolution with turned filters; the decoders differ in widths only
    where a stage narrows: SegNet in its last layer, as DeconvNet."""
    theirs = filled(DeconvNet(3, ((2, 4), (2, 6), (2, 8)), None, 32)).double()
    ours = filled(SegNet(3, ((2, 4), (2, 6), (2, 8)))).double()
    ours.trunk.load_state_dict(theirs.trunk.state_dict())
    deconvolutions = [m for m in theirs.decoder.modules() if isinstance(m, nn.ConvTranspose2d)]
    convolutions = [m for m in ours.decoder.modules() if isinstance(m, nn.Conv2d)]
    for a, b in zip(convolutions, deconvolutions, strict=False):  # DeconvNet has one more
        a.weight.copy_(as_convolution(b.weight))
        a.bias.copy_(b.bias)
    norms = (
        [m for m in net.decoder.modules() if isinstance(m, nn.BatchNorm2d)]
        for net in (ours, theirs)
    )
    for a, b in zip(*norms, strict=False):
        a.load_state_dict(b.state_dict())
    x = 50 * torch.randn(2, 3, 45, 30, dtype=torch.float64)
    maps, switches = ours.trunk(x)
    found, expected = ours.decode(maps, switches), theirs.decode(maps, switches)
    for a, b in zip(found[:2], expected[:2], strict=True):
        torch.testing.assert_close(a, b)
    halfway = nn.Sequential(*list(theirs.decoder[2].children())[:3])
    torch.testing.assert_close(found[2], halfway(unpooled(expected[1], switches[0])))


def unpooled(y, switches):
    size = switches.size
    return F.max_unpool2d(y, switches.flat.index, 2, output_size=size)


@torch.no_grad()
@pytest.mark.parametrize("size", [(45, 30), (48, 64), (17, 33)])
def test_each_window_has_one_unpooled_value(filled, size):
    """Also at odd sides, where the last windows are cut."""
    net = filled(SegNet(3, TABLE))
    maps, switches = net.trunk(50 * torch.randn(2, 3, *size))
    for s in switches:
        marked = unpooled(torch.ones(s.flat.index.shape), s)
        assert marked.shape[-2:] == s.size
        in_windows = F.avg_pool2d(marked, 2, ceil_mode=True, divisor_override=1)
        assert (in_windows == 1).all()
    again = F.max_pool2d(unpool(maps, switches[-1]), 2, ceil_mode=True)
    torch.testing.assert_close(again, maps)  # after ReLU nothing is below zero


@pytest.mark.parametrize(
    ("net", "before", "after"),
    [
        (SegNet(3), [], []),
        (SegNet(3, dropout=0.5), ["conv4_1", "conv5_1"], ["conv5_1_D", "conv4_1_D", "conv3_1_D"]),
        (SegNetBasic(3, dropout=0.5), ["conv4_1"], ["conv_decode4", "conv_decode3"]),
    ],
    ids=["none", "SegNet", "Basic"],
)
def test_places_of_dropout(net, before, after):
    """Dropout in the trunk follows pooling, so it is first in the next stage."""
    found = []
    for stage in net.trunk.stages:
        names = [name for name, _ in stage.named_children()]
        found += [names[1] for name in names[:1] if name.startswith("drop")]
    assert found == before
    last = []
    for stage in net.decoder:
        names = [name for name, _ in stage.named_children()]
        layers = [name for name in names if name.startswith("conv") and "bn" not in name]
        last += [layers[-1]] * isinstance(stage[-1], nn.Dropout)
    assert last == after
    assert (net.drop.p > 0) == bool(after)


@torch.no_grad()
@pytest.mark.parametrize("everywhere", [False, True])
def test_dropout_leaves_the_switches_unless_everywhere(filled, everywhere):
    """Of the first pooling with dropout; those after it see what was dropped."""
    net = filled(SegNet(3, ((2, 8),) * 3, dropout=0.5, dropout_everywhere=everywhere))
    x, plain = 50 * torch.randn(1, 3, 40, 40), SegNet(3, ((2, 8),) * 3)
    plain.load_state_dict(net.state_dict())
    torch.testing.assert_close(net(x), plain.eval()(x))  # off in evaluation
    for layer in net.modules():
        if isinstance(layer, nn.Dropout):
            layer.train()
    (_, first), (_, second), (_, known) = net.trunk(x), net.trunk(x), plain.trunk(x)
    same = [torch.equal(a.index, b.index) for a, b in zip(first, second, strict=True)]
    assert same == ([False] * 3 if everywhere else [True, False, False])
    if not everywhere:
        assert torch.equal(first[0].index, known[0].index)
    assert not torch.equal(net(x), net(x))


@torch.no_grad()
def test_batch_norm_folds(filled):
    for net in (filled(SegNet(3, TABLE, dropout=0.5)), filled(SegNetBasic(3, 6))):
        x = 50 * torch.randn(2, 3, 45, 30)
        folded = fold(net)
        assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
        torch.testing.assert_close(folded(x), net(x), rtol=1e-3, atol=1e-3)
        assert type(net)(**folded.arguments).state_dict().keys() == folded.state_dict().keys()


def test_recomputed_maps_have_the_same_gradients(filled):
    x, gradients = 50 * torch.randn(2, 3, 24, 24), []
    for checkpointing in (False, True):
        net = filled(SegNet(3, TABLE)).train()
        net.trunk.checkpointing = checkpointing
        net(x).square().mean().backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SegNet(1), "classes"),
        (lambda: SegNet(3, dropout=1), "got dropout=1; wanted a number from 0 to below 1"),
        (lambda: SegNetBasic(3, dropout=-0.1), "got dropout=-0.1"),
        (lambda: SegNetBasic(3, kernel=4), "got kernel=4; wanted an odd number up to 31"),
        (lambda: SegNetBasic(3, width=0), "width"),
        (lambda: SegNetBasic(3, stages=99), "rows"),
    ],
)
def test_impossible_arguments(make, message):
    with pytest.raises(OptionError, match=message):
        make()


def test_images_smaller_than_a_cell_are_refused():
    for net, least in ((SegNet(3), 32), (SegNetBasic(3, 4), 16)):
        with pytest.raises(ShapeError, match=f"H and W from {least} up"):
            net(torch.zeros(1, 3, least - 1, 64))
