from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.plain import LABELS, ids, photo
from unpool.data import check_data, open_data, read_sample
from unpool.data.layouts import find_files
from unpool.errors import DataError
from unpool.vision.images import write_image


def data_set(root: Path, pairs: dict[str, str], layout: str = "images masks") -> Path:
    images, masks = layout.split()
    for i, (image, mask) in enumerate(pairs.items()):
        write_image(root / images / image, photo(i))
        (root / masks / mask).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(LABELS, i, 1)).save(root / masks / mask)
    (root / "classes.txt").write_text("background\ncat\ndog\n")
    return root


@pytest.mark.parametrize("layout", ["images masks", "JPEGImages SegmentationClass"])
@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("{}.jpg", "{}_mask.png"),
        ("{}.jpg", "{}_L.png"),
        ("{}.jpg", "{}_mask.gif"),
        ("{}.jpg", "{}.jpg.png"),
        ("{}.png", "{}.png_mask.png"),
        ("{}.jpg", "{}-seg.png"),
        ("{}.jpg", "{}.gt.tif"),
        ("{}.jpg", "mask_{}.png"),
        ("{}.JPG", "{}_MASK.PNG"),
        ("img_{}.jpg", "mask_{}.png"),
        ("{}_sat.jpg", "{}_mask.png"),
        ("{}_leftImg8bit.png", "{}_gtFine_labelIds.png"),
        ("train/{}.jpg", "train/{}_labels.png"),
        ("A{}.jpg", "a{}.png"),
    ],
)
def test_usual_additions_to_names(tmp_path, image, mask, layout):
    names = ["7", "17", "007", "b_7", "b"]
    pairs = {image.format(name): mask.format(name) for name in names}
    root = data_set(tmp_path, pairs, layout)
    for i, found in enumerate(pairs):
        (sample,) = (
            s for s in open_data(root, "all").samples if s.image == root / layout.split()[0] / found
        )
        np.testing.assert_array_equal(read_sample(sample, 3)[1], np.roll(LABELS, i, 1))
    assert not [f for f in check_data(root, ["all"]).findings if f.level == "error"]


def test_a_mask_of_the_very_name_comes_first(tmp_path):
    root = data_set(tmp_path, {"a.jpg": "a.png", "b.jpg": "a_mask.png"})
    files = find_files(root).masks.files
    assert [path.name for path in files["a"]] == ["a.png"]
    assert "b" not in files
    assert [f.kind for f in check_data(root, ["all"]).findings][-1] == "extra-mask"


def test_two_masks_for_an_image_are_ambiguous(tmp_path):
    root = data_set(tmp_path, {"a.jpg": "a_mask.png", "b.jpg": "a_label.png"})
    with pytest.raises(DataError, match=r"found 2 files for 'a' .*a_label.png, a_mask.png.*keep"):
        open_data(root, "all")


def test_a_mask_for_two_images_is_neither_ones(tmp_path):
    root = data_set(tmp_path, {"a.jpg": "a_mask.png", "a_img.jpg": "c.png"})
    with pytest.raises(DataError, match="found no file for 'a' in"):
        open_data(root, "all")


@pytest.mark.parametrize("suffix", ["jpg", "npy"])
def test_masks_that_are_not_read_are_named(tmp_path, suffix):
    root = data_set(tmp_path, {"a.jpg": "b.png"})
    (root / f"masks/a.{suffix}").touch()
    with pytest.raises(DataError, match=rf"'a' in .*masks \(a\.{suffix} is there, but .*: save"):
        open_data(root, "all")


def test_files_of_the_system_are_ignored(tmp_path):
    root = data_set(tmp_path, {"a.jpg": "a.png"})
    for name in ("masks/Thumbs.db", "images/.DS_Store", "images/._a.jpg", "masks/._a.png"):
        (root / name).write_text("x")
    assert ids(root, "all") == ["a"]
    assert not [f for f in check_data(root, ["all"]).findings if f.level == "error"]


@pytest.mark.parametrize(
    "line",
    [
        "images/{}.jpg masks/{}.png",
        "/SegNet/CamVid/images/{}.jpg",
        "/JPEGImages/{}.jpg /SegmentationClassAug/{}.png",
        "C:\\data\\images\\{}.jpg",
        "images/{}.jpg,masks/{}.png",
        "{}.jpg\t{}.png",
        "./images/{}",
    ],
)
def test_lists_with_columns_and_paths(tmp_path, line):
    root = data_set(tmp_path, {f"{i}.jpg": f"{i}.png" for i in range(3)})
    (root / "train.txt").write_text("\n".join(line.format(i, i) for i in (2, 0)))
    assert ids(root, "train") == ["2", "0"]
