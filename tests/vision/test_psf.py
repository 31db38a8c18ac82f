"""PSFs from texts, arrays and files: made usable, with what was changed, or refused with a cure."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from unpool.errors import ImageError, OptionError, ShapeError
from unpool.vision.kernels import FAMILIES, gaussian, motion, shake
from unpool.vision.psf import PSF, describe, find_psf, make_psf, parse_psf, transfer


def test_every_family_by_its_name():
    for name, (_, _, _, example) in FAMILIES.items():
        psf = find_psf(example.split(" ")[0])
        assert psf.name.startswith(name)
        assert psf.changes == ()
    np.testing.assert_array_equal(find_psf("motion:13,30").kernel, motion(13, 30))
    assert find_psf(psf) is psf


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_file_of_any_type_is_normalized(dtype, tmp_path):
    kernel = gaussian(2, 1, 30).astype(float)
    bead = (kernel / kernel.max() * 250).astype(dtype)
    tifffile.imwrite(tmp_path / "bead.tif", bead)
    psf = find_psf(tmp_path / "bead.tif")
    assert psf.name == "bead.tif"
    assert psf.kernel.sum() == pytest.approx(1)
    assert any(change.startswith("sum") for change in psf.changes)
    middle = np.array(psf.kernel.shape) // 2
    full = np.array(kernel.shape) // 2
    reach = middle.min()
    cut = kernel[full[0] - reach : full[0] + reach + 1, full[1] - reach : full[1] + reach + 1]
    own = psf.kernel[
        middle[0] - reach : middle[0] + reach + 1, middle[1] - reach : middle[1] + reach + 1
    ]
    np.testing.assert_allclose(own, cut / kernel.sum(), atol=0.003)


def test_a_color_image_and_an_array_file(tmp_path):
    kernel = (gaussian(2) * 4000).astype(np.uint8)
    Image.fromarray(np.repeat(kernel[..., None], 3, 2)).save(tmp_path / "psf.png")
    np.save(tmp_path / "psf.npy", kernel)
    first, second = (find_psf(tmp_path / f"psf.{suffix}") for suffix in ("png", "npy"))
    np.testing.assert_array_equal(first.kernel, second.kernel)


def test_a_stack_of_pages_is_a_volume_with_its_voxels(tmp_path):
    line = gaussian(1.5)[6]
    volume = (1e5 * line[:, None, None] * gaussian(1.5)).astype(np.float32)
    about = {"spacing": 0.5, "unit": "um", "axes": "ZYX"}
    options = {"imagej": True, "resolution": (10.0, 10.0), "metadata": about}
    tifffile.imwrite(tmp_path / "bead.tif", volume, **options)
    psf = find_psf(tmp_path / "bead.tif")
    assert psf.kernel.ndim == 3
    assert psf.voxel == (0.5, 0.1, 0.1)


def test_it_is_centered_odd_and_cropped():
    wide = np.zeros((60, 80))
    wide[10:23, 50:63] = gaussian(1.6)
    psf = make_psf(wide)
    assert psf.changes[0].endswith("at its centroid was -13.5 x 16.5 pixels from the middle")
    assert psf.changes[1].startswith("cropped to")
    assert all(side % 2 for side in psf.kernel.shape)
    assert np.unravel_index(psf.kernel.argmax(), psf.kernel.shape) == tuple(
        side // 2 for side in psf.kernel.shape
    )


def test_negative_values_and_background():
    bead = gaussian(1.6) * 1000 + 20
    plain, clean = make_psf(bead), make_psf(bead, background=0.2)
    assert plain.changes[-1].endswith("if that is background, subtract it")
    assert clean.changes[0].startswith("background 20")
    assert abs(clean.kernel.max() - gaussian(1.6).max()) < 0.002
    assert "1 negative values set to 0" in make_psf([[0, 1, -1]]).changes


def test_figures():
    found = describe(find_psf("gaussian:3,1,0"))
    assert found["deviation"] == [pytest.approx(1, rel=0.02), pytest.approx(3, rel=0.02)]
    assert found["psf_size"] == [13, 25]
    left = transfer(find_psf("motion:8"))
    np.testing.assert_allclose(left[128, 128], 1)
    assert left[128, 128 + 32] < 0.01  # the first zero of a motion of 8 pixels
    assert transfer(PSF(np.ones((1, 1, 1), np.float32), "point")).min() == pytest.approx(1)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("gausian:1.6", OptionError, "neither a file nor a known PSF; did you mean 'gaussian'"),
        ("gaussian", OptionError, r"wanted numbers, such as gaussian:1\.6"),
        ("motion:13,30,5", OptionError, "wanted numbers, such as motion:13,30"),
        ("disk:nan", OptionError, r"such as disk:3\.5"),
        ("disk:0", OptionError, "radius 0; wanted a finite number above 0"),
        ("nowhere.tif", ImageError, r"nowhere\.tif, which does not exist"),
        (np.zeros((3, 3)), ImageError, "without a value above 0; check the file"),
        ([[1, float("nan")]], ImageError, "not finite; replace them by 0"),
        (np.ones(3), ShapeError, r"got a PSF of \(3,\)"),
        (np.ones((2, 3, 3, 3)), ShapeError, "wanted numbers"),
        (np.array([["a"]]), ShapeError, "wanted numbers"),
        (1 - gaussian(2), ImageError, "darker inside than on its border.*invert it"),
        (np.ones((1300, 1300)), ShapeError, "1023 a side at most: cut the spot out"),
    ],
)
def test_mistakes(source, error, message):
    with pytest.raises(error, match=message):
        find_psf(source)


def test_a_background_that_is_no_quantile():
    with pytest.raises(OptionError, match="background=2; wanted a quantile"):
        make_psf(np.eye(3), background=2)


def test_even_sides_shift_the_result_by_half_a_pixel():
    """No pixel is in the middle of 2 x 2."""
    found = find_psf(np.ones((2, 2)))
    assert found.changes[1] == (
        "its centroid lies between pixels: the result is shifted by 0.5 x 0.5 pixels"
    )
    assert not any("between" in change for change in find_psf(np.ones((3, 5))).changes)


def test_channels_that_differ_are_said(tmp_path):
    image = np.zeros((9, 9, 3), np.uint8)
    image[3:6, 3:6] = 200
    Image.fromarray(image).save(tmp_path / "gray.png")
    image[4, 4] = 255, 0, 0
    Image.fromarray(image).save(tmp_path / "color.png")
    assert find_psf(tmp_path / "gray.png").changes == ("sum 1800 to 1",)
    assert find_psf(tmp_path / "color.png").changes[0] == "the mean of its 3 channels, which differ"


def test_formulas_without_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("bead.npy", np.ones((3, 3)))
    with pytest.raises(OptionError, match=r"got psf 'bead\.npy', which is no known PSF"):
        parse_psf("bead.npy")
    assert np.array_equal(parse_psf("motion:13,170").kernel, find_psf("motion:13,170").kernel)
    assert parse_psf("motion:13,170", largest=13).name == "motion:13,170"
    for text in ("motion:14,30", "gaussian:1,14", "shake:99,15", "airy:13.5"):
        with pytest.raises(OptionError, match="lengths of 13 pixels at most"):
            parse_psf(text, largest=13)
    assert parse_psf("shake:99", largest=13).kernel.shape == shake(99).shape
