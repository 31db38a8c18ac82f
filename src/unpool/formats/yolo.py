"""YOLO's segmentation labels: a text file for each image, a line for each object.

A line has the number of the class, from 0 for the first class of objects, and the x and y of the
corners as fractions of the width and height. The format has no holes: they are joined to the
outline by lines without area, see `bridge`, so a fill by the even-odd rule keeps them. Six decimals
keep each pixel of images of up to 500,000 pixels in width.
"""

import json
from collections.abc import Sequence

import numpy as np

from unpool.formats.objects import Objects, has_background
from unpool.formats.outlines import bridge, simplify, trace


def to_yolo(objects: Objects, *, tolerance: float = 0.0) -> str:
    """The contents of the label file of an image; empty without objects.

    Args:
        objects: of the image, see `find_objects`.
        tolerance: by how many pixels outlines may be simplified, see `simplify`.

    >>> import numpy as np
    >>> from unpool.formats.objects import find_objects
    >>> to_yolo(find_objects(np.array([[0, 1]]), ["background", "cat"]))
    '0 0.500000 0.000000 1.000000 0.000000 1.000000 1.000000 0.500000 1.000000\\n'
    """
    height, width = objects.size
    lines = []
    for i, rings in enumerate(trace(objects.numbers)):
        corner = objects.boxes[i, :2]
        ring = corner + bridge([ring - corner for ring in rings], objects.mask(i))
        points = simplify(ring, tolerance) / np.array([width, height])
        numbers = " ".join(f"{value:.6f}" for value in points.ravel().tolist())
        lines.append(f"{objects.labels[i] - objects.first} {numbers}\n")
    return "".join(lines)


def data_yaml(classes: Sequence[str]) -> str:
    """The contents of `data.yaml`: the names of the classes by number.

    >>> print(data_yaml(["background", "cat", "dog"]), end="")
    # add: path, train and val, the folders of the images
    nc: 2
    names:
      0: "cat"
      1: "dog"
    """
    names = classes[1:] if has_background(classes) else classes
    lines = [f"  {i}: {json.dumps(name, ensure_ascii=False)}\n" for i, name in enumerate(names)]
    head = "# add: path, train and val, the folders of the images\n"
    return f"{head}nc: {len(names)}\nnames:\n{''.join(lines)}"
