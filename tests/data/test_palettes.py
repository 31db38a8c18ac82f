"""Masks whose palettes disagree, as programs write them that optimize PNG files."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.plain import LABELS, photo
from unpool.data import check_data, open_data, read_sample
from unpool.errors import DataError
from unpool.vision.images import Pixels, voc_palette, write_image, write_mask

VOC = voc_palette()
OWN = np.array([[0, 0, 0], [255, 200, 0], [0, 99, 255]], np.uint8)
TWO = np.where(LABELS == 2, 0, LABELS)  # without class 2


def reordered(path: Path, labels: Pixels, colors: Pixels, order: list[int]) -> None:
    """Write labels in a palette whose first rows are the colors of these classes."""
    table = np.zeros(256, np.uint8)
    table[order] = np.arange(len(order))
    image = Image.fromarray(table[labels])
    image.putpalette(colors[order].tobytes())
    image.save(path)


def data_set(root: Path, colors: Pixels, orders: list[list[int]], names: str = "") -> Path:
    """Ten images with the same labels; their palettes have the given orders in turn."""
    (root / "masks").mkdir()
    for i in range(10):
        write_image(root / f"images/{i}.png", photo(i))
        reordered(root / f"masks/{i}.png", LABELS, colors, orders[i % len(orders)])
    (root / "classes.txt").write_text("background\ncat\ndog\n")
    if names:
        (root / "labelmap.txt").write_text(names)
        (root / "classes.txt").unlink()
    return root


def labels_of(root: Path, split: str = "all", **options: bool) -> list[Pixels]:
    data = open_data(root, split, **options)
    return [read_sample(sample, len(data.classes))[1] for sample in data.samples]


def palettes(root: Path, **options: bool) -> list[str]:
    found = check_data(root, **options).findings
    assert all(one.level == "error" for one in found if one.kind in ("palettes", "colors"))
    return [f"{one.where}: {one.message}" for one in found if one.level == "error"]


LABELMAP = "background:0,0,0::\ncat:255,200,0::\ndog:0,99,255::\n"


@pytest.mark.parametrize(
    ("colors", "orders", "names"),
    [
        (VOC, [[0, 1, 2], [0, 2, 1]], ""),
        (VOC, [[0, 1, 2], [2, 1, 0]], ""),
        (OWN, [[0, 1, 2]] * 4 + [[0, 2, 1]], ""),
        (OWN, [[0, 1, 2], [1, 2, 0], [2, 0, 1]], LABELMAP),
    ],
)
def test_palettes_that_disagree(tmp_path, colors, orders, names):
    root = data_set(tmp_path, colors, orders, names)
    (message,) = palettes(root)
    first, other = message.split(": ")[0], str(root / "masks/0.png")
    assert first.startswith("masks/")
    assert other in message
    assert message.endswith("with by_color=True, or trust the indices with by_color=False")
    for split in ("train", "val", "all"):
        with pytest.raises(DataError, match=r"masks/\d\.png: has \(.*\) at index \d, .*masks/0"):
            open_data(root, split)
    assert palettes(root, by_color=True) == []
    for found in labels_of(root, by_color=True):
        np.testing.assert_array_equal(found, LABELS)
    for i, found in enumerate(labels_of(root, by_color=False)):
        order = orders[i % len(orders)]
        np.testing.assert_array_equal(np.array(order)[found], LABELS)
    assert check_data(root, by_color=True).notes[0].startswith("masks are read by color: those of ")


@pytest.mark.parametrize("orders", [[[0, 1, 2]], [[0, 1, 2, 3], [0, 1, 2, 5], [0, 1, 2]]])
@pytest.mark.parametrize("colors", [VOC, np.concatenate([OWN, VOC[7:14]])])
def test_palettes_that_agree_where_pixels_are(tmp_path, colors, orders):
    root = data_set(tmp_path, colors, orders)
    assert palettes(root) == []
    for found in labels_of(root):
        np.testing.assert_array_equal(found, LABELS)


def test_gray_masks_and_ramps_agree_with_all(tmp_path):
    root = data_set(tmp_path, OWN, [[0, 1, 2]])
    Image.fromarray(LABELS).save(root / "masks/3.png")
    write_mask(
        root / "masks/4.png", LABELS, np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(-1, 3)
    )
    assert palettes(root) == []
    np.testing.assert_array_equal(labels_of(root)[4], LABELS)


def test_one_color_of_two_classes_is_no_disagreement(tmp_path):
    root = data_set(tmp_path, OWN[[0, 1, 1]], [[0, 1, 2]])
    assert palettes(root) == []
    assert "none says which class" in palettes(root, by_color=True)[0]


def test_a_color_at_another_index_without_a_common_index(tmp_path):
    root = data_set(tmp_path, OWN, [[0, 1, 2]])
    image = Image.fromarray(np.where(TWO, 4, 3).astype(np.uint8))
    image.putpalette(np.concatenate([VOC[[9, 10, 11]], OWN[:2]]).tobytes())
    image.save(root / "masks/7.png")
    message = palettes(root)[0]
    assert message.startswith("masks/7.png: has (0, 0, 0) at index 3, which is at 0 in ")
    np.testing.assert_array_equal(labels_of(root, by_color=True)[7], TWO)


def test_a_mask_of_background_whose_black_stands_elsewhere(tmp_path):
    root = data_set(tmp_path, OWN, [[1, 0, 2]])
    write_mask(root / "masks/0.png", LABELS * 0, OWN)
    assert re.search(r"masks/1.png: has .* where .*masks/0.png has \(0, 0, 0\)", palettes(root)[0])


# known colors


def test_colors_of_voc_in_other_rows(tmp_path):
    """All masks agree, but aeroplanes stand where VOC has bicycles."""
    root = data_set(tmp_path, VOC, [[0, 2, 1]])
    (root / "images").rename(root / "JPEGImages")
    (root / "masks").rename(root / "SegmentationClass")
    (root / "classes.txt").unlink()
    message = palettes(root)[0]
    assert message.startswith("SegmentationClass/0.png: has (0, 128, 0) at index 1, which is the")
    assert "of bicycle (2) in PASCAL VOC" in message
    np.testing.assert_array_equal(labels_of(root, by_color=True)[0], LABELS)


def test_own_classes_in_colors_of_voc(tmp_path):
    root = data_set(tmp_path, VOC, [[0, 2, 1]])
    assert "of dog (2) in PASCAL VOC" in palettes(root)[0]
    np.testing.assert_array_equal(labels_of(root, by_color=True)[0], LABELS)
    assert palettes(root, by_color=False) == []


def test_a_color_of_voc_that_no_own_class_can_have(tmp_path):
    """Green is VOC's row 2, and there are two classes."""
    root = data_set(tmp_path, VOC, [[0, 2]])
    for i in range(10):
        reordered(root / f"masks/{i}.png", TWO * 2, VOC, [0, 2])
    (root / "classes.txt").write_text("background\nplant\n")
    assert palettes(root) == []
    np.testing.assert_array_equal(labels_of(root)[0], TWO)


def test_void_in_another_row(tmp_path):
    root = data_set(tmp_path, VOC, [[0, 1, 2]])
    labels = np.where(LABELS == 2, 255, LABELS)
    reordered(root / "masks/3.png", labels, VOC, [0, 1, 255])
    assert "(224, 224, 192) at index 2, where" in palettes(root)[0]
    np.testing.assert_array_equal(labels_of(root, by_color=True)[3], labels)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_masks_in_true_color(tmp_path, mode):
    root = data_set(tmp_path, VOC, [[0, 1, 2]])
    for i in range(10):
        Image.fromarray(VOC[LABELS]).convert(mode).save(root / f"masks/{i}.png")
    assert "all are VOC's: pass by_color=True" in palettes(root)[0]
    np.testing.assert_array_equal(labels_of(root, by_color=True)[0], LABELS)


def test_a_list_of_colors_needs_no_option(tmp_path):
    """Masks as CVAT exports them."""
    root = data_set(tmp_path, OWN, [[0, 1, 2]], "# label:color\n" + LABELMAP)
    for i in range(10):
        Image.fromarray(OWN[LABELS]).save(root / f"masks/{i}.png")
    assert palettes(root) == []
    np.testing.assert_array_equal(labels_of(root)[9], LABELS)
    assert open_data(root, "all").notes == ("masks are read by color: those of labelmap.txt",)


def test_masks_of_0_and_255_by_color(tmp_path):
    root = data_set(tmp_path, OWN, [[0, 1, 2]], "background:0,0,0::\ncat:255,255,255::\n")
    for i in range(10):
        Image.fromarray(np.where(TWO, 255, 0).astype(np.uint8)).save(root / f"masks/{i}.png")
    assert "contain only 0 (background) and 255" in palettes(root)[0]
    np.testing.assert_array_equal(labels_of(root, by_color=True)[0], TWO)


def test_gray_values_that_are_colors_of_classes(tmp_path):
    names = "background:0,0,0::\ncat:127,127,127::\ndog:254,254,254::\n"
    root = data_set(tmp_path, OWN, [[0, 1, 2]], names)
    for i in range(10):
        Image.fromarray(LABELS * 127).save(root / f"masks/{i}.png")
    assert "pass by_color=True, since they are gray colors of classes" in palettes(root)[0]
    np.testing.assert_array_equal(labels_of(root, by_color=True)[0], LABELS)


# what cannot be decided


def test_palettes_of_which_none_is_that_of_most(tmp_path):
    root = data_set(tmp_path, OWN, [[0, 1, 2], [0, 2, 1]])
    assert (
        "10 masks whose palettes disagree so much that none says"
        in palettes(root, by_color=True)[0]
    )
    with pytest.raises(DataError, match=r"none says which class a color is; write labelmap\.txt"):
        open_data(root, "all", by_color=True)


def test_most_masks_have_black_at_another_index_than_the_background(tmp_path):
    """Their palettes are sorted, by how often pixels use a color or by its value."""
    root = data_set(tmp_path, OWN, [[2, 1, 0]] * 4 + [[0, 1, 2]])
    assert "none says which class a color is; write label" in palettes(root, by_color=True)[0]
    other = OWN + np.uint8(9)  # no color is black, and 8 of 10 masks decide
    for i in range(10):
        order = [2, 1, 0] if i % 5 < 4 else [0, 1, 2]
        reordered(root / f"masks/{i}.png", LABELS, other, order)
    assert palettes(root, by_color=True) == []
    np.testing.assert_array_equal(labels_of(root, by_color=True)[4], np.array([2, 1, 0])[LABELS])


def test_most_masks_against_the_rows_of_voc(tmp_path):
    """Own classes: either may be meant."""
    root = data_set(tmp_path, VOC, [[0, 2, 1]] * 4 + [[0, 1, 2]])
    assert (
        "either may say which class a color is; write labelmap" in palettes(root, by_color=True)[0]
    )
    (root / "labelmap.txt").write_text("background:0,0,0::\ncat:0,128,0::\ndog:128,0,0::\n")
    np.testing.assert_array_equal(labels_of(root, by_color=True)[0], np.array([0, 2, 1])[LABELS])


def test_masks_without_colors(tmp_path):
    root = data_set(tmp_path, OWN, [[0, 1, 2]])
    for i in range(10):
        Image.fromarray(LABELS).save(root / f"masks/{i}.png")
    with pytest.raises(DataError, match="got by_color=True for masks without colors; leave it out"):
        open_data(root, "all", by_color=True)


def test_true_colors_of_no_known_class(tmp_path):
    root = data_set(tmp_path, OWN, [[0, 1, 2]])
    for i in range(10):
        Image.fromarray(OWN[LABELS]).save(root / f"masks/{i}.png")
    with pytest.raises(DataError, match=r"no known classes; write labelmap\.txt"):
        open_data(root, "all", by_color=True)


def test_a_broken_mask_is_reported_as_such(tmp_path):
    root = data_set(tmp_path, OWN, [[0, 1, 2]])
    (root / "masks/3.png").write_bytes(b"no image")
    assert [f.kind for f in check_data(root).findings if f.level == "error"] == ["unreadable"]


def test_a_report_with_notes_is_plain(tmp_path):
    root = data_set(tmp_path, VOC, [[0, 1, 2], [0, 2, 1]])
    plain = check_data(root, by_color=True).to_dict()
    assert json.loads(json.dumps(plain)) == plain
