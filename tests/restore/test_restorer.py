"""The restorer: types, sizes and channels are kept, values follow the noise, mistakes are named."""

import tracemalloc

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage import data

from unpool.errors import ImageError, OptionError, ShapeError
from unpool.ops.blur import blur
from unpool.restore import METHODS, Restorer, psnr
from unpool.vision.psf import find_psf

RNG = np.random.default_rng(0)
LOPSIDED = "shake:2"


def sharp(side=144):
    return data.camera()[100 : 100 + side, 150 : 150 + side] / 255


def blurred(image, psf=LOPSIDED, sigma=0.005, seed=0):
    """A blurred photo that goes on beyond its borders, and its true inside."""
    kernel = torch.from_numpy(find_psf(psf).kernel.astype(np.float64))
    x = torch.from_numpy(np.atleast_3d(image)).permute(2, 0, 1)[:, None]
    y = blur(x, kernel, "valid")[:, 0].permute(1, 2, 0).numpy()
    y = y + np.random.default_rng(seed).normal(0, sigma, y.shape)
    top, left = (side // 2 for side in kernel.shape)
    truth = np.atleast_3d(image)[top : top + y.shape[0], left : left + y.shape[1]]
    return (y[..., 0], truth[..., 0]) if image.ndim == 2 else (y, truth)


CLASSICAL = [name for name, method in METHODS.items() if method.run is not None]


@pytest.mark.parametrize("method", CLASSICAL)
def test_every_method_brings_the_truth_nearer(method):
    y, truth = blurred(sharp())
    y = np.clip(y, 0, 1)
    result = Restorer(method)(y, LOPSIDED)
    assert psnr(result.image, truth) > psnr(y, truth) + 3
    assert result.method == method
    assert 0.5 < result.residual < 2


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.uint16, np.int16, np.uint32, np.float32, np.float64]
)
@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
def test_types_sizes_and_opacity_are_kept(dtype, channels):
    shape = (41, 52) if channels is None else (41, 52, channels)
    top = 1.0 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    image = (gaussian_filter(RNG.random(shape), (2, 2, 0)[: len(shape)]) * top).astype(dtype)
    result = Restorer("tikhonov")(image, "gaussian:1")
    assert (result.image.dtype, result.image.shape) == (dtype, shape)
    assert not np.array_equal(result.image, image)
    if channels in (2, 4):
        np.testing.assert_array_equal(result.image[..., -1], image[..., -1])


@pytest.mark.parametrize("method", CLASSICAL)
def test_the_type_does_not_matter(method):
    y, _ = blurred(sharp())
    y = np.clip(y, 0, 1)
    whole = Restorer(method, noise=0.005)(y, LOPSIDED).image
    deep = Restorer(method, noise=0.005)(np.rint(y * 65535).astype(np.uint16), LOPSIDED).image
    np.testing.assert_allclose(deep / 65535, np.clip(whole, 0, 1), atol=2e-3)
    large = Restorer(method, noise=0.005 * 1e4)(y * 1e4, LOPSIDED).image
    np.testing.assert_allclose(large / 1e4, whole, atol=1e-3)


def test_channels_one_by_one_or_by_luminance():
    color = data.astronaut()[:120, 150:270] / 255
    y, truth = blurred(color)
    y = np.clip(y, 0, 1)
    each = Restorer("tv", noise=0.005)(y, LOPSIDED)
    alone = Restorer("tv", noise=0.005, lam=each.value)(y, LOPSIDED)
    np.testing.assert_array_equal(each.image, alone.image)
    luma = Restorer("tv", luma=True)(y, LOPSIDED)
    for result in (each, luma):
        assert psnr(result.image, truth) > psnr(y, truth) + 3
    np.testing.assert_allclose(  # differences of colors stay
        luma.image[..., 0] - luma.image[..., 2], y[..., 0] - y[..., 2], atol=1e-5
    )


def test_clipped_values_are_counted_and_floats_are_not_clipped():
    y = np.zeros((40, 40), np.uint8)
    y[15:25, 15:25] = 255
    options = {"balance": 1e-4, "noise": 0.0}
    result = Restorer("wiener", **options)(y, "gaussian:2")
    assert 0.05 < result.clipped < 0.9
    free = Restorer("wiener", as_float=True, **options)(y, "gaussian:2")
    assert free.image.dtype == np.float32
    assert (free.image.max() > 256, free.clipped) == (True, 0)
    np.testing.assert_array_equal(np.clip(np.rint(free.image), 0, 255), result.image)


def test_gamma_restores_in_linear_light():
    light = np.clip(sharp(), 0.02, 1) ** 2.2
    y, truth = blurred(light, sigma=0.002)
    stored, expected = np.clip(y, 0, 1) ** (1 / 2.2), truth ** (1 / 2.2)
    right, wrong = (Restorer("tv", gamma=g)(stored, LOPSIDED).image for g in (2.2, None))
    assert psnr(right, expected) > psnr(wrong, expected) + 1


def test_tiles_are_near_the_whole():
    y, _ = blurred(sharp(360), "shake:0")
    y = np.clip(y, 0, 1)
    for method, most in (("tv", 0.004), ("rl-fast", 0.005), ("wiener", 0.006)):
        whole = Restorer(method, noise=0.01, tile=0)(y, "shake:0")
        parts = Restorer(method, noise=0.01, tile=192)(y, "shake:0")
        assert (whole.tiles, parts.tiles) == (1, 9)
        assert np.sqrt(np.mean((whole.image - parts.image) ** 2)) < most


def test_progress():
    calls = []
    y = np.zeros((200, 300, 3), np.uint8)
    Restorer("wiener", tile=160)(y, "disk:2", progress=lambda *call: calls.append(call))
    done = [call[0] for call in calls]
    assert done == sorted(done)
    assert calls[-1][:2] == (18, 18)
    assert calls[0][2].startswith("restoring in 6 tiles, ")


def test_volumes():
    bead = np.zeros((16, 40, 40))
    bead[6:9, 15:25, 12:20] = 1
    line = np.array([0.25, 0.5, 0.25])
    psf = line[:, None, None] * find_psf("gaussian:1.5").kernel
    y = blur(torch.from_numpy(bead)[None, None], torch.from_numpy(psf))[0, 0].numpy()
    y = (1000 * y + RNG.normal(50, 2, y.shape)).astype(np.uint16)
    for method in ("wiener", "tikhonov", "rl", "auto"):
        result = Restorer(method)(y, psf)
        assert (result.image.shape, result.image.dtype) == (y.shape, np.uint16)
        gaps = [((image - (1000 * bead + 50)) ** 2).mean() for image in (result.image, y)]
        assert gaps[0] < 0.7 * gaps[1]
    assert (result.method, result.reason.partition(":")[0]) == ("rl-fast", "auto")


def test_files_and_pillow_images(tmp_path):
    image = (sharp(60) * 255).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    expected = Restorer("tv")(image, "disk:2").image
    for given in (tmp_path / "a.png", Image.fromarray(image), torch.from_numpy(image)):
        np.testing.assert_array_equal(Restorer("tv")(given, "disk:2").image, expected)


def test_an_estimated_psf():
    y, _ = blurred(data.camera()[60:340, 100:380] / 255, "disk:3.5", 0.01)
    result = Restorer()(y, "estimate:disk")
    assert result.psf.name.startswith("disk:")
    assert result.psf.changes[0].startswith("estimated")


@pytest.mark.parametrize(("quality", "gain"), [(50, 2), (80, 1), (95, 0.1)])
@pytest.mark.parametrize("method", ["tv", "given"])
def test_jpegs_are_restored_for_the_noise_of_their_compression(method, quality, gain, tmp_path):
    y, truth = blurred(sharp(180), "motion:13,30")
    pixels = np.rint(np.clip(y, 0, 1) * 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=quality)
    restorer = Restorer(method)
    found = restorer(tmp_path / "a.jpg", "motion:13,30")
    decoded = Image.open(tmp_path / "a.jpg")
    plain = restorer(np.array(decoded), "motion:13,30")
    assert plain.compression == 0 < found.compression < found.noise
    assert found.noise == pytest.approx(np.hypot(plain.noise, found.compression))
    assert found.noise == pytest.approx((found.before / 255 - y).std(), rel=0.3)
    assert psnr(found.image / 255, truth) > psnr(plain.image / 255, truth) + gain
    again = restorer(decoded, "motion:13,30")  # an open file has its tables, too
    assert np.array_equal(again.image, found.image)


def test_the_residual_tells_noise_that_was_restored():
    y, _ = blurred(sharp(), sigma=0.02)
    assert Restorer("wiener", balance=1e-5)(y, LOPSIDED).residual < 0.6
    assert Restorer(noise=0)(y, LOPSIDED).residual is None


GRAY = np.full((20, 30), 0.5)


@pytest.mark.parametrize(
    ("image", "psf", "error", "message"),
    [
        (np.full((8, 8), np.nan), "disk:2", ImageError, "64 values that are not finite; replace"),
        (GRAY - 1, "disk:2", ImageError, "down to -0.5; .* choose method='tikhonov'"),
        (np.zeros((2, 3, 4, 5)), "disk:2", ShapeError, r"image of \(2, 3, 4, 5\)"),
        (np.array(["a"]), "disk:2", ShapeError, r"image of \(1,\) and <U1"),
        (np.zeros((20, 20), np.uint64), "disk:2", ImageError, "uint64; wanted integers of 32"),
        (np.zeros((9, 20, 20)), "disk:2", ShapeError, r"a volume of .* or the slices one by one"),
        (GRAY, np.ones((3, 3, 3)), ShapeError, "three dimensions; .* one page or channel of the"),
        (GRAY, "estimate:shake", OptionError, "wanted one of estimate:gaussian"),
    ],
)
def test_images_that_cannot_be_restored(image, psf, error, message):
    with pytest.raises(error, match=message):
        Restorer("rl")(image, psf)


def test_a_stack_is_restored_page_by_page(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 8, 8), np.uint8))
    with pytest.raises(ImageError, match="a stack of 5 pages; restore them one by one"):
        Restorer()(tmp_path / "a.tif", "disk:2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "got method 'magic'"),
        ({"method": "tv", "balance": 0.1}, "balance=0.1 for method 'tv', whose value is lam"),
        ({"noise": -1}, "got noise=-1"),
        ({"edges": "mirror"}, "got edges 'mirror'"),
        ({"tile": -5}, "got tile=-5"),
        ({"gamma": "film"}, "got gamma='film'"),
        ({"steps": 0}, "got steps=0"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(OptionError, match=message):
        Restorer(**options)


def test_a_psf_is_smaller_than_the_image():
    with pytest.raises(ShapeError, match=r"9 x 31 pixels for an image of 20 x 30"):
        Restorer()(np.ones((20, 30)), np.ones((9, 31)))


def test_a_value_chooses_the_method():
    image = np.random.default_rng(0).random((20, 30))
    for given, method in (({"steps": 2}, "rl"), ({"lam": 0.1}, "tv"), ({"balance": 1}, "tikhonov")):
        found = Restorer(**given)(image, "disk:2")
        assert (found.method, found.value) == (method, next(iter(given.values())))
        assert found.reason == f"auto: the method for {found.parameter}"
    with pytest.raises(OptionError, match=r"lam and steps, the values of several methods"):
        Restorer(lam=0.1, steps=5)


def test_memory_outside_of_the_method_is_bounded():
    """Rounding and clipping take no further copies of the image."""
    image = np.random.default_rng(0).integers(0, 65536, (1500, 1500), dtype=np.uint16)
    restorer = Restorer("wiener", gamma="srgb")
    restorer(image[:64, :64], "disk:2")  # what is imported
    tracemalloc.start()
    restorer(image, "disk:2")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * image.size


@pytest.mark.parametrize("mode", ["I", "I;16", "I;16B"])
def test_pillow_images_of_more_than_8_bits(mode):
    values = np.linspace(0, 60000, 32 * 40).reshape(32, 40).astype(np.uint16)
    image = Image.frombytes(mode, (40, 32), values.astype(
        {"I": "<i4", "I;16": "<u2", "I;16B": ">u2"}[mode]
    ).tobytes())  # fmt: skip
    found = Restorer("wiener", balance=0)(image, np.ones((1, 1))).image
    np.testing.assert_allclose(found, values, atol=1)


@pytest.mark.parametrize("given", [{"noise": "auto"}, {"lam": "auto"}, {"steps": True}])
def test_parameters_are_numbers(given):
    ((name, value),) = given.items()
    with pytest.raises(OptionError, match=rf"got {name}={value!r}; wanted a"):
        Restorer(**given)
