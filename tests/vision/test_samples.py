"""TIFF samples against tifffile, which writes what is read here, and reads what is written."""

import io

import numpy as np
import pytest
import tifffile

from tests.vision.tiffs import tiff
from unpool.errors import ImageError
from unpool.vision import samples
from unpool.vision.samples import Layout, read_samples, read_tags, write_tiff
from unpool.vision.tiff import read_pages

RNG = np.random.default_rng(0)
TYPES = [np.uint8, np.uint16, np.uint32, np.int8, np.int16, np.int32, np.float16, np.float32,
         np.float64]  # fmt: skip


def values(dtype, *shape):
    numbers = RNG.normal(0, 100, shape or (23, 31, 3))
    return numbers.astype(dtype) if np.dtype(dtype).kind != "u" else abs(numbers).astype(dtype)


def read(data):
    file = io.BytesIO(data)
    (page,) = read_pages(file)
    return read_samples(file, page)


def written(array, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, array, photometric="rgb", **options)
    return file.getvalue()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"compression": "zlib", "rowsperstrip": 5},
        {"tile": (16, 16), "compression": "zlib"},
        {"bigtiff": True},
        {"planarconfig": "separate", "rowsperstrip": 7},
    ],
)
def test_all_types_and_layouts(dtype, options):
    array = values(dtype)
    planar = "planarconfig" in options
    found = read(written(np.moveaxis(array, 2, 0) if planar else array, **options))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
@pytest.mark.parametrize("order", "<>")
def test_differences_of_integers(dtype, order):
    array = values(dtype)
    if dtype == np.uint32:
        pytest.skip("the writer of the tests packs 16 bits")
    data = tiff(array, predictor=True, order=order, compression="deflate")
    np.testing.assert_array_equal(read(data), array)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_differences_of_floating_point(dtype):
    pytest.importorskip("imagecodecs")
    array = values(dtype)
    np.testing.assert_array_equal(read(written(array, predictor=3, compression="zlib")), array)


def test_differences_of_floating_point_by_hand():
    """The bytes of each place of a row together, the highest first; then their differences."""
    array = values(np.float32, 4, 6, 1)
    places = array.astype(">f4").view(np.uint8).reshape(4, 6, 4).transpose(0, 2, 1).reshape(4, 24)
    coded = np.diff(places, axis=1, prepend=np.uint8(0)).astype(np.uint8)
    data = tiff(coded.reshape(4, 24, 1), tags={256: [6], 258: [32], 317: [3], 339: [3]})
    np.testing.assert_array_equal(read(data), array)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_packed_bits(bits):
    array = RNG.integers(0, 2**bits, (9, 13, 1)).astype(np.uint16)
    np.testing.assert_array_equal(read(tiff(array, bits=bits)), array)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("compressed", [False, True])
def test_what_is_written_tifffile_reads(dtype, compressed, big, tmp_path):
    pages = [values(dtype, 300, 200, 1), values(dtype, 17, 40, 3), values(dtype, 5, 6, 4)]
    bits = 8 * np.dtype(dtype).itemsize
    layouts = [Layout({}, bits, k, a, compressed) for k, a in ((1, 0), (2, 0), (2, 2))]
    path = tmp_path / "pages.tif"
    write_tiff(path, pages, layouts, 2**33 if big else 0)
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff == big
        for array, page in zip(pages, file.pages, strict=True):
            found = page.asarray()
            assert found.dtype == dtype
            np.testing.assert_array_equal(found.reshape(array.shape), array)


def test_packed_bits_are_written(tmp_path):
    array = RNG.integers(0, 4096, (9, 13, 1)).astype(np.uint16)
    write_tiff(tmp_path / "a.tif", [array], [Layout({}, 12, 1, 0, False)], 0)
    np.testing.assert_array_equal(read((tmp_path / "a.tif").read_bytes()), array)


@pytest.mark.parametrize("byteorder", "<>")
def test_tags_are_copied(byteorder, tmp_path):
    extra = [(65000, "d", 3, (0.5, 0.25, -1.0)), (65001, "H", 2, (7, 8)), (65002, "s", 0, "hello")]
    options = {"resolution": (300, 200), "description": "a bead", "software": "scope"}
    data = written(values(np.uint8), byteorder=byteorder, extratags=extra, metadata=None, **options)
    file = io.BytesIO(data)
    (page,) = read_pages(file)
    layout = Layout(read_tags(file, page), 8, 2, 0, False)
    write_tiff(tmp_path / "a.tif", [values(np.uint8)], [layout], 0)
    file.seek(0)
    with tifffile.TiffFile(tmp_path / "a.tif") as copy, tifffile.TiffFile(file) as given:
        for code in (270, 282, 283, 296, 305, 65000, 65001, 65002):
            assert copy.pages[0].tags[code].value == given.pages[0].tags[code].value


@pytest.mark.parametrize(
    "data",
    [
        tiff(np.zeros((4, 4, 1), np.uint8), tags={258: [1]}),
        tiff(np.zeros((4, 4, 3), np.uint8), tags={258: [8, 8, 16]}),
        tiff(np.zeros((4, 4, 1), np.uint8), tags={339: [4]}),
        tiff(np.zeros((4, 4, 1), np.uint8), tags={259: [7]}),
    ],
)
def test_what_is_not_kept_is_said(data):
    with pytest.raises(ImageError, match=r"of a kind that is not kept .*; save them as 8 or 16"):
        read(data)


def test_damaged_tags_are_left_out():
    data = tiff(np.zeros((4, 4, 1), np.uint8), tags={65000: [1, 2, 3]})
    file = io.BytesIO(data)
    (page,) = read_pages(file)
    assert read_tags(file, page).keys() == {65000}
    assert samples.sample_type(page) == np.uint8
