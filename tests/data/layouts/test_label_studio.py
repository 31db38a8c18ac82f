import json
import math

import numpy as np
import pytest
from PIL import Image

from unpool.data import check_data, open_data, read_sample
from unpool.errors import DataError
from unpool.formats.rle import encode_brush

SIZE = {"original_width": 20, "original_height": 10}


def region(label="cat", kind="polygonlabels", **value):
    return {"id": "r", "value": {**value, kind: [label]}, **SIZE}


def task(*regions, number=1, image="/data/upload/1/a.jpg", **more):
    annotation = {"id": 7, "result": [*regions]} | more
    return {"id": number, "data": {"image": image}, "annotations": [annotation]}


def write(root, *tasks):
    Image.new("RGB", (20, 10)).save(root / "a.jpg")
    (root / "export.json").write_text(json.dumps(tasks))


def labels(root):
    (sample,) = open_data(root, "all").samples
    return read_sample(sample, 255)[1]


Y, X = np.mgrid[:10, :20] + 0.5
SQUARE = np.zeros((10, 20), int)
SQUARE[2:6, 4:10] = 1


@pytest.mark.parametrize(
    "found",
    [
        region(points=[[20, 20], [50, 20], [50, 60], [20, 60]]),
        region(kind="rectanglelabels", x=20, y=20, width=30, height=40, rotation=0),
        region(kind="rectanglelabels", x=50, y=60, width=30, height=40, rotation=180),
        region(kind="brushlabels", format="rle", rle=encode_brush(SQUARE > 0)),
        region(kind="labels", format="rle", rle=encode_brush(SQUARE > 0)),
    ],
)
def test_regions(tmp_path, found):
    write(tmp_path, task(found))
    np.testing.assert_array_equal(labels(tmp_path), SQUARE)


def test_ellipses(tmp_path):
    ellipse = {"x": 50, "y": 50, "radiusX": 30, "radiusY": 20, "kind": "ellipselabels"}
    write(tmp_path, task(region(**ellipse)))
    expected = ((X - 10) / 6) ** 2 + ((Y - 5) / 2) ** 2 <= 1
    np.testing.assert_array_equal(labels(tmp_path), expected)
    write(tmp_path, task(region(**ellipse, rotation=30)))
    cos, sin = math.cos(math.radians(30)), math.sin(math.radians(30))
    along, across = (X - 10) * cos + (Y - 5) * sin, (Y - 5) * cos - (X - 10) * sin
    expected = (along / 6) ** 2 + (across / 2) ** 2 <= 1
    assert (labels(tmp_path) != expected).sum() <= 1


def test_later_regions_cover_earlier_ones(tmp_path):
    whole = region("dog", "rectanglelabels", x=0, y=0, width=100, height=100)
    write(tmp_path, task(region(points=[[20, 20], [50, 20], [50, 60], [20, 60]]), whole))
    assert open_data(tmp_path, "all").classes == ["background", "cat", "dog"]
    assert labels(tmp_path).min() == 2


def test_a_region_and_its_label_apart(tmp_path):
    geometry = {"points": [[20, 20], [50, 20], [50, 60], [20, 60]]}
    bare = {"id": "r", "type": "polygon", "value": geometry, **SIZE}
    choice = {"id": "c", "type": "choices", "value": {"choices": ["sunny"]}}
    write(tmp_path, task(bare, choice, region(**geometry, kind="labels")))
    np.testing.assert_array_equal(labels(tmp_path), SQUARE)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (region(kind="brushlabels", rle=[1, 2, 3]), "has a brush code that does not fill 20 x 10"),
        (region(kind="brushlabels", rle=[1, 2, 300]), "has a damaged brush code; export it again"),
        (region(kind="brushlabels", rle=[True]), "has a damaged brush code; export it again"),
        (region(points=[[1, 1], [2, 2]]), "has no usable outline"),
        (region(points="x"), "has no usable outline"),
        (region(x=1, y=1, width=None, height=3), "has no usable outline"),
        (region(x=1, y=1, width=float("nan"), height=3), "has no usable outline"),
        (region(points=[[1, 1], [9, 1], [9, 9]]) | {"image_rotation": 90}, "was drawn on a turned"),
        (
            region(points=[[1, 1], [9, 1], [9, 9]], polygonlabels=["cat", "dog"], kind="other"),
            "has several labels, cat, dog; leave it one",
        ),
        ({"id": "x", "value": {"points": [[1, 1], [9, 1], [9, 9]]}, **SIZE}, "has no category"),
    ],
)
def test_regions_that_cannot_be_used(tmp_path, found, message):
    write(tmp_path, task(region(points=[[1, 1], [9, 1], [9, 9]]), found | {"id": "other"}))
    (finding,) = [f for f in check_data(tmp_path).findings if f.kind == "annotation"]
    assert (finding.level, finding.where) == ("error", "export.json (/data/upload/1/a.jpg)")
    assert finding.message.startswith(f"annotation 2 {message}")


def test_the_ground_truth_of_several_annotations(tmp_path):
    first, second, third = (
        {"result": [region(n, points=[[0, 0], [100, 0], [100, 100], [0, 100]])]} for n in "abc"
    )
    entry = task() | {"annotations": [first, second | {"ground_truth": True}, third]}
    bare = {"id": 3, "data": {"image": "b.jpg"}, "annotations": []}
    write(tmp_path, entry, task(number=2, image="c.jpg", was_cancelled=True), bare, 7)
    assert open_data(tmp_path, "all").classes == ["background", "b"]
    notes = {f.kind: f.message for f in check_data(tmp_path).findings}
    assert notes["several-annotations"].startswith("has 1 tasks of several annotations, of which")
    assert notes["unlabeled-tasks"].startswith("has 3 tasks without annotation, which are skipped")


def test_an_image_of_two_tasks(tmp_path):
    found = task(region(points=[[1, 1], [9, 1], [9, 9]]))
    write(tmp_path, found, found)
    with pytest.raises(DataError, match=r"with the image /data/upload/1/a.jpg twice; keep one"):
        open_data(tmp_path, "all")


def predicted(*regions, **more):
    task_of = task(**more)
    return {**task_of, "predictions": task_of.pop("annotations"), "annotations": []} | {
        "predictions": [{"result": [*regions], "model_version": "m"}]
    }


def test_predictions_are_read_where_nothing_else_is(tmp_path):
    square = region(kind="brushlabels", format="rle", rle=encode_brush(SQUARE > 0))
    write(tmp_path, predicted(square))
    np.testing.assert_array_equal(labels(tmp_path), SQUARE)
    (note,) = [f for f in check_data(tmp_path).findings if f.kind == "predictions"]
    assert "has predictions alone, which are read as labels" in note.message
    labeled = task(region("dog", kind="rectanglelabels", x=0, y=0, width=50, height=100), number=2)
    write(tmp_path, predicted(square, image="/b.jpg"), labeled)
    assert open_data(tmp_path, "all").classes == ["background", "dog"]
    assert [sample.name for sample in open_data(tmp_path, "all").samples] == ["a"]
    assert (labels(tmp_path)[:, :10] == 1).all()


def test_predictions_without_the_list_of_annotations(tmp_path):
    found = predicted(region(kind="brushlabels", format="rle", rle=encode_brush(SQUARE > 0)))
    del found["annotations"]
    write(tmp_path, found)
    np.testing.assert_array_equal(labels(tmp_path), SQUARE)


def test_an_image_without_regions_is_background(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "b.jpg")
    write(tmp_path, task(region(points=[[0, 0], [50, 0], [50, 50]])), task(image="/x/b.jpg"))
    first, second = open_data(tmp_path, "all").samples
    assert (first.name, second.name) == ("a", "b")
    np.testing.assert_array_equal(read_sample(second, 2)[1], np.zeros((6, 8)))
