"""MSResNet by golden values, SRN by a port in plain functions, pyramids by scikit-image."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.transform import pyramid_gaussian
from torch import nn

from tests.models.golden import fill_with_waves
from unpool.errors import OptionError, ShapeError
from unpool.models.multiscale import SRN, BlindNet, ConvLSTM, MSResNet, pyramid

GOLDEN = {
    name: torch.from_numpy(value)
    for name, value in np.load(Path(__file__).parents[1] / "golden/msresnet.npz").items()
}


def image(*shape, seed=0, dtype=torch.float32):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def srn(**more):
    torch.manual_seed(0)
    return SRN(**{"width": 4, "blocks": 1, **more})


def count(net):
    return sum(parameter.numel() for parameter in net.parameters())


# ---- MSResNet ------------------------------------------------------------------------------------


@torch.no_grad()
def test_msresnet_is_the_authors():
    net = fill_with_waves(MSResNet(width=6, blocks=2))
    assert count(net) == 16_323
    found = net.restore([GOLDEN[f"in{s}"] / 255 for s in range(3)])
    for s in range(3):
        torch.testing.assert_close(255 * found[s], GOLDEN[f"out{s}"], rtol=1e-6, atol=5e-5)


def test_names_of_the_state_dict_are_the_authors():
    with torch.device("meta"):
        net = MSResNet()
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert len(shapes) == 3 * (2 * 2 + 19 * 4) + 2 * 2
    assert shapes["body_models.0.body.0.weight"] == (64, 6, 5, 5)
    assert shapes["body_models.2.body.0.weight"] == (64, 3, 5, 5)
    assert shapes["body_models.1.body.19.body.2.weight"] == (64, 64, 5, 5)
    assert shapes["body_models.0.body.20.bias"] == (3,)
    assert shapes["conv_end_models.2.uppath.0.weight"] == (12, 3, 5, 5)


@torch.no_grad()
@pytest.mark.parametrize(("net", "rows"), [(MSResNet(3, 4, 1), 3), (srn(), 11)], ids=["msr", "srn"])
def test_sides_are_continued_by_copies(net, rows):
    y = image(1, 3, 21, 30)
    whole = torch.cat([y, y[..., -1:], y[..., -1:]], 3)
    whole = torch.cat([whole, *[whole[..., -1:, :]] * rows], 2)
    found = net.restore(pyramid(whole, 3))[0]
    torch.testing.assert_close(net(y), found[..., :21, :30])


# ---- SRN -----------------------------------------------------------------------------------------


def test_counts_of_the_released_networks():
    with torch.device("meta"):
        assert count(SRN()) == 6_881_251
        assert count(SRN(1)) == 6_876_449
        assert count(SRN(1, lstm=True)) == 8_056_609


def ported_scale(weights, x, state):
    """One scale of SRN with one residual block a stage, as a list of formulas."""

    def conv(name, x):
        kernel = weights[f"{name}.weight"].shape[2]
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], 1, kernel // 2)

    def down(name, x):  # TensorFlow's SAME: one pixel in front, two behind
        x = F.pad(x, (1, 2, 1, 2))
        every = F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
        return every[..., ::2, ::2].relu()

    def up(name, x):  # zeros between the pixels, then the turned kernel
        spread = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
        spread[..., ::2, ::2] = x
        kernel = weights[f"{name}.weight"].transpose(0, 1).flip(2, 3)
        return F.conv2d(F.pad(spread, (2, 1, 2, 1)), kernel, weights[f"{name}.bias"]).relu()

    def block(name, x):
        return x + conv(f"{name}.body.2", conv(f"{name}.body.0", x).relu())

    one = block("enc1_2", conv("enc1_1", x).relu())
    two = block("enc2_2", down("enc2_1", one))
    three = block("enc3_2", down("enc3_1", two))
    if state is not None:
        cell, hidden = state
        gates = conv("LSTM_conv", torch.cat([three, hidden], 1))
        i, j, f, o = gates.split(gates.shape[1] // 4, 1)
        cell = cell / (1 + torch.exp(-f - 1)) + j.tanh() / (1 + torch.exp(-i))
        three = cell.tanh() / (1 + torch.exp(-o))
        state = cell, three
    x = up("dec2_2", block("dec3_1", three)) + two
    x = up("dec1_2", block("dec2_1", x)) + one
    return conv("dec1_0", block("dec1_1", x)), state


def doubled(x):
    """TensorFlow 1's bilinear interpolation: output pixel i is at i / 2."""
    for axis in (2, 3):
        x = torch.from_numpy(np.apply_along_axis(double_line, axis, x.numpy()))
    return x


def double_line(values):
    n = len(values)
    return np.interp(np.arange(2 * n) / 2, np.arange(n), values)


@torch.no_grad()
@pytest.mark.parametrize("lstm", [False, True])
def test_srn_is_the_port(lstm):
    net = fill_with_waves(srn(lstm=lstm, resize="tf1")).double()
    weights = {}
    for name, value in net.state_dict().items():
        depth = (
            1 if name.startswith("lstm") else 2
        )  # "encoder.0.enc1_1.weight": the port has no stages
        weights[name.split(".", depth)[-1]] = value
    y = image(2, 3, 32, 48, dtype=torch.float64)
    before = y[..., ::4, ::4]
    state = (torch.zeros(2, 16, 2, 3, dtype=torch.float64),) * 2 if lstm else None
    expected = []
    for step in (4, 2, 1):
        blurred = y[..., ::step, ::step]
        before, state = ported_scale(weights, torch.cat([blurred, before], 1), state)
        expected.insert(0, before)
        before, state = doubled(before), state and tuple(map(doubled, state))
    found = net.restore(net.pyramid(y))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(net(y), expected[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("resize", ["smooth", "tf1"])
def test_scales_are_shared_and_learn_on_their_own(resize):
    """The loss of the last scale has no gradient in the results of the coarser ones."""
    net = srn(resize=resize)
    found = net.restore(net.pyramid(image(1, 3, 32, 32)))
    coarse = torch.autograd.grad(found[0].sum(), found[1:], allow_unused=True)
    assert coarse == (None, None)
    assert count(SRN(scales=1, width=4, blocks=1)) == count(net)


def test_the_initial_weights_are_the_authors():
    net = SRN(1, width=16, blocks=1, lstm=True)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            assert not layer.bias.any()
    cell = net.lstm.LSTM_conv.weight
    assert 8e-4 < float(cell.detach().std()) < 9.5e-4  # of a normal cut at two deviations: .88
    assert float(cell.detach().abs().max()) <= 2e-3
    weight = net.encoder[2].get_submodule("enc3_2").body[0].weight.detach()
    assert float(weight.abs().max()) == pytest.approx((6 / (2 * 64 * 25)) ** 0.5, rel=0.01)


@torch.no_grad()
def test_a_cell_remembers():
    """With weights 0 half of the gates are open, and the forget gate by 73 %."""
    cell = ConvLSTM(2)
    nn.init.zeros_(cell.LSTM_conv.weight)
    x, memory = image(1, 2, 3, 4), image(1, 2, 3, 4, seed=1)
    after, hidden = cell(x, (memory, x))
    torch.testing.assert_close(after, memory * 0.7310586)
    torch.testing.assert_close(hidden, after.tanh() / 2)


# ---- pyramids ------------------------------------------------------------------------------------


# ---- BlindNet ------------------------------------------------------------------------------------


@torch.no_grad()
def test_an_untrained_blind_net_changes_nothing():
    y = image(2, 3, 21, 30)
    torch.testing.assert_close(BlindNet(width=4, blocks=1, outer=1)(y), y, rtol=0, atol=0)
    assert count(BlindNet()) == 498_052


@torch.no_grad()
def test_a_blind_net_is_its_definition():
    """Both scales written out, with the sides of 2 x 2 blocks as channels by slices."""
    net = fill_with_waves(BlindNet(width=4, blocks=1, outer=1))
    images = pyramid(image(2, 1, 16, 24), 2)

    def fold(x):
        return torch.stack([x[:, i, a::2, b::2] for i in range(x.shape[1]) for a in (0, 1)
                            for b in (0, 1)], 1)  # fmt: skip

    before, expected = images[1], []
    for y in images[::-1]:
        x = net.encoder(torch.cat([fold(y), fold(before)], 1) - 0.5)
        x = net.decoder(x + net.middle(x))
        found = y.clone()
        for i, (a, b) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
            found[:, 0, a::2, b::2] += x[:, i]
        expected.insert(0, found)
        before = F.interpolate(found, scale_factor=2, mode="bilinear")
    for a, b in zip(net(images), expected, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(net(images[0]), expected[0])


@pytest.mark.parametrize("net", [MSResNet(2, 4, 1, channels=1), srn(channels=1, scales=2)])
def test_of_a_pyramid_all_scales_are_returned(net):
    images = pyramid(image(1, 1, 16, 16), 2)
    found = net(images)
    assert [x.shape for x in found] == [x.shape for x in images]
    torch.testing.assert_close(found[0], net(images[0]))


def test_a_pyramid_is_that_of_skimage():
    y = image(2, 3, 24, 36, dtype=torch.float64)
    for n in range(2):
        expected = pyramid_gaussian(y[n].permute(1, 2, 0).numpy(), 2, channel_axis=-1)
        for found, layer in zip(pyramid(y, 3), expected, strict=True):
            np.testing.assert_allclose(found[n].permute(1, 2, 0).numpy(), layer, atol=1e-12)


def test_refusals():
    with pytest.raises(ShapeError, match=r"\(1, 3, 6, 10\) for 3 scales; .* multiples of 4: pad"):
        pyramid(image(1, 3, 6, 10), 3)
    with pytest.raises(ShapeError, match=r"\[\(8, 8\), \(4, 4\)\]; wanted 3 images"):
        MSResNet(3, 4, 1).restore(pyramid(image(1, 3, 8, 8), 2))
    with pytest.raises(
        ShapeError, match=r"\[\(8, 8\), \(8, 8\)\]; wanted 2 images, each with half"
    ):
        MSResNet(2, 4, 1).restore([image(1, 3, 8, 8)] * 2)
    with pytest.raises(ShapeError, match="the last ones multiples of 4"):
        srn().restore(pyramid(image(1, 3, 24, 24), 3))
    with pytest.raises(ShapeError, match=r"\(1, 2, 8, 8\) and float32; wanted \(N, 3, H, W\)"):
        srn()(image(1, 2, 8, 8))
    with pytest.raises(OptionError, match="got resize 'tf2'; did you mean 'tf1'"):
        srn(resize="tf2")
    with pytest.raises(OptionError, match="got kernel=1; wanted 3 or more"):
        srn(kernel=1)
    with pytest.raises(OptionError, match="got lstm=1; wanted True or False"):
        srn(lstm=1)
