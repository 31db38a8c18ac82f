import itertools
from collections import deque
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unpool.data import Sample, objects, read_instances
from unpool.data.instances import components, find_objects
from unpool.errors import DataError
from unpool.vision.images import write_mask

LABELS = np.kron([[0, 5, 5], [7, 0, 255]], np.ones((4, 4), int)).astype(np.uint8)  # 8 x 12


def sample(root: Path, labels: np.ndarray, instances: np.ndarray | None = None) -> Sample:
    write_mask(root / "mask.png", labels)
    if instances is not None:
        write_mask(root / "objects.png", instances)
    path = root / "objects.png" if instances is not None else None
    return Sample("a", root / "none.jpg", root / "mask.png", path)


def parts(labels: np.ndarray, least: int) -> set[frozenset[tuple[int, int]]]:
    """The connected parts, by flooding from each pixel."""
    left = {(y, x) for y, x in np.ndindex(labels.shape) if labels[y, x] not in (0, 255)}
    found = set()
    while left:
        start = left.pop()
        part, ahead = {start}, deque([start])
        while ahead:
            y, x = ahead.popleft()
            for near in itertools.product((y - 1, y, y + 1), (x - 1, x, x + 1)):
                if near in left and labels[near] == labels[y, x]:
                    left.remove(near)
                    part.add(near)
                    ahead.append(near)
        if len(part) >= least:
            found.add(frozenset(part))
    return found


# instance maps


def test_an_object_mask_with_void_where_either_has_it(tmp_path):
    numbers = np.kron([[0, 2, 9], [255, 0, 4]], np.ones((4, 4), int))
    instances = read_instances(sample(tmp_path, LABELS, numbers), 8)
    assert instances.dtype == np.int32
    np.testing.assert_array_equal(instances[::4, ::4], [[0, 2, 9], [255, 0, 255]])


def test_without_object_mask_the_connected_parts(tmp_path):
    instances = read_instances(sample(tmp_path, LABELS), 8)
    np.testing.assert_array_equal(instances[::4, ::4], [[0, 1, 1], [2, 0, 255]])


@given(arrays(np.uint8, (6, 7), elements=st.sampled_from([0, 1, 2, 255])))
def test_components_are_found_as_by_flooding(labels):
    instances = components(labels)
    numbers = set(np.unique(instances)) - {0, 255}
    found = {frozenset(zip(*np.nonzero(instances == n), strict=True)) for n in numbers}
    assert found == parts(labels, 5)
    np.testing.assert_array_equal(instances == 255, labels == 255)


def test_no_object_has_the_number_of_void():
    labels = np.kron(np.arange(600).reshape(20, 30) % 2, np.ones((3, 3), int)).astype(np.uint8)
    labels[::3] = 0  # parts of 2 x 3 pixels that touch by no corner
    numbers = np.unique(components(labels))
    assert numbers.tolist() == [0, *range(1, 255), *range(256, 302)]


def test_sizes_that_differ(tmp_path):
    found = sample(tmp_path, LABELS, LABELS[1:])
    message = r"objects.png is \(H, W\) \(7, 12\) but the mask .*mask.png is \(8, 12\); wanted one"
    for read in (read_instances, objects):
        with pytest.raises(DataError, match=message):
            read(found, 8)


def test_unknown_ids(tmp_path):
    with pytest.raises(DataError, match="has the ids 7; wanted 0 to 5"):
        read_instances(sample(tmp_path, LABELS), 6)


# objects


def test_objects_have_class_box_number_and_area(tmp_path):
    numbers = np.kron([[0, 2, 9], [3, 0, 4]], np.ones((4, 4), int))
    assert objects(sample(tmp_path, LABELS, numbers), 8) == [
        (5, (4, 0, 8, 4), 2, 16),
        (7, (0, 4, 4, 8), 3, 16),
        (5, (8, 0, 12, 4), 9, 16),
    ]


def test_the_class_is_that_of_most_pixels_and_the_background_does_not_count():
    labels = np.array([[0, 0, 0, 3, 3, 4, 255, 255, 255, 0]], np.uint8)
    instances = np.array([[6, 6, 6, 6, 6, 6, 6, 6, 6, 8]], np.int32)
    assert find_objects(labels, instances) == [(3, (0, 0, 9, 1), 6, 9)]


@pytest.mark.parametrize("instances", [0, 255])
def test_no_objects(instances):
    assert find_objects(LABELS, np.full(LABELS.shape, instances, np.int32)) == []


@given(
    arrays(np.uint8, (5, 6), elements=st.sampled_from([0, 1, 2, 255])),
    arrays(np.int32, (5, 6), elements=st.sampled_from([0, 1, 7, 255, 300])),
)
def test_objects_as_found_one_by_one(labels, instances):
    expected = []
    for number in (1, 7, 300):
        inside = instances == number
        count = [np.sum(inside & (labels == label)) for label in (1, 2)]
        if sum(count):
            (y0, x0), (y1, x1) = np.argwhere(inside).min(0), np.argwhere(inside).max(0) + 1
            label = 1 if count[0] >= count[1] else 2
            expected.append((label, (x0, y0, x1, y1), number, inside.sum()))
    assert find_objects(labels, instances) == expected
