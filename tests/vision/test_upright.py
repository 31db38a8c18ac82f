import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from unpool.errors import ImageError
from unpool.vision import upright
from unpool.vision.images import read_image, read_mask
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


def png(words):
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
    data = cv2.imencode(".png", words)[1].tobytes() if bands == 1 else png(words)
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
