"""The result of segmenting an image, and how it follows from the logits of a network."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from unpool.errors import ImageError, OptionError, require_path
from unpool.formats.coco import to_coco
from unpool.formats.geojson import to_geojson
from unpool.formats.label_studio import local_file, to_label_studio
from unpool.formats.labelme import to_labelme
from unpool.formats.objects import Objects, find_objects
from unpool.formats.yolo import to_yolo
from unpool.ops.crf import find_crf
from unpool.ops.meanfield import mean_field, unary_from_probabilities
from unpool.segment import timings
from unpool.segment.confidence import label_confidence
from unpool.segment.scores import Scores, require_size, write_scores
from unpool.vision.boxes import labels_at, reduced
from unpool.vision.drawing import overlay
from unpool.vision.georeference import read_georeference
from unpool.vision.images import (
    MAX_JPEG_SIDE,
    VOID,
    encode_png,
    voc_palette,
    write_image,
    write_mask,
)

if TYPE_CHECKING:
    from unpool.recipes.presets import DenseCRF

PRESENT_ON = 0.01
"""The fraction of an image on which a class must be certain, to count as present."""

_USE = "use `labels` and `confidence`, smaller images, or mode='whole'"


@dataclass(frozen=True)
class Segmentation:
    """The labels and class probabilities of one image."""

    image: NDArray[np.uint8]  #: the image, (H, W, 3) RGB
    labels: NDArray[np.uint8]  #: (H, W) class ids; 255 where the confidence is below `void_below`
    class_probabilities: NDArray[np.float32] | None  #: see `probabilities`; None if not kept
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
    known_confidence: NDArray[np.float32] | None = None
    """The `confidence`, if it was found together with the labels, as in a large image by tiles."""

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
        if self.class_probabilities is None:
            raise OptionError(
                f"got a large image by tiles, whose probabilities are not kept; {_USE}"
            )
        return self.class_probabilities

    @property
    def has_confidence(self) -> bool:
        """Whether the `confidence` is known, as in every result of a segmenter."""
        return self.logits is not None or self.known_confidence is not None

    @cached_property
    def confidence(self) -> NDArray[np.float32]:
        """How probable the label of each pixel is, (H, W), 0..1; of the best class where it is 255.

        The probability is the softmax of `logits` divided by the temperature of the weights, which
        brings it closer to how often labels are right on images like those that the temperature
        was fitted on. A class that was excluded as absent keeps a quarter of its weight, as it may
        be there after all. A CRF, which makes probabilities extreme, has no part in it.

        Guo, Pleiss, Sun, Weinberger 2017, "On calibration of modern neural networks", section 4.2.

        >>> scores = np.float32([[[2, 0]], [[0, 0]]])
        >>> found = postprocess(np.zeros((1, 2, 3), np.uint8), scores, ["background", "cat"])
        >>> [round(float(p), 2) for p in found.confidence[0]]
        [0.88, 0.5]
        """
        if self.known_confidence is not None:
            return self.known_confidence
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
        known = self.class_probabilities
        return find_objects(self.labels, self.classes, self.confidence if known is None else known)

    def to_coco(self, file_name: str | None = None) -> dict[str, Any]:
        """The contents of a COCO file with this image; run-length codes keep each pixel.

        Args:
            file_name: of the image in it; that of `source` when not given.

        >>> scores = np.float32([[[9, 0, 0]], [[0, 9, 9]]])
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


def postprocess(
    image: NDArray[np.uint8],
    scores: NDArray[np.float32],
    classes: list[str],
    palette: NDArray[np.uint8] | None = None,
    boxes: NDArray[np.int64] | None = None,
    crf: "str | DenseCRF | None" = None,
    presence_threshold: float = 0.0,
    temperature: float = 1.0,
    void_below: float = 0.0,
    uncertainty: NDArray[np.float32] | None = None,
) -> Segmentation:
    """The most probable class of every pixel, optionally refined by a dense CRF.

    Where a class wins only a few pixels of an image, the network is often wrong about all of them.
    `presence_threshold` excludes classes that hardly reach it; their pixels go to the others.

    Args:
        image: (H, W, 3) uint8, RGB.
        scores: logits (K, H, W), whose softmax is the probability of each class; for an image of
            more than `LARGEST` pixels also of its `reduced_size`, at which probabilities stay.
        classes: names by class id.
        palette: (256, 3) RGB by class id; the VOC palette when not given.
        boxes: the squares that were segmented, (P, 4).
        crf: a dense CRF, or the name of one of `CRF_PRESETS`.
        presence_threshold: see `present`.
        temperature: by which scores are divided for `Segmentation.confidence`.
        void_below: pixels of a lower confidence get the label 255, which stands for void.
        uncertainty: as large as the scores, see `Segmentation.uncertainty`.

    Raises:
        OptionError: a threshold that is no probability, a temperature that is not above 0, or an
            unknown CRF.
        ShapeError: scores of another size than the image's.
    """
    require_size(scores.shape, (image.shape[0], image.shape[1]))
    own_size = scores.shape[1:] == image.shape[:2]
    small = image if own_size else reduced(image)
    with timings.stage("labels"):
        probabilities = torch.from_numpy(scores).softmax(0)
        kept = present(probabilities.numpy(), presence_threshold)
        decisive = scores  # softmax could round different logits to equal probabilities
        if len(kept) < len(scores):
            decisive = scores[kept]
            probabilities = torch.from_numpy(decisive).softmax(0)
    if crf is not None:
        with timings.stage("CRF"):
            crf = find_crf(crf)
            if crf.clip is None:
                unary = -torch.from_numpy(decisive)
            else:
                unary = unary_from_probabilities(probabilities, crf.clip)
            probabilities = mean_field(unary, torch.from_numpy(small.copy()), crf)
        decisive = probabilities.numpy()
    size = (image.shape[0], image.shape[1])
    with timings.stage("labels"):
        best = decisive.argmax(0) if own_size else labels_at(decisive, size)
        labels = kept.astype(np.uint8)[best]
        found = probabilities.numpy()
        if len(kept) < len(scores):
            found = np.zeros(scores.shape, np.float32)
            found[kept] = probabilities.numpy()
    boxes = np.zeros((0, 4), np.int64) if boxes is None else boxes
    palette = voc_palette() if palette is None else palette
    if uncertainty is not None and not own_size:
        uncertainty = np.asarray(cv2.resize(uncertainty, size[::-1]), np.float32)
    settings = scores, presence_threshold, temperature, uncertainty
    result = Segmentation(image, labels, found, classes, palette, boxes, *settings)
    if void_below:
        with timings.stage("labels"):
            labels[result.confidence < void_below] = VOID
    return result


def present(probabilities: NDArray[np.float32], presence_threshold: float) -> NDArray[np.int64]:
    """The classes present in an image: class 0, the background, and those certain somewhere.

    Args:
        probabilities: (K, H, W), the background first.
        presence_threshold: the probability that a class must reach on `PRESENT_ON` of the pixels,
            0..1; 0 keeps every class.

    Returns:
        Class ids in order.

    >>> found = np.float32([[[0.1, 0.3]], [[0.1, 0.6]], [[0.8, 0.1]]])  # three classes
    >>> present(found, 0.75).tolist()
    [0, 2]
    """
    require_presence_threshold(presence_threshold)
    certain = [float((p >= presence_threshold).mean()) >= PRESENT_ON for p in probabilities[1:]]
    return np.flatnonzero([True, *certain])


def describe_postprocessing(
    presence_threshold: float, crf: "str | DenseCRF | None", void_below: float = 0.0
) -> list[str]:
    """The steps after the network, for the protocol of figures; refuses what cannot be done.

    >>> describe_postprocessing(0.75, "deeplab")
    ['only classes with a probability of 0.75 on 1 % of the image', 'dense CRF deeplab']
    """
    require_presence_threshold(presence_threshold)
    _require_probability("void_below", void_below, "0 leaves no pixel void")
    if crf is not None:
        find_crf(crf)
    certain = f"a probability of {presence_threshold:g} on {100 * PRESENT_ON:g} % of the image"
    steps = [f"only classes with {certain}"] if presence_threshold else []
    steps += [f"dense CRF {crf}"] * (crf is not None)
    return [*steps, f"void where less sure than {void_below:g}"] if void_below else steps


def require_presence_threshold(presence_threshold: float) -> None:
    """Refuse a class presence threshold that is no probability."""
    _require_probability("presence_threshold", presence_threshold, "0 keeps all")


def _require_probability(name: str, value: float, zero: str) -> None:
    number = isinstance(value, int | float) and value is not True
    if not number or not 0 <= value <= 1:
        raise OptionError(f"got {name}={value}; wanted a probability, 0 to 1; {zero}")
