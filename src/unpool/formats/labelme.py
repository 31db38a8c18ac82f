"""The JSON files of labelme: one beside each image, an outline for each object.

A polygon of labelme has no holes. So an object with holes is written as a `mask`, the other kind of
shape, which keeps each pixel; all others are polygons along the edges of pixels, to be edited.
"""

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from unpool.formats.objects import has_background
from unpool.formats.outlines import Ring, simplify, trace

if TYPE_CHECKING:
    from unpool.formats.objects import Objects

_VERSION = "5.5.0"  # of labelme, one that knows masks


def to_labelme(objects: "Objects", image_path: str, *, tolerance: float = 0.0) -> dict[str, Any]:
    """The contents of the labelme file of an image.

    Args:
        objects: of the image, see `find_objects`.
        image_path: of the image, relative to the JSON file.
        tolerance: by how many pixels outlines may be simplified, see `simplify`.

    >>> import numpy as np
    >>> from unpool.formats.objects import find_objects
    >>> found = to_labelme(find_objects(np.array([[0, 1]]), ["background", "cat"]), "cat.jpg")
    >>> found["shapes"][0]["label"], found["shapes"][0]["points"]
    ('cat', [[1, 0], [2, 0], [2, 1], [1, 1]])
    """
    height, width = objects.size
    shapes = []
    for i, (name, rings) in enumerate(zip(objects.names(), trace(objects.numbers), strict=True)):
        shape = {"label": name, **_shape(objects, i, rings, tolerance)}
        shape |= {"group_id": None, "description": "", "flags": {}}
        shape |= objects.score(i)
        shapes.append(shape)
    return {
        "version": _VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def labels_txt(classes: Sequence[str]) -> str:
    """The contents of a list of labels for `labelme --labels`, which also keeps their order.

    >>> labels_txt(["background", "cat", "dog"])
    'cat\\ndog\\n'
    """
    return "".join(f"{name}\n" for name in classes[1 if has_background(classes) else 0 :])


def _shape(objects: "Objects", i: int, rings: list[Ring], tolerance: float) -> dict[str, Any]:
    if len(rings) == 1:
        points = simplify(rings[0], tolerance).tolist()
        return {"points": points, "shape_type": "polygon", "mask": None}
    x0, y0, x1, y1 = objects.boxes[i].tolist()
    _, png = cv2.imencode(".png", objects.mask(i).astype(np.uint8) * 255)
    return {
        "points": [[x0, y0], [x1 - 1, y1 - 1]],  # the last row and column are included
        "shape_type": "mask",
        "mask": base64.b64encode(png.tobytes()).decode("ascii"),
    }
