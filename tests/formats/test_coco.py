"""COCO files read by pycocotools and by our own reader give the label map again."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from tests.formats.scenes import CLASSES, SCENES, known
from unpool.data.coco import read_annotations
from unpool.data.datasets import open_data, read_labels
from unpool.data.outlines import rasterize
from unpool.formats.coco import merged, to_coco
from unpool.formats.objects import find_objects

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def written(path, scenes=SCENES):
    parts = [
        to_coco(find_objects(labels, CLASSES, np.ones((4, 1, 1))), f"{name}.jpg")
        for name, labels in scenes.items()
    ]
    path.write_text("".join(merged(parts, CLASSES)))
    return path


def test_pycocotools_reads_each_pixel(tmp_path, capsys):
    known_to_tool = COCO(written(tmp_path / "annotations.coco.json"))
    assert known_to_tool.loadCats(known_to_tool.getCatIds()) == [
        {"id": k, "name": name, "supercategory": ""} for k, name in enumerate(CLASSES) if k
    ]
    assert len(known_to_tool.imgs) == len(SCENES)
    for image in known_to_tool.imgs.values():
        labels = SCENES[image["file_name"].removesuffix(".jpg")]
        found = np.zeros((image["height"], image["width"]), np.uint8)
        covered = np.zeros(found.shape, int)
        for entry in known_to_tool.loadAnns(known_to_tool.getAnnIds(image["id"])):
            mask = known_to_tool.annToMask(entry)
            found[mask > 0] = entry["category_id"]
            covered += mask
            assert coco_mask.area(known_to_tool.annToRLE(entry)) == entry["area"]
            assert coco_mask.toBbox(known_to_tool.annToRLE(entry)).tolist() == entry["bbox"]
            assert (entry["iscrowd"], entry["score"]) == (0, 1.0)
        assert (found == known(labels)).all()
        assert covered.max(initial=0) <= 1, "objects do not overlap"


def test_our_reader_reads_each_pixel(tmp_path):
    found = read_annotations(written(tmp_path / "annotations.coco.json"))
    assert list(found.categories.values()) == CLASSES[1:]
    for name, labels in SCENES.items():
        rasters = rasterize(found.images[f"{name}.jpg"])
        assert (rasters.labels == known(labels)).all(), name
        assert rasters.empty == []


def test_a_data_set_of_results(tmp_path):
    for name, labels in SCENES.items():
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", labels.shape[::-1]).save(tmp_path / f"images/{name}.jpg")
    (tmp_path / "annotations").mkdir()
    written(tmp_path / "annotations/instances_val2017.json")
    data = open_data(tmp_path, "val")
    assert data.classes == CLASSES
    for sample in data.samples:
        found = read_labels(sample, len(CLASSES))
        assert (found == known(SCENES[sample.name])).all(), sample.name


def test_ids_are_those_of_the_file():
    parts = [to_coco(find_objects(np.array([[1, 0, 1, 2]]), CLASSES), n) for n in ("a", "b")]
    found = json.loads("".join(merged(parts, CLASSES)))
    assert [image["id"] for image in found["images"]] == [1, 2]
    assert [entry["id"] for entry in found["annotations"]] == [1, 2, 3, 4, 5, 6]
    assert [entry["image_id"] for entry in found["annotations"]] == [1, 1, 1, 2, 2, 2]
    assert all("score" not in entry for entry in found["annotations"])
    assert json.loads("".join(merged(parts[:1], CLASSES))) == parts[0]


def test_a_first_class_that_is_no_background_is_written():
    found = to_coco(find_objects(np.array([[0, 1]]), ["Sky", "Road"]), "a.png")
    assert [(c["id"], c["name"]) for c in found["categories"]] == [(0, "Sky"), (1, "Road")]
    assert [entry["category_id"] for entry in found["annotations"]] == [0, 1]
