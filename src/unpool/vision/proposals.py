"""Object proposals: boxes from the edges of an image (EdgeBoxes), or from a fixed grid.

DeconvNet segments the best boxes one by one and merges the results (Noh, Hong, Han 2015, section
5). EdgeBoxes (Zitnick, Dollar 2014) scores a box by the contours that lie wholly inside it. Its
authors detect edges with a trained forest; here edges are color gradients, which need no weights.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from unpool.errors import OptionError, ShapeError, require_choice
from unpool.recipes.presets import METHODS
from unpool.vision.boxes import clip, reduced
from unpool.vision.images import Pixels, check_image

_FLAT = 1e-3  # weaker edges are rounding errors; a blurred step of one gray level has 2e-3
_MOST = 2**20  # larger images are reduced to this many pixels
_SMALLEST = 16  # the smallest side of boxes of the grid, in pixels


class Proposals(NamedTuple):
    """Boxes that may contain an object, best first."""

    boxes: NDArray[np.int32]  #: (P, 4) x0, y0, x1, y1 inside the image; x1, y1 excluded
    scores: NDArray[np.float32]  #: (P,), descending


def propose(image: Pixels, method: str = "edgeboxes", count: int = 2000) -> Proposals:
    """Propose at most `count` boxes in an image, (H, W, 3) uint8 RGB, by "edgeboxes" or "grid".

    A larger image is reduced to 1024 x 1024 pixels: the settings of EdgeBoxes are in pixels of such
    images, and its time grows with the number of pixels.

    Raises:
        OptionError: the method is unknown or not installed.

    >>> propose(np.zeros((60, 80, 3), np.uint8), "grid", count=1).boxes.tolist()
    [[0, 0, 80, 60]]
    """
    require_choice("the proposal method", method, METHODS)
    _check(image, count)
    small = reduced(image, _MOST)
    size = small.shape[0], small.shape[1]
    found = grid_boxes(size, count) if method == "grid" else edge_boxes(small, count)
    if small is image:
        return found
    scale = np.array(image.shape[1::-1]) / small.shape[1::-1]
    boxes = np.round(found.boxes * np.tile(scale, 2)).astype(np.int32)
    return Proposals(boxes, found.scores)


def edge_boxes(
    image: Pixels,
    count: int = 2000,
    *,
    alpha: float = 0.65,
    beta: float = 0.75,
    eta: float = 1.0,
    min_score: float = 0.01,
    edge_min_mag: float = 0.1,
    edge_merge_thr: float = 0.5,
    cluster_min_mag: float = 0.5,
    max_aspect_ratio: float = 3.0,
    min_box_area: float = 1000.0,
    gamma: float = 2.0,
    kappa: float = 1.5,
) -> Proposals:
    """Propose boxes by the contours that they contain (EdgeBoxes), with edges of `edge_map`.

    The defaults are the authors'. An image without edges has no boxes.

    Args:
        image: (H, W, 3) uint8, RGB.
        count: the largest number of boxes (the authors' maxBoxes).
        alpha, beta: IoU of neighboring windows; IoU above which the weaker of two boxes is dropped.
        eta: factor applied to beta after each box, while it is above 0.5.
        min_score, edge_min_mag: boxes and edges below these are dropped.
        edge_merge_thr: the largest total change of orientation in a group of edges, in half turns.
        cluster_min_mag: groups of smaller total magnitude are merged with a neighbor.
        max_aspect_ratio, min_box_area: limits of the windows.
        gamma, kappa: exponents of the affinity of groups, and of the box size that divides scores.

    Raises:
        OptionError: a setting is out of range, or OpenCV has no contributed modules.
        ShapeError: the image is not (H, W, 3) uint8, or is too large.

    Zitnick, Dollar 2014, section 3.

    >>> len(edge_boxes(np.zeros((60, 80, 3), np.uint8)).boxes)
    0
    """
    _check(image, count)
    _check_engine(image, alpha, beta, min_box_area)
    # a new engine for each image, since its tables grow with every call; arguments by position
    engine = cv2.ximgproc.createEdgeBoxes(
        *(alpha, beta, eta, min_score, min(count, 2**31 - 1)),  # OpenCV takes an int32
        *(edge_min_mag, edge_merge_thr, cluster_min_mag),
        *(max_aspect_ratio, min_box_area, gamma, kappa),
    )
    return _from_opencv(*engine.getBoundingBoxes(*edge_map(image)), image.shape[:2], count)


def edge_map(image: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Detect the edges of an image, (H, W, 3) uint8 RGB, thinned to lines.

    The image is blurred in Lab, and the gradients of the three channels are combined in a structure
    tensor; the root of its larger eigenvalue is the edge strength (Di Zenzo 1986). It is thinned
    along the normal, divided by its 99th percentile, clipped at 1, and faded out over the outer 5
    pixels, where the blur has mixed in mirrored pixels.

    Returns:
        edges: (H, W) float32, 0..1.
        orientation: (H, W) float32, 0..pi, of the edge's *normal*, from the x to the y axis.

    >>> image = np.zeros((40, 40, 3), np.uint8)
    >>> image[:, 20:] = 255
    >>> edges, orientation = edge_map(image)
    >>> edges[20].nonzero()[0].tolist(), float(orientation[20, 20])
    ([19, 20], 0.0)
    """
    _check(image)
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2Lab).astype(np.float32) / 255
    blurred = cv2.GaussianBlur(lab, (0, 0), max(1.5, 0.005 * max(image.shape[:2])))
    gx, gy = cv2.Scharr(blurred, cv2.CV_32F, 1, 0), cv2.Scharr(blurred, cv2.CV_32F, 0, 1)
    xx, xy, yy = (gx * gx).sum(2), (gx * gy).sum(2), (gy * gy).sum(2)
    strength = np.sqrt((xx + yy + np.hypot(xx - yy, 2 * xy)) / 2)
    orientation = np.mod(np.arctan2(2 * xy, xx - yy) / 2, np.float32(np.pi))
    # thinned before it is clipped, since a plateau of ones cannot be thinned
    scale = np.float32(max(np.percentile(strength, 99), _FLAT))
    edges = np.minimum(_thin(strength, orientation) / scale, 1)
    y, x = np.indices(edges.shape, np.float32)
    border = np.minimum(np.minimum(y, y[::-1]), np.minimum(x, x[:, ::-1]))
    return edges * np.minimum(border / 5, 1), orientation


def grid_boxes(
    size: tuple[int, int], count: int = 2000, *, shrink: float = 0.6, step: float = 0.5
) -> Proposals:
    """Propose boxes on a grid at several scales, independent of the image.

    Each scale has boxes of the aspect ratio of the image, and of half the width or half the
    height. Large scales come first, and in each scale boxes near the center. The scores fall
    evenly from 1 towards 0 and only express this order.

    Args:
        size: height and width of the image.
        count: the largest number of boxes.
        shrink: size of each scale relative to the one before, below 1; the first is the image.
        step: the largest distance between neighboring boxes, in box sides.

    >>> grid_boxes((60, 80), count=4).boxes.tolist()
    [[0, 0, 80, 60], [20, 0, 60, 60], [0, 15, 80, 45], [0, 0, 40, 60]]
    """
    if not (count >= 1 and 0 < shrink < 1 and step > 0):
        got = f"got count {count}, shrink {shrink}, step {step}"
        raise OptionError(f"{got}; wanted count >= 1, 0 < shrink < 1, step > 0")
    height, width = size
    levels = [np.array([[0, 0, width, height]])]
    scale = 1.0
    while scale * min(size) / 2 >= _SMALLEST:
        sides = [(h * scale * height, w * scale * width) for h, w in ((1, 1), (1, 0.5), (0.5, 1))]
        boxes = np.concatenate([_cover(size, each, step) for each in sides])
        offset = (boxes[:, :2] + boxes[:, 2:]) / (2 * np.array([width, height])) - 0.5
        levels.append(boxes[np.argsort(np.hypot(*offset.T), kind="stable")])
        scale *= shrink
    unique, first = np.unique(np.concatenate(levels), axis=0, return_index=True)
    best = unique[np.argsort(first)][:count].astype(np.int32)
    return Proposals(best, np.linspace(1, 0, len(best), endpoint=False, dtype=np.float32))


def _from_opencv(found: Any, scores: Any, size: tuple[int, int], count: int) -> Proposals:
    if len(found) == 0:  # then the scores are None
        return Proposals(np.zeros((0, 4), np.int32), np.zeros(0, np.float32))
    # OpenCV's x and y are 1-based, and both ends belong to a box, w + 1 pixels (edgeboxes.cpp,
    # scoreBox): the start moves by one, and the given end is the excluded one
    x, y, w, h = np.asarray(found, np.int32).T
    boxes = clip(np.stack([x - 1, y - 1, x + w, y + h], axis=1), size)
    return Proposals(boxes[:count], np.asarray(scores, np.float32).ravel()[:count])


def _thin(edges: NDArray[np.float32], normal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Keep edges that are the maximum, within 1 %, of five samples along their normal."""
    y, x = np.indices(edges.shape, np.float32)
    dx, dy = np.cos(normal), np.sin(normal)
    kept = np.ones(edges.shape, bool)
    for d in (-2, -1, 1, 2):
        neighbors = x + d * dx, y + d * dy
        beside = cv2.remap(edges, *neighbors, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        kept &= edges * 1.01 >= beside
    return edges * kept


def _cover(size: tuple[int, int], sides: tuple[float, float], step: float) -> NDArray[np.int64]:
    """Cover an image evenly from edge to edge with boxes of one size."""
    starts = []
    for length, side in zip(size, sides, strict=True):
        steps = int(np.ceil((length - side) / (step * side) - 1e-9))  # rounding errors add no box
        starts.append(np.linspace(0, length - side, steps + 1))
    y, x = (start.ravel() for start in np.meshgrid(*starts, indexing="ij"))
    corners = np.stack([x, y, x + sides[1], y + sides[0]], axis=1)
    return np.floor(corners + 0.5).astype(np.int64)


def _check(image: NDArray[Any], count: int = 1) -> None:
    check_image(image)
    if count < 1:
        raise OptionError(f"got a count of {count}; wanted 1 or more proposals")


def _check_engine(image: NDArray[Any], alpha: float, beta: float, min_box_area: float) -> None:
    """Refuse settings for which OpenCV divides by zero or reads out of bounds."""
    if not hasattr(cv2, "ximgproc"):
        raise OptionError(
            "the OpenCV that is installed has no EdgeBoxes (ximgproc); uninstall the opencv "
            "packages and `pip install opencv-contrib-python-headless`, or use the method 'grid'"
        )
    if not (0 < alpha < 1 and 0 < beta <= 1 and min_box_area >= 100):
        got = f"got alpha {alpha}, beta {beta}, min_box_area {min_box_area}"
        raise OptionError(f"{got}; wanted 0 < alpha < 1, 0 < beta <= 1, min_box_area >= 100")
    if sum(image.shape[:2]) >= 20000:
        raise ShapeError(
            f"got an image of {image.shape[1]} x {image.shape[0]} pixels; EdgeBoxes takes a width "
            "+ height below 20000: cut it into pieces, or pass mode='whole'"
        )
