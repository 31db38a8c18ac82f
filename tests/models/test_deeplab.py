"""DeepLab v1: counts, sizes, golden values, and what dilated filters are."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.models.golden import by_formula, by_formula_image
from unpool.errors import OptionError, ShapeError
from unpool.models import DeepLab, load_vgg

GOLDEN = np.load(Path(__file__).parents[1] / "golden/deeplab_nets.npz")
TABLE = ((2, 4), (2, 4), (3, 6), (3, 6), (3, 6))
SHALLOW = ((1, 4), (1, 4), (1, 4))
NOUP = {"window": 4, "dilation": 4, "kernel": 2, "average": False}
PUBLISHED = {
    "LargeFOV": ({}, 20_505_429),
    "4 x 4": ({"code": 4096, **NOUP}, 65_140_565),
    "4 x 4, input stride 8": ({"code": 4096, **NOUP, "dilation": 8}, 65_140_565),
    "7 x 7": ({"code": 4096, **NOUP, "window": 7}, 134_346_581),
    "MSc": ({"code": 4096, **NOUP, "kernel": 3, "fine": True}, 66_346_686),
    "MSc-LargeFOV": ({"fine": True}, 21_711_550),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters(name):
    arguments, count = PUBLISHED[name]
    with torch.device("meta"):
        net = DeepLab(**arguments)
    assert sum(parameter.numel() for parameter in net.parameters()) == count


def test_layers_have_the_names_of_the_authors():
    layers = {key.split(".")[-2] for key in DeepLab(2, SHALLOW, 8, fine=True).state_dict()}
    ours = {f"{m}_{part}" for m in ("data", "pool1", "pool2") for part in ("conv", "fc", "ms")}
    assert layers == {"conv1_1", "conv2_1", "conv3_1", "fc6", "fc7", "fc8"} | ours


# ---- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "padded", "side", "sizes"),
    [
        (NOUP, False, 306, [306, 154, 78, 40, 39, 39]),
        (NOUP, True, 514, [514, 258, 130, 66, 67, 67]),
        ({}, False, 321, [321, 161, 81, 41, 41, 41]),
        ({}, False, 513, [513, 257, 129, 65, 65, 65]),
    ],
    ids=["4 x 4 in training", "4 x 4 at test", "LargeFOV in training", "LargeFOV at test"],
)
def test_sizes_of_the_maps(arguments, padded, side, sizes):
    """Of conv1_1 to conv5_1, and of fc6: those after each pooling."""
    found = []
    with torch.device("meta"):
        net = DeepLab(2, ((1, 4),) * 5, 8, **arguments)
        for layer in (*(stage[0] for stage in net.trunk.stages), net.fc.fc6):
            layer.register_forward_hook(lambda _, __, y: found.append(y.shape[-1]))
        scores = net.coarse(torch.zeros(1, 3, side, side), padded)
    assert found == sizes
    assert scores.shape[-1] == sizes[-1]


@pytest.mark.parametrize(("arguments", "cut"), [(NOUP, (7, 8)), ({}, (0, 0))], ids=["noup", "fov"])
@torch.no_grad()
def test_scores_are_upsampled_with_their_corners_aligned(filled, arguments, cut):
    net = filled(DeepLab(3, ((1, 4),) * 5, 8, **arguments)).double()
    side = 41 + net.first
    x = 50 * torch.randn(1, 3, side, side, dtype=torch.float64)
    grid = net.coarse(x, padded=True)
    side = 8 * (grid.shape[-1] - 1) + 1
    large = F.interpolate(grid, (side, side), mode="bilinear", align_corners=True)
    first, last = cut
    kept = large[..., first : side - last, first : side - last]
    torch.testing.assert_close(net(x), kept)


@pytest.mark.parametrize("arguments", [NOUP, {}, {"fine": True}], ids=["noup", "fov", "msc"])
@torch.no_grad()
def test_images_of_any_size_are_padded_and_scores_cut(filled, arguments):
    net = filled(DeepLab(3, ((1, 4),) * 5, 8, **arguments))
    for height, width in ((1, 1), (33, 42), (34, 41), (20, 57)):
        x = 50 * torch.randn(2, 3, height, width)
        below, right = (-(side - 1 - net.first) % 8 for side in (height, width))
        padded = F.pad(x, (0, right, 0, below))
        assert all(net.fits(side) for side in padded.shape[-2:])
        assert net(x).shape == (2, 3, height, width)
        torch.testing.assert_close(net(x), net(padded)[..., :height, :width])


def test_training_sizes_lie_on_the_grid(filled):
    net, noup = (filled(DeepLab(2, ((1, 4),) * 5, 8, **arguments)) for arguments in ({}, NOUP))
    assert [side for side in range(300, 325) if net.fits(side)] == [305, 313, 321]
    assert [side for side in range(300, 325) if noup.fits(side)] == [306, 314, 322]
    with pytest.raises(ShapeError, match=r"got images of 320 x 321 pixels; .*a grid of 8n \+ 1"):
        net.coarse(torch.zeros(1, 3, 320, 321))
    with pytest.raises(ShapeError, match=r"a grid of 8n \+ 2 pixels: crop or pad the images"):
        noup.coarse(torch.zeros(1, 3, 321, 321))
    with pytest.raises(ShapeError, match=r"\(1, 4, 41, 41\)"):
        net(torch.zeros(1, 4, 41, 41))


# ---- golden values -------------------------------------------------------------------------------


def golden_net(**arguments):
    """The network of the golden file: layers have seeds 1, 2 ... in order."""
    net = DeepLab(3, TABLE, 8, fine_width=5, **arguments).double().eval()
    layers = [layer for layer in net.trunk.modules() if isinstance(layer, nn.Conv2d)]
    layers += [net.fc.fc6, net.fc.fc7, net.score["fc8"]]
    for name in net.branches:
        layers += [net.fine[f"{name}_conv"], net.fine[f"{name}_fc"], net.score[f"{name}_ms"]]
    for seed, layer in enumerate(layers, start=1):
        by_formula(layer, seed)
    return net


def golden_image(height, width):
    mean = torch.tensor([104.008, 116.669, 122.675], dtype=torch.float64)
    return (by_formula_image(height, width) - mean.view(3, 1, 1))[None]


def assert_golden(name, found, atol=1e-4):
    expected = torch.from_numpy(GOLDEN[name])[None].double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=atol)


@torch.no_grad()
def test_large_fov_is_the_golden_one():
    net, x, maps = golden_net(), golden_image(33, 41), []
    net.fc.fc6.register_forward_hook(lambda _, inputs, __: maps.append(inputs[0]))
    assert_golden("largefov_fc8", net.coarse(x))
    assert_golden("largefov_full", net(x))
    plain = golden_net(average=False)
    plain.fc.fc6.register_forward_hook(lambda _, inputs, __: maps.append(inputs[0]))
    plain.coarse(x)
    assert_golden("largefov_pool5", maps[-1])
    pool5a = F.avg_pool2d(torch.from_numpy(GOLDEN["largefov_pool5"])[None].double(), 3, 1, 1)
    torch.testing.assert_close(maps[0], pool5a, rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_multi_scale_is_the_golden_one():
    net, x = golden_net(fine=True), golden_image(33, 41)
    assert_golden("msc_train", net.coarse(x))
    assert_golden("msc_test", net(x), atol=4e-4)  # float32: summands of 1,000 cancel


@torch.no_grad()
def test_noup_is_the_golden_one():
    net, x = golden_net(**NOUP), golden_image(34, 42)
    assert_golden("noup_train", net.coarse(x))
    assert_golden("noup_test", net.coarse(x, padded=True))
    assert_golden("noup_full", net(x))


@torch.no_grad()
def test_every_eighth_score_of_the_test_is_that_of_training(filled):
    """The branches of MSc have strides in training, and none at test."""
    net = filled(DeepLab(3, TABLE, 8, fine=True, fine_width=6)).double()
    x = 50 * torch.randn(2, 3, 41, 57, dtype=torch.float64)
    torch.testing.assert_close(net(x)[..., ::8, ::8], net.coarse(x), rtol=0, atol=1e-9)


# ---- dilated filters -----------------------------------------------------------------------------


@pytest.mark.parametrize(("window", "dilation"), [(3, 2), (4, 4), (3, 12), (7, 4)])
@torch.no_grad()
def test_dilated_filters_have_zeros_between_their_taps(filled, window, dilation):
    """fc6 and the last stage, as convolutions with enlarged filters."""
    net = filled(DeepLab(3, SHALLOW, 8, window, dilation)).double()
    x = 50 * torch.randn(1, 3, 41, 33, dtype=torch.float64)
    expected = net.coarse(x)
    for layer in (net.fc.fc6, net.trunk.stages[-1].conv3_1):
        step, taps = layer.dilation[0], layer.weight.shape[-1]
        large = torch.zeros(*layer.weight.shape[:2], *[taps + (taps - 1) * (step - 1)] * 2)
        large = large.double()
        large[..., ::step, ::step] = layer.weight
        layer.weight, layer.dilation = nn.Parameter(large), (1, 1)
    torch.testing.assert_close(net.coarse(x), expected, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_shift_and_stitch_needs_a_dilated_pooling(filled):
    """VGG at every shift of the image is the network whose last pooling is dilated, too; the
    published one's is not."""
    net = filled(DeepLab(3, SHALLOW, 8, dilation=4, average=False)).double()
    first, second, third = net.trunk.stages
    x = 50 * torch.randn(1, 3, 129, 129, dtype=torch.float64)

    def dense(dilation):
        y = F.max_pool2d(first(x), 3, 2, 1)
        y = third(F.max_pool2d(second(y), 3, 1, 1))
        y = F.pad(y, [dilation] * 4)  # which no maximum sees after a ReLU
        return net.score["fc8"](net.fc(F.max_pool2d(y, 3, 1, 0, dilation)))

    def strided(x):
        y = F.max_pool2d(second(F.max_pool2d(first(x), 3, 2, 1)), 3, 2, 1)
        y = F.conv2d(y, third[0].weight, third[0].bias, padding=1).relu()
        y = F.max_pool2d(y, 3, 2, 1)
        y = F.conv2d(y, net.fc.fc6.weight, net.fc.fc6.bias, padding=1).relu()
        return net.score["fc8"](net.fc.fc7(y).relu())

    stitched = torch.zeros(1, 3, 64, 64, dtype=torch.float64)
    for row in range(4):
        for column in range(4):
            y = strided(x[..., 2 * row :, 2 * column :])
            stitched[..., row::4, column::4] = y[..., :16, :16]
    inside = np.s_[..., 20:44, 20:44]  # where nothing is padded
    torch.testing.assert_close(dense(1), net.coarse(x))
    torch.testing.assert_close(stitched[inside], dense(2)[inside], rtol=1e-12, atol=1e-12)
    apart = (stitched - net.coarse(x)[..., :64, :64])[inside].abs()
    assert apart.mean() > 0.01 * stitched[inside].std()


def constant(net):
    """Let a network pass on the brightest value of each window."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            middle = (layer.kernel_size[0] - 1) // 2
            layer.weight.zero_()[..., middle, middle] = 1
            layer.bias.zero_()
    return net.eval()


@torch.no_grad()
def test_average_pooling_divides_by_nine_at_the_border():
    net, maps = constant(DeepLab(2, ((1, 1),) * 5, 1)), []
    net.trunk.stages[0].conv1_1.bias.fill_(1)
    net.fc.fc6.register_forward_hook(lambda _, inputs, __: maps.append(inputs[0][0, 0]))
    net.coarse(torch.zeros(1, 3, 41, 41))
    torch.testing.assert_close(maps[0][0, :3], torch.tensor([4 / 9, 6 / 9, 6 / 9]))
    assert maps[0][2, 2] == 1


def test_taps_of_large_fov_are_96_pixels_apart():
    """Of the scores' gradient: filters have only their middle, so poolings alone blur it."""
    with torch.no_grad():
        net = constant(DeepLab(2, ((1, 1),) * 5, 1))
        net.fc.fc6.weight.fill_(1)
    x = torch.rand(1, 3, 321, 321, requires_grad=True)
    net.coarse(x)[0, 0, 20, 20].backward()
    rows, columns = x.grad[0].sum(0).nonzero(as_tuple=True)
    reach = 1 + 2 + 4 + 8 + 8 + 8  # pixels, of pool1 to pool5a
    for found in (rows, columns):
        apart = found[:, None] - 160 - torch.tensor([-96, 0, 96])
        assert (apart.abs() <= reach).sum(1).eq(1).all()  # each pixel is near one tap
        assert (apart.abs() <= reach).any(0).all()  # and each tap has pixels


# ---- initial weights and training ----------------------------------------------------------------


def vgg_weights(table, code):
    state, below = {}, 3
    for stage, (layers, width) in enumerate(table):
        for layer in range(layers):
            name = f"features.{10 * stage + layer}"
            state[f"{name}.weight"] = torch.randn(width, below, 3, 3)
            state[f"{name}.bias"] = torch.randn(width)
            below = width
    state["classifier.0.weight"] = torch.randn(code, 49 * below)
    state["classifier.3.weight"] = torch.randn(code, code)
    state |= {f"classifier.{i}.bias": torch.randn(code) for i in (0, 3)}
    return state


@pytest.mark.parametrize(("window", "dilation", "taps"), [(3, 12, [0, 3, 6]), (4, 4, [0, 2, 4, 6])])
def test_vgg_fills_13_convolutions_and_the_code(window, dilation, taps):
    state = vgg_weights(TABLE, code=32)
    net = DeepLab(3, TABLE, 8, window, dilation)
    names = load_vgg(net, state)
    assert names == [
        *(f"conv{s}_{i}" for s, (n, _) in enumerate(TABLE, 1) for i in range(1, n + 1)),
        *("fc6", "fc7"),
    ]
    assert torch.equal(net.trunk.stages[4].conv5_3.weight, state["features.42.weight"])
    fc6 = state["classifier.0.weight"].view(32, 6, 7, 7)
    chosen = fc6[::4][:, :, taps][..., taps]
    assert torch.equal(net.fc.fc6.weight, chosen)
    assert torch.equal(net.fc.fc6.bias, state["classifier.0.bias"][::4])
    assert torch.equal(net.fc.fc7.weight[..., 0, 0], state["classifier.3.weight"][::4, ::4])


def test_vgg_fills_the_trunk_alone_where_the_code_does_not_fit():
    for code, window in ((12, 3), (8, 5)):  # 32 / 12 and 7 / 5 are no whole steps
        net = DeepLab(3, TABLE, code, window)
        assert len(load_vgg(net, vgg_weights(TABLE, code=32))) == 13


@torch.no_grad()
def test_initial_weights_are_those_of_the_authors():
    net = DeepLab(21, TABLE, 512, fine=True)
    deviations = {
        "score.fc8": 0.01, "fine.data_conv": 0.001, "fine.pool3_fc": 0.001,
        "fine.pool4_fc": 0.005, "score.pool4_ms": 0.01, "score.pool3_ms": 0,
    }  # fmt: skip
    for name, deviation in deviations.items():
        layer = net.get_submodule(name)
        assert layer.weight.std().item() == pytest.approx(deviation, rel=0.1)
        assert not layer.bias.any()


def test_recomputed_maps_have_the_same_gradients(filled):
    x, gradients = 50 * torch.randn(2, 3, 41, 41), []
    for checkpointing in (False, True):
        net = filled(DeepLab(3, TABLE, 8, fine=True, fine_width=4, dropout=0)).train()
        net.trunk.checkpointing = checkpointing
        net.coarse(x).square().mean().backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 1}, "classes"),
        ({"trunk": ((1, 4), (1, 4))}, "got a trunk of 2 stages; wanted three or more"),
        ({"code": 0}, "code"),
        ({"window": 4, "dilation": 3}, "which reach 9 cells; wanted an even number"),
        ({"window": 101, "dilation": 100}, "up to 2000"),
        ({"kernel": 4}, "got kernel=4; wanted 3, or without fine also 2"),
        ({"kernel": 2, "fine": True}, "got kernel=2 with fine; wanted 3"),
        ({"dropout": 1}, "got dropout=1; wanted a number from 0 to below 1"),
    ],
)
def test_impossible_arguments(arguments, message):
    with pytest.raises(OptionError, match=message):
        DeepLab(**{"trunk": SHALLOW, "code": 8, **arguments})
