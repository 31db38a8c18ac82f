"""labelme files, drawn by the format's rules, give the label map again."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.formats.scenes import CLASSES, SCENES, known
from unpool.data.shapes import fill_polygon
from unpool.formats.labelme import to_labelme
from unpool.formats.objects import find_objects


def draw(found):
    """Each shape by the rules of labelme: a mask's box includes its last row and column."""
    size = found["imageHeight"], found["imageWidth"]
    labels = np.zeros(size, np.uint8)
    for shape in found["shapes"]:
        if shape["shape_type"] == "mask":
            (x0, y0), (x1, y1) = shape["points"]
            png = Image.open(io.BytesIO(base64.b64decode(shape["mask"])))
            mask = np.zeros(size, bool)
            mask[y0 : y1 + 1, x0 : x1 + 1] = np.array(png).astype(bool)
        else:
            assert shape["mask"] is None
            mask = fill_polygon(np.array(shape["points"], float), *size)
        labels[mask] = CLASSES.index(shape["label"])
    return labels


@pytest.mark.parametrize("labels", SCENES.values(), ids=SCENES.keys())
def test_each_pixel_is_kept(labels):
    found = json.loads(json.dumps(to_labelme(find_objects(labels, CLASSES), "a/b.jpg")))
    assert (draw(found) == known(labels)).all()
    assert list(found) == [
        *("version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth")
    ]
    assert (found["imagePath"], found["imageData"], found["flags"]) == ("a/b.jpg", None, {})
    for shape in found["shapes"]:  # as labelme demands
        assert isinstance(shape["label"], str)
        assert shape["points"]
        assert all(len(point) == 2 for point in shape["points"])
        assert shape["group_id"] is None
        assert shape["flags"] == {}


def test_holes_are_kept_by_masks_and_all_others_can_be_edited():
    found = to_labelme(find_objects(SCENES["rings"], CLASSES, np.ones((4, 1, 1))), "a.jpg")
    kinds = [(shape["label"], shape["shape_type"]) for shape in found["shapes"]]
    assert kinds == [
        ("cat", "mask"),
        ("cat", "polygon"),
        ("dog", "mask"),
        *[("owl", "polygon")] * 3,
    ]
    assert {shape["score"] for shape in found["shapes"]} == {1.0}


def test_simplified_polygons_have_fewer_corners():
    y, x = np.mgrid[:200, :300]
    labels = ((x - 150) ** 2 + (y - 100) ** 2 < 80**2).astype(np.uint8)
    objects = find_objects(labels, CLASSES)
    exact, simple = (to_labelme(objects, "a.jpg", tolerance=t) for t in (0, 1.5))
    corners = [len(found["shapes"][0]["points"]) for found in (exact, simple)]
    assert corners[1] < corners[0] / 4
    drawn = draw(simple) > 0
    assert (drawn & (labels > 0)).sum() / (drawn | (labels > 0)).sum() > 0.97
