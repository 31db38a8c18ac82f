from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unpool.data.coco import as_shape
from unpool.data.entries import as_key
from unpool.data.outlines import Outline, Outlines, rasterize
from unpool.errors import DataError


def rectangle(x0: float, y0: float, x1: float, y1: float) -> list[list[float]]:
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def annotation(number: int, outline: object, category: object = 1, **more: Any) -> Outline:
    return Outline(number, as_key(category), as_shape(outline), **more)


def drawing(*found: Outline, size: tuple[int, int] = (6, 8), **more: Any) -> Outlines:
    return Outlines(Path("file.json"), "a.jpg", size, list(found), {1: 1, 7: 2}, **more)


def test_small_objects_cover_large_ones_and_all_cover_crowds():
    code = {"counts": [24, 24], "size": [6, 8]}
    found = rasterize(
        drawing(
            annotation(10, rectangle(1, 1, 5, 3), 7),
            annotation(11, rectangle(0, 0, 6, 4), 1),
            annotation(12, code, 1, crowd=True),
        )
    )
    labels = np.zeros((6, 8), int)
    labels[:, 4:] = 255
    labels[:4, :6] = 1
    labels[1:3, 1:5] = 2
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(
        found.instances, np.select([labels == 1, labels == 2], [2, 1], labels)
    )
    assert (found.labels.dtype, found.instances.dtype) == (np.uint8, np.int32)


def test_parts_of_one_object_add_up_and_reach_beyond_the_image():
    found = rasterize(drawing(annotation(1, rectangle(-5, -5, 2, 2) + rectangle(1, 1, 99, 99))))
    expected = np.ones((6, 8), int)
    expected[:1, 2:] = expected[2:, :1] = 0
    np.testing.assert_array_equal(found.labels, expected)


def test_objects_that_cover_no_pixel():
    flat, outside = rectangle(1, 1, 4, 1), rectangle(20, 20, 30, 30)
    tiny, empty = rectangle(1.1, 1.1, 1.4, 1.4), {"counts": [48], "size": [6, 8]}
    outlines = [flat, outside, tiny, empty, rectangle(0, 0, 1, 1)]
    found = rasterize(drawing(*(annotation(i, outline) for i, outline in enumerate(outlines))))
    assert found.empty == [0, 1, 2, 3]
    assert found.labels.sum() == 1
    assert found.instances[0, 0] == 5


def test_more_than_254_objects():
    found = [annotation(i, rectangle(i % 20, i // 20, i % 20 + 1, i // 20 + 1)) for i in range(300)]
    numbers = rasterize(drawing(*found, size=(15, 20))).instances.ravel()
    assert numbers.tolist() == [*range(1, 255), *range(256, 302)]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (Outline(9, None, as_shape(rectangle(0, 0, 1, 1))), "has no category; give it a category_"),
        (annotation(9, rectangle(0, 0, 1, 1), 3), "has the unknown category 3; give"),
        (annotation(9, None), "has no usable outline; wanted polygons"),
        (annotation(9, []), "has no usable outline"),
        (annotation(9, [[1, 1, 4, 4]]), "has no usable outline"),
        (annotation(9, [[1, 1, 4, 4, 2, 2, 0]]), "has no usable outline"),
        (annotation(9, [[1, 1, 4, 4, 2, np.nan]]), "has no usable outline"),
        (annotation(9, [[1, 1, 4, 4, 2, 10**400]]), "has no usable outline"),
        (annotation(9, [[1, 1, 4, 4, 2, True]]), "has no usable outline"),
        (annotation(9, [*rectangle(0, 0, 1, 1), ["x"]]), "has no usable outline"),
        (
            annotation(9, {"counts": [48], "size": [8, 6]}),
            r"has a code for \(H, W\) \[8, 6\], want",
        ),
        (annotation(9, {"counts": [47], "size": [6, 8]}), "has a run-length code that does not"),
        (annotation(9, {"counts": [-1, 49], "size": [6, 8]}), "has a run-length code with other"),
        (annotation(9, {"counts": [True], "size": [6, 8]}), "has a run-length code with other"),
        (annotation(9, {"counts": "/", "size": [6, 8]}), "has a run-length code that is damaged"),
        (annotation(9, {"counts": 48, "size": [6, 8]}), "has no usable outline"),
        (annotation(9, [{"counts": [48]}]), "has no usable outline"),
    ],
)
def test_annotations_that_cannot_be_rasterized(found, message):
    with pytest.raises(DataError, match=rf"file.json \(a.jpg\): annotation 9 {message}"):
        rasterize(drawing(found))


def test_later_outlines_cover_earlier_ones_where_the_order_counts():
    found = [annotation(1, rectangle(1, 1, 3, 3)), annotation(2, rectangle(0, 0, 6, 4), 7)]
    labels = rasterize(drawing(*found, ordered=True)).labels
    assert labels[:4, :6].tolist() == [[2] * 6] * 4
    assert labels.sum() == 2 * 24


def test_outlines_of_a_group_are_one_object():
    found = [
        annotation(1, rectangle(0, 0, 2, 2), group=5),
        annotation(2, rectangle(4, 0, 6, 2)),
        annotation(3, rectangle(4, 4, 6, 6), group=5),
        annotation(4, rectangle(0, 4, 2, 6), 7, group=5),
    ]
    numbers = rasterize(drawing(*found)).instances
    assert (numbers[0, 0], numbers[0, 4], numbers[4, 4], numbers[4, 0]) == (1, 2, 1, 4)


def test_a_background_category_is_no_object():
    found = [annotation(1, rectangle(0, 0, 6, 4)), annotation(2, rectangle(1, 1, 3, 3), 0)]
    outlines = Outlines(Path("file.json"), "a.jpg", (6, 8), found, {0: 0, 1: 1})
    labels, instances, _ = rasterize(outlines)
    assert labels[1:3, 1:3].max() == instances[1:3, 1:3].max() == 0
    assert (labels.sum(), instances.sum()) == (20, 20)


def test_crowds_of_chosen_categories_are_objects():
    found = [annotation(1, rectangle(0, 0, 2, 2), crowd=True)]
    found += [annotation(2, rectangle(4, 0, 6, 2), 7, crowd=True)]
    labels = rasterize(drawing(*found, drawn={7})).labels
    assert (labels[0, 0], labels[0, 4]) == (255, 2)


def test_masks_that_are_not_kept_are_drawn_again(monkeypatch):
    found = [annotation(i, rectangle(i, i, i + 5, i + 3), 1 + 6 * (i % 2)) for i in range(4)]
    kept = rasterize(drawing(*found))
    monkeypatch.setattr("unpool.data.outlines.MAX_KEPT", 20)
    for one, other in zip(kept, rasterize(drawing(*found)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_too_many_objects_are_refused():
    found = [annotation(i, rectangle(0, 0, 1, 1)) for i in range(10)] * 6000
    with pytest.raises(DataError, match="the 60000 annotations of this image are as much work as"):
        rasterize(drawing(*found))


@pytest.mark.parametrize(
    "outline",
    [
        rectangle(0, 0, 13_000, 13_000),
        {"counts": [0, 13_000**2], "size": [13_000, 13_000]},
        [[v for i in range(1000) for v in (i % 2, i % 2 * 13_000)]],
    ],
)
def test_too_much_work_is_refused_before_it_is_begun(outline):
    found = [annotation(i, outline) for i in range(8)]
    size = 13_000, 13_000
    message = r"annotations of this image are as much work as \d+ pixels"
    with pytest.raises(DataError, match=message):
        rasterize(drawing(*found, size=size))
