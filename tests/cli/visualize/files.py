"""Written files, and what a network says by itself."""

from pathlib import Path

import numpy as np
from PIL import Image

from unpool.visualize import load_model


def names(folder):
    files = {p.relative_to(folder) for p in Path(folder).rglob("*") if p.is_file()}
    return {file.as_posix() for file in files if not file.parts[0].startswith(".")}


def class_fractions(tiny, path, box=None):
    """Class fractions of what the network sees, by the network alone."""
    loaded = load_model(tiny, device="cpu")
    image = np.array(Image.open(path))
    if box is not None:
        image = image[box[1] : box[3], box[0] : box[2]]
    labels = loaded.model(loaded.prepare([loaded.preprocessing.crop(image)])).argmax(1)
    return {n: float((labels == n).float().mean()) for n in range(3)}
