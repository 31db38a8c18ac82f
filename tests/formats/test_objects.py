"""Objects against SciPy's labeling, and scores against plain means."""

import cv2
import numpy as np
import pytest
from scipy import ndimage

from tests.formats.scenes import CLASSES, SCENES
from unpool.errors import OptionError, ShapeError
from unpool.formats.objects import find_objects, has_background

scenes = pytest.mark.parametrize("labels", SCENES.values(), ids=SCENES.keys())


@scenes
@pytest.mark.parametrize("connectivity", [4, 8])
def test_objects_are_the_connected_components(labels, connectivity):
    found = find_objects(labels, CLASSES, connectivity=connectivity)
    expected = []
    for k in (1, 2, 3):
        structure = np.ones((3, 3)) if connectivity == 8 else None
        parts, count = ndimage.label(labels == k, structure)
        expected += [(k, parts == i) for i in range(1, count + 1)]
    assert found.labels.tolist() == [k for k, _ in expected]
    for i, (_, mask) in enumerate(expected):
        assert ((found.numbers == i + 1) == mask).all(), "from top to bottom, as SciPy numbers them"
        x0, y0, x1, y1 = found.boxes[i]
        rows, columns = np.nonzero(mask)
        assert (y0, x0, y1, x1) == (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
        assert (found.mask(i) == mask[y0:y1, x0:x1]).all()
        assert found.areas[i] == mask.sum()
    assert (found.numbers == 0).sum() == labels.size - sum(mask.sum() for _, mask in expected)


@scenes
def test_scores_are_mean_probabilities(labels):
    probabilities = np.random.default_rng(0).random((4, *labels.shape), np.float32)
    found = find_objects(labels, CLASSES, probabilities)
    for i, k in enumerate(found.labels):
        mean = probabilities[k][found.numbers == i + 1].mean()
        assert found.scores[i] == pytest.approx(mean, abs=1e-6)
    again = find_objects(labels, CLASSES, scores=found.scores)
    assert (again.scores == found.scores).all()


def test_probabilities_of_a_reduced_image_are_enlarged():
    labels = np.zeros((40, 60), np.uint8)
    labels[10:20, 30:50] = 1
    small = np.random.default_rng(0).random((2, 20, 30), np.float32)
    large = cv2.resize(small[1], (60, 40), interpolation=cv2.INTER_LINEAR)
    found = find_objects(labels, CLASSES[:2], small)
    assert found.scores[0] == pytest.approx(large[10:20, 30:50].mean(), abs=1e-6)


def test_a_first_class_that_is_no_background_has_objects():
    found = find_objects(np.array([[0, 1, 255]]), ["Sky", "Building"])
    assert found.names() == ["Sky", "Building"]
    assert not has_background(["Sky"])
    assert has_background(["_background_"])


def test_what_is_refused():
    with pytest.raises(OptionError, match="got label 4 with 4 classes"):
        find_objects(np.array([[4]]), CLASSES)
    with pytest.raises(OptionError, match="got label -1"):
        find_objects(np.array([[-1]]), CLASSES)
    for labels in (np.zeros((2, 2)), np.zeros((2, 2, 3), int), np.zeros((0, 2), int)):
        with pytest.raises(ShapeError, match="of an integer type"):
            find_objects(labels, CLASSES)
    with pytest.raises(ShapeError, match="one for each of 1 objects"):
        find_objects(np.array([[1]]), CLASSES, scores=[0.5, 0.5])
    with pytest.raises(ShapeError, match="for 4 classes"):
        find_objects(np.array([[1]]), CLASSES, np.zeros((2, 1, 1)))
