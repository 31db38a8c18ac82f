"""Correspondences between two objects: points carried along by the optical flow of a morph."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from unpool.errors import OptionError, ShapeError
from unpool.generate.result import enlarge

_LEAST = 256  # pixels of a side to which smaller frames are enlarged: flows look for coarser motion


def carry(frames: Sequence[NDArray[np.uint8]], points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Carry points from the first frame to the last by the optical flow from each to the next.

    Two objects differ too much for optical flow; the steps between two of 64 intermediate morphs
    are small. A point moves by the flow where it stands, interpolated.

    Args:
        frames: T images, each (H, W, 3) uint8, RGB.
        points: (P, 2) x and y in pixels of the first; the center of a pixel is a whole number.

    Returns:
        (T, P, 2): where each point stands in each frame.

    Raises:
        OptionError: points outside the image.
        ShapeError: fewer than two frames, or points of another shape.

    Dosovitskiy, Springenberg, Brox 2015, section on correspondences; their flow is that of Brox and
    Malik, here it is DIS of OpenCV (Kroeger et al. 2016).

    >>> frames = [np.full((32, 32, 3), 255, np.uint8)] * 3
    >>> carry(frames, np.array([[4.0, 5.0]]))[-1].tolist()
    [[4.0, 5.0]]
    """
    start = np.asarray(points, np.float64)
    if len(frames) < 2 or start.ndim != 2 or start.shape[1] != 2:
        raise ShapeError(
            f"got {len(frames)} frames and points of {start.shape}; wanted two or more, and (P, 2)"
        )
    height, width = frames[0].shape[:2]
    _require_inside(start, width, height)
    engine: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    engine.setFinestScale(0)
    scale = max(_LEAST // min(height, width), 1)
    grays = [_gray(frame, scale) for frame in frames]
    places, tracks = (start + 0.5) * scale - 0.5, [start]
    for before, after in pairwise(grays):
        places = places + _sample(engine.calc(before, after, None), places)
        tracks.append((places + 0.5) / scale - 0.5)
    return np.stack(tracks)


def spread_points(mask: NDArray[np.uint8], count: int) -> NDArray[np.float64]:
    """Points evenly spread over an object: each as far from those before it as can be.

    Args:
        mask: (H, W) uint8; the object is where it is above 127.
        count: P, how many; fewer where the object has fewer pixels.

    Returns:
        (P, 2) x and y; the same for the same mask.

    Raises:
        OptionError: less than one wanted, or no object.

    >>> spread_points(np.eye(5, dtype=np.uint8) * 255, 2).tolist()
    [[0.0, 0.0], [4.0, 4.0]]
    """
    where = np.argwhere(mask > 127)[:, ::-1].astype(np.float64)
    if count < 1 or not len(where):
        raise OptionError(
            f"got {count} points on an object of {len(where)} pixels; wanted one or more of both: "
            "name the points, or take another style or view"
        )
    chosen, distance = [where[0]], np.full(len(where), np.inf)
    while len(chosen) < min(count, len(where)):
        distance = np.minimum(distance, ((where - chosen[-1]) ** 2).sum(1))
        chosen.append(where[distance.argmax()])
    return np.array(chosen)


def draw_pairs(
    images: Sequence[NDArray[np.uint8]],
    places: Sequence[NDArray[np.floating]],
    *,
    scale: int = 4,
) -> NDArray[np.uint8]:
    """Lay images side by side, and the same points in all of them in the same colors.

    Args:
        images: each (H, W, 3) uint8, RGB, of one height.
        places: of each image (P, 2), x and y in its pixels.
        scale: how many times as large the images are shown.

    Returns:
        (scale * H, scale * all widths, 3) uint8.

    >>> blank = np.full((8, 8, 3), 255, np.uint8)
    >>> draw_pairs([blank, blank], [np.array([[2.0, 3.0]])] * 2, scale=2).shape
    (16, 32, 3)
    """
    sheet = Image.fromarray(enlarge(np.concatenate(images, axis=1), scale))
    draw, left = ImageDraw.Draw(sheet), 0
    radius = max(scale, 2)
    for image, points in zip(images, places, strict=True):
        for i, (x, y) in enumerate(points):
            center = (left + x + 0.5) * scale, (y + 0.5) * scale
            color = f"hsv({360 * i // max(len(points), 1)}, 90%, 90%)"
            draw.circle(center, radius, color, "black")
        left += image.shape[1]
    return np.asarray(sheet)


def _gray(frame: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    size = gray.shape[1] * scale, gray.shape[0] * scale
    return np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def _sample(flow: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """The flow (P, 2) at places between pixels; beyond the border as at the border."""
    x, y = (places[:, None, i].astype(np.float32) for i in (0, 1))
    moved = cv2.remap(flow, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.float64).reshape(-1, 2)


def _require_inside(points: NDArray[np.float64], width: int, height: int) -> None:
    inside = (points > -0.5) & (points < np.array([width, height]) - 0.5)
    if not inside.all():
        x, y = points[~inside.all(1)][0]
        raise OptionError(
            f"got the point {x:g}, {y:g}, which is outside; wanted x below {width} and y below "
            f"{height}, from 0"
        )
