"""The int8 form against integers summed up in NumPy, and against rounding in floating point."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unpool.devices import find_int8_obstacle
from unpool.errors import OptionError, WeightsError
from unpool.models import FCN, DeconvNet, DeepLab, SegNet, int8, save_pretrained
from unpool.models.calibration import calibrate
from unpool.models.fast import Convolution, Expansion, Fast, Reduction, accelerate
from unpool.models.int8 import Scale, Scales, integer_form, layers_of, quantize_weight, to_int8

pytestmark = pytest.mark.skipif(
    find_int8_obstacle(torch.device("cpu")) is not None, reason="the processor has no VNNI"
)

TABLE = ((2, 8), (1, 12))


def window_sums(x, weight, zero):
    """What windows (O, I, k, k) of integers sum up to on padded maps (I, H, W), by the definition.

    Of arrays of int64; the padding has the integer `zero`, which stands for 0.
    """
    o, _, k, _ = weight.shape
    height, width = x.shape[1] - k + 1, x.shape[2] - k + 1
    out = np.zeros((o, height, width), np.int64)
    for row in range(height):
        for column in range(width):
            window = x[:, row : row + k, column : column + k] - zero
            out[:, row, column] = (weight * window).sum((1, 2, 3))
    return out


def written(sums, layer, steps, scale):
    """The integers of values sums * steps + bias, in double precision, and how far from a tie."""
    values = sums * (scale.input * steps.numpy().astype(np.float64))[:, None, None]
    values = values + layer.bias.numpy().astype(np.float64)[:, None, None]
    if layer.relu:
        values = values.clip(0)
    exact = values / scale.output
    return np.rint(exact).clip(0, 255), np.abs(exact % 1 - 0.5)


@pytest.mark.parametrize("zero", [0, 114])
@pytest.mark.parametrize(("k", "pad"), [(3, 1), (1, 0), (7, 3)])
def test_convolutions_are_sums_of_integers(k, pad, zero):
    random = torch.Generator().manual_seed(k)
    weight = torch.randn(20, 5, k, k, generator=random)
    layer = Convolution(weight, torch.randn(20, generator=random), True, [pad, pad])
    scale = Scale(0.02, zero, 0.05)
    x = torch.randint(0, 256, (2, 5, 9, 11), generator=random, dtype=torch.uint8)
    form = integer_form(layer, scale, torch.float32)
    with torch.no_grad():
        found = form(x.to(memory_format=torch.channels_last))
    assert found.dtype == torch.uint8
    assert not form.is_plain
    whole, steps = quantize_weight(weight)
    padding = ((0, 0), (pad, pad), (pad, pad))
    for image, got in zip(x.numpy().astype(np.int64), found.numpy(), strict=True):
        padded = np.pad(image, padding, constant_values=zero)
        sums = window_sums(padded, whole.numpy().astype(np.int64), zero)
        expected, margin = written(sums, layer, steps, scale)
        assert 0 < expected.mean() < 255
        clear = margin > 1e-3  # of single precision where both integers are as near
        assert (got == expected)[clear].all()
        assert np.abs(got - expected).max() <= 1


@pytest.mark.parametrize("side", [3, 5])
def test_a_window_of_the_whole_map_is_a_matrix_product_of_integers(side):
    """And on larger maps a convolution."""
    random = torch.Generator().manual_seed(side)
    weight = torch.randn(20, 4, 3, 3, generator=random)
    layer = Reduction(weight, torch.randn(20, generator=random), True)
    scale = Scale(0.02, 0, 0.05)
    x = torch.randint(0, 256, (2, 4, side, side), generator=random, dtype=torch.uint8)
    form = integer_form(layer, scale, torch.float32)
    with torch.no_grad():
        found = form(x.to(memory_format=torch.channels_last))
    assert found.shape == (2, 20, side - 2, side - 2)
    assert not form.is_plain
    whole, steps = quantize_weight(weight)
    for image, got in zip(x.numpy().astype(np.int64), found.numpy(), strict=True):
        sums = window_sums(image, whole.numpy().astype(np.int64), 0)
        expected, margin = written(sums, layer, steps, scale)
        assert (got == expected)[margin > 1e-3].all()


@pytest.mark.parametrize("side", [1, 2])
def test_deconvolutions_without_cropping_are_sums_of_integers(side):
    """Each position of the window has scales of its own."""
    random = torch.Generator().manual_seed(side)
    weight = torch.randn(6, 5, 3, 3, generator=random)  # (I, O, k, k)
    layer = Expansion(weight, torch.randn(5, generator=random), True)
    scale = Scale(0.02, 0, 0.05)
    x = torch.randint(0, 256, (2, 6, side, side), generator=random, dtype=torch.uint8)
    form = integer_form(layer, scale, torch.float32)
    with torch.no_grad():
        found = form(x.to(memory_format=torch.channels_last))
    assert not form.is_plain
    values = np.zeros((2, 5, side + 2, side + 2)) + layer.bias.numpy()[:, None, None]
    for i in range(3):
        for j in range(3):
            whole, steps = quantize_weight(weight[:, :, i, j].T.contiguous())
            sums = np.einsum("oi,nihw->nohw", whole.numpy().astype(np.int64), x.numpy())
            part = sums * (0.02 * steps.numpy().astype(np.float64))[:, None, None]
            values[:, :, i : i + side, j : j + side] += part
    exact = values.clip(0) / 0.05
    clear = np.abs(exact % 1 - 0.5) > 1e-3
    assert (found.numpy() == np.rint(exact).clip(0, 255))[clear].all()


def rounding(net, scales):
    """The fast form in fp32 with weights and inputs rounded as in int8: no integer is computed."""
    fast = accelerate(net)

    def look(scale):
        def hook(layer, inputs):
            x = (inputs[0] / scale.input).round() + scale.zero
            return ((x.clamp(0, 255) - scale.zero) * scale.input,)

        return hook

    for name, layer in layers_of(fast).items():
        scale = scales.layers.get(name)
        if scale is not None:
            if scale.int8:
                whole, steps = quantize_weight(layer.weight)
                shape = [-1, *[1] * (whole.dim() - 1)]
                layer.weight = nn.Parameter(whole * steps.view(shape), requires_grad=False)
            layer.register_forward_pre_hook(look(scale))
    return fast


NETS = {
    "deconvnet": lambda: DeconvNet(4, TABLE, None, 32),
    "code": lambda: DeconvNet(4, TABLE, 16, 32),
    "segnet": lambda: SegNet(4, TABLE),
    "fcn": lambda: FCN(4, (*TABLE, (1, 12)), 16, stride=4, pad=1, window=3, at_once=True),
    "fcn, padded": lambda: FCN(4, (*TABLE, (1, 12)), 16, stride=4, pad=20, window=3),
}


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_integers_from_layer_to_layer_are_rounded_values(name, filled):
    net = filled(NETS[name]())
    random = torch.Generator().manual_seed(0)
    batches = [torch.randn(2, 3, 32, 32, generator=random) * 50 for _ in range(3)]
    scales = calibrate(net, batches, agreement=0)
    form = to_int8(net, scales)
    read = {}
    for part, layer in form.named_modules():
        if isinstance(layer, Fast):
            layer.register_forward_pre_hook(
                lambda layer, inputs, part=part: read.update({part: inputs[0].dtype})
            )
    found, expected = form(batches[0]), rounding(net, scales)(batches[0])
    first, *others = read.values()
    assert first == torch.float32  # the image
    assert set(others) == {torch.uint8}
    assert len(others) >= 3
    assert not any(layer.is_plain for layer in form.modules() if isinstance(layer, Fast))
    assert found.dtype == torch.float32
    # a value between two integers may become either, and its window another maximum
    error = (found - expected).abs() / expected.std()
    assert error.median() < 1e-2
    exact = net(batches[0])
    assert float((found - exact).norm() / (exact - exact.mean()).norm()) < 0.35


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_layers_in_floating_point_read_and_write_integers(name, filled):
    net = filled(NETS[name]())
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 50
    whole = calibrate(net, [x, 2 * x], agreement=0)
    for left in [part for part, scale in whole.layers.items() if scale.int8]:
        scales = calibrate(net, [x, 2 * x], agreement=0, floating_point=[left])
        assert left in scales.measured["floating_point"]
        found, expected = to_int8(net, scales)(x), rounding(net, scales)(x)
        error = (found - expected).abs() / expected.std()
        assert error.median() < 0.05, left


@torch.no_grad()
def test_the_network_itself_stays_as_it_is(filled):
    net = filled(NETS["fcn"]())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.randn(2, 3, 32, 32) * 50
    to_int8(net, calibrate(net, [x, x / 2], agreement=0))(x)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@torch.no_grad()
def test_a_layer_that_disagrees_is_computed_by_plain_operators(filled, monkeypatch):
    net = filled(NETS["deconvnet"]())
    x = torch.randn(2, 3, 32, 32) * 50
    scales = calibrate(net, [x, x / 2], agreement=0)
    expected = to_int8(net, scales)(x)
    right = int8._Convolution.quick
    monkeypatch.setattr(int8._Convolution, "quick", lambda self, x: right(self, x) // 2)
    form = to_int8(net, scales)
    with pytest.warns(UserWarning, match="fast form of _Convolution"):
        found = form(x)
    assert (found - expected).abs().median() < 1e-2 * expected.std()


def test_other_networks_are_refused():
    net = DeepLab(3, ((1, 4),) * 5, code=8)
    with pytest.raises(OptionError, match="int8 for a DeepLab; it is for DeconvNet, FCN, SegNet"):
        to_int8(net, Scales({}))
    with pytest.raises(OptionError, match="whose maps were not measured; pass scales"):
        to_int8(NETS["deconvnet"](), None)
    with pytest.raises(WeightsError, match="scales for conv9, which the network lacks"):
        to_int8(NETS["deconvnet"](), Scales({"conv9": Scale(1.0)}))


@pytest.fixture
def folder(tmp_path, filled):
    return save_pretrained(filled(NETS["deconvnet"]()), tmp_path / "net", {})


def test_scales_are_read_as_they_were_written(folder):
    layers = {"a": Scale(0.1, 114, 0.25), "b": Scale(0.25, int8=False)}
    Scales(layers, "1" * 64, {"labels_equal": 0.99}).write(folder)
    found = Scales.read(folder, "1" * 64)
    assert found == Scales(layers, "1" * 64, {"labels_equal": 0.99})
    with pytest.raises(WeightsError, match="was made for other weights than those beside it"):
        Scales.read(folder, "2" * 64)


def test_weights_without_scales_say_how_to_make_them(folder):
    with pytest.raises(WeightsError, match=r"unpool quantize"):
        Scales.read(folder, "1" * 64)


@pytest.mark.parametrize(
    "change",
    [
        {"layers": []},
        {"layers": {"a": {"input": 0.1}}},
        {"layers": {"a": {"input": -1, "zero": 0, "output": None, "int8": True}}},
        {"layers": {"a": {"input": 1, "zero": 256, "output": None, "int8": True}}},
        {"layers": {"a": {"input": 1, "zero": 0, "output": "x", "int8": True}}},
        {"layers": {"a": {"input": 1, "zero": 0, "output": None, "int8": 1}}},
        {"format": 2},
        {"measured": 3},
    ],
)
def test_damaged_scales_are_refused(folder, change):
    Scales({"a": Scale(0.1)}, "1" * 64).write(folder)
    entries = json.loads((folder / int8.FILE).read_text())
    (folder / int8.FILE).write_text(json.dumps(entries | change))
    with pytest.raises(WeightsError, match="does not hold the scales of a network"):
        Scales.read(folder, "1" * 64)
    (folder / int8.FILE).write_text("[]")
    with pytest.raises(WeightsError, match="does not hold the scales"):
        Scales.read(folder, "1" * 64)


def test_weights_are_rounded_by_output_channel():
    weight = torch.tensor([[1.0, -2.0], [0.5, 0.1], [0.0, 0.0]])
    whole, steps = quantize_weight(weight)
    assert whole.tolist() == [[64, -127], [127, 25], [0, 0]]
    assert torch.allclose(steps, torch.tensor([2 / 127, 0.5 / 127, 1.0]))
    assert F.mse_loss(whole * steps[:, None], weight) < 1e-4
