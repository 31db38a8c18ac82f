"""Images that are part of other valid files."""

import io
import json
from typing import Any

import numpy as np
from PIL import Image

Files = dict[str, bytes]
"""A folder: contents by relative path."""

PHOTO = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
LABELS = np.kron([[0, 2], [2, 1]], np.ones((10, 15), np.uint8)).astype(np.uint8)  # 20 x 30


def saved(im: Image.Image, format: str, **options: Any) -> bytes:
    """An image as the bytes of a file."""
    file = io.BytesIO()
    im.save(file, format, **options)
    return file.getvalue()


def as_json(value: object) -> bytes:
    """Plain values as JSON."""
    return json.dumps(value).encode()


def index_png(labels: np.ndarray) -> bytes:
    """Class ids as a PNG with a palette."""
    im = Image.fromarray(labels.astype(np.uint8))
    im.putpalette([i * 7 % 256 for i in range(768)])
    return saved(im, "PNG")


JPG = saved(Image.fromarray(PHOTO), "JPEG")
