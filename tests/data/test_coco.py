"""Files as COCO and other tools write them; `layouts/test_coco.py` tests whole folders."""

import json

import numpy as np
import pytest

from unpool.data.coco import as_shape, read_annotations
from unpool.data.outlines import rasterize
from unpool.errors import DataError

coco = pytest.importorskip("pycocotools.mask")

SQUARE = [[1, 1, 4, 1, 4, 5, 1, 5]]  # rows 1 to 4, columns 1 to 3
COUNTS = [7, 4, 2, 4, 2, 4, 25]  # the same in 6 x 8: 3 columns


def entry(number, category=1, outline=SQUARE, **more):
    return {"id": number, "image_id": 1, "category_id": category, "segmentation": outline} | more


def write(path, annotations=(), **more):
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 6, "width": 8}],
        "annotations": [*annotations],
        "categories": [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
    path.write_text(json.dumps(content | more))
    return path


def labels(path, **options):
    """The labels of the only image."""
    (outlines,) = read_annotations(path, **options).images.values()
    return rasterize(outlines).labels


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.json"


EXPECTED = np.zeros((6, 8), int)
EXPECTED[1:5, 1:4] = 2


@pytest.mark.parametrize(
    ("annotation", "more"),
    [
        (entry(1, 7), {}),
        (entry(1, 7.0), {}),
        (entry("x", "7"), {}),
        (entry(1, 7) | {"image_id": "1"}, {}),
        (entry(1, 7) | {"image_id": 1.0}, {}),
        (entry(1, 7, SQUARE[0]), {}),
        (entry(1, 7, [*SQUARE, [5, 5, 6, 6]]), {}),
        (entry(1, 7, [[float(v) for v in SQUARE[0]]]), {}),
        (entry(1, 7, {"counts": COUNTS, "size": [6, 8]}), {}),
        (entry(1, 7, {"counts": [float(n) for n in COUNTS], "size": [6.0, 8.0]}), {}),
        (entry(1, 7, [{"counts": COUNTS, "size": [6, 8]}]), {}),
        (entry(1, 7, [{"counts": COUNTS, "size": [6, 8]}] * 2), {}),
        (
            entry(1, 7, iscrowd=0.0),
            {"images": [{"id": 1, "file_name": "a.jpg", "height": 6.0, "width": "8"}]},
        ),
        (entry(1, 9), {"categories": [{"id": 9, "name": "x"}, {"id": 0, "name": "y"}]}),
        *(
            (
                entry(1, 7),
                {
                    "categories": [
                        {"id": 0, "name": name},
                        {"id": 1, "name": "cat"},
                        {"id": 7, "name": "dog"},
                    ]
                },
            )
            for name in ("background", "_background_", "__background__", "Background")
        ),
        (
            entry(1, 7),
            {
                "categories": [
                    {"id": 0, "name": "pets", "supercategory": "none"},
                    {"id": 1, "name": "cat", "supercategory": "pets"},
                    {"id": 7, "name": "dog", "supercategory": "pets"},
                ]
            },
        ),
    ],
)
def test_what_tools_write(path, annotation, more):
    np.testing.assert_array_equal(labels(write(path, [annotation], **more)), EXPECTED)


def test_a_compressed_code(path):
    mask = np.asfortranarray(EXPECTED > 0, np.uint8)
    code = {"counts": coco.encode(mask)["counts"].decode(), "size": [6, 8]}
    for outline in (code, [code]):
        np.testing.assert_array_equal(labels(write(path, [entry(1, 7, outline)])), EXPECTED)


def test_the_order_of_the_fields_is_free(path):
    content = json.loads(write(path, [entry(1, 7)]).read_text())
    path.write_text(json.dumps(dict(reversed(content.items())) | {"licenses": [[1]], "info": {}}))
    np.testing.assert_array_equal(labels(path), EXPECTED)


def test_a_supercategory_with_annotations_is_a_class(path):
    categories = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "pets"},
    ]
    found = read_annotations(write(path, [entry(1, 0)], categories=categories))
    assert [*found.categories.values()] == ["pets", "cat"]
    found = read_annotations(write(path, [entry(1, 1)], categories=categories))
    assert [*found.categories.values()] == ["cat"]


def crowds(*of_cats, dogs=(0, 0)):
    rows = [entry(i, 1, iscrowd=crowd) for i, crowd in enumerate(of_cats)]
    shifted = [[v + 3 * (i % 2 == 0) for i, v in enumerate(SQUARE[0])]]
    return rows + [entry(50 + i, 7, shifted, iscrowd=crowd) for i, crowd in enumerate(dogs)]


@pytest.mark.parametrize(
    ("of_cats", "crowd", "label"),
    [
        ((1,), None, 1),
        ((1, 1, 0), None, 1),
        ((1, True, "1", 0, 0), None, 1),
        ((0, 1), None, 1),  # a group, under an object of the same place
        ((1,), "object", 1),
        ((1,), "void", 255),
    ],
)
def test_brush_masks_are_objects(path, of_cats, crowd, label):
    found = labels(write(path, crowds(*of_cats)), crowd=crowd)
    assert (found[2, 2], found[2, 6]) == (label, 2)


def test_groups_of_coco_are_void(path):
    """A fraction of a class, as in COCO, where 1 % are groups."""
    rows = [*crowds(0, 0, 0), entry(9, 1, [[0, 0, 8, 0, 8, 1, 0, 1]], iscrowd=1)]
    assert labels(write(path, rows))[0].tolist() == [255] * 8
    assert labels(write(path, rows), crowd="object")[0].tolist() == [1] * 8


def test_crowds_are_counted(path):
    rows = [*crowds(1, 1), entry(9, 7, iscrowd=1)]
    ((kind, message),) = read_annotations(write(path, rows)).notes
    assert kind == "crowds"
    assert message.startswith(
        "has 3 annotations with iscrowd=1, read 2 of cat as objects; 1 of dog as void ("
    )
    assert message.endswith("if that is wrong, pass crowd='object' or crowd='void'")
    assert read_annotations(write(path, crowds(0, 0))).notes == []


def test_what_is_skipped_is_noted(path):
    images = [{"id": 1, "file_name": "a.jpg", "height": 6, "width": 8}] * 2
    rows = [entry(1), entry(2) | {"image_id": 99}]
    assert read_annotations(write(path, rows, images=images)).notes == [
        (
            "orphan-annotations",
            "has 1 annotations of unknown images, which are ignored; check the ids",
        ),
        ("listed-twice", "lists 1 images twice; list each image once"),
    ]


IMAGE = {"id": 1, "file_name": "a.jpg", "height": 6, "width": 8}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"images": [IMAGE | {"height": True}]}, r"images\[0\] is incomplete"),
        ({"images": [IMAGE | {"id": True}]}, r"images\[0\] is incomplete"),
        ({"images": [IMAGE | {"width": None}]}, r"images\[0\] is incomplete"),
        ({"images": [IMAGE | {"width": 7.5}]}, r"images\[0\] is incomplete"),
        ({"images": [IMAGE | {"width": 10**400}]}, r"a.jpg of 10000+\.\.\. x 6; write its size"),
        ({"images": [IMAGE | {"width": float("inf")}]}, r"images\[0\] is incomplete"),
        ({"images": [IMAGE | {"width": "wide"}]}, r"a.jpg of 'wide' x 6; write its size"),
        ({"images": [IMAGE | {"file_name": ["a.jpg"]}]}, r"images\[0\] is incomplete"),
        ({"images": [IMAGE | {"file_name": "a" * 5000}]}, "whose name has 5000 characters; want"),
        ({"annotations": [entry(1) | {"image_id": True}]}, r"annotations\[0\] is incomplete"),
        ({"categories": [{"id": 1, "name": "cat"}] * 2}, "two categories of one id"),
        ({"categories": [{"id": i, "name": "cat"} for i in "ab"]}, "category 'cat' twice; give"),
        ({"images": "abc"}, "without 'images'; wanted a list 'images'"),
    ],
)
def test_files_that_are_refused(path, more, message):
    with pytest.raises(DataError, match=message) as got:
        read_annotations(write(path, **more))
    assert len(str(got.value)) < 400


def test_texts_that_cannot_be_printed(path):
    images = [IMAGE | {"file_name": "a\ud800\n.jpg"}]
    found = read_annotations(write(path, images=images, categories=[{"id": 1, "name": "\ud800"}]))
    assert [*found.images] == ["a??.jpg"]
    assert [*found.categories.values()] == ["?"]


def test_shapes_of_thousands_of_parts_do_not_nest():
    shape = as_shape([[[[[1]]]]])
    with pytest.raises(DataError, match="no usable outline"):
        shape.draw((6, 8))
