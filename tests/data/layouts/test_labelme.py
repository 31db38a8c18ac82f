import json
import re

import numpy as np
import pytest
from PIL import Image

from tests.data.layouts import examples
from unpool.data import check_data, objects, open_data, read_sample
from unpool.errors import DataError

SIZE = (10, 20)


def write(root, shapes, name="a", photo=True, **more):
    if photo:
        Image.new("RGB", SIZE[::-1]).save(root / f"{name}.jpg")
    content = {"shapes": shapes, "imagePath": f"{name}.jpg", "imageHeight": 10, "imageWidth": 20}
    (root / f"{name}.json").write_text(json.dumps(content | more))


def shape(points, kind="polygon", label="cat", **more):
    return {"label": label, "points": points, "shape_type": kind} | more


SQUARE = [[2, 3], [6, 3], [6, 7], [2, 7]]


def labels(root):
    (sample,) = open_data(root, "all").samples
    return read_sample(sample, 255)[1]


def test_shapes(tmp_path):
    expected = np.zeros(SIZE, int)
    expected[3:7, 2:6] = 1
    for found in (
        shape(SQUARE),
        shape(SQUARE, None),
        shape(SQUARE, "oriented_rectangle"),
        shape([SQUARE[0], SQUARE[2]], "rectangle"),
        shape([SQUARE[2], SQUARE[0]], "rectangle"),
        shape([[2.0, 3], [6, 3.0], [6, 7], [2, 7]]),
    ):
        write(tmp_path, [found])
        np.testing.assert_array_equal(labels(tmp_path), expected)
    y, x = np.mgrid[:10, :20] + 0.5
    write(tmp_path, [shape([[8, 5], [8, 8.5]], "circle")])
    np.testing.assert_array_equal(labels(tmp_path), np.hypot(x - 8, y - 5) <= 3.5)


def test_later_shapes_cover_earlier_ones_and_groups_are_one_object(tmp_path):
    shapes = [
        shape([[0, 0], [2, 2]], "rectangle", group_id=4),
        shape([[8, 0], [10, 2]], "rectangle", group_id=4),
        shape([[0, 0], [20, 1]], "rectangle", "dog"),
    ]
    write(tmp_path, shapes)
    (sample,) = open_data(tmp_path, "all").samples
    assert read_sample(sample, 3)[1][:3, 0].tolist() == [2, 1, 0]
    assert [(one.label, one.area) for one in objects(sample, 3)] == [(1, 4), (2, 20)]


def test_background_and_void(tmp_path):
    names = ("dog", "_background_", "__ignore__")
    write(tmp_path, [shape([[0, y], [20, y + 2]], "rectangle", n) for y, n in enumerate(names)])
    assert open_data(tmp_path, "all").classes == ["background", "dog"]
    assert [*labels(tmp_path)[:5, 0]] == [1, 0, 255, 255, 0]


def test_a_list_of_names_orders_the_classes(tmp_path):
    write(tmp_path, [shape(SQUARE)])
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nzebra\ncat\n")
    assert open_data(tmp_path, "all").classes == ["background", "zebra", "cat"]
    assert labels(tmp_path)[4, 4] == 2


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("labelmap.txt", "background:0,0,0::\nzebra:1,2,3::\ncat:4,5,6::\n"),
        ("classes.json", '["background", "zebra", "cat"]'),
        ("labels.txt", "1: zebra\n2: cat\n"),
    ],
)
def test_a_list_of_names_may_have_colors_or_numbers(tmp_path, file, text):
    write(tmp_path, [shape(SQUARE)])
    (tmp_path / file).write_text(text)
    assert open_data(tmp_path, "all").classes == ["background", "zebra", "cat"]
    assert check_data(tmp_path, ["all"]).ok


@pytest.mark.parametrize(
    "image",
    ["a.jpg", "../elsewhere/a.jpg", "C:\\photos\\a.jpg", "/home/me/a.jpg", "A.JPG", "old.jpg", ""],
)
def test_paths_of_images(tmp_path, image):
    """An image that was renamed together with its annotations is found beside them."""
    write(tmp_path, [shape(SQUARE)], imagePath=image)
    assert labels(tmp_path)[4, 4] == 1


def test_sizes_that_are_missing_are_the_image_s(tmp_path):
    for more in ({"imageHeight": None}, {"imageWidth": True}, {"imageWidth": 10**30}):
        write(tmp_path, [shape(SQUARE)], **more)
        assert labels(tmp_path)[4, 4] == 1


def test_an_image_that_is_missing(tmp_path):
    write(tmp_path, [shape(SQUARE)])
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"found no file for 'a' in .*; wanted that name with"):
        open_data(tmp_path, "all")


def test_shapes_without_area_are_skipped_and_counted(tmp_path):
    shapes = [shape(SQUARE), shape(SQUARE, "linestrip"), shape(SQUARE[:1], "point")]
    write(tmp_path, [*shapes, shape(SQUARE[:2], "line")])
    (finding,) = [f for f in check_data(tmp_path).findings if f.kind == "skipped-shapes"]
    assert finding.where == "a.json"
    assert "(1 of type line, 1 of type linestrip, 1 of type point)" in finding.message


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (shape(SQUARE[:2]), "is a 'polygon' of 2 points, which is no area"),
        (shape(SQUARE, "circle"), "is a 'circle' of 4 points, which is no area"),
        (shape(SQUARE, "blob"), "is a 'blob' of 4 points, which is no area"),
        (shape(SQUARE, ["blob"]), r"is a \['blob'\] of 4 points"),
        (shape([[1, float("nan")]] * 3), "has no points"),
        (shape([[1, True]] * 3), "has no points"),
        (shape(None), "has no points"),
        (shape(SQUARE, label=None), "has no label"),
        (7, "has no label"),
        (shape(SQUARE, "mask", mask="!"), "has a mask that is no PNG"),
        (shape(SQUARE, "mask", mask=None), "is a 'mask' of 4 points, which is no area"),
    ],
)
def test_shapes_that_cannot_be_used(tmp_path, entry, message):
    write(tmp_path, [shape(SQUARE), entry])
    (finding,) = [f for f in check_data(tmp_path).findings if f.kind == "annotation"]
    assert (finding.level, finding.where) == ("error", "a.json")
    assert re.match(f"annotation 2 {message}", finding.message)


def test_a_broken_file_among_good_ones(tmp_path):
    examples.labelme(tmp_path)
    (tmp_path / "3.json").write_text('{"shapes": [')
    findings = [f for f in check_data(tmp_path).findings if f.level == "error"]
    assert [f[:3] for f in findings] == [("error", "annotation", "3.json")]
    assert "which is not JSON" in findings[0].message


@pytest.mark.parametrize("content", ["[]", "{}", '{"shapes": null}', '{"shapes": "x"}'])
def test_a_file_without_shapes_is_not_an_image_of_background(tmp_path, content):
    examples.labelme(tmp_path)
    (tmp_path / "3.json").write_text(content)
    (finding,) = [f for f in check_data(tmp_path).findings if f.level == "error"]
    assert finding[:3] == ("error", "annotation", "3.json")
    assert "has no list 'shapes'; save it again in labelme" in finding.message


def test_an_empty_split_cannot_be_listed(tmp_path):
    write(tmp_path, [shape(SQUARE)])
    (finding,) = [f for f in check_data(tmp_path).findings if f.kind == "empty-split"]
    assert "add images until there are 5, or use all images (split=all; " in finding.message


def test_two_files_of_one_image(tmp_path):
    write(tmp_path, [shape(SQUARE)])
    write(tmp_path, [shape(SQUARE)], "b", imagePath="a.jpg")
    with pytest.raises(DataError, match=r"got .*a.json and .*b.json, both of the image a.jpg; rem"):
        open_data(tmp_path, "all")


def test_folders_of_splits(tmp_path):
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
        write(tmp_path / split, [shape(SQUARE)])
    assert [s.name for s in open_data(tmp_path, "train").samples] == ["train/a"]
    assert [s.name for s in open_data(tmp_path, "val").samples] == ["valid/a"]
