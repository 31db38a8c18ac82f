"""Correspondences between two objects: points tracked through a morph by optical flow."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from unpool.errors import OptionError, ShapeError
from unpool.generate.result import enlarge

if TYPE_CHECKING:
    from unpool.vision.images import Pixels

_MIN_SIDE = 256  # smaller frames are enlarged to it: DIS assumes motion on a coarser scale


def track_points(frames: Sequence["Pixels"], points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Track points from the first frame to the last by the optical flow between successive frames.

    Two objects differ too much for optical flow, but the steps between 64 intermediate morphs are
    small. A point moves by the flow at its position, interpolated.

    Args:
        frames: T images, each (H, W, 3) uint8, RGB.
        points: (P, 2) x and y in pixels of the first; pixel centers are whole numbers.

    Returns:
        (T, P, 2): the position of each point in each frame.

    Raises:
        OptionError: points outside the image.
        ShapeError: fewer than two frames, or points of another shape.

    Dosovitskiy, Springenberg & Brox 2015, section on correspondences. They use the optical flow of
    Brox and Malik, this is DIS of OpenCV (Kroeger et al. 2016).

    >>> frames = [np.full((32, 32, 3), 255, np.uint8)] * 3
    >>> track_points(frames, np.array([[4.0, 5.0]]))[-1].tolist()
    [[4.0, 5.0]]
    """
    start = np.asarray(points, np.float64)
    if len(frames) < 2 or start.ndim != 2 or start.shape[1] != 2:
        got = f"got {len(frames)} frames and points of {start.shape}"
        raise ShapeError(f"{got}; wanted two or more, and (P, 2)")
    height, width = frames[0].shape[:2]
    inside = ((start > -0.5) & (start < np.array([width, height]) - 0.5)).all(1)
    if not inside.all():
        x, y = start[~inside][0]
        wanted = f"0 <= x < {width} and 0 <= y < {height}"
        raise OptionError(f"got the point {x:g}, {y:g}, which is outside; wanted {wanted}")
    engine: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    engine.setFinestScale(0)  # full resolution; the preset stops at half of it
    scale = max(_MIN_SIDE // min(height, width), 1)
    positions, tracks = (start + 0.5) * scale - 0.5, [start]  # pixel centers are whole numbers
    for before, after in pairwise(_gray(frame, scale) for frame in frames):
        positions = positions + _sample(engine.calc(before, after, None), positions)
        tracks.append((positions + 0.5) / scale - 0.5)
    return np.stack(tracks)


def spread_points(mask: "Pixels", count: int) -> NDArray[np.float64]:
    """Spread points evenly over an object: each as far from the previous ones as possible.

    Args:
        mask: (H, W) uint8; the object is where it exceeds 127.
        count: P, the number of points; fewer if the object has fewer pixels.

    Returns:
        (P, 2) x and y; deterministic.

    Raises:
        OptionError: less than one point, or no object.

    >>> spread_points(np.eye(5, dtype=np.uint8) * 255, 2).tolist()
    [[0.0, 0.0], [4.0, 4.0]]
    """
    where = np.argwhere(mask > 127)[:, ::-1].astype(np.float64)
    if count < 1 or not len(where):
        got = f"got {count} points on an object of {len(where)} pixels"
        raise OptionError(f"{got}; wanted one or more of both: use another style or view")
    chosen, distance = [where[0]], np.full(len(where), np.inf)
    while len(chosen) < min(count, len(where)):
        distance = np.minimum(distance, ((where - chosen[-1]) ** 2).sum(1))
        chosen.append(where[distance.argmax()])
    return np.array(chosen)


def mark_points(
    images: Sequence["Pixels"], positions: Sequence[NDArray[np.floating]], *, scale: int = 4
) -> "Pixels":
    """Show images side by side, with corresponding points in the same color.

    Args:
        images: each (H, W, 3) uint8, RGB, of one height.
        positions: for each image (P, 2), x and y in its pixels.

    Returns:
        (scale * H, scale * all widths, 3) uint8.

    >>> blank = np.full((8, 8, 3), 255, np.uint8)
    >>> mark_points([blank, blank], [np.array([[2.0, 3.0]])] * 2, scale=2).shape
    (16, 32, 3)
    """
    sheet = Image.fromarray(enlarge(np.concatenate(images, axis=1), scale))
    draw, left = ImageDraw.Draw(sheet), 0
    for image, points in zip(images, positions, strict=True):
        for i, (x, y) in enumerate(points):
            center = (left + x + 0.5) * scale, (y + 0.5) * scale
            color = f"hsv({360 * i // len(points)}, 90%, 90%)"
            draw.circle(center, max(scale, 2), color, "black")
        left += image.shape[1]
    return np.asarray(sheet)


def _gray(frame: "Pixels", scale: int) -> "Pixels":
    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(gray, None, None, scale, scale, cv2.INTER_CUBIC), np.uint8)


def _sample(flow: NDArray[np.float32], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """The flow (P, 2) at subpixel positions; the border value beyond the border."""
    x, y = (positions[:, None, i].astype(np.float32) for i in (0, 1))
    moved = cv2.remap(flow, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.float64).reshape(-1, 2)
