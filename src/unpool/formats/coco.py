"""COCO's instance annotations, with a compressed run-length code for each object.

The category of class id k has id k. Codes keep each pixel, holes and all; polygons would not.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from unpool.files import json_line
from unpool.formats.objects import Objects, has_background
from unpool.formats.rle import encode

_INFO = {"description": "Segmented by unpool: each object is a connected component of a class."}


def to_coco(objects: Objects, file_name: str) -> dict[str, Any]:
    """The contents of a COCO file with one image.

    Args:
        objects: of the image, see `find_objects`.
        file_name: of the image, relative to the folder of all images.

    >>> import numpy as np
    >>> from unpool.formats.objects import find_objects
    >>> labels = np.array([[0, 1, 1], [0, 1, 0]])
    >>> found = to_coco(find_objects(labels, ["background", "cat"]), "cat.jpg")
    >>> found["annotations"][0]["segmentation"], found["annotations"][0]["bbox"]
    ({'size': [2, 3], 'counts': '231'}, [1, 0, 2, 2])
    """
    height, width = objects.size
    image = {"id": 1, "file_name": file_name, "width": width, "height": height}
    return {
        "info": _INFO,
        "images": [image],
        "categories": categories(objects.classes),
        "annotations": _annotations(objects),
    }


def categories(classes: Sequence[str]) -> list[dict[str, Any]]:
    """The entries of all classes except the background.

    >>> categories(["background", "cat"])
    [{'id': 1, 'name': 'cat', 'supercategory': ''}]
    """
    first = 1 if has_background(classes) else 0
    return [
        {"id": k, "name": name, "supercategory": ""} for k, name in enumerate(classes) if k >= first
    ]


def _annotations(objects: Objects) -> list[dict[str, Any]]:
    height, width = objects.size
    entries = []
    for i, label in enumerate(objects.labels.tolist()):
        x0, y0, x1, y1 = objects.boxes[i].tolist()
        code = encode(objects.mask(i), (height, width), (y0, x0))
        entry: dict[str, Any] = {
            "id": i + 1,
            "image_id": 1,
            "category_id": label,
            "segmentation": {"size": [height, width], "counts": code},
            "area": int(objects.areas[i]),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "iscrowd": 0,
        }
        entry |= objects.score(i)
        entries.append(entry)
    return entries


def merged(parts: Iterable[dict[str, Any]], classes: Sequence[str]) -> Iterator[str]:
    """The text of a COCO file of many images, piece by piece.

    Args:
        parts: the contents of files with one image each, see `to_coco`; ids are given anew.
        classes: names by class id.

    >>> print("".join(merged([], ["background", "cat"])), end="")  # doctest: +ELLIPSIS
    {"info": ...,
    "categories": [{"id": 1, "name": "cat", "supercategory": ""}],
    "annotations": [
    ],
    "images": []}
    """
    images: list[dict[str, Any]] = []
    count = 0
    yield f'{{"info": {json_line(_INFO)},\n"categories": {json_line(categories(classes))},\n'
    yield '"annotations": ['
    for number, part in enumerate(parts, 1):
        images += [{**image, "id": number} for image in part["images"]]
        for entry in part["annotations"]:
            count += 1
            new = {**entry, "id": count, "image_id": number}
            yield f"{',' if count > 1 else ''}\n{json_line(new)}"
    yield f'\n],\n"images": {json_line(images)}}}\n'
