import contextlib
import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from tests.vision.encoded import ENCODED, IMAGE, PHOTO, encode, image, png, with_orientation
from unpool.errors import ImageError, ShapeError
from unpool.vision import opening
from unpool.vision.images import (
    image_size,
    read_image,
    read_mask,
    voc_palette,
    write_image,
    write_mask,
)

NAMES = ["background", "aeroplane", "bicycle"]


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
