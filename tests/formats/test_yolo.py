"""YOLO labels, filled by the even-odd rule, give the label map again."""

import json

import cv2
import numpy as np
import pytest

from tests.formats.scenes import CLASSES, SCENES, known
from unpool.data.shapes import fill_polygon
from unpool.formats.objects import find_objects
from unpool.formats.yolo import data_yaml, to_yolo


def draw(text, height, width):
    labels = np.zeros((height, width), np.uint8)
    for line in text.splitlines():
        number, *values = line.split()
        points = np.array(values, float).reshape(-1, 2)
        assert ((points >= 0) & (points <= 1)).all()
        assert len(points) >= 3
        labels[fill_polygon(points * [width, height], height, width)] = int(number) + 1
    return labels


@pytest.mark.parametrize("labels", SCENES.values(), ids=SCENES.keys())
def test_each_pixel_is_kept(labels):
    found = to_yolo(find_objects(labels, CLASSES))
    assert (draw(found, *labels.shape) == known(labels)).all()
    assert found.count("\n") == len(find_objects(labels, CLASSES).labels)


def test_sides_that_are_no_binary_fractions_of_their_pixels():
    labels = np.random.default_rng(0).integers(0, 2, (3, 2503)).astype(np.uint8)
    for mask in (labels, labels.T):
        assert (draw(to_yolo(find_objects(mask, CLASSES)), *mask.shape) == mask).all()


def test_simple_shapes_as_other_tools_fill_them():
    """By OpenCV after rounding, as in YOLO's own training, which paints the border as well."""
    y, x = np.mgrid[:375, :500]
    for mask in (np.hypot(x - 250, y - 180) < 120, (x > 40) & (x < 333) & (y > 20) & (y < 301)):
        [line] = to_yolo(find_objects(mask.astype(np.uint8), CLASSES)).splitlines()
        points = np.array(line.split()[1:], float).reshape(-1, 2) * [500, 375]
        found = np.zeros(mask.shape, np.uint8)
        cv2.fillPoly(found, [points.astype(np.int32)], 1)
        assert (mask & (found > 0)).sum() / (mask | (found > 0)).sum() >= 0.98
        assert fill_polygon(points, 375, 500).sum() == mask.sum()


def test_numbers_start_with_the_first_class_of_objects():
    labels = np.array([[0, 1]])
    assert [line[0] for line in to_yolo(find_objects(labels, CLASSES)).splitlines()] == ["0"]
    found = to_yolo(find_objects(labels, ["Sky", "Road"]))
    assert [line[0] for line in found.splitlines()] == ["0", "1"]
    assert data_yaml(["Sky", "Road"]).endswith('nc: 2\nnames:\n  0: "Sky"\n  1: "Road"\n')


def test_names_that_yaml_would_take_for_something_else_are_quoted():
    names = ["background", "no", "a: b", 'the "best"', "50%", "naïve 猫 😀", "#1", "a\tb\\"]
    lines = data_yaml(names).splitlines()[3:]
    found = [line.partition(": ") for line in lines]
    assert [int(number) for number, _, _ in found] == list(range(7))
    assert [json.loads(name) for _, _, name in found] == names[1:]  # quoted as in JSON
