import io
import itertools
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.vision.tiffs import tiff
from unpool.errors import ImageError
from unpool.vision import tiff as module
from unpool.vision.images import image_size, read_image, read_mask
from unpool.vision.inputs import as_image

RNG = np.random.default_rng(0)
LAYOUTS = [
    {"order": order, "planar": planar, "tile": tile, "compression": compression, "predictor": p}
    for order, planar, tile, compression, p in itertools.product(
        "<>", [False, True], [None, (16, 32)], ["none", "deflate", "lzw", "packbits"], [0, 1]
    )
    if not (p and compression in ("none", "packbits"))
]
BANDS = {"gray": 1, "rgb": 3, "rgba": 4}


def described(layout):
    return "-".join(str(value) for value in layout.values())


def noise(bands, high=2**16, shape=(20, 36)):
    """Random samples of 16 bits, opaque, that use all of them."""
    samples = RNG.integers(0, high, (*shape, bands)).astype(np.uint16)
    samples[0, 0] = high - 1
    if bands == 4:
        samples[..., 3] = high - 1
    return samples


def shown(samples, drop=8):
    colors = (samples[..., :3] >> drop).astype(np.uint8)
    return np.repeat(colors, 3, axis=2) if samples.shape[2] == 1 else colors


def by_tifffile(data, planar):
    samples = tifffile.imread(io.BytesIO(data))
    return np.moveaxis(samples, 0, 2) if planar else samples


@pytest.mark.parametrize("kind", BANDS)
@pytest.mark.parametrize("layout", LAYOUTS, ids=described)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_layout(layout, kind, dtype):
    samples = noise(BANDS[kind])
    planar = layout["planar"] and kind != "gray"
    if dtype == np.uint8:
        samples = (samples >> 8).astype(np.uint8)
    data = tiff(samples, **layout)
    if layout["compression"] in ("none", "deflate"):  # tifffile has no other decoders
        np.testing.assert_array_equal(by_tifffile(data, planar).reshape(samples.shape), samples)
    expected = shown(samples, 8 if dtype == np.uint16 else 0)
    np.testing.assert_array_equal(read_image(data), expected)
    np.testing.assert_array_equal(as_image(Image.open(io.BytesIO(data))), expected)
    assert image_size(data) == (20, 36)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("tile", [None, (16, 32)])
def test_what_tifffile_writes(big, planar, tile):
    samples = noise(3)
    file = io.BytesIO()
    array = samples if planar == "contig" else np.moveaxis(samples, 2, 0)
    options = {"photometric": "rgb", "planarconfig": planar, "tile": tile, "bigtiff": big}
    tifffile.imwrite(file, array, compression="zlib", **options)
    np.testing.assert_array_equal(read_image(file.getvalue()), shown(samples))


@pytest.mark.parametrize("rows", [1, 13, 20])
@pytest.mark.parametrize("group", [1, 1000, 2**22])
def test_strips_are_decompressed_together_or_one_by_one(monkeypatch, rows, group):
    monkeypatch.setattr(module, "_TOGETHER", group)
    samples = noise(3)
    for planar in (False, True):
        data = tiff(samples, rows=rows, planar=planar, compression="deflate")
        np.testing.assert_array_equal(read_image(data), shown(samples))


@pytest.mark.parametrize("planar", [False, True])
def test_one_strip_without_compression_is_read_in_parts(monkeypatch, planar):
    monkeypatch.setattr(module, "_TOGETHER", 1000)
    samples = noise(3)
    data = tiff(samples, rows=20, planar=planar)
    np.testing.assert_array_equal(read_image(data), shown(samples))


def test_memory_counts_the_strips():
    small, large = (
        module.open_tiff(io.BytesIO(tiff(noise(3), rows=rows, compression="lzw"))).cost
        for rows in (1, 20)
    )
    assert small == 13
    assert large == 30  # 6 for the samples, and 24 for the strip


@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize("planar", [False, True])
def test_12_bits_in_16(bands, planar):
    samples = noise(bands, 2**12)
    data = tiff(samples, planar=planar)
    message = "16-bit images without values above 4095 are read as 12-bit images"
    with pytest.warns(UserWarning, match=message):
        np.testing.assert_array_equal(read_image(data), shown(samples, 4))


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_bits_that_the_file_states(bands, bits):
    samples = noise(bands, 2**bits) // 8  # dark, so that the values would say otherwise
    for data in (
        tiff(samples, tags={281: [2**bits - 1]}),
        tiff(samples, bits=bits),  # not in 16 bits, but one after the other
        tiff(samples, bits=bits, order=">", planar=True, compression="lzw", tile=(16, 32)),
    ):
        np.testing.assert_array_equal(read_image(data), shown(samples, bits - 8))


@pytest.mark.parametrize("kind", [1, 2])
@pytest.mark.parametrize("planar", [False, True])
def test_opacity(kind, planar):
    """Halves of white: alpha multiplied in (1) or not (2)."""
    samples = np.full((4, 5, 4), 0x8000 if kind == 1 else 0xFFFF, np.uint16)
    samples[..., 1:3] = 0
    samples[..., 3] = 0x8000
    data = tiff(samples, planar=planar, tags={338: [kind]})
    np.testing.assert_allclose(read_image(data).astype(int), [[[255, 127, 127]] * 5] * 4, atol=1)


def test_opacity_of_the_full_range_beside_12_bits():
    samples = noise(4, 2**12)
    samples[..., 3] = 0xFFFF
    with pytest.warns(UserWarning, match="12-bit"):
        np.testing.assert_array_equal(read_image(tiff(samples)), shown(samples, 4))


def test_bands_beside_the_colors_are_ignored():
    samples = noise(5)
    for planar in (False, True):
        data = tiff(samples, planar=planar, tags={338: [0, 0]})
        np.testing.assert_array_equal(read_image(data), shown(samples))


def test_cmyk():
    samples = np.zeros((2, 3, 4), np.uint16)
    samples[..., 1:3] = 0xFFFF
    data = tiff(samples, planar=True, tags={262: [5]})
    assert read_image(data).tolist() == [[[255, 0, 0]] * 3] * 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation):
    """As Pillow turns the same image of 8 bits."""
    samples = noise(3)
    tags = {274: [orientation]}
    expected = read_image(tiff((samples >> 8).astype(np.uint8), tags=tags))
    data = tiff(samples, planar=True, tags=tags)
    np.testing.assert_array_equal(read_image(data), expected)
    assert image_size(data) == expected.shape[:2]


def test_white_is_zero():
    samples = noise(1)
    data = tiff(samples, tags={262: [0]})
    np.testing.assert_array_equal(read_image(data), 255 - shown(samples))
    labels = tiff((samples >> 8).astype(np.uint8), tags={262: [0]})
    for masks in (data, labels):
        with pytest.raises(ImageError, match=r"a TIFF in which 0 is white.*save class indices as"):
            read_mask(masks)


@pytest.mark.parametrize("bits", [2, 4, 8, 12, 16])
@pytest.mark.parametrize("compression", ["none", "deflate"])
def test_masks_are_the_numbers_in_the_file(bits, compression):
    labels = RNG.integers(0, min(2**bits, 256), (20, 30, 1)).astype(np.uint16)
    data = tiff(labels, bits=bits, compression=compression)
    np.testing.assert_array_equal(read_mask(data), labels[..., 0])


@pytest.mark.parametrize("planar", [False, True])
def test_masks_of_equal_bands_of_16_bits_are_refused(planar):
    data = tiff(np.repeat(noise(1), 3, axis=2), planar=planar)
    with pytest.raises(ImageError, match="has mode RGB, as a color-coded mask"):
        read_mask(data)


def test_masks_of_whole_numbers_in_floating_point():
    labels = np.array([[0, 1], [2, 255]], np.float32)

    def encoded(array):
        file = io.BytesIO()
        tifffile.imwrite(file, array)
        return file.getvalue()

    assert read_mask(encoded(labels)).tolist() == labels.tolist()
    for value in (0.5, np.nan, np.inf, 1e30):
        with pytest.raises(ImageError, match="holds"):
            read_mask(encoded(np.where(labels == 2, np.float32(value), labels)))


def pages(*options):
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for image, option in options:
            photometric = "rgb" if image.ndim == 3 else "minisblack"
            writer.write(image, photometric=photometric, **option)
    return file.getvalue()


IMAGE = RNG.integers(0, 256, (64, 48, 3), dtype=np.uint8)
SMALL = IMAGE[::2, ::2]
MASK = IMAGE[..., 0] > 100


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    "kinds",
    [
        [(IMAGE, {"subifds": 0}), (SMALL, {"subfiletype": 1})],
        [(IMAGE, {"tile": (32, 32)}), (SMALL, {"subfiletype": 1}), (SMALL, {"subfiletype": 1})],
        [(SMALL, {"subfiletype": 1}), (IMAGE, {})],  # a thumbnail first
        [(IMAGE, {}), (MASK, {"subfiletype": 4}), (MASK, {"subfiletype": 5})],
        [(IMAGE, {"subifds": 1}), (SMALL, {"subfiletype": 1})],
        [(IMAGE, {"subfiletype": 2})],
        [(IMAGE, {"subfiletype": 1})],
    ],
)
def test_reduced_copies_are_no_pages(kinds, deep):
    if deep:
        kinds = [(im.astype(np.uint16) * 257 if im.ndim == 3 else im, o) for im, o in kinds]
    np.testing.assert_array_equal(read_image(pages(*kinds)), IMAGE)
    assert image_size(pages(*kinds)) == IMAGE.shape[:2]


def test_several_pages_are_refused_unless_asked_for():
    data = pages((IMAGE, {}), (SMALL, {"subfiletype": 1}), (255 - IMAGE, {}))
    with pytest.raises(ImageError, match="several frames or pages, wanted one image"):
        read_image(data)
    np.testing.assert_array_equal(read_image(data, animated=True), IMAGE)


@pytest.mark.parametrize("big", [False, True])
def test_all_tags_can_be_read(big):
    """As of a GeoTIFF, where they say where the image is."""
    file = io.BytesIO()
    scale = (33550, "d", 3, (0.5, 0.25, 0.0))
    tifffile.imwrite(file, noise(3), photometric="rgb", bigtiff=big, extratags=[scale])
    with module.open_tiff(file) as im:
        assert isinstance(im, module.DeepImage)
        assert im.tag_v2[33550] == (0.5, 0.25, 0.0)


def test_raw_files_hold_previews_only():
    raw = tiff(np.zeros((4, 4, 1), np.uint8), tags={254: [1], 330: [8]})
    with pytest.raises(ImageError, match="previews only, as a raw file does; develop it"):
        read_image(raw)


LARGE = {256: [20_000], 257: [20_000], 278: [20_000]}
ONE_STRIP = {256: [10_000], 257: [10_000], 278: [10_000]}
FLOATS = IMAGE.astype(np.float32) / 255


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pages((FLOATS, {})), "holds floating-point values; scale them to 0 to 255"),
        (tiff(noise(5), tags={262: [1]}), "has 5 bands, wanted gray, RGB or RGBA; choose three"),
        (tiff(noise(5), planar=True, tags={262: [1]}), "has 5 bands"),
        (tiff(noise(3).astype(np.uint8), tags={262: [1]}), "has 3 bands, wanted gray"),
        (tiff(noise(2)[..., :1], tags={262: [2]}), "has 1 bands"),
        (tiff(noise(3), tags={339: [2] * 3}), r"of a kind that is not read \(3 x 16 bits"),
        (tiff(noise(3), tags={258: [16, 16, 8]}), "of a kind that is not read .*8-bit RGB"),
        (tiff(noise(3), tags={259: [34712]}), "of a kind that is not read .*compression 34712"),
        (tiff(noise(3), tags={262: [8]}), "of a kind that is not read .*photometric 8"),
        (tiff(noise(1), tile=(16, 16), tags={322: [2**20], 323: [2**20]}), "has tiles of .* bytes"),
        (tiff(noise(1), tags={273: [8]}), "is broken or cut short"),
        (tiff(noise(1), tags=LARGE), "is too large by its header"),
        (tiff(noise(1), tags=ONE_STRIP, compression="lzw"), "tiles of 200000000 bytes"),
        (tiff(noise(1), rows=20, tags={256: [2**31], 257: [2**31]}), "is too large by its header"),
        (b"II*\0" + struct.pack("<I", 0), "no page of the TIFF"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_said(data, message):
    with pytest.raises(ImageError, match=message):
        read_image(data)


def test_pages_in_a_circle_and_without_end():
    data = bytearray(tiff(noise(1)))
    (first,) = struct.unpack("<I", data[4:8])
    (count,) = struct.unpack("<H", data[first : first + 2])
    struct.pack_into("<I", data, first + 2 + 12 * count, first)
    assert read_image(bytes(data)).shape == (20, 36, 3)


def test_signed_bytes():
    """Pillow reads -1 as 255."""
    samples = np.arange(64, dtype=np.int8).reshape(8, 8)
    file = io.BytesIO()
    tifffile.imwrite(file, samples)
    np.testing.assert_array_equal(read_image(file.getvalue())[..., 1], samples)
    np.testing.assert_array_equal(read_mask(file.getvalue()), samples)
    file = io.BytesIO()
    tifffile.imwrite(file, samples - np.int8(1))
    with pytest.raises(ImageError, match="holds integers below 0; scale them to 0 to 255"):
        read_image(file.getvalue())
    with pytest.raises(ImageError, match="holds values from -1 to 62"):
        read_mask(file.getvalue())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_big_endian_bigtiff(dtype):
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((4, 4), dtype), bigtiff=True, byteorder=">")
    with pytest.raises(ImageError, match="is a big-endian BigTIFF, which is not read; save it as"):
        read_image(file.getvalue())
