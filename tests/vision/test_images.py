import contextlib
import hashlib
import io
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from unpool.errors import ImageError, ShapeError
from unpool.limits import MAX_PIXELS
from unpool.vision import opening, upright
from unpool.vision.images import (
    image_size,
    read_image,
    read_mask,
    voc_palette,
    write_image,
    write_mask,
)

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
PHOTO = np.kron(RNG.integers(0, 256, (8, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8)
NAMES = ["background", "aeroplane", "bicycle"]


def encode(im: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    (im if isinstance(im, Image.Image) else Image.fromarray(im)).save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, depth: int, color: int, data: bytes, *chunks: bytes) -> bytes:
    """A PNG written by hand: what Pillow does not write, or would not."""

    def chunk(body: bytes) -> bytes:
        return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))

    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    bodies = [header, *chunks, b"IDAT" + zlib.compress(data), b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(chunk, bodies))


def image(mode: str, *pixels: object, **info: object) -> Image.Image:
    im = Image.new(mode, (len(pixels), 1))
    if "palette" in info:
        im.putpalette(info["palette"])
    for x, value in enumerate(pixels):
        im.putpixel((x, 0), value)
    return im


def composed(rgb: tuple[int, ...], alpha: int) -> list[int]:
    return [round((value * alpha + 255 * (255 - alpha)) / 255) for value in rgb]


COLORS = [10, 20, 30, 200, 100, 50]  # a palette of two
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


def with_orientation(array: np.ndarray, orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    return encode(np.ascontiguousarray(array), kind, exif=exif, **options.get(kind, {}))


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


ENCODED = {
    "JPEG": encode(PHOTO, "JPEG"),
    "JPEG progressive": encode(PHOTO, "JPEG", progressive=True),
    "PNG": encode(PHOTO),
    "GIF": encode(PHOTO, "GIF"),
    "BMP": encode(PHOTO, "BMP"),
    "TIFF": encode(PHOTO, "TIFF"),
    "TIFF deflate": encode(PHOTO, "TIFF", compression="tiff_adobe_deflate"),
    "WEBP": encode(PHOTO, "WEBP"),
    "PPM": encode(PHOTO, "PPM"),
}


@pytest.mark.parametrize("kind", ENCODED)
def test_cut_short_is_refused_or_whole(kind):
    data = ENCODED[kind]
    whole = read_image(data)
    refused = 0
    for keep in np.linspace(1, len(data) - 1, 40).astype(int):
        try:
            image = read_image(data[:keep])
        except ImageError:
            refused += 1
        else:  # nothing but a trailer was cut
            np.testing.assert_array_equal(image, whole)
    assert refused >= 38


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_half_a_file_says_so(kind, tmp_path):
    path = tmp_path / "half.img"
    path.write_bytes(ENCODED[kind][: len(ENCODED[kind]) // 2])
    with pytest.raises(ImageError, match=r"half\.img: is broken or cut short .*copy or download"):
        read_image(path)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(ENCODED)), st.data())
def test_damaged_files_raise_nothing_but_image_errors(kind, data):
    broken = bytearray(ENCODED[kind])
    for _ in range(data.draw(st.integers(1, 8))):
        broken[data.draw(st.integers(0, min(len(broken) - 1, 400)))] = data.draw(
            st.integers(0, 255)
        )
    with contextlib.suppress(ImageError):
        read_image(bytes(broken), max_pixels=10**6)
    with contextlib.suppress(ImageError):
        image_size(bytes(broken))


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0"]), st.binary()
)
def test_noise_raises_nothing_but_image_errors(magic, noise):
    with pytest.raises(ImageError):
        read_image(magic + noise)


def test_files_that_are_not_images(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    (tmp_path / "draw.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    for name, message in {
        "missing.png": "does not exist; check the path",
        ".": "which is a folder; wanted a regular file: name one",
        "empty.png": r"is empty \(0 bytes\); copy or download it again",
        "page.jpg": "is not an image of a known format .*JPEG.*; convert it to PNG",
        "draw.eps": "is not an image of a known format",
    }.items():
        path = tmp_path / name
        for read in (read_image, read_mask, image_size):
            with pytest.raises(ImageError, match=message) as caught:
                read(path)
            assert str(path) in str(caught.value)


def test_no_permission(tmp_path, monkeypatch):
    (tmp_path / "locked.png").touch()

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(opening, "_stream", refuse)
    with pytest.raises(ImageError, match=r"locked\.png: may not be read; change its permissions"):
        read_image(tmp_path / "locked.png")


@pytest.mark.parametrize("side", [13_500, 20_000, 2**31 - 1])
def test_header_bombs_are_refused_before_decoding(side):
    bomb = png(side, side, 8, 2, b"\0")
    for read in (read_image, read_mask, image_size):
        with pytest.raises(ImageError, match=r"too large by its header .*scale it down"):
            read(bomb)


def test_between_pillows_warning_and_our_limit_no_warning_leaks():
    with pytest.raises(ImageError, match="cut short"):  # 169 million pixels, none of them there
        read_image(png(13_000, 13_000, 1, 0, b"\0"))
    assert image_size(png(13_000, 13_000, 1, 0, b"\0")) == (13_000, 13_000)


def test_max_pixels():
    data = encode(IMAGE)
    assert read_image(data, max_pixels=35).shape == (5, 7, 3)
    with pytest.raises(ImageError, match="7 x 5 pixels, at most 34 are read"):
        read_image(data, max_pixels=34)


FRAMES = [Image.fromarray(PHOTO), Image.fromarray(255 - PHOTO)]


@pytest.mark.parametrize(
    ("kind", "options"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})]
)
def test_animations_are_refused_unless_asked_for(kind, options):
    data = encode(FRAMES[0], kind, save_all=True, append_images=FRAMES[1:], **options)
    for read in (read_image, read_mask):
        with pytest.raises(ImageError, match="several frames or pages, wanted one image; extra"):
            read(data)
    first = read_image(data, animated=True)
    np.testing.assert_allclose(first.astype(int), PHOTO, atol=40 if kind == "GIF" else 0)


def test_a_phones_mpo_is_one_photo():
    data = encode(FRAMES[0], "MPO", save_all=True, append_images=FRAMES[1:], quality=95)
    assert abs(read_image(data).astype(int) - PHOTO).mean() < 16


def test_sources_agree(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(encode(IMAGE))
    sources = [path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes())]
    for source in sources:
        np.testing.assert_array_equal(read_image(source), IMAGE)
    with path.open("rb") as file:
        assert image_size(file) == (5, 7)
        assert not file.closed


def test_a_file_that_cannot_seek():
    class Pipe(io.RawIOBase):
        name = "<stdin>"

        def __init__(self, data):
            self.data = io.BytesIO(data)

        def readable(self):
            return True

        def readinto(self, buffer):
            return self.data.readinto(buffer)

    np.testing.assert_array_equal(read_image(io.BufferedReader(Pipe(encode(IMAGE)))), IMAGE)
    with pytest.raises(ImageError, match="<stdin>: is empty"):
        read_image(io.BufferedReader(Pipe(b"")))


def test_inputs_are_not_modified(tmp_path):
    for kind, data in ENCODED.items():
        (tmp_path / kind).write_bytes(data)
        (tmp_path / f"half {kind}").write_bytes(data[: len(data) // 2])

    def fingerprints():
        return {
            path: (hashlib.sha256(path.read_bytes()).digest(), path.stat().st_mtime_ns)
            for path in tmp_path.iterdir()
        }

    before = fingerprints()
    for path in before:
        for read in (read_image, read_mask, image_size):
            with contextlib.suppress(ImageError):
                read(path)
    assert fingerprints() == before


def test_threads_read_the_same():
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(read_image(ENCODED["PNG"])))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all((result == PHOTO).all() for result in results)


WARNED_OF = png(13_000, 13_000, 1, 0, b"\0")  # above half of Pillow's limit


def test_readers_that_overlap_ignore_warnings_to_the_end():
    """As those of two threads do; warnings are errors here."""
    before = list(warnings.filters)
    first, second = (opening.open_image(WARNED_OF, MAX_PIXELS) for _ in range(2))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    warnings.warn_explicit("odd", UserWarning, "file", 1, module="PIL.TiffImagePlugin")
    with pytest.raises(UserWarning, match="odd"):  # others are heard all the while
        warnings.warn_explicit("odd", UserWarning, "file", 1, module="PILOT")
    second.__exit__(None, None, None)
    assert warnings.filters == before
    with pytest.raises(UserWarning, match="odd"):
        warnings.warn_explicit("odd", UserWarning, "file", 1, module="PIL.TiffImagePlugin")


def test_filters_of_warnings_that_are_restored_meanwhile():
    before = list(warnings.filters)
    with warnings.catch_warnings():
        reading = opening.open_image(WARNED_OF, MAX_PIXELS)
        reading.__enter__()
    assert image_size(WARNED_OF) == (13_000, 13_000)
    reading.__exit__(None, None, None)
    assert warnings.filters == before


def test_threads_read_what_pillow_warns_of():
    sizes = []
    threads = [
        threading.Thread(target=lambda: sizes.extend(image_size(WARNED_OF) for _ in range(50)))
        for _ in range(4)
    ]
    before = list(warnings.filters)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == [(13_000, 13_000)] * 200
    assert warnings.filters == before


LABELS = np.array([[0, 1, 15], [20, 254, 255]])


@pytest.mark.parametrize(
    "data",
    [
        encode(LABELS.astype(np.uint8)),
        encode(LABELS.astype(np.uint16)),
        encode(LABELS.astype(np.int32), "TIFF"),
        b"P5 3 2 255\n" + LABELS.astype(np.uint8).tobytes(),
    ],
    ids=["L", "I;16", "I TIFF", "PGM"],
)
def test_masks_of_gray_values(data):
    labels = read_mask(data)
    assert labels.dtype == np.uint8
    assert labels.tolist() == LABELS.tolist()


def test_masks_of_a_palette_give_indices():
    im = Image.fromarray(LABELS.astype(np.uint8))
    im.putpalette(bytes(range(255, -1, -1)) * 3)
    assert read_mask(encode(im, transparency=0)).tolist() == LABELS.tolist()
    assert read_mask(png(4, 1, 2, 3, b"\0\x1b", b"PLTE" + bytes(12))).tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_gray_masks_saved_in_color(mode):
    gray = Image.fromarray(LABELS.astype(np.uint8))
    assert read_mask(encode(gray.convert(mode))).tolist() == LABELS.tolist()
    if mode != "RGB":
        clear = gray.convert(mode)
        clear.putalpha(Image.fromarray(np.where(LABELS, 255, 0).astype(np.uint8)))
        with pytest.raises(ImageError, match=f"has mode {mode}"):
            read_mask(encode(clear))


@pytest.mark.parametrize(("kind", "bands"), [(2, 3), (6, 4), (4, 2)])
def test_masks_in_16_bit_color_of_which_pillow_reads_the_high_byte(kind, bands):
    with pytest.raises(ImageError, match=r"has mode RGBA?, as a color-coded"):
        read_mask(png(1, 1, 16, kind, b"\0" + b"\0\2" * bands))


def test_masks_of_one_bit():
    assert read_mask(encode(image("1", 0, 255, 255))).tolist() == [[0, 1, 1]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encode(IMAGE), "has mode RGB, as a color-coded mask does, .*write_mask"),
        (encode(image("LA", (1, 255), (2, 0))), "has mode LA, as a color-coded mask does"),
        (encode(image("RGBA", (1, 2, 3, 255))), "has mode RGBA, as a color-coded mask does"),
        (encode(image("I;16", 3, 256)), "holds values from 3 to 256, as a color-coded .*index PNG"),
        (encode(image("I", -1, 2), "TIFF"), "holds values from -1 to 2"),
        (encode(image("L", 1, 2), "JPEG"), "is a JPEG, which alters class indices; save .* as PNG"),
        (with_orientation(IMAGE[..., 0], 6, "PNG"), "carries EXIF orientation 6, .*without EXIF"),
        (with_orientation(IMAGE[..., 0], 3, "TIFF"), "carries EXIF orientation 3"),
    ],
)
def test_masks_that_are_refused(data, message, tmp_path):
    path = tmp_path / "mask.file"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=rf"mask\.file: {message}"):
        read_mask(path)


def test_a_mask_with_exif_orientation_1_is_read():
    assert read_mask(with_orientation(IMAGE[..., 0], 1, "PNG")).shape == (5, 7)


def test_voc_palette():
    palette = voc_palette()
    assert palette.dtype == np.uint8
    assert palette[:21].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128],
        [0, 128, 128], [128, 128, 128], [64, 0, 0], [192, 0, 0], [64, 128, 0], [192, 128, 0],
        [64, 0, 128], [192, 0, 128], [64, 128, 128], [192, 128, 128], [0, 64, 0], [128, 64, 0],
        [0, 192, 0], [128, 192, 0], [0, 64, 128],
    ]  # fmt: skip
    assert palette[255].tolist() == [224, 224, 192]
    assert len(np.unique(palette, axis=0)) == 256


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.int16, np.int64]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.integers(0, 127),
    )
)
def test_masks_are_read_as_written(tmp_path_factory, labels):
    path = tmp_path_factory.getbasetemp() / "round-trip.png"
    write_mask(path, labels)
    np.testing.assert_array_equal(read_mask(path), labels)


def test_write_mask_is_an_8_bit_index_png_with_its_palette(tmp_path):
    path = tmp_path / "new" / "mask.png"
    write_mask(path, LABELS, np.array([[1, 2, 3], [4, 5, 6]], np.uint8))
    data = path.read_bytes()
    assert data[24:26] == bytes([8, 3])  # bit depth, color type
    with Image.open(path) as im:
        assert im.mode == "P"
        colors = np.reshape(im.getpalette(), (-1, 3))
    assert colors[:2].tolist() == [[1, 2, 3], [4, 5, 6]]
    np.testing.assert_array_equal(colors[2:], voc_palette()[2:])
    np.testing.assert_array_equal(read_image(path), colors[LABELS])


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.zeros((2, 2)), ShapeError, r"shape \(2, 2\) and type float64; wanted \(H, W\)"),
        (np.zeros((1, 2, 2), int), ShapeError, r"shape \(1, 2, 2\)"),
        (np.zeros((0, 2), int), ShapeError, "not empty"),
        (np.array([[0, 256]]), ImageError, "labels from 0 to 256; wanted class indices 0 to 255"),
        (np.array([[-1, 0]]), ImageError, "labels from -1 to 0"),
    ],
)
def test_labels_are_checked(tmp_path, labels, error, message):
    with pytest.raises(error, match=message):
        write_mask(tmp_path / "mask.png", labels)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "palette",
    [
        np.zeros((2, 4), np.uint8),
        np.zeros((2, 3)),
        np.zeros(3, np.uint8),
        np.zeros((257, 3), np.uint8),
    ],
)
def test_palettes_are_checked(tmp_path, palette):
    with pytest.raises(ShapeError, match=r"got a palette of shape .*wanted \(K, 3\) uint8"):
        write_mask(tmp_path / "mask.png", LABELS, palette)


def test_write_image(tmp_path):
    write_image(tmp_path / "a.png", IMAGE)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), IMAGE)
    write_image(tmp_path / "a.JPG", PHOTO)
    with Image.open(tmp_path / "a.JPG") as im:
        assert im.format == "JPEG"
        assert [layer[1:3] for layer in im.layer] == [(1, 1)] * 3  # 4:4:4
    np.testing.assert_allclose(read_image(tmp_path / "a.JPG").astype(int), PHOTO, atol=40)


@pytest.mark.parametrize(
    ("name", "image", "error", "message"),
    [
        ("a.gif", IMAGE, ImageError, r"a\.gif: cannot be written as '\.gif'; give a name .*\.png"),
        ("a", IMAGE, ImageError, "cannot be written as 'a file without suffix'"),
        ("a.jpg", np.zeros((1, 65501, 3), np.uint8), ImageError, "65500 a side: write .png"),
        ("a.png", IMAGE[..., 0], ShapeError, r"shape \(5, 7\) and type uint8; wanted \(H, W, 3\)"),
        ("a.png", IMAGE / 255, ShapeError, "type float64"),
        ("a.png", IMAGE[:0], ShapeError, "not empty"),
    ],
)
def test_images_are_checked_before_writing(tmp_path, name, image, error, message):
    with pytest.raises(error, match=message):
        write_image(tmp_path / name, image)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("write", "name", "array"), [(write_mask, "a.png", LABELS), (write_image, "a.jpg", IMAGE)]
)
def test_writing_that_fails_leaves_the_old_file(tmp_path, monkeypatch, write, name, array):
    path = tmp_path / name
    path.write_bytes(b"old")

    def fail(path, content):
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space left"):
        write(path, array)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_formats_are_those_of_pillow():
    Image.init()
    extensions = Image.registered_extensions()
    unknown = {".jif"}
    for kind, group in opening.FORMATS.items():
        assert {extensions[suffix] for suffix in group if suffix not in unknown} <= {kind, "MPO"}
