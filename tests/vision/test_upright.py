import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.vision.encoded import PHOTO, encode, image, png, with_orientation
from unpool.errors import ImageError
from unpool.vision import upright
from unpool.vision.images import image_size, read_image, read_mask
from unpool.vision.inputs import as_image

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, (9, 13)).astype(np.uint8)


def gray_png(values, bits):
    """A gray PNG of 1, 2 or 4 bits, which Pillow does not write."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    height, width = values.shape
    planes = (values[..., None] >> np.arange(bits)[::-1] & 1).reshape(height, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in planes.astype(np.uint8))
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("bits", [2, 4])
def test_gray_of_few_bits_is_scaled_in_images_and_not_in_masks(bits):
    data = gray_png(LABELS, bits)
    np.testing.assert_array_equal(read_mask(data), LABELS)
    np.testing.assert_array_equal(read_image(data)[..., 1], LABELS * (255 // (2**bits - 1)))


def deep_png(words):
    """A PNG of 16 bits, RGB or RGBA, written by OpenCV."""
    order = [2, 1, 0, 3][: words.shape[2]]
    return cv2.imencode(".png", words[..., order])[1].tobytes()


@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_a_png_with_fewer_bits_in_16(bands, bits):
    words = RNG.integers(0, 2**bits, (9, 13, bands)).astype(np.uint16)
    words[0, 0] = 2**bits - 1
    if bands == 4:
        words[..., 3] = 2**16 - 1
    data = cv2.imencode(".png", words)[1].tobytes() if bands == 1 else deep_png(words)
    expected = np.broadcast_to(words[..., :3] >> bits - 8, (9, 13, 3))
    for read in (read_image, lambda data: as_image(io.BytesIO(data))):
        with pytest.warns(UserWarning, match=f"are read as {bits}-bit"):
            np.testing.assert_array_equal(read(data), expected)


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("most", [1, 3, 20, 100, 254, 255, 1000, 4095, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_a_netpbm_is_scaled_by_its_largest_value(bands, most, plain):
    values = RNG.integers(0, most + 1, (9, 13, bands)).astype(">u2" if most > 255 else "u1")
    values[0, 0] = most
    kind = {(1, False): 5, (3, False): 6, (1, True): 2, (3, True): 3}[bands, plain]
    head = f"P{kind} 13 9 {most}\n".encode()
    data = head + (" ".join(map(str, values.ravel())).encode() if plain else values.tobytes())
    expected = np.broadcast_to(np.rint(values * (255 / most)), (9, 13, 3))
    np.testing.assert_allclose(read_image(data).astype(int), expected, atol=1)
    if bands == 1 and most < 256:
        np.testing.assert_array_equal(read_mask(data), values[..., 0])


def test_a_netpbm_cut_short():
    for head in (b"P5 9 9 100\n", b"P6 9 9 4095\n"):
        with pytest.raises(ImageError, match="is broken or cut short"):
            read_image(head + bytes(50))


@pytest.mark.parametrize("rows", [1, 5, 1000])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "L", "1", "I;16", "CMYK"])
def test_pixels_are_converted_some_rows_at_a_time(monkeypatch, mode, rows):
    colors = Image.fromarray(RNG.integers(0, 256, (17, 11, 4), dtype=np.uint8))
    if mode == "I;16":
        im = Image.fromarray(RNG.integers(0, 2**16, (17, 11)).astype(np.uint16))
    else:
        im = colors if mode == "RGBA" else colors.convert("RGB").convert(mode)
    expected = np.asarray(upright.to_rgb(im))
    monkeypatch.setattr(upright, "_TOGETHER", rows * 11)
    np.testing.assert_array_equal(upright.upright(im), expected)


def test_a_jpeg_of_many_scans_takes_too_long(monkeypatch):
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    many = data[:-2] + data[last:-2] * 90 + data[-2:]
    assert read_image(many).shape == (64, 64, 3)
    monkeypatch.setattr(upright, "MAX_JPEG_WORK", 64 * 64 * 99)
    assert read_image(data).shape == (64, 64, 3)
    with pytest.raises(ImageError, match="is a JPEG of 100 scans, which take too long"):
        read_image(many)


COLORS = [10, 20, 30, 200, 100, 50]  # a palette of two


# where the upright pixel [y, x] of an (H, W) image is stored, from the EXIF standard:
# which side of the image the stored row 0 and column 0 are
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[:, ::1].swapaxes(0, 1)[::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[:, ::-1],
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_is_applied(kind, orientation):
    data = with_orientation(STORED[orientation](PHOTO), orientation, kind)
    tolerance = 12 if kind == "JPEG" else 0
    np.testing.assert_allclose(read_image(data).astype(int), PHOTO, atol=tolerance)
    assert image_size(data) == PHOTO.shape[:2]


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\xff\xff"])
def test_broken_exif_does_not_refuse_a_good_image(exif):
    data = encode(PHOTO, "JPEG", exif=exif)
    assert read_image(data).shape == PHOTO.shape
    assert image_size(data) == PHOTO.shape[:2]


def test_orientation_out_of_range_is_none():
    assert (read_image(with_orientation(PHOTO, 9, "PNG")) == PHOTO).all()


def composed(rgb: tuple[int, ...], alpha: int) -> list[int]:
    return [round((value * alpha + 255 * (255 - alpha)) / 255) for value in rgb]


RED, WHITE = [255, 0, 0], [255, 255, 255]


# what is in the file, and the colors a viewer shows
MODES = {
    "1": (encode(image("1", 0, 255)), [[0] * 3, WHITE]),
    "1 transparent": (encode(image("1", 0, 255), transparency=0), [WHITE, WHITE]),
    "L": (encode(image("L", 0, 100)), [[0] * 3, [100] * 3]),
    "L transparent": (encode(image("L", 0, 100), transparency=0), [WHITE, [100] * 3]),
    "LA": (encode(image("LA", (100, 255), (100, 51))), [[100] * 3, composed((100,) * 3, 51)]),
    "P": (encode(image("P", 0, 1, palette=COLORS)), [COLORS[:3], COLORS[3:]]),
    "P transparent index": (
        encode(image("P", 0, 1, palette=COLORS), transparency=1),
        [COLORS[:3], WHITE],
    ),
    "P alpha bytes": (
        encode(image("P", 0, 1, palette=COLORS), transparency=bytes([255, 128])),
        [COLORS[:3], composed(COLORS[3:], 128)],
    ),
    "P GIF transparent": (
        encode(image("P", 0, 1, palette=COLORS), "GIF", transparency=0),
        [WHITE, COLORS[3:]],
    ),
    "RGB": (encode(image("RGB", (1, 2, 3), (255, 0, 0))), [[1, 2, 3], RED]),
    "RGB transparent": (
        encode(image("RGB", (1, 2, 3), (255, 0, 0)), transparency=(1, 2, 3)),
        [WHITE, RED],
    ),
    "RGBA hidden color": (
        encode(image("RGBA", (9, 8, 7, 0), (255, 0, 0, 128))),
        [WHITE, composed(RED, 128)],
    ),
    "RGBA WebP": (
        encode(image("RGBA", (9, 8, 7, 0), (255, 0, 0, 255)), "WEBP", lossless=True),
        [WHITE, RED],
    ),
    "CMYK TIFF": (encode(image("CMYK", (0, 255, 255, 0), (0,) * 4), "TIFF"), [RED, WHITE]),
    "YCbCr TIFF": (
        encode(image("YCbCr", (76, 85, 255), (255, 128, 128)), "TIFF"),
        [[254, 0, 0], WHITE],
    ),
    "LAB TIFF": (encode(image("LAB", (255, 128, 128), (0, 128, 128)), "TIFF"), [WHITE, [0] * 3]),
    "16-bit gray PNG": (
        png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 0x12FF, 0xFF00)),
        [[0x12] * 3, WHITE],
    ),
    "16-bit gray PNG transparent": (
        png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 0x12FF, 0x12FE), b"tRNS" + b"\x12\xff"),
        [WHITE, [0x12] * 3],
    ),
    "16-bit RGB PNG": (
        png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 0x01FF, 0x0200, 0x03FF, 0xFFFF, 0, 0xFF)),
        [[1, 2, 3], RED],
    ),
    "16-bit RGBA PNG": (
        png(2, 1, 16, 6, b"\0" + struct.pack(">8H", 0xFFFF, 0, 0, 0xFFFF, 9, 9, 9, 0)),
        [RED, WHITE],
    ),
    "2-bit gray PNG": (png(4, 1, 2, 0, b"\0\x1b"), [[0] * 3, [85] * 3, [170] * 3, WHITE]),
    "I;16 TIFF": (encode(image("I;16", 0x12FF, 0xFF00), "TIFF"), [[0x12] * 3, WHITE]),
    "I TIFF": (encode(image("I", 0x12FF, 0xFF00), "TIFF"), [[0x12] * 3, WHITE]),
    "16-bit PGM": (b"P5 2 1 65535\n" + struct.pack(">2H", 0x12FF, 0xFF00), [[0x12] * 3, WHITE]),
    "PBM": (b"P1 2 1\n1 0\n", [[0] * 3, WHITE]),
    "BMP": (encode(image("RGB", (1, 2, 3), (255, 0, 0)), "BMP"), [[1, 2, 3], RED]),
}


@pytest.mark.parametrize("case", MODES)
def test_every_mode_is_shown_as_a_viewer_shows_it(case):
    data, colors = MODES[case]
    image = read_image(data)
    assert image.dtype == np.uint8
    assert image.shape == (1, len(colors), 3)
    assert image.flags.writeable
    rounded = case in ("YCbCr TIFF", "LAB TIFF")
    np.testing.assert_allclose(image[0].astype(int), colors, atol=1 if rounded else 0)


def test_modes_that_are_read_but_not_written_by_pillow():
    im = image("PA", (1, 255), (1, 0), palette=COLORS)
    assert np.array(upright.to_rgb(im))[0].tolist() == [COLORS[3:], WHITE]
    im = image("La", (20, 51), (0, 0))  # gray times alpha
    assert np.array(upright.to_rgb(im))[0].tolist() == [composed((100,) * 3, 51), WHITE]


def test_adobe_cmyk_jpeg():
    data = encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
    assert b"Adobe" in data
    np.testing.assert_allclose(read_image(data)[4, 4].astype(int), RED, atol=3)


@pytest.mark.parametrize(
    ("im", "message"),
    [
        (image("F", 0.0, 1.0), "floating-point values; scale"),
        (image("I", 0, 70000), "integers from 0 to 70000, wanted 8 or 16 bits; scale"),
        (image("I", -1, 5), "integers from -1 to 5"),
    ],
)
def test_values_without_a_known_white_are_refused(im, message):
    with pytest.raises(ImageError, match=message):
        read_image(encode(im, "TIFF"))
