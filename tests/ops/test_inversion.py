"""Restoration against scikit-image's numbers, loops of its definitions, and by properties."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.ops.test_blur import noise
from unpool.errors import OptionError, ShapeError
from unpool.ops import inversion
from unpool.ops.blur import blur, blur_adjoint
from unpool.recipes.presets import EDGES

GOLDEN = np.load(Path(__file__).parents[1] / "golden/skimage_restoration.npz")
Y = torch.from_numpy(GOLDEN["y"])[None, None]
PSF = torch.from_numpy(GOLDEN["psf"])
DELTA = torch.ones(1, 1, dtype=torch.float64)


def golden(name):
    return torch.from_numpy(GOLDEN[name])[None, None]


def scene(side=96):
    """Disks of several sizes and gray values, and stripes: (1, 1, side, side)."""
    y, x = torch.meshgrid(*[torch.arange(side, dtype=torch.float64)] * 2, indexing="ij")
    image = 0.2 + 0.5 * (x + y) / side / 2 + 0.1 * torch.sin(0.5 * x) * (y > 0.6 * side)
    for i, r in enumerate((5, 9, 14, 3, 7)):
        center = 0.2 * side * (i % 3 + 1.2), 0.3 * side * (i % 2 + 0.8)
        image[(y - center[0]) ** 2 + (x - center[1]) ** 2 < r**2] = 0.15 * (i + 2)
    return image[None, None]


def lopsided(side=9):
    """A PSF without symmetry, like a camera shake."""
    psf = torch.zeros(side, side, dtype=torch.float64)
    for i in range(side):
        psf[i, min(side - 1, i * i // (side - 2))] = 1 + 0.2 * i
    return psf / psf.sum()


def photo(psf, sigma=0.0):
    """A blurred scene that goes on beyond its borders, and its true inside."""
    reach = psf.shape[-1] // 2
    sharp = scene()
    blurred = blur(sharp, psf, "valid")
    generator = torch.Generator().manual_seed(0)
    blurred += sigma * torch.randn(blurred.shape, generator=generator)
    return blurred, sharp[..., reach:-reach, reach:-reach] if reach else sharp


def psnr(found, truth):
    return float(-10 * (found.clamp(0, 1) - truth).square().mean().log10())


# ---- as scikit-image -----------------------------------------------------------------------------


def test_wiener_and_tikhonov():
    for balance in (0.001, 0.1):
        found = inversion.tikhonov(Y, PSF, balance, "none")
        torch.testing.assert_close(found, golden(f"wiener_{balance}"), rtol=0, atol=1e-12)
    found = inversion.wiener(Y, PSF, 0.01, "none")
    torch.testing.assert_close(found, golden("wiener_reg_ones_0.01"), rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 10, 30])
def test_richardson_lucy(steps):
    found = inversion.richardson_lucy(Y, PSF, steps, "zero", start=0.5)
    torch.testing.assert_close(found, golden(f"rl_{steps}"), rtol=0, atol=1e-10)


def test_the_golden_image_is_blurred_with_reflected_borders():
    wave = torch.arange(Y.numel()).double()
    wave = torch.sin(1.1 * wave + 0.3 * (wave % 7) ** 2).reshape(Y.shape)
    torch.testing.assert_close(blur(golden("x"), PSF, "reflect") + 0.004 * wave, Y)


# ---- by their definitions ------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [2, 3])
def test_tikhonov_solves_its_normal_equation(dims):
    y = noise(1, 1, *(8, 9, 10)[:dims])
    psf, laplacian = noise(*(3, 5, 1)[:dims], seed=1), torch.zeros([3] * dims, dtype=torch.float64)
    psf = psf / psf.sum()
    for axis in range(dims):
        for place in (0, 2):
            laplacian[tuple(place if i == axis else 1 for i in range(dims))] = -1
    laplacian[(1,) * dims] = 2 * dims
    x = inversion.tikhonov(y, psf, 0.1, "none")
    rough = blur_adjoint(blur(x, laplacian, "periodic"), laplacian, "periodic")
    left = blur_adjoint(blur(x, psf, "periodic"), psf, "periodic") + 0.1 * rough
    torch.testing.assert_close(left, blur_adjoint(y, psf, "periodic"))


def test_residuals_are_the_sum_of_the_residuals():
    psf = lopsided(5)
    for rate in (1.0, 1.9):
        residual, total, loop = Y, torch.zeros_like(Y), {}
        for n in range(1, 41):
            step = rate * blur_adjoint(residual, psf, "periodic")
            total, residual = total + step, residual - blur(step, psf, "periodic")
            loop[n] = total
        found = inversion.residuals(Y, psf, [1, 2, 40], rate, "none")
        for n, x in zip((1, 2, 40), found, strict=True):
            torch.testing.assert_close(x, loop[n], rtol=1e-9, atol=1e-9)


def test_residuals_fit_ever_better():
    found = inversion.residuals(Y, PSF, [1, 4, 16, 64, 256, 1024], 1.9, "none")
    norms = [float((blur(x, PSF, "periodic") - Y).norm()) for x in found]
    assert norms == sorted(norms, reverse=True)


def test_residuals_of_small_transfer_do_not_cancel():
    psf = torch.from_numpy(np.outer(*[np.exp(-0.5 * (np.arange(-12, 13) / 4.0) ** 2)] * 2))
    y, psf = noise(1, 1, 64, 64), psf / psf.sum()
    exact = inversion.residuals(y, psf, [1024])
    found = inversion.residuals(y.float(), psf.float(), [1024]).double()
    torch.testing.assert_close(found, exact, rtol=0, atol=2e-4)


def cost(x, psf, lam):
    slopes = torch.stack([x.roll(-1, axis) - x for axis in (2, 3)])
    gap = blur(x, psf, "periodic") - Y
    return float(0.5 * gap.square().sum() + lam * slopes.norm(dim=0).sum())


def test_total_variation_reaches_the_smallest_cost():
    lam = 0.01
    found = inversion.total_variation(Y, PSF, lam, 400, "none")
    best = cost(found, PSF, lam)
    for steps in (1, 5, 25):
        assert cost(inversion.total_variation(Y, PSF, lam, steps, "none"), PSF, lam) > best
    for seed in range(20):  # it is convex: no neighbor is better
        for size in (1e-2, 1e-3):
            near = found + size * (noise(*Y.shape, seed=seed) - 0.5)
            assert cost(near, PSF, lam) > best


def test_images_may_have_their_own_weight_of_the_variation():
    y, lam = torch.cat([Y, Y.flip(3)]), torch.tensor([1e-3, 1e-2], dtype=Y.dtype)
    found = inversion.total_variation(y, PSF, lam[:, None, None, None])
    for i in range(2):
        alone = inversion.total_variation(y[i : i + 1], PSF, float(lam[i]))
        torch.testing.assert_close(found[i : i + 1], alone)


def test_total_variation_between_the_inverse_and_a_constant():
    psf = torch.tensor([[0.1, 0.8, 0.1]], dtype=torch.float64)  # no zero in its transfer function
    inverse = inversion.total_variation(blur(Y, psf, "periodic"), psf, 0.0, edges="none")
    torch.testing.assert_close(inverse, Y)
    flat = inversion.total_variation(Y, psf, 1e3, 200, "none")
    torch.testing.assert_close(flat, Y.mean().expand_as(Y), rtol=0, atol=1e-3)


def test_richardson_lucy_keeps_the_sum_and_raises_the_likelihood():
    y = torch.zeros(1, 1, 40, 40, dtype=torch.float64)
    y[..., 12:28, 12:28] = noise(1, 1, 16, 16) * 100
    y = blur(y, PSF, "periodic").clamp_min(0)
    before = -torch.inf
    for steps in (1, 2, 5, 20, 100):
        x = inversion.richardson_lucy(y, PSF, steps, "none")
        assert x.min() >= 0
        torch.testing.assert_close(x.sum(), y.sum(), rtol=1e-5, atol=0)
        rate = blur(x, PSF, "periodic").clamp_min(1e-12)
        likelihood = float((y * rate.log() - rate).sum())
        assert likelihood > before
        before = likelihood


def test_acceleration_gets_there_in_a_third_of_the_steps():
    y = blur(scene(), PSF, "periodic")

    def gap(steps, accelerate):
        x = inversion.richardson_lucy(y, PSF, steps, "none", accelerate=accelerate)
        assert x.min() >= 0
        return float((x - scene()).norm())

    assert gap(33, True) < gap(100, False) < gap(33, False)


def test_the_term_for_sparse_gradients_calms_noise():
    psf = lopsided()
    y, truth = photo(psf, 0.03)
    plain, calm = (inversion.richardson_lucy(y, psf, 60, tv=tv) for tv in (0, 0.02))
    assert psnr(calm, truth) > psnr(plain, truth) + 1


# ---- by properties -------------------------------------------------------------------------------

METHODS = {
    "wiener": lambda y, psf, edges: inversion.wiener(y, psf, 2e-3, edges),
    "tikhonov": lambda y, psf, edges: inversion.tikhonov(y, psf, 1e-3, edges),
    "residuals": lambda y, psf, edges: inversion.residuals(y, psf, [64], edges=edges)[0],
    "total_variation": lambda y, psf, edges: inversion.total_variation(y, psf, 1e-3, edges=edges),
    "richardson_lucy": lambda y, psf, edges: inversion.richardson_lucy(
        y, psf, 30, edges, start=0.5
    ),
}
each_method = pytest.mark.parametrize("method", METHODS)


@each_method
@pytest.mark.parametrize("edges", EDGES)
def test_sizes_are_kept(method, edges):
    psf, volume = lopsided(7), noise(3, 5, 7, seed=2)
    assert METHODS[method](noise(2, 3, 17, 23), psf, edges).shape == (2, 3, 17, 23)
    found = METHODS[method](noise(2, 1, 5, 17, 11), volume / volume.sum(), edges)
    assert found.shape == (2, 1, 5, 17, 11)


@each_method
def test_images_and_channels_do_not_mix(method):
    y, psf = noise(2, 3, 16, 18), lopsided(5)
    found = METHODS[method](y, psf, "reflect")
    alone = METHODS[method](y[1:, 2:], psf, "reflect")
    torch.testing.assert_close(found[1:, 2:], alone, rtol=1e-7, atol=1e-9)


@each_method
def test_a_psf_without_blur_changes_nothing(method):
    found = METHODS[method](Y, DELTA, "none")
    exact = method in ("richardson_lucy", "residuals")
    torch.testing.assert_close(found, Y, rtol=0, atol=1e-12 if exact else 0.02)


@each_method
def test_a_psf_that_is_turned_around_is_worse_than_none(method):
    psf = lopsided()
    y, truth = photo(psf, 0.003)
    right, wrong = (METHODS[method](y, k, "ramp") for k in (psf, psf.flip(0, 1)))
    assert psnr(right, truth) > psnr(y, truth) + 2
    assert psnr(wrong, truth) < psnr(right, truth) - 4


@each_method
def test_a_psf_off_center_moves_the_image(method):
    padded = torch.nn.functional.pad(lopsided(5), [2, 2, 2, 2])
    y = noise(1, 1, 20, 24)
    found = METHODS[method](y, padded.roll([1, -1], [0, 1]), "none")
    centered = METHODS[method](y, padded, "none").roll([-1, 1], [2, 3])
    torch.testing.assert_close(found, centered, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("method", ["wiener", "tikhonov", "total_variation"])
def test_ramps_are_better_than_no_borders(method):
    psf = lopsided(13)
    y, truth = photo(psf, 0.003)
    ramp, none = (METHODS[method](y, psf, edges) for edges in ("ramp", "none"))
    assert psnr(ramp, truth) > psnr(none, truth) + 3


@each_method
def test_the_precision_is_that_of_the_image(method):
    psf = lopsided(5)
    y, _ = photo(psf)
    found = METHODS[method](y.float(), psf.float(), "reflect")
    assert found.dtype == torch.float32
    exact = METHODS[method](y, psf, "reflect")
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=2e-4)


def test_black_images_stay_black():
    black, psf = torch.zeros(1, 2, 12, 12), lopsided(5).float()
    for edges in EDGES:
        assert not inversion.richardson_lucy(black, psf, 5, edges, accelerate=True, tv=0.01).any()


@pytest.mark.parametrize("sigma", [0.002, 0.01, 0.03])
def test_noise_is_estimated(sigma):
    image = blur(scene(128), lopsided(), "reflect")
    generator = torch.Generator().manual_seed(1)
    noisy = image + sigma * torch.randn(2, 3, 128, 128, generator=generator)
    found = inversion.noise_level(noisy)
    assert found.shape == (2, 3)
    assert ((found / sigma - 1).abs() < 0.15).all()
    torch.testing.assert_close(inversion.noise_level(noisy[:, :, None]), found)


def test_mistakes():
    with pytest.raises(ShapeError, match=r"down to -1; Richardson-Lucy .* or use tikhonov"):
        inversion.richardson_lucy(-torch.ones(1, 1, 4, 4), torch.ones(1, 1))
    for call in (
        lambda: inversion.wiener(Y, PSF, -1.0),
        lambda: inversion.total_variation(Y, PSF, float("nan")),
        lambda: inversion.richardson_lucy(Y, PSF, 0),
        lambda: inversion.residuals(Y, PSF, [0.5]),
        lambda: inversion.tikhonov(Y, PSF, 0.1, "mirror"),
    ):
        with pytest.raises(OptionError, match="got "):
            call()
    with pytest.raises(ShapeError, match=r"for images of \(4, 4\).*choose edges='ramp'"):
        inversion.wiener(Y[..., :4, :4], PSF, 0.1, "none")
    with pytest.raises(ShapeError, match="2 x 2 pixels"):
        inversion.noise_level(torch.zeros(1, 1, 1, 5))
