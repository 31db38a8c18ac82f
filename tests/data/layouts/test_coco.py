import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unpool.data import check_data, objects, open_data, read_instances, read_sample
from unpool.data.coco import read_annotations
from unpool.errors import DataError
from unpool.vision.images import write_image

coco = pytest.importorskip("pycocotools.mask")


def rectangle(x0: float, y0: float, x1: float, y1: float) -> list[list[float]]:
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def content(name: str = "a.jpg", **more: object) -> dict[str, Any]:
    """A file of one image of 6 x 8 with a large object in front of a small one, and a crowd."""
    found = [
        {"id": 10, "image_id": 4, "category_id": 7, "segmentation": rectangle(1, 1, 3, 3)},
        {"id": 11, "image_id": 4, "category_id": 2, "segmentation": rectangle(0, 0, 6, 4)},
        {
            "id": 12,
            "image_id": 4,
            "category_id": 7,
            "iscrowd": 1,
            "segmentation": {"counts": [40, 8], "size": [6, 8]},
        },
    ]
    return {
        "info": {"year": 2017},
        "images": [{"id": 4, "file_name": name, "height": 6, "width": 8, "license": 1}],
        "annotations": found,
        "categories": [{"id": 7, "name": "cup"}, {"id": 2, "name": "table", "supercategory": "x"}],
    } | more


def write(root: Path, split: str, values: object) -> Path:
    (root / "annotations").mkdir(exist_ok=True)
    path = root / f"annotations/instances_{split}.json"
    path.write_text(json.dumps(values))
    return path


def photo(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)


@pytest.fixture
def root(tmp_path) -> Path:
    for i, split in enumerate(["train2017", "val2017"]):
        write(tmp_path, split, content(f"{split[0]}.jpg"))
        write_image(tmp_path / split / f"{split[0]}.jpg", photo(i))
    return tmp_path


# files


def test_classes_are_the_categories_in_the_order_of_their_ids(root):
    data = open_data(root, "train")
    assert data.classes == ["background", "table", "cup"]
    (sample,) = data.samples
    assert (sample.name, sample.image) == ("train2017/t", root / "train2017/t.jpg")
    image, labels = read_sample(sample, 3)
    assert image.shape == (6, 8, 3)
    expected = np.zeros((6, 8), int)
    expected[4:, 6] = expected[:, 7] = 255
    expected[:, 6] = np.where(np.arange(6) < 4, 0, 255)
    expected[:4, :6] = 1
    expected[1:3, 1:3] = 2
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(
        read_instances(sample, 3), np.select([labels == 1, labels == 2], [2, 1], expected)
    )
    assert objects(sample, 3) == [(2, (1, 1, 3, 3), 1, 4), (1, (0, 0, 6, 4), 2, 20)]


@pytest.mark.parametrize(
    ("home", "name"),
    [
        ("train2017", "train2017/t"),
        ("train", "train/t"),
        ("images", "t"),
        ("images/train2017", "train2017/t"),
        ("images/train", "train/t"),
        ("photos", "photos/t"),
    ],
)
def test_folders_of_images(tmp_path, home, name):
    image = "photos/t.jpg" if home == "photos" else "t.jpg"
    write(tmp_path, "train2017", content(image))
    write_image(tmp_path / home / "t.jpg", photo(0))
    for split in ("train", "train2017", "all"):
        (sample,) = open_data(tmp_path, split).samples
        assert sample.name == name
        assert read_sample(sample, 3)[0].shape == (6, 8, 3)


def test_only_the_file_of_the_split_is_read_and_once(root, monkeypatch):
    seen = []

    def read(path: Path, crowd: object) -> object:
        seen.append(path.name)
        return read_annotations(path, crowd)

    monkeypatch.setattr("unpool.data.layouts.coco.read_annotations", read)
    open_data(root, "train")
    assert seen == ["instances_train2017.json"]
    assert [s.name for s in open_data(root, "all").samples] == ["train2017/t", "val2017/v"]
    assert len(seen) == 3


def test_unknown_splits(root):
    with pytest.raises(DataError, match=r"got split 'test' of .*; there are train, val, all: pass"):
        open_data(root, "test")


def test_a_missing_image(root):
    (root / "val2017/v.jpg").unlink()
    with pytest.raises(DataError, match=r"found no file for 'val2017/v' in .*; wanted that name"):
        open_data(root, "val")
    finding = check_data(root).findings[0]
    assert finding[:3] == ("error", "missing-image", "val2017/v")


def test_an_image_of_another_size(root):
    write_image(root / "val2017/v.jpg", photo(0)[1:])
    (sample,) = open_data(root, "val").samples
    message = r"v.jpg is 8 x 5 \(upright\) but its mask .*val2017.json \(v.jpg\) is 8 x 6"
    with pytest.raises(DataError, match=message):
        read_sample(sample, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "without 'categories'; wanted a list 'categories' of objects with id, name: export"),
        (content(images={}), "without 'images'; wanted a list 'images' of objects with id, file_"),
        (content(images=[{"id": 1}]), r"whose images\[0\] is incomplete; wanted a list"),
        (content(images=[7]), r"whose images\[0\] is incomplete"),
        (
            content(images=[*content()["images"], {**content()["images"][0], "width": 9}]),
            "with a.jpg or its id twice, differently; list each",
        ),
        (
            content(images=[*content()["images"], {**content()["images"][0], "file_name": "b"}]),
            "with b or its id twice, differently; list each",
        ),
        (
            content(images=[{"id": 4, "file_name": "a.jpg", "height": 0, "width": 8}]),
            "with a.jpg of 8 x 0; write its size",
        ),
        (
            content(images=[{"id": 4, "file_name": "a.jpg", "height": 10**6, "width": 10**6}]),
            "with a.jpg of 1000000 x 1000000",
        ),
        (content(annotations=None), "without 'annotations'; wanted"),
        (
            content(annotations=[{"id": 1}]),
            r"whose annotations\[0\] is incomplete; wanted .*image_id",
        ),
        (content(categories=[]), "with 0 categories; wanted 1 to 254"),
        (content(categories=[{"id": i, "name": f"{i}"} for i in range(255)]), "with 255 categ"),
        (content(categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]), "'a' twice; give"),
        (content(categories=[{"id": 0, "name": "background"}]), "with 0 categories; wanted 1 to"),
        (content(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]), "of one id; give"),
        (content(categories=[{"id": 1, "name": "a"}, {"id": "two", "name": "b"}]), "numbers and t"),
    ],
)
def test_files_of_another_form(root, values, message):
    write(root, "val2017", values)
    with pytest.raises(DataError, match=f"instances_val2017.json.*{message}"):
        open_data(root, "val")


@pytest.mark.parametrize("text", [b"", b'{"images": [', b"\xff\xfe\xfa", b"[" * 100_000])
def test_files_that_are_not_json(root, text):
    (root / "annotations/instances_val2017.json").write_bytes(text)
    with pytest.raises(DataError, match=r"val2017.json, which is not JSON \(.*\); export"):
        open_data(root, "val")


def test_files_of_different_categories(root):
    write(root, "val2017", content("v.jpg", categories=[{"id": 2, "name": "cup"}]))
    assert open_data(root, "val").classes == ["background", "cup"]
    with pytest.raises(DataError, match=r"val2017.json with other categories than .*train2017"):
        check_data(root)


# a check


def test_a_check_counts_objects_and_reports_bad_annotations(root):
    values = content("v.jpg")
    values["annotations"][0]["category_id"] = 99
    write(root, "val2017", values)
    values = content("t.jpg")
    values["annotations"] += [
        {"id": 13, "image_id": 4, "category_id": 7, "segmentation": rectangle(1, 1, 1, 3)},
        {"id": 14, "image_id": 5, "category_id": 7, "segmentation": rectangle(1, 1, 1, 3)},
    ]
    write(root, "train2017", values)
    report = check_data(root)
    findings = [f for f in report.findings if f.kind not in ("rare-class", "crowds")]
    assert [f[:3] for f in findings] == [
        ("error", "annotation", "annotations/instances_val2017.json (v.jpg)"),
        ("warning", "empty-object", "annotations/instances_train2017.json (t.jpg)"),
        ("warning", "orphan-annotations", "annotations/instances_train2017.json"),
    ]
    assert [f.message for f in findings] == [
        "annotation 10 has the unknown category 99; give it a category_id of the file's categories",
        "has the annotations 13, which cover no pixel; redraw or remove them",
        "has 1 annotations of unknown images, which are ignored; check the ids",
    ]
    assert [count.objects["train"] for count in report.classes] == [0, 1, 1]


def test_a_size_that_is_not_the_image_s_allocates_nothing(root):
    values = content("v.jpg")
    values["images"][0] |= {"height": 13_000, "width": 13_000}
    write(root, "val2017", values)
    tracemalloc.start()
    (finding,) = [f for f in check_data(root, ["val"]).findings if f.kind == "annotation"]
    data = open_data(root, "val")
    with pytest.raises(DataError, match=r"is 13000 x 13000, but its image is 8 x 6; correct the"):
        read_sample(data.samples[0], 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert finding.message == "is 13000 x 13000, but its image is 8 x 6; correct the size"
    assert peak < 10e6
