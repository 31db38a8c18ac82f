"""The result of segmenting an image."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unpool.errors import ImageError, OptionError, require_path
from unpool.formats.coco import to_coco
from unpool.formats.geojson import to_geojson
from unpool.formats.label_studio import local_file, to_label_studio
from unpool.formats.labelme import to_labelme
from unpool.formats.objects import Objects, find_objects
from unpool.formats.yolo import to_yolo
from unpool.segment.confidence import label_confidence
from unpool.segment.scores import Scores, write_scores
from unpool.vision.drawing import overlay
from unpool.vision.georeference import read_georeference
from unpool.vision.images import MAX_JPEG_SIDE, encode_png, write_image, write_mask

_USE = "use `labels` and `confidence`, smaller images, or mode='whole'"


@dataclass(frozen=True)
class Segmentation:
    """The labels and class probabilities of one image."""

    image: NDArray[np.uint8]  #: the image, (H, W, 3) RGB
    labels: NDArray[np.uint8]  #: (H, W) class ids; 255 where the confidence is below `void_below`
    stored_probabilities: NDArray[np.float32] | None
    """What `probabilities` returns; None for a large image by tiles, where they are not kept."""
    classes: list[str]  #: names by class id
    palette: NDArray[np.uint8]  #: (256, 3) RGB by class id
    boxes: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 4), np.int64))
    """The squares that were segmented, (P, 4) x0, y0, x1, y1; none for a whole image."""
    logits: NDArray[np.float32] | None = None
    """Scores of all classes before softmax and CRF, as large as `probabilities`."""
    presence_threshold: float = 0.0  #: see `postprocess`
    temperature: float = 1.0  #: see `confidence`
    uncertainty: NDArray[np.float32] | None = None
    """(H, W): the variance of the class probabilities over several passes with dropout, the mean
    over the classes, 0 to 0.25; of results with `samples`."""
    source: Path | None = None  #: the file of the image, which `save` does not overwrite
    stored_confidence: NDArray[np.float32] | None = None
    """What `confidence` returns; None if it is to be computed from `logits`. Of a large image by
    tiles, whose logits are not kept, it is computed with the labels."""

    def __repr__(self) -> str:
        height, width = self.labels.shape
        return f"Segmentation({width} x {height}, {', '.join(self.fractions())})"

    def fractions(self) -> dict[str, float]:
        """The fraction of the pixels of each class that occurs, the largest first; void is one."""
        pixels = Image.fromarray(self.labels).histogram()  # np.bincount would take 8 bytes a pixel
        return class_fractions(np.array(pixels), self.classes)

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Class probabilities (K, H, W), 0 for excluded classes; of the `reduced` image where it
        has more than `LARGEST` pixels, see `unpool.vision.boxes`.

        Raises an `OptionError` for such an image by tiles, whose probabilities are not kept.
        """
        if self.stored_probabilities is None:
            raise OptionError(
                f"got a large image by tiles, whose probabilities are not kept; {_USE}"
            )
        return self.stored_probabilities

    @property
    def has_confidence(self) -> bool:
        """Whether the `confidence` is known, as in every result of a segmenter."""
        return self.logits is not None or self.stored_confidence is not None

    @cached_property
    def confidence(self) -> NDArray[np.float32]:
        """How probable the label of each pixel is, (H, W), 0..1; of the best class where it is 255.

        The probability is the softmax of `logits` divided by the temperature of the weights, which
        brings it closer to how often labels are right on images like those that the temperature
        was fitted on. A class that was excluded as absent keeps a quarter of its weight, as it may
        be there after all. A CRF, which makes probabilities extreme, has no part in it.

        Guo, Pleiss, Sun, Weinberger 2017, "On calibration of modern neural networks", section 4.2.

        >>> scores = np.float32([[[2, 0]], [[0, 0]]])
        >>> from unpool.segment.postprocessing import postprocess
        >>> found = postprocess(np.zeros((1, 2, 3), np.uint8), scores, ["background", "cat"])
        >>> [round(float(p), 2) for p in found.confidence[0]]
        [0.88, 0.5]
        """
        if self.stored_confidence is not None:
            return self.stored_confidence
        scores = self.logits
        if scores is None:
            raise OptionError("got a result without logits; only those of `postprocess` have them")
        kept = np.flatnonzero(self.probabilities.any((1, 2)))  # excluded classes have 0
        return label_confidence(scores, kept, self.labels, self.temperature)

    def overlay(self) -> NDArray[np.uint8]:
        """The image with its classes painted over it and a legend, (H, W, 3) RGB."""
        return overlay(self.image, self.labels, self.palette, self.classes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: `size` (width, height), `labels` (`fractions`), and mean `confidence`;
        with `samples` also the mean and the largest `uncertainty`."""
        height, width = self.labels.shape
        known = {"confidence": float(self.confidence.mean())} if self.has_confidence else {}
        if (found := self.uncertainty) is not None:
            known["uncertainty"] = float(found.mean())
            known["largest_uncertainty"] = float(found.max())
        return {"size": [width, height], "labels": self.fractions(), **known}

    def objects(self) -> Objects:
        """The connected components of each class, with their mean probabilities as scores; with
        their mean confidence if probabilities are not kept."""
        known = self.stored_probabilities
        return find_objects(self.labels, self.classes, self.confidence if known is None else known)

    def to_coco(self, file_name: str | None = None) -> dict[str, Any]:
        """The contents of a COCO file with this image; run-length codes keep each pixel.

        Args:
            file_name: of the image in it; that of `source` when not given.

        >>> scores = np.float32([[[9, 0, 0]], [[0, 9, 9]]])
        >>> from unpool.segment.postprocessing import postprocess
        >>> found = postprocess(np.zeros((1, 3, 3), np.uint8), scores, ["background", "cat"])
        >>> found.to_coco("cat.jpg")["annotations"][0]["bbox"]
        [1, 0, 2, 1]
        """
        return to_coco(self.objects(), self._name(file_name))

    def to_labelme(
        self, image_path: str | None = None, *, tolerance: float = 0.0
    ) -> dict[str, Any]:
        """The contents of a labelme file: polygons, and masks where holes are.

        Args:
            image_path: of the image, relative to the file; the name of `source` when not given.
            tolerance: by how many pixels polygons may be simplified, see `simplify`.

        >>> scores = np.float32([[[9, 0, 0]], [[0, 9, 9]]])
        >>> from unpool.segment.postprocessing import postprocess
        >>> found = postprocess(np.zeros((1, 3, 3), np.uint8), scores, ["background", "cat"])
        >>> found.to_labelme("cat.jpg")["shapes"][0]["points"]
        [[1, 0], [3, 0], [3, 1], [1, 1]]
        """
        return to_labelme(self.objects(), self._name(image_path), tolerance=tolerance)

    def to_yolo(self, *, tolerance: float = 0.0) -> str:
        """The contents of a label file of YOLO: polygons as fractions of width and height.

        Args:
            tolerance: by how many pixels polygons may be simplified, see `simplify`.

        >>> scores = np.float32([[[9, 0]], [[0, 9]]])
        >>> from unpool.segment.postprocessing import postprocess
        >>> found = postprocess(np.zeros((1, 2, 3), np.uint8), scores, ["background", "cat"])
        >>> found.to_yolo()[:19]
        '0 0.500000 0.000000'
        """
        return to_yolo(self.objects(), tolerance=tolerance)

    def to_geojson(self, *, tolerance: float = 0.0) -> dict[str, Any]:
        """The contents of a GeoJSON file, on the map if `source` says where, else in pixels.

        Args:
            tolerance: by how many pixels polygons may be simplified, see `simplify`.

        >>> scores = np.float32([[[9, 0]], [[0, 9]]])
        >>> from unpool.segment.postprocessing import postprocess
        >>> found = postprocess(np.zeros((1, 2, 3), np.uint8), scores, ["background", "cat"])
        >>> found.to_geojson()["features"][0]["geometry"]["coordinates"]
        [[[1, 0], [1, -1], [2, -1], [2, 0], [1, 0]]]
        """
        return to_geojson(self.objects(), read_georeference(self.source), tolerance=tolerance)

    def to_label_studio(self, image: str | None = None) -> dict[str, Any]:
        """A task of Label Studio with these labels as its prediction.

        Args:
            image: the address of the image as Label Studio knows it; when not given, that of a
                local file, by the last two parts of the path of `source`.

        >>> scores = np.float32([[[9, 0]], [[0, 9]]])
        >>> from unpool.segment.postprocessing import postprocess
        >>> found = postprocess(np.zeros((1, 2, 3), np.uint8), scores, ["background", "cat"])
        >>> found.to_label_studio("https://example.com/cat.jpg")["predictions"][0]["score"]
        0.9999
        """
        name = self._name(None)
        folder = self.source.absolute().parent.resolve().name if self.source else ""
        address = image or local_file(f"{folder}/{name}" if folder else name)
        return to_label_studio(self.objects(), address)

    def _name(self, given: str | None) -> str:
        """The name of the image in the formats of other tools."""
        return given or (self.source.name if self.source else "image")

    def _repr_png_(self) -> bytes:
        return encode_png(self.overlay())

    def save(
        self,
        path: str | Path,
        *,
        mask: bool = True,
        overlay: bool = True,
        scores: bool = False,
        uncertainty: bool = False,
    ) -> Path:
        """Write the labels as an index PNG with palette, and other files beside it.

        Args:
            path: of the mask, ending in .png; the others get .overlay.jpg, .scores.npz and
                .uncertainty.png for it.
            mask: whether to write the index PNG.
            overlay: whether to write the image with its classes painted on.
            scores: whether to write the raw scores, for `unpool.segment.scores.read_scores`.
            uncertainty: whether to write the uncertainty, gray from 0 to its largest value.
        """
        path = require_path("path", path)
        if path.suffix.lower() != ".png":
            raise OptionError(f"got the path {path}; masks are written as .png: end it so")
        painted = path.with_suffix(".overlay.jpg")
        if overlay and max(self.labels.shape) > MAX_JPEG_SIDE:
            size = f"{self.labels.shape[1]} x {self.labels.shape[0]} pixels"
            got = f"got an image of {size}; overlays are JPEGs of at most {MAX_JPEG_SIDE} a side"
            raise ImageError(f"{got}: pass overlay=False")
        for file in (path, painted) if self.source is not None and self.source.exists() else ():
            if file.exists() and file.samefile(str(self.source)):
                raise OptionError(f"got the path {path}, but {file} is the image; choose another")
        if overlay:
            write_image(painted, self.overlay())
        if scores:
            if self.logits is None:
                raise OptionError(f"got scores=True for a result that has none; {_USE}")
            known = Scores(self.logits, self.classes, self.palette, self.presence_threshold)
            write_scores(path.with_suffix(".scores.npz"), known)
        if uncertainty:
            if (found := self.uncertainty) is None:
                raise OptionError("got a result without uncertainty; segment with samples=20")
            gray = np.rint(255 * found / max(float(found.max()), 1e-12)).astype(np.uint8)
            write_image(path.with_suffix(".uncertainty.png"), np.stack([gray] * 3, 2))
        if mask:
            write_mask(path, self.labels, self.palette)  # last: it marks all as complete
        return path


def class_fractions(pixels: NDArray[np.int64], classes: Sequence[str]) -> dict[str, float]:
    """The fraction of each class that occurs, the largest first, from counts of its pixels.

    Those of label 255 are called void if no class has that number.

    >>> class_fractions(np.array([2, 0, 6]), ["background", "cat", "dog"])
    {'dog': 0.75, 'background': 0.25}
    """
    order = [k for k in np.argsort(-pixels, kind="stable").tolist() if pixels[k]]
    names = dict(enumerate(classes))
    return {names.get(k, "void"): float(pixels[k] / pixels.sum()) for k in order}
