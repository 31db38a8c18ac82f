"""Label Studio: tasks with predictions, to be imported as pre-annotations, and a labeling config.

Each object is a region of `brushlabels` with a run-length code, which keeps each pixel.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from unpool.files import json_line
from unpool.formats.objects import Objects, has_background
from unpool.formats.rle import encode_brush
from unpool.vision.images import Pixels, voc_palette

_FROM, _TO = "label", "image"  # the names of the tags in the config


def to_label_studio(
    objects: Objects, image: str, *, model_version: str = "unpool"
) -> dict[str, Any]:
    """A task of Label Studio with one prediction.

    Args:
        objects: of the image, see `find_objects`.
        image: the address of the image as Label Studio knows it, see `local_file`.
        model_version: shown with the prediction.

    >>> import numpy as np
    >>> from unpool.formats.objects import find_objects
    >>> objects = find_objects(np.array([[0, 1]]), ["background", "cat"])
    >>> task = to_label_studio(objects, local_file("cat.jpg"))
    >>> task["data"], task["predictions"][0]["result"][0]["value"]["brushlabels"]
    ({'image': '/data/local-files/?d=cat.jpg'}, ['cat'])
    """
    height, width = objects.size
    regions = []
    for i, name in enumerate(objects.names()):
        x0, y0 = objects.boxes[i, :2].tolist()
        code = encode_brush(objects.mask(i), (height, width), (y0, x0))
        region: dict[str, Any] = {
            "id": f"object-{i + 1}",
            "type": "brushlabels",
            "from_name": _FROM,
            "to_name": _TO,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": code, "brushlabels": [name]},
        }
        region |= objects.score(i)
        regions.append(region)
    prediction: dict[str, Any] = {"model_version": model_version, "result": regions}
    if objects.scores is not None and regions:
        prediction["score"] = round(float(objects.scores.mean()), 4)
    return {"data": {_TO: image}, "predictions": [prediction]}


def local_file(path: str) -> str:
    """The address of a file below Label Studio's `LOCAL_FILES_DOCUMENT_ROOT`.

    >>> local_file("cats/first photo.jpg")
    '/data/local-files/?d=cats/first%20photo.jpg'
    """
    return f"/data/local-files/?d={quote(path, errors='surrogateescape')}"


def labeling_config(classes: Sequence[str], palette: Pixels | None = None) -> str:
    """The labeling config for these predictions, to be pasted into a project's settings.

    Args:
        classes: names by class id.
        palette: (256, 3) uint8, RGB by class id; that of VOC when not given.

    >>> print(labeling_config(["background", "cat"]), end="")
    <View>
      <Image name="image" value="$image"/>
      <BrushLabels name="label" toName="image">
        <Label value="cat" background="#800000"/>
      </BrushLabels>
    </View>
    """
    colors = voc_palette() if palette is None else palette
    labels = "".join(
        f'    <Label value={quoteattr(name)} background="#{bytes(colors[k]).hex()}"/>\n'
        for k, name in enumerate(classes)
        if k or not has_background(classes)
    )
    return (
        f'<View>\n  <Image name="{_TO}" value="${_TO}"/>\n'
        f'  <BrushLabels name="{_FROM}" toName="{_TO}">\n{labels}  </BrushLabels>\n</View>\n'
    )


def merged(parts: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The text of a file of many tasks, piece by piece.

    >>> "".join(merged([{"data": {}}]))
    '[\\n{"data": {}}\\n]\\n'
    """
    yield "["
    for i, part in enumerate(parts):
        yield f"{',' if i else ''}\n{json_line(part)}"
    yield "\n]\n"
