"""Images of every kind give the same pixels, and what is no image says what to do."""

import io
import re

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from unpool.errors import ImageError, ShapeError
from unpool.vision.inputs import as_image

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
GRAY = RGB[:, :, 0]
TENSOR = torch.from_numpy(RGB).permute(2, 0, 1)


def png():
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "PNG")
    return file


def same(image):
    found = as_image(image)
    assert (found.dtype, found.shape) == (np.uint8, RGB.shape)
    return (found == RGB).all()


def test_files(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(png().getvalue())
    assert same(path)
    assert same(str(path))
    assert same(png().getvalue())
    file = png()
    file.seek(0)
    assert same(file)


def test_pillow_images():
    assert same(Image.fromarray(RGB))
    assert (as_image(Image.fromarray(GRAY)) == GRAY[:, :, None]).all()
    indexed = Image.fromarray(RGB).quantize(4)
    assert (as_image(indexed) == np.asarray(indexed.convert("RGB"))).all()
    assert (as_image(Image.new("RGBA", (7, 5))) == 255).all()
    assert (as_image(Image.new("1", (7, 5), 1)) == 255).all()
    assert as_image(Image.new("CMYK", (7, 5))).shape == (5, 7, 3)


def test_pillow_images_are_turned_upright():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # turned by 90 degrees
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "PNG", exif=exif)
    with Image.open(file) as image:
        assert (as_image(image) == np.rot90(RGB, -1)).all()


@pytest.mark.parametrize(
    "array",
    [
        RGB,
        RGB.astype(np.uint16) << 8,
        RGB / 255,
        (RGB / 255).astype(np.float32),
        np.dstack([RGB, np.full(GRAY.shape, 255, np.uint8)]),
        RGB[::-1][::-1],
    ],
    ids=["uint8", "uint16", "float64", "float32", "RGBA", "view"],
)
def test_color_arrays(array):
    assert same(array)


@pytest.mark.parametrize("array", [GRAY, GRAY[:, :, None], GRAY / 255])
def test_gray_arrays(array):
    assert (as_image(array) == GRAY[:, :, None].repeat(3, 2)).all()


def test_masks_and_transparency():
    assert as_image(GRAY > 99).max() == 255
    clear = np.dstack([RGB, np.zeros(GRAY.shape, np.uint8)])
    assert (as_image(clear) == 255).all()


@pytest.mark.parametrize(
    "tensor", [TENSOR, TENSOR[None], TENSOR.float() / 255, (TENSOR.double() / 255).requires_grad_()]
)
def test_tensors(tensor):
    assert same(tensor)


def test_tensors_of_other_kinds():
    assert (as_image(TENSOR[:1]) == RGB[:, :, :1]).all()
    half = as_image((TENSOR.float() / 255).bfloat16())
    assert np.abs(half.astype(int) - RGB).max() <= 1


def test_pixels_are_not_copied_without_need():
    assert as_image(RGB) is RGB or np.shares_memory(as_image(RGB), RGB)


WRONG = [
    (None, ImageError, "got a NoneType for an image; wanted a path, a Pillow image"),
    (3, ImageError, "got an int for an image"),
    ({"image": RGB}, ImageError, "got a dict for an image"),
    ([RGB], ImageError, "got a list for an image"),
    (RGB.astype(np.int64), ImageError, "use image.astype(np.uint8)"),
    (RGB.astype(np.float32), ImageError, "divide them by 255"),
    (RGB / 255 - 1, ImageError, "floating-point pixels go from 0 to 1"),
    (np.full((2, 2), np.nan), ImageError, "replace those that are not finite"),
    (np.zeros((2, 2), complex), ImageError, "wanted uint8 from 0 to 255, or real numbers"),
    (np.zeros((2, 2), object), ImageError, "wanted uint8"),
    (RGB[None], ShapeError, "of a batch pass list(images)"),
    (RGB.transpose(2, 0, 1), ShapeError, "image.transpose(1, 2, 0)"),
    (np.zeros((0, 5, 3), np.uint8), ShapeError, "not empty"),
    (np.zeros(5, np.uint8), ShapeError, "wanted (H, W, 3)"),
    (TENSOR.permute(1, 2, 0), ShapeError, "image.permute(2, 0, 1)"),
    (TENSOR[None].repeat(2, 1, 1, 1), ShapeError, "pass list(images)"),
    (TENSOR[0], ShapeError, "pass image[None]"),
    (TENSOR[0, 0], ShapeError, "wanted (3, H, W)"),
    (TENSOR.float(), ImageError, "divide them by 255"),
    ("nowhere.jpg", ImageError, "does not exist; check the path"),
    (b"", ImageError, "is empty"),
    (Image.new("F", (2, 2)), ImageError, "got a Pillow image that holds floating-point values"),
]


@pytest.mark.parametrize(("image", "kind", "message"), WRONG)
def test_errors_say_what_to_do(image, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        as_image(image)


def test_closed_pillow_images(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(png().getvalue())
    with Image.open(path) as image:
        pass
    with pytest.raises(ImageError, match="do not close it"):
        as_image(image)
