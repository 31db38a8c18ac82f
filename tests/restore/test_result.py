"""Results are saved in their type, and shown beside the input."""

import numpy as np
import pytest
from PIL import Image

from unpool.errors import ImageError, OptionError
from unpool.files import json_line
from unpool.restore import Restorer, sheet
from unpool.restore.result import reduced, shown
from unpool.vision.stacks import read_stack

RNG = np.random.default_rng(0)


def result(dtype=np.uint16, shape=(40, 60), **options):
    top = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    image = (RNG.random(shape) * top).astype(dtype)
    return Restorer("tikhonov", **options)(image, "gaussian:1")


@pytest.mark.parametrize(
    ("dtype", "suffix"),
    [(np.uint8, ".png"), (np.uint16, ".png"), (np.float32, ".tif"), (np.int16, ".tiff")],
)
def test_saved_as_it_is(dtype, suffix, tmp_path):
    for shape in ((40, 60), (40, 60, 3), (40, 60, 4)):
        found = result(dtype, shape)
        path = found.save(tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(read_stack(path)[0].reshape(shape), found.image)


def test_what_a_format_does_not_hold(tmp_path):
    with pytest.raises(ImageError, match=r"float32 for '\.png'; .*: write \.tif"):
        result(np.float32).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"for 'no suffix'"):
        result().save(tmp_path / "a")


def test_plain_values():
    found = result()
    values = found.to_dict()
    assert values["psf"] == "gaussian:1"
    assert values["balance"] == found.value
    assert values["chosen_by_noise"] is values["noise_estimated"] is True
    assert json_line(values)


def test_the_comparison_is_half_before_and_half_after(tmp_path):
    found = result(np.uint8)
    image = found.comparison()
    captions = image.shape[0] - 40
    np.testing.assert_array_equal(image[captions:, :30, 0], found.before[:, :30])
    assert image.dtype == np.uint8
    found.save_comparison(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as shown_image:
        assert shown_image.size == image.shape[1::-1]
    assert found._repr_png_().startswith(b"\x89PNG")


def test_volumes_show_their_middle():
    volume = RNG.random((9, 20, 30)).astype(np.float32)
    found = Restorer("wiener")(volume, np.ones((3, 3, 3)))
    assert found.comparison().ndim == 3
    assert sheet([found, found]).shape[2] == 3


def test_dark_images_are_shown_bright_and_large_ones_small():
    dark = np.full((8, 8), 300, np.uint16)
    dark[0, 0] = 0
    assert shown(dark, dark).max() == 255
    np.testing.assert_array_equal(shown(dark.astype(np.uint8), dark)[1, 1], [44] * 3)
    assert shown(np.zeros((8, 8, 2), np.uint8), dark).shape == (8, 8, 3)
    assert reduced(np.zeros((3300, 20, 3), np.uint8)).shape == (1100, 7, 3)


def test_a_sheet_needs_results():
    with pytest.raises(OptionError, match="no results"):
        sheet([])
