"""FCN against the trace of the released nets, against plain functions, and against a ruler."""

import json

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unpool.errors import OptionError, ShapeError
from unpool.models import FCN, TRUNKS

NARROW = ((2, 4), (2, 4), (3, 6), (3, 6), (3, 8))  # VGG-16, narrow
THIN = ((1, 2),) * 5
STRIDES = (32, 16, 8)

PARAMETERS = {32: 136_152_917, 16: 134_815_994, 8: 134_489_759}
CROPS = {
    32: {"score": 19},
    16: {"score_pool4": 5, "score": 27},
    8: {"score_pool4": 5, "score_pool3": 9, "score": 31},
}
# side and channels of each layer's output for an image of 500 x 500, before any crop
TRUNK = {
    "conv1_1": (64, 698), "conv1_2": (64, 698),
    "conv2_1": (128, 349), "conv2_2": (128, 349),
    "conv3_1": (256, 175), "conv3_2": (256, 175), "conv3_3": (256, 175),
    "conv4_1": (512, 88), "conv4_2": (512, 88), "conv4_3": (512, 88),
    "conv5_1": (512, 44), "conv5_2": (512, 44), "conv5_3": (512, 44),
    "fc6": (4096, 16), "fc7": (4096, 16), "score_fr": (21, 16),
}  # fmt: skip
HEADS = {
    32: {"upscore": 544},
    16: {"upscore2": 34, "score_pool4": 44, "upscore16": 560},
    8: {"upscore2": 34, "score_pool4": 44, "upscore_pool4": 70, "score_pool3": 88, "upscore8": 568},
}


def published(**options):
    with torch.device("meta"):
        return FCN(**options)


def layers(net):
    kinds = nn.Conv2d | nn.ConvTranspose2d
    return {n.rpartition(".")[2]: m for n, m in net.named_modules() if isinstance(m, kinds)}


# ---- the published networks ----------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("stride", STRIDES)
def test_parameters_and_crops(stride, at_once):
    net = published(stride=stride, at_once=at_once)
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[stride]
    assert net.offsets == CROPS[stride]
    assert net.size is None


@pytest.mark.parametrize("stride", STRIDES)
def test_trace(stride):
    net, got = published(stride=stride).eval(), {}
    for name, layer in layers(net).items():
        layer.register_forward_hook(
            lambda _, __, y, name=name: got.update({name: (y.shape[1], *y.shape[2:])})
        )
    assert net(torch.zeros(1, 3, 500, 500, device="meta")).shape == (1, 21, 500, 500)
    expected = TRUNK | {name: (21, side) for name, side in HEADS[stride].items()}
    assert got == {name: (c, side, side) for name, (c, side) in expected.items()}
    assert list(layers(net)) == list(expected)
    maps = net.trunk.pooled(torch.zeros(1, 3, 500, 500, device="meta"))
    assert [m.shape[-1] for m in maps] == [349, 175, 88, 44, 22]


def test_initial_scores_are_zero_and_interpolation_bilinear():
    torch.manual_seed(0)
    net = FCN(3, NARROW, 5)
    assert not net(torch.randn(1, 3, 33, 40)).any()
    for name, factor in {"upscore2": 2, "upscore_pool4": 2, "upscore8": 8}.items():
        weight, side = net.score[name].weight, 2 * factor
        assert weight.shape == (3, 3, side, side)
        for i in range(side):
            for j in range(side):
                value = (1 - abs(i - (side - 1) / 2) / factor) * (
                    1 - abs(j - (side - 1) / 2) / factor
                )
                assert torch.equal(weight[:, :, i, j], value * torch.eye(3))
    assert all(m.p == 0.5 for m in net.modules() if isinstance(m, nn.Dropout))
    assert sum(isinstance(m, nn.Dropout) for m in net.modules()) == 2


# ---- by plain functions --------------------------------------------------------------------------


def by_functions(net, x):
    """FCN-32s, 16s and 8s written out, with the crops of the released nets as numbers."""
    state = {key.split(".")[-2] + "." + key.split(".")[-1]: value
             for key, value in net.state_dict().items()}  # fmt: skip

    def convolve(x, name, padding=0):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)

    def enlarge(x, name, stride):
        return F.conv_transpose2d(x, state[f"{name}.weight"], stride=stride)

    def crop(x, offset, like):
        height, width = like.shape[-2:]
        return x[:, :, offset:, offset:][:, :, :height, :width]

    y, pools = x, {}
    for stage, (count, _) in enumerate(net.trunk.table, start=1):
        for i in range(1, count + 1):
            y = convolve(y, f"conv{stage}_{i}", 100 if stage == i == 1 else 1).clamp(min=0)
        y = pools[stage] = F.max_pool2d(y, 2, ceil_mode=True)
    y = convolve(convolve(y, "fc6").clamp(min=0), "fc7").clamp(min=0)
    y = convolve(y, "score_fr")
    scale4, scale3 = (0.01, 0.0001) if net.at_once else (1, 1)
    if net.stride == 32:
        return crop(enlarge(y, "upscore", 32), 19, x)
    y = enlarge(y, "upscore2", 2)
    y = y + crop(convolve(scale4 * pools[4], "score_pool4"), 5, y)
    if net.stride == 16:
        return crop(enlarge(y, "upscore16", 16), 27, x)
    y = enlarge(y, "upscore_pool4", 2)
    y = y + crop(convolve(scale3 * pools[3], "score_pool3"), 9, y)
    return crop(enlarge(y, "upscore8", 8), 31, x)


@pytest.mark.parametrize("size", [(37, 66), (1, 1), (65, 64)])
@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("stride", STRIDES)
@torch.no_grad()
def test_is_the_papers_figure(filled, stride, at_once, size):
    net = filled(FCN(4, NARROW, 9, stride, at_once=at_once)).double()
    if at_once:  # as strong as the others
        for depth, skip in enumerate(net.skips, start=1):
            net.score[f"score_pool{skip}"].weight *= 100**depth
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).double()
    expected = by_functions(net, x)
    assert expected.std() > 1e-3
    torch.testing.assert_close(net(x), expected, rtol=1e-9, atol=1e-12)


@torch.no_grad()
def test_training_drops_values_of_the_code(filled):
    net, x = filled(FCN(4, NARROW, 9, pad=1, window=3)), torch.randn(1, 3, 45, 70)
    assert not torch.equal(net.train()(x), net.eval()(x))


@torch.no_grad()
def test_scores_may_stay_in_fp32(filled):
    net = filled(FCN(4, NARROW, 9, pad=1, window=3))
    x = torch.randn(1, 3, 45, 70, generator=torch.Generator().manual_seed(0))
    expected = net(x)
    net.to(torch.bfloat16).score.float()
    y = net(x.to(torch.bfloat16))
    assert y.dtype == torch.float32
    assert (y - expected).abs().max() < 0.1 * expected.std()


# ---- by the ruler --------------------------------------------------------------------------------

FORMS = [
    {"stride": stride, **form}
    for stride in (*STRIDES, 4)
    for form in (
        {"pad": 100, "code": 1},
        {"pad": 131, "code": 1},
        {"pad": 100, "code": 1, "window": 3},
        {"pad": 100, "code": None},
        {"pad": 2, "code": None},
        {"pad": 1, "code": 1},
        {"pad": 1, "code": 1, "window": 3},
        {"pad": 1, "code": 1, "window": 1},
        {"pad": 1, "code": None},
    )
]


def streams(net):
    return [name for name in net.score if name.startswith("score")]


@torch.no_grad()
def transparent(classes=2, **arguments):
    """A network whose convolutions hand on what they see; its scores are still zero."""
    net = FCN(classes, ((1, 1),) * 5, **arguments).eval()
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d) and layer not in net.score.values():
            layer.weight.zero_()[0, 0, layer.kernel_size[0] // 2, layer.kernel_size[1] // 2] = 1
    return net


@pytest.mark.parametrize("form", FORMS, ids=str)
@torch.no_grad()
def test_a_dot_stays_in_place_in_every_stream(form):
    """Moved over a cell of the coarsest map, it is seen at its own place on average."""
    net = transparent(**form)
    x, places = torch.zeros(32, 3, 190, 180), torch.arange(80, 112)
    x[range(32), 0, places, places - 5] = 1
    for name in streams(net):
        net.score[name].weight[1] = 1
        y = net(x)[:, 1]
        net.score[name].weight[1] = 0
        assert (y.flatten(1).sum(1) > 1).all()
        for axis, place in ((1, places), (2, places - 5)):
            ruler = torch.arange(y.shape[axis]).double()
            mass = y.double().sum(3 - axis)
            center = (mass * ruler).sum(1) / mass.sum(1)
            assert (center - place).abs().max() < 16
            assert abs((center - place).mean()) < 1e-4


@pytest.mark.parametrize("form", FORMS, ids=str)
@torch.no_grad()
def test_a_constant_stays_constant_away_from_the_border(form):
    net = transparent(**form)
    for name in streams(net):
        net.score[name].bias[1] = 3
        y = net(torch.zeros(1, 3, 130, 140))[0]
        net.score[name].bias[1] = 0
        assert not y[0].any()
        assert (y[1, 40:-40, 40:-40] == 3).all()


@pytest.mark.parametrize("stride", STRIDES)
@torch.no_grad()
def test_the_small_form_is_plain_resizing(filled, stride):
    """Of the finest scored map, away from the border, where there is nothing to add to it."""
    net = filled(FCN(3, NARROW, None, stride, pad=1))
    for name, factor in net.factors.items():
        net.score[name].reset_parameters()
        assert net.score[name].kernel_size == (2 * factor,) * 2
    net.score["score_fr"].weight.mul_(stride == 32)
    net.score["score_fr"].bias.mul_(stride == 32)
    if stride == 8:
        net.score["score_pool4"].weight.zero_()
        net.score["score_pool4"].bias.zero_()
    finest = "score_fr" if stride == 32 else f"score_pool{net.skips[-1]}"
    x = torch.randn(1, 3, 128, 160, generator=torch.Generator().manual_seed(0))
    scores = net.score[finest](net.trunk.pooled(x)[{32: 4, 16: 3, 8: 2}[stride]])
    assert scores.shape[-2:] == (128 // stride, 160 // stride)
    expected = F.interpolate(scores, scale_factor=stride, mode="bilinear")
    inside = (..., slice(stride // 2, -stride // 2), slice(stride // 2, -stride // 2))
    assert expected.std() > 0.01
    assert torch.allclose(net(x)[inside], expected[inside], rtol=1e-4, atol=1e-5)


# ---- sizes ---------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 75),
    st.integers(1, 75),
    st.sampled_from((*STRIDES, 4)),
    st.sampled_from([(100, 7), (101, 7), (117, 7), (100, 5), (100, 3), (55, 3), (99, 1), (40, 1)]),
    st.sampled_from([2, None]),
)
def test_any_image(height, width, stride, form, code):
    net = FCN(2, THIN, code, stride, *form).eval()
    assert net(torch.zeros(1, 3, height, width)).shape == (1, 2, height, width)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(32, 110),
    st.integers(32, 110),
    st.sampled_from((*STRIDES, 4)),
    st.sampled_from([1, 3, 7]),
    st.sampled_from([2, None]),
)
def test_any_image_of_the_small_form(height, width, stride, window, code):
    net = FCN(2, THIN, code, stride, 1, window).eval()
    assert net(torch.zeros(1, 3, height, width)).shape == (1, 2, height, width)


@pytest.mark.parametrize("stride", STRIDES)
def test_the_least_pad(stride):
    pad = 100 - CROPS[stride]["score"]
    assert FCN(2, THIN, 2, stride, pad).offsets["score"] == 0
    with pytest.raises(
        OptionError,
        match=f"got pad={pad - 1} with window=7: the scores would not reach the image's border; "
        f"pass pad={pad} or more, or pad=1, which pads fc6",
    ):
        FCN(2, THIN, 2, stride, pad - 1)
    with pytest.raises(ShapeError, match="last pooled map is 5 x 7; fc6 needs 7 x"):
        FCN(2, THIN, 2, 8, 69)(torch.zeros(1, 3, 20, 80))


@pytest.mark.parametrize("shape", [(1, 3, 31, 64), (1, 3, 64, 31), (1, 4, 64, 64), (3, 64, 64)])
def test_refuses_images(shape):
    with pytest.raises(ShapeError, match=r"takes \(N, 3, H, W\) with H and W from 32 up"):
        FCN(2, THIN, None, pad=1)(torch.zeros(shape))
    with pytest.raises(ShapeError, match=r"takes \(N, 3, H, W\) with H and W from 1 up"):
        FCN(2, THIN, None)(torch.zeros(1, 3, 0, 5))


@pytest.mark.parametrize(
    ("trunk", "stride", "names"),
    [
        ("vgg11", 8, ["upscore2", "score_pool4", "upscore_pool4", "score_pool3", "upscore8"]),
        (((1, 2),), 2, ["upscore"]),
        (((1, 2), (1, 4)), 4, ["upscore"]),
        (((1, 2), (1, 4), (1, 3)), 4, ["upscore2", "score_pool2", "upscore4"]),
    ],
)
def test_other_trunks(trunk, stride, names):
    net = published(classes=5, trunk=trunk, code=None, stride=stride, pad=1)
    assert list(net.score) == ["score_fr", *names]
    assert net(torch.zeros(2, 3, 40, 48, device="meta")).shape == (2, 5, 40, 48)


# ---- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("stride", STRIDES)
def test_the_gradient_reaches_what_is_learned(stride, learned):
    torch.manual_seed(0)
    net = FCN(3, THIN, 4, stride, pad=1, window=3, dropout=0, learned=learned)
    for layer in net.score.values():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight)
    for layer in (*net.trunk.modules(), *net.code):
        if isinstance(layer, nn.Conv2d):
            nn.init.uniform_(layer.weight, 0, 0.1)  # no dead ReLU among so few
    y = net(torch.rand(2, 3, 64, 64))
    F.cross_entropy(y, torch.randint(0, 3, (2, 64, 64))).backward()
    for name, parameter in net.named_parameters():
        if "upscore" in name and not learned:
            assert parameter.grad is None, name
        else:
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


def test_interpolation_stays_fixed_in_training():
    torch.manual_seed(0)
    net = FCN(2, THIN, 4, pad=1, window=1)
    before = {name: layer.weight.clone() for name, layer in net.score.items()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        F.cross_entropy(net(torch.randn(2, 3, 32, 32)), torch.ones(2, 32, 32).long()).backward()
        optimizer.step()
    for name, layer in net.score.items():
        assert torch.equal(layer.weight, before[name]) == name.startswith("upscore"), name


# ---- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"classes": 2, "trunk": "vgg19", "code": None, "stride": 16, "pad": 1},
        {"classes": 60, "trunk": [[1, 8], [3, 4]], "code": 7, "stride": 4, "window": 3},
        {"stride": 32, "dropout": 0.1, "at_once": True, "learned": True},
    ],
)
def test_arguments_build_the_network_again(arguments):
    net = published(**arguments)
    again = published(**json.loads(json.dumps(net.arguments)))
    assert [(k, v.shape, v.requires_grad) for k, v in again.named_parameters()] == [
        (k, v.shape, v.requires_grad) for k, v in net.named_parameters()
    ]
    assert again.arguments == net.arguments
    assert again.offsets == net.offsets
    assert {**net.arguments, **arguments} == net.arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 1}, "got classes=1; wanted 2 or more"),
        ({"code": 0}, "got code=0; wanted 1 or more"),
        ({"dropout": 1.0}, "dropout=1.0, .*wanted a dropout from 0 to below 1"),
        ({"stride": 64}, "got stride=64; the strides of 5 stages are 4, 8, 16, 32"),
        ({"stride": 2}, "got stride=2; the strides of 5"),
        ({"stride": 12}, "got stride=12"),
        ({"stride": 8, "trunk": ((1, 2), (1, 2))}, "the strides of 2 stages are 4"),
        ({"pad": 0}, "got pad=0; wanted 1 or more"),
        ({"window": 4}, "window=4; wanted .*an odd window"),
        ({"window": -1}, "got window=-1; wanted 1 or more"),
        ({"trunk": "resnet50"}, f"the choices are {', '.join(TRUNKS)}"),
    ],
)
def test_refuses_arguments(arguments, message):
    with pytest.raises(OptionError, match=message):
        published(**arguments)
