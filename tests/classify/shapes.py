"""Images of three shapes, in a folder of each."""

import cv2
import numpy as np
from PIL import Image


def draw(kind, rng):
    """A bright disk, square or cross on dark ground."""
    image = rng.integers(0, 60, (44, 56, 3), dtype=np.uint8)
    color = rng.integers(150, 256, 3).tolist()
    x, y, r = int(rng.integers(20, 36)), int(rng.integers(16, 28)), int(rng.integers(9, 14))
    if kind == "disk":
        cv2.circle(image, (x, y), r, color, -1)
    elif kind == "square":
        cv2.rectangle(image, (x - r, y - r), (x + r, y + r), color, -1)
    else:
        cv2.drawMarker(image, (x, y), color, cv2.MARKER_CROSS, 2 * r, 3)
    return image


def make(root, train, val):
    """So many images of each shape."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for kind in ("cross", "disk", "square"):
            (root / split / kind).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(draw(kind, rng)).save(root / split / kind / f"{i}.png")
    return root
