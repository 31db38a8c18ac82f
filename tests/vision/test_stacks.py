"""Images of every type come back as they were: type, size, pages, tags and metadata."""

import io

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.vision.tiffs import tiff
from unpool.errors import ImageError
from unpool.vision.stacks import read_array, read_stack, turned

RNG = np.random.default_rng(0)


def noise(dtype, *shape):
    if np.dtype(dtype).kind == "f":
        return RNG.random(shape).astype(dtype)
    return RNG.integers(0, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)


def pillow(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rewritten(stack, tmp_path):
    path = tmp_path / f"copy{stack.suffix}"
    stack.write(path, iter(stack))
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("bands", [1, 3, 4])
def test_tiffs(dtype, bands, tmp_path):
    array = noise(dtype, 20, 31, bands)
    path = tmp_path / "a.tif"
    kind = "rgb" if bands > 1 else "minisblack"
    extra = {"extrasamples": ["unassalpha"]} if bands == 4 else {}
    tifffile.imwrite(path, array.squeeze(), photometric=kind, **extra)
    stack = read_stack(path)
    (frame,) = stack.frames
    assert (frame.shape, frame.dtype, frame.colors) == (array.shape, dtype, min(bands, 3))
    np.testing.assert_array_equal(stack[0], array)
    copy = rewritten(stack, tmp_path)
    found = tifffile.imread(copy)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.reshape(array.shape), array)
    assert read_stack(copy).frames[0].colors == frame.colors


def test_a_stack_keeps_its_pages_and_its_voxels(tmp_path):
    array = noise(np.float32, 40, 16, 24)
    path = tmp_path / "stack.tif"
    about = {"spacing": 0.5, "unit": "um", "axes": "ZYX"}
    tifffile.imwrite(path, array, imagej=True, resolution=(10.0, 5.0), metadata=about)
    stack = read_stack(path)
    assert (len(stack), stack.voxel) == (40, (0.5, 0.2, 0.1))
    copy = rewritten(stack, tmp_path)
    np.testing.assert_array_equal(tifffile.imread(copy), array)
    with tifffile.TiffFile(copy) as file:
        assert file.imagej_metadata["spacing"] == 0.5
        assert file.pages[0].tags["XResolution"].value == (10, 1)
    assert read_stack(copy).voxel == stack.voxel


def test_voxels_of_ome(tmp_path):
    path = tmp_path / "stack.ome.tif"
    about = {"axes": "ZYX", "PhysicalSizeX": 100, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.2,
             "PhysicalSizeYUnit": "µm", "PhysicalSizeZ": 0.5}  # fmt: skip
    tifffile.imwrite(path, noise(np.uint16, 3, 8, 9), metadata=about)
    assert read_stack(path).voxel == (0.5, 0.2, 0.1)
    photo = pillow(Image.new("L", (4, 4)), "TIFF", dpi=(72, 72))
    assert read_stack(photo).voxel is None


def test_12_bits_in_12_and_in_16(tmp_path):
    array = RNG.integers(0, 4096, (9, 13, 1)).astype(np.uint16)
    for data, stored in ((tiff(array, bits=12), 12), (tiff(array, tags={281: [4095]}), 16)):
        stack = read_stack(data)
        assert (stack.frames[0].bits, stack.frames[0].largest) == (12, 4095)
        path = rewritten(stack, tmp_path)
        copy = read_stack(path)
        assert copy.frames[0].bits == 12
        with tifffile.TiffFile(path) as file:
            assert file.pages[0].bitspersample == stored
        np.testing.assert_array_equal(copy[0], array)
    assert read_stack(tiff(array)).frames[0].largest == 65535  # nothing says so


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright(orientation, tmp_path):
    array = noise(np.uint8, 20, 30, 3)
    expected = turned(array, orientation)
    exif = Image.Exif()
    exif[274] = orientation
    png = pillow(Image.fromarray(array), "PNG", exif=exif.tobytes())
    for data in (tiff(array, tags={274: [orientation]}), png):
        stack = read_stack(data)
        np.testing.assert_array_equal(stack[0], expected)
        np.testing.assert_array_equal(read_stack(rewritten(stack, tmp_path))[0], expected)


def test_white_may_be_zero(tmp_path):
    array = noise(np.uint16, 5, 6, 1)
    stack = read_stack(tiff(array, tags={262: [0]}))
    np.testing.assert_array_equal(stack[0], 65535 - array)
    copy = rewritten(stack, tmp_path)
    with tifffile.TiffFile(copy) as file:
        assert file.pages[0].photometric == 0
    np.testing.assert_array_equal(read_stack(copy)[0], 65535 - array)


def test_jpegs_in_tiffs_and_palettes_are_decoded():
    smooth = np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[:, None, None], (1, 64, 3))
    packed = pillow(Image.fromarray(smooth), "TIFF", compression="jpeg", quality=95)
    assert abs(read_stack(packed)[0].astype(int) - smooth).max() < 8
    colored = Image.fromarray(smooth).quantize(256)
    found = read_stack(pillow(colored, "TIFF"))[0]
    np.testing.assert_array_equal(found, np.array(colored.convert("RGB")))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_pngs_of_8_bits(mode, tmp_path):
    image = Image.fromarray(noise(np.uint8, 9, 12, 4)).convert(mode)
    stack = read_stack(pillow(image, "PNG", dpi=(300, 300)))
    assert stack.frames[0].colors == len(mode.replace("A", ""))
    with Image.open(rewritten(stack, tmp_path)) as copy:
        assert (copy.mode, round(copy.info["dpi"][0])) == (mode, 300)
        np.testing.assert_array_equal(np.array(copy), np.array(image))


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_pngs_of_16_bits(bands, tmp_path):
    array = noise(np.uint16, 9, 12, bands)
    order = [2, 1, 0, 3][:bands] if bands > 1 else [0]
    data = cv2.imencode(".png", array[..., order])[1].tobytes()
    stack = read_stack(data)
    np.testing.assert_array_equal(stack[0], array)
    assert bool(stack.frames[0].alpha) == (bands == 4)
    copy = cv2.imread(str(rewritten(stack, tmp_path)), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(copy.reshape(array.shape), array[..., order])


def test_jpegs_keep_their_metadata(tmp_path):
    exif = Image.Exif()
    exif[271], exif[274] = "Camera", 6
    data = pillow(Image.new("RGB", (16, 24), "red"), "JPEG", exif=exif.tobytes())
    stack = read_stack(data)
    assert stack.frames[0].shape == (16, 24, 3)
    with Image.open(rewritten(stack, tmp_path)) as copy:
        assert (copy.format, copy.size) == ("JPEG", (24, 16))
        assert (copy.getexif()[271], copy.getexif().get(274)) == ("Camera", None)


def test_other_formats_become_png(tmp_path):
    array = noise(np.uint8, 9, 12, 3)
    stack = read_stack(pillow(Image.fromarray(array), "BMP"))
    assert stack.suffix == ".png"
    np.testing.assert_array_equal(read_stack(rewritten(stack, tmp_path))[0], array)


def test_results_in_floating_point(tmp_path):
    stack = read_stack(tiff(noise(np.uint16, 9, 12, 3), tags={270: [65]})).as_float()
    path = tmp_path / "a.tif"
    values = noise(np.float32, 9, 12, 3) - 2
    stack.write(path, [values])
    np.testing.assert_array_equal(tifffile.imread(path), values)


def test_arrays(tmp_path):
    array = noise(np.float64, 3, 4)
    np.save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(read_array(tmp_path / "a.npy"), array)
    np.save(tmp_path / "b.npy", np.array([{}]))
    for name in ("b.npy", "c.npy"):
        (tmp_path / "c.npy").write_bytes(b"\x93NUMPY")
        with pytest.raises(ImageError, match="is no array"):
            read_array(tmp_path / name)


PPM = b"P6 2 2 65535\n" + bytes(24)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"no image", "is not an image of a known format"),
        (PPM, "more than 8 bits, which are kept of TIFF and PNG; convert it"),
        (tiff(noise(np.uint8, 4, 4, 3))[:-40], "is broken or cut short|no page"),
        (tiff(noise(np.uint8, 4, 4, 3), tags={262: [8]}), "photometric interpretation 8"),
        (tiff(noise(np.uint16, 4, 4, 1), tags={262: [3]}), "samples that are not kept"),
        (tiff(noise(np.uint8, 4, 4, 1), tags={258: [1]}), "of a kind that is not kept"),
        (tiff(noise(np.uint8, 4, 4, 1), tags={254: [1], 330: [8]}), "holds previews only"),
    ],
)
def test_what_is_not_read_is_said(data, message):
    with pytest.raises(ImageError, match=message):
        list(read_stack(data))


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"nowhere\.tif, which does not exist"):
        read_stack(tmp_path / "nowhere.tif")
