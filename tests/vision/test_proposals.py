"""Edges of known lines, boxes of known rectangles, and the promises about order and bounds."""

import cv2
import numpy as np
import pytest

from unpool.errors import OptionError, ShapeError
from unpool.vision.boxes import area, iou
from unpool.vision.proposals import METHODS, edge_boxes, edge_map, grid_boxes, propose


def rectangle(box, size=(160, 200), color=(220, 210, 190)):
    image = np.full((*size, 3), 60, np.uint8)
    x0, y0, x1, y1 = box
    image[y0:y1, x0:x1] = color
    return image


def scene(seed=0, size=(120, 160)):
    """Ten overlapping rectangles and a little noise."""
    rng = np.random.default_rng(seed)
    image = np.full((*size, 3), 90, np.uint8)
    for _ in range(10):
        y, x = rng.integers(0, size)
        h, w = rng.integers(15, 70, 2)
        image[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("degrees", [0, 20, 45, 70, 90, 110, 135, 160])
def test_a_straight_edge_is_thin_and_knows_its_normal(degrees):
    normal = np.deg2rad(degrees)
    y, x = np.mgrid[:81, :81] - 40.0
    distance = x * np.cos(normal) + y * np.sin(normal)
    shade = (255 / (1 + np.exp(-3 * distance))).astype(np.uint8)
    edges, orientation = edge_map(np.repeat(shade[..., None], 3, axis=2))
    on = edges > 0.5
    inner = slice(8, -8), slice(8, -8)
    assert np.abs(distance[on]).max() < 1.5
    assert 0.9 < on[inner].sum() / (np.abs(distance[inner]) < 0.5).sum() < 2.1
    turn = np.abs(orientation[inner][on[inner]] - normal)
    assert np.minimum(turn, np.pi - turn).max() < np.deg2rad(3)


def test_edge_map_types_and_ranges():
    edges, orientation = edge_map(scene())
    assert edges.dtype == orientation.dtype == np.float32
    assert edges.shape == orientation.shape == (120, 160)
    assert edges.min() == 0
    assert edges.max() == 1
    assert orientation.min() >= 0
    assert orientation.max() <= np.float32(np.pi)
    assert not np.concatenate([edges[0], edges[-1], edges[:, 0], edges[:, -1]]).any()


def test_edges_fade_over_the_outer_five_pixels():
    image = np.zeros((40, 50, 3), np.uint8)
    image[20:] = 255
    line = edge_map(image)[0].max(axis=0)
    np.testing.assert_allclose(line[:7], [0, 0.2, 0.4, 0.6, 0.8, 1, 1], rtol=1e-5)
    np.testing.assert_allclose(line, line[::-1])


def test_edge_map_turns_with_the_image():
    image = scene()
    for axes in ((0,), (1,), (0, 1)):
        turned, _ = edge_map(np.flip(image, axes).copy())
        np.testing.assert_allclose(np.flip(turned, axes), edge_map(image)[0], atol=0.02)


def test_strength_is_the_larger_eigenvalue_of_the_structure_tensor():
    image = cv2.GaussianBlur(scene(), (0, 0), 3)
    edges, orientation = edge_map(image)
    lab = cv2.GaussianBlur(
        cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float64) / 255, (0, 0), 1.5
    )
    peaks = np.argwhere((edges > 0.3) & (edges < 0.9))
    peaks = peaks[((peaks > 6) & (peaks < np.array(edges.shape) - 7)).all(axis=1)][::7]
    kernel = np.array([[-3, 0, 3], [-10, 0, 10], [-3, 0, 3]])
    found, expected = [], []
    for y, x in peaks:
        patch = lab[y - 1 : y + 2, x - 1 : x + 2]
        jacobian = np.stack([np.tensordot(k, patch, 2) for k in (kernel, kernel.T)])  # (2, 3)
        values, vectors = np.linalg.eigh(jacobian @ jacobian.T)
        found.append(edges[y, x])
        expected.append(np.sqrt(values[1]))
        normal = np.array([np.cos(orientation[y, x]), np.sin(orientation[y, x])])
        assert abs(normal @ vectors[:, 1]) > 0.999
    assert len(peaks) > 20
    ratio = np.array(found) / expected
    np.testing.assert_allclose(ratio, np.median(ratio), rtol=1e-3)


def test_colors_of_one_lightness_have_an_edge():
    image = np.full((60, 60, 3), (200, 60, 60), np.uint8)
    image[:, 30:] = (10, 125, 10)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    assert abs(int(gray[0, 0]) - int(gray[0, -1])) < 30
    assert edge_map(image)[0][30, 28:32].max() == 1


def test_one_small_object_in_a_blank_image_has_thin_edges():
    # here the 99th percentile is 0, which must neither divide nor thicken
    edges, _ = edge_map(rectangle((190, 190, 210, 210), (400, 400)))
    assert edges.max() == 1
    assert 40 < (edges > 0.1).sum() < 200


def test_boxes_are_not_shifted():
    rng = np.random.default_rng(0)
    off = []
    for _ in range(30):
        w, h = rng.integers(50, 100, 2)
        x, y = rng.integers(12, (200 - w - 12, 160 - h - 12))
        box = np.array([x, y, x + w, y + h])
        best = edge_boxes(rectangle(box), count=1).boxes
        assert iou(best, box[None])[0, 0] > 0.75
        off.append(best[0] - box)
    x0, y0, x1, y1 = np.mean(off, axis=0)
    # a box goes around its edges by the same margin on all sides; with OpenCV's own numbers, or
    # with 1 taken from both corners, the sides would differ by 1
    assert abs(x0 + x1) < 0.8
    assert abs(y0 + y1) < 0.8
    assert -4 < x0 < 0 < x1 < 4


def test_boxes_reach_the_borders_and_no_further():
    boxes = np.concatenate([edge_boxes(scene(seed)).boxes for seed in range(4)])
    assert boxes.min(axis=0)[:2].tolist() == [0, 0]
    assert boxes.max(axis=0)[2:].tolist() == [160, 120]
    assert (boxes[:, :2] < boxes[:, 2:]).all()


def test_boxes_are_sorted_typed_and_the_same_every_time():
    first = edge_boxes(scene())
    edge_boxes(scene(1))  # in between, since an engine that is kept would remember it
    again = edge_boxes(scene())
    assert first.boxes.dtype == np.int32
    assert first.scores.dtype == np.float32
    assert len(first.boxes) == len(first.scores) > 50
    assert (np.diff(first.scores) <= 0).all()
    assert (first.boxes == again.boxes).all()
    assert (first.scores == again.scores).all()


def test_a_smaller_count_gives_the_first_of_a_larger():
    many, few = edge_boxes(scene()), edge_boxes(scene(), 7)
    assert (few.boxes == many.boxes[:7]).all()
    assert (few.scores == many.scores[:7]).all()
    assert len(edge_boxes(scene(), 7, beta=1.0).boxes) == 7  # where OpenCV forgets its maxBoxes
    np.testing.assert_array_equal(edge_boxes(scene(), 10**30).boxes[: len(many.boxes)], many.boxes)


def test_boxes_do_not_repeat_one_another():
    boxes = edge_boxes(scene(), beta=0.5).boxes
    overlaps = iou(boxes, boxes)[~np.eye(len(boxes), dtype=bool)]
    assert overlaps.max() < 0.55  # OpenCV's boxes are a pixel smaller when it compares them


def test_every_setting_reaches_the_engine(monkeypatch):
    engines = []
    create = cv2.ximgproc.createEdgeBoxes
    monkeypatch.setattr(
        cv2.ximgproc,
        "createEdgeBoxes",
        lambda *a, **k: engines.append(create(*a, **k)) or engines[-1],
    )
    edge_boxes(scene())
    edge_boxes(
        scene(), 11, alpha=0.6, beta=0.7, eta=0.9, min_score=0.02, edge_min_mag=0.2,
        edge_merge_thr=0.4, cluster_min_mag=0.3, max_aspect_ratio=2, min_box_area=900, gamma=1.5,
        kappa=1.25,
    )  # fmt: skip
    names = (
        "Alpha Beta Eta MinScore MaxBoxes EdgeMinMag EdgeMergeThr ClusterMinMag MaxAspectRatio "
        "MinBoxArea Gamma Kappa"
    )
    read = [[getattr(e, f"get{name}")() for name in names.split()] for e in engines]
    published = cv2.ximgproc.createEdgeBoxes()
    default = [getattr(published, f"get{name}")() for name in names.split()]
    default[4] = 2000
    np.testing.assert_allclose(read[0], default)
    expected = [0.6, 0.7, 0.9, 0.02, 11, 0.2, 0.4, 0.3, 2, 900, 1.5, 1.25]
    np.testing.assert_allclose(read[1], expected, rtol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 3), (40, 12), (64, 64)])
def test_blank_and_tiny_images(size):
    blank = edge_boxes(np.full((*size, 3), 77, np.uint8))
    assert blank.boxes.shape == (0, 4)
    assert blank.scores.shape == (0,)
    noisy = edge_boxes(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    assert np.isfinite(noisy.scores).all()
    assert grid_boxes(size).boxes[0].tolist() == [0, 0, size[1], size[0]]


@pytest.mark.parametrize("size", [(120, 160), (375, 500), (500, 333), (20, 900), (33, 32)])
def test_grid_boxes_lie_inside_large_ones_first(size):
    boxes, scores = grid_boxes(size, 3000)
    assert boxes.dtype == np.int32
    assert scores.dtype == np.float32
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= size[::-1]).all()
    assert (boxes[:, 2:] - boxes[:, :2]).min() >= 15
    assert len(np.unique(boxes, axis=0)) == len(boxes) == len(scores)
    assert scores[0] == 1
    assert scores[-1] > 0
    assert (np.diff(scores) < 0).all()
    areas = area(boxes)
    # two of three shapes have half the area of their scale, and the next scale has 0.36 of it
    assert (areas[1:] <= 2.9 * np.minimum.accumulate(areas)[:-1]).all()


def test_the_grid_has_a_box_for_every_large_object():
    boxes = grid_boxes((300, 400)).boxes
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 0.6, (200, 2))
    high = low + rng.uniform(0.25, 0.4, (200, 2))
    objects = np.hstack([low, high]) * [400, 300, 400, 300]
    best = iou(objects, boxes).max(axis=1)
    assert best.min() > 0.35
    assert np.mean(best > 0.5) > 0.9


def test_propose_calls_the_method_of_that_name():
    image = scene()
    for a, b in (
        (propose(image, count=20), edge_boxes(image, 20)),
        (propose(image, "grid", 20), grid_boxes((120, 160), 20)),
    ):
        assert (a.boxes == b.boxes).all()
        assert (a.scores == b.scores).all()
        assert len(a.boxes) == 20


def test_messages(monkeypatch):
    image = scene()
    with pytest.raises(OptionError, match="method 'bing'; the choices are edgeboxes, grid"):
        propose(image, "bing")
    for method in METHODS:
        with pytest.raises(OptionError, match="got a count of 0; wanted 1 or more"):
            propose(image, method, 0)
        with pytest.raises(
            ShapeError, match=r"\(120, 160\) and type uint8; wanted \(H, W, 3\) uint8"
        ):
            propose(image[..., 0], method)
    with pytest.raises(ShapeError, match=r"\(0, 5, 3\)"):
        edge_map(np.zeros((0, 5, 3), np.uint8))
    with pytest.raises(OptionError, match=r"got alpha 1, beta 0\.75.*wanted 0 < alpha < 1"):
        edge_boxes(image, alpha=1)
    with pytest.raises(OptionError, match="min_box_area >= 100"):
        edge_boxes(image, min_box_area=4)
    with pytest.raises(ShapeError, match=r"width \+ height below 20000: cut it into .*'whole'"):
        edge_boxes(np.zeros((19999, 1, 3), np.uint8))
    with pytest.raises(OptionError, match=r"shrink 1.*wanted count >= 1, 0 < shrink < 1"):
        grid_boxes((30, 30), shrink=1)
    monkeypatch.delattr(cv2, "ximgproc")
    with pytest.raises(OptionError, match="pip install opencv-contrib-python-headless"):
        edge_boxes(image)
    assert len(propose(image, "grid").boxes)
