"""CRCNet against golden values of the authors' code; IRDNet against its definition."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.models.golden import fill_with_waves, wavy_image
from unpool.errors import OptionError, ShapeError
from unpool.models.deblur import CRCNet, IRDNet, IRUnit
from unpool.ops.blur import blur
from unpool.ops.inversion import residuals, total_variation
from unpool.vision.psf import find_psf

GOLDEN = {
    name: torch.from_numpy(value)
    for name, value in np.load(Path(__file__).parents[1] / "golden/crcnet.npz").items()
}
SHAKE = torch.from_numpy(find_psf("shake:3").kernel).float()


def ird(**more):
    torch.manual_seed(0)
    return IRDNet(**{"width": 8, "blocks": 1, **more})


def image(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def smooth(*shape):
    """Images with the edges and the smoothness of photos."""
    y, x = torch.meshgrid(*(torch.arange(n).float() for n in shape[2:]), indexing="ij")
    found = 0.5 + 0.2 * torch.cos(0.25 * y) * torch.sin(0.2 * x)
    return (found + 0.25 * ((x // 17 + y // 13) % 2)).expand(shape)


def weaken(net):
    """The filters of units, weakened as for the golden values."""
    for parameter in net.parameters():
        if parameter.dim() > 1:
            parameter.mul_(0.3)


# ---- CRCNet --------------------------------------------------------------------------------------


@torch.no_grad()
def test_crcnet_is_the_authors():
    net = fill_with_waves(CRCNet())
    for i in range(1, 11):
        weaken(net.get_submodule(f"A{i}"))
    x = 0.25 * wavy_image(1, 23, 29) + 0.5
    torch.testing.assert_close(x, GOLDEN["x"])
    units = net.residuals(x)
    for i in (1, 5, 10):
        torch.testing.assert_close(units[i - 1][..., :8, :8], GOLDEN[f"r{i}"], rtol=0, atol=1e-6)
    torch.testing.assert_close(net(x), GOLDEN["y"], rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_unit_is_the_authors():
    unit = fill_with_waves(IRUnit(10, 7))
    weaken(unit)
    torch.testing.assert_close(unit(wavy_image(10, 15, 17)), GOLDEN["irunit"], rtol=0, atol=1e-6)


def test_names_of_the_state_dict_are_the_authors():
    keys = CRCNet().state_dict()
    assert len(keys) == 2 + 10 * 5 + 3 * 3 + 2
    assert {
        "up.weight", "A1.conv.weight", "A10.tconv.bias", "A3.nonlinear.weight", "S.conv1.weight",
        "S.prelu3.weight", "S.conv4.bias",
    } <= set(keys)  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("net", [CRCNet(2, 4, 3, (4,)), ird()], ids=["CRCNet", "IRDNet"])
def test_colors_are_restored_channel_by_channel(net):
    y, more = image(2, 3, 17, 20), [SHAKE[6:15, 6:15]] * isinstance(net, IRDNet)
    expected = torch.cat([net(y[:, c : c + 1], *more) for c in range(3)], 1)
    torch.testing.assert_close(net(y, *more), expected)


# ---- IRDNet --------------------------------------------------------------------------------------


@torch.no_grad()
def test_an_untrained_net_gives_16_steps():
    y = image(2, 3, 24, 30)
    expected = residuals(y, SHAKE, [16])[0]
    torch.testing.assert_close(ird()(y, SHAKE), expected, rtol=0, atol=1e-5)
    net = ird(steps=(64, 256))
    torch.testing.assert_close(net(y, SHAKE), residuals(y, SHAKE, [64])[0], rtol=0, atol=1e-5)


@torch.no_grad()
def test_components_add_up():
    """The blurred image, and the steps as sums; what a network integrates is centered."""
    net, y = ird(steps=(1, 4, 9)), image(2, 1, 24, 30)
    parts = net.components(y, SHAKE)
    assert parts.shape == (2, 4, 24, 30)
    torch.testing.assert_close(parts[:, :1] + 0.5, y)
    sums = parts[:, 1:].cumsum(1) + 0.5
    expected = residuals(y, SHAKE, [1, 4, 9])[:, :, 0].transpose(0, 1)
    torch.testing.assert_close(sums, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_point_as_psf_changes_nothing():
    y = image(1, 2, 15, 22)
    torch.testing.assert_close(ird()(y, torch.ones(1, 1)), y, rtol=0, atol=1e-6)


@torch.no_grad()
def test_the_psf_is_that_of_a_convolution():
    """It undoes 7 dB; turned by 180 degrees it loses 4 dB, and moved, it moves the image back."""
    truth = smooth(1, 1, 80, 90)
    y, net = blur(truth, SHAKE), ird(steps=(1, 4, 16, 64))
    net.mix[1:] = 1  # 64 steps

    def error(found):
        return float((found - truth)[..., 20:-20, 20:-20].square().mean().log10() * 10)

    assert error(net(y, SHAKE)) < error(y) - 7
    assert error(net(y, SHAKE.flip(0, 1))) > error(net(y, SHAKE)) + 4
    moved = F.pad(SHAKE, (2, 0))  # by one pixel to the right
    left, middle = net(y, moved)[..., 20:-20, 20:-20], net(y, SHAKE)[..., 20:-20, 21:-19]
    assert float((left - middle).abs().mean()) < 0.01


@torch.no_grad()
def test_images_and_channels_may_have_their_own_psf():
    net, y = fill_with_waves(ird()), image(2, 3, 21, 30)
    psf = torch.rand(2, 3, 3, 5, generator=torch.Generator().manual_seed(1))
    psf /= psf.sum((2, 3), keepdim=True)
    for shared in (psf, psf[:1], psf[:, :1]):
        found, every = net(y, shared), shared.expand(2, 3, -1, -1)
        for n, c in ((0, 0), (1, 2)):
            one = net(y[n : n + 1, c : c + 1], every[n, c])
            torch.testing.assert_close(found[n, c], one[0, 0])


@torch.no_grad()
def test_odd_sides_are_continued_by_a_copy():
    net, y = fill_with_waves(ird()), image(1, 1, 21, 31)
    even = torch.cat([y, y[..., -1:]], 3)
    even = torch.cat([even, even[..., -1:, :]], 2)
    psf = SHAKE[6:15, 6:15]
    torch.testing.assert_close(net(y, psf), net(even, psf)[..., :21, :31])


def test_it_learns_what_the_components_lack():
    """On one image, a few steps of Adam take 30 % off the error that 16 steps leave."""
    truth = smooth(1, 1, 40, 40)
    psf = torch.from_numpy(find_psf("disk:2").kernel).float()
    y, net = blur(truth, psf), ird()
    adam, errors = torch.optim.Adam(net.parameters(), 1e-2), []
    for _ in range(25):
        loss = (net(y, psf) - truth).abs().mean()
        errors.append(loss.item())
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert errors[-1] < 0.7 * errors[0]


@torch.no_grad()
def test_with_variation_an_untrained_net_gives_least_total_variation():
    """With the weight 0.7 sigma ** 1.5, for each image its own, and the edges that are wanted."""
    y, sigma = image(2, 3, 24, 30), torch.tensor([0.003, 0.02])
    net = ird(variation=True)
    for edges in ("ramp", "reflect"):
        found = net(y, SHAKE, sigma, edges)
        for n in range(2):
            lam = 0.7 * float(sigma[n]) ** 1.5
            expected = total_variation(y[n : n + 1], SHAKE, lam, edges=edges)
            torch.testing.assert_close(found[n : n + 1], expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(net(y, SHAKE, 0.02)[1], net(y, SHAKE, sigma)[1])


@torch.no_grad()
def test_a_net_with_variation_sees_the_level_of_the_noise():
    net = ird(variation=True)
    net.body[-1].weight.fill_(0.1)
    net.mix.zero_()
    psf, y = torch.ones(1, 1), torch.full((1, 1, 16, 16), 0.5)  # all components are 0
    found = [net(y, psf, sigma) for sigma in (0.01, 0.1)]
    assert not torch.allclose(*found)
    assert torch.isfinite(net(y, psf, 0.0)).all()


@torch.no_grad()
def test_a_margin_is_left_out():
    """Of the components, so that layers do not see it; those themselves are of the whole."""
    net, y, psf = fill_with_waves(ird(variation=True)), image(2, 3, 25, 30), SHAKE[6:15, 6:15]
    found = net(y, psf, 0.01, margin=4)
    assert found.shape == (2, 3, 17, 22)
    even = torch.cat([y, y[..., -1:, :]], 2).flatten(0, 1)[:, None]
    levels = torch.full((6, 1, 1, 1), 0.01)
    parts = net.components(even, psf, levels)[..., 4:-4, 4:-4]
    expected = net._integrate(parts, levels)[..., :17, :]
    torch.testing.assert_close(found.flatten(0, 1)[:, None], expected)


def test_the_level_of_the_noise_must_be_known():
    with pytest.raises(OptionError, match="got no sigma; wanted the standard deviation"):
        ird(variation=True)(image(1, 1, 20, 20), SHAKE)


# ---- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CRCNet(units=0), "got units=0; wanted 1 or more"),
        (lambda: CRCNet(kernel=6), "got kernel=6; wanted an odd number"),
        (lambda: CRCNet(widths=(4, 0)), r"got widths\[1\]=0"),
        (lambda: IRDNet(steps=()), r"got steps=\[\]; wanted one or more, increasing"),
        (lambda: IRDNet(steps=(4, 1)), r"got steps=\[4, 1\]"),
        (lambda: IRDNet(steps=(0, 1)), r"got steps\[0\]=0; wanted 1 or more"),
    ],
)
def test_sizes_that_no_network_has(make, message):
    with pytest.raises(OptionError, match=message):
        make()


@pytest.mark.parametrize(
    ("y", "psf", "message"),
    [
        (torch.rand(3, 20, 20), SHAKE, r"\(3, 20, 20\) and float32; wanted \(N, C, H, W\)"),
        (torch.zeros(1, 1, 20, 20).byte(), SHAKE, "and uint8; wanted .* divide bytes by 255"),
        (torch.rand(3, 2, 20, 20), torch.ones(2, 1, 3, 3) / 9, r"got a PSF of \(2, 1, 3, 3\)"),
        (torch.rand(1, 1, 20, 20), torch.ones(2, 3) / 6, "wanted odd sides"),
    ],
)
def test_images_and_psfs_that_do_not_fit(y, psf, message):
    with pytest.raises(ShapeError, match=message):
        ird()(y, psf)


def test_crcnet_takes_no_image_smaller_than_its_filters():
    with pytest.raises(ShapeError, match="wanted sides of 7 or more, the side of the filters"):
        CRCNet(units=1, width=2)(torch.rand(1, 1, 6, 20))
