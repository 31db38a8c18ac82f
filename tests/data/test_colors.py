import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.data.plain import LABELS
from unpool.data.colors import Coloring, as_numbers, read_colored, read_object_numbers, scan_colors
from unpool.errors import ImageError
from unpool.vision.images import voc_palette, write_mask

PALETTE = np.array([[0, 0, 0], [200, 10, 30], [10, 200, 30]], np.uint8)
IDS = {0: 0, 0xC80A1E: 1, 0x0AC81E: 2}
OURS = Coloring(IDS, "ours")


def test_numbers_of_colors():
    assert as_numbers(PALETTE).tolist() == list(IDS)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "gif"])
def test_an_index_image_in_another_order(tmp_path, suffix):
    path, order = tmp_path / f"a.{suffix}", np.array([2, 0, 1])  # the new index of each class
    image = Image.fromarray(order[LABELS].astype(np.uint8))
    image.putpalette(PALETTE[np.argsort(order)].tobytes())
    image.save(path)
    np.testing.assert_array_equal(read_colored(path, OURS), LABELS)
    np.testing.assert_array_equal(
        read_colored(path, OURS._replace(everywhere=False)), order[LABELS]
    )


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("everywhere", [True, False])
def test_true_colors(tmp_path, mode, everywhere):
    Image.fromarray(PALETTE[LABELS]).convert(mode).save(tmp_path / "a.png")
    found = read_colored(tmp_path / "a.png", OURS._replace(everywhere=everywhere))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, LABELS)


def test_a_large_mask_in_strips(tmp_path):
    labels = np.random.default_rng(0).integers(0, 3, (1300, 1700))
    Image.fromarray(PALETTE[labels]).save(tmp_path / "a.png", compress_level=1)
    np.testing.assert_array_equal(read_colored(tmp_path / "a.png", OURS), labels)


def test_transparent_pixels_are_black(tmp_path):
    colors = np.dstack([PALETTE[LABELS], np.where(LABELS, 255, 0)]).astype(np.uint8)
    colors[LABELS == 0, :3] = 77  # whatever an editor left there
    Image.fromarray(colors).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_colored(tmp_path / "a.png", OURS), LABELS)
    colors[0, 0, 3] = 128
    Image.fromarray(colors).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png: has half-transparent pixels"):
        read_colored(tmp_path / "a.png", OURS)


@pytest.mark.parametrize("form", ["P", "RGB"])
def test_a_color_of_no_class(tmp_path, form):
    palette = PALETTE.copy()
    palette[2] = 1, 2, 3
    write_mask(tmp_path / "a.png", LABELS, palette)
    Image.open(tmp_path / "a.png").convert(form).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"has the color \(1, 2, 3\), wanted .* in ours; correct"):
        read_colored(tmp_path / "a.png", OURS)


def test_gray_masks_have_colors_only_if_all_are_of_classes(tmp_path):
    Image.fromarray(LABELS).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_colored(tmp_path / "a.png", OURS), LABELS)
    Image.fromarray(np.where(LABELS == 1, 255, 0).astype(np.uint8)).save(tmp_path / "b.png")
    white = Coloring({0: 0, 0xFFFFFF: 1}, "ours")
    np.testing.assert_array_equal(read_colored(tmp_path / "b.png", white), LABELS == 1)
    np.testing.assert_array_equal(
        read_colored(tmp_path / "b.png", OURS), np.where(LABELS == 1, 255, 0)
    )


def test_a_photo_is_no_mask(tmp_path):
    colors = np.arange(300 * 300)[:, None] >> np.array([16, 8, 0]) & 255
    Image.fromarray(colors.reshape(300, 300, 3).astype(np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="has 90000 colors, as a photo has"):
        read_colored(tmp_path / "a.png", OURS)


def test_what_a_mask_uses(tmp_path):
    write_mask(tmp_path / "a.png", LABELS * 2, voc_palette())
    found = scan_colors(tmp_path / "a.png")
    assert found is not None
    assert (found.used, found.indexed) == ([0, 2, 4], True)
    assert found.colors[[0, 2, 4]].tolist() == [0, 0x008000, 0x000080]


@pytest.mark.parametrize("form", ["gray", "ramp", "broken"])
def test_masks_without_colors(tmp_path, form):
    path = tmp_path / "a.png"
    Image.fromarray(LABELS).save(path)
    if form == "ramp":
        write_mask(path, LABELS, np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1))
    if form == "broken":
        path.write_bytes(b"nothing")
    assert scan_colors(path) is None


def test_objects_by_color(tmp_path):
    instances = np.where(LABELS == 0, 255, LABELS)
    Image.fromarray(voc_palette()[instances]).save(tmp_path / "a.png")
    found = read_object_numbers(tmp_path / "a.png")
    assert np.unique(found[LABELS == 0]).tolist() == [255]
    pairs = {(int(a), int(b)) for a, b in zip(found.ravel(), LABELS.ravel(), strict=True)}
    assert len(pairs) == len(np.unique(found)) == 3
    write_mask(tmp_path / "b.png", instances)
    np.testing.assert_array_equal(read_object_numbers(tmp_path / "b.png"), instances)


def test_a_palette_that_ends_before_void(tmp_path):
    labels = np.where(LABELS == 2, 255, LABELS).astype(np.uint8)
    write_mask(tmp_path / "a.png", labels, PALETTE)
    content = (tmp_path / "a.png").read_bytes()
    start = content.index(b"PLTE")
    short = b"PLTE" + PALETTE.tobytes()
    chunk = struct.pack(">I", len(short) - 4) + short + struct.pack(">I", zlib.crc32(short))
    path = tmp_path / "short.png"
    path.write_bytes(content[: start - 4] + chunk + content[start + 8 + 768 :])
    found = read_colored(path, Coloring({**IDS, 0xE0E0C0: 255}, "ours"))
    np.testing.assert_array_equal(found, labels)
    assert scan_colors(path).used == [0, 1]
    write_mask(tmp_path / "a.png", LABELS * 5, PALETTE)
    content = (tmp_path / "a.png").read_bytes()
    path.write_bytes(content[: start - 4] + chunk + content[start + 8 + 768 :])
    with pytest.raises(ImageError, match="has an index without color and 1 more, wanted the"):
        read_colored(path, OURS)
