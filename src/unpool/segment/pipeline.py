"""What every segmenter does: `postprocess(predict(preprocess(image)))`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray

from unpool.errors import OptionError, require_known
from unpool.recipes.presets import AUTO, INSTANCES, TILES, DenseCRF
from unpool.segment.postprocessing import describe_postprocessing, postprocess
from unpool.segment.result import Segmentation
from unpool.segment.tiles import TiledPrediction, is_large, megapixels, segment_bands
from unpool.vision.inputs import as_image

if TYPE_CHECKING:
    from unpool.vision.images import Pixels

OPTIONS = ("mode", *INSTANCES, *TILES, "samples", "progress")
"""The options of `BaseSegmenter.predict`."""


class Prediction(NamedTuple):
    """What the network, or both of an ensemble, give for one image."""

    logits: NDArray[np.float32]
    """(K, H, W) scores before softmax; of the `reduced` image where it has more than `LARGEST`
    pixels, see `unpool.vision.boxes`."""
    boxes: NDArray[np.int64] = np.zeros((0, 4), np.int64)
    """The squares that were segmented, (P, 4) x0, y0, x1, y1 in pixels of the image; none for a
    whole image."""
    temperature: float = 1.0  #: of such logits, see `Segmentation.confidence`
    uncertainty: NDArray[np.float32] | None = None
    """(H, W), as `logits`: how far several passes differ, see `unpool.segment.samples`."""


class BaseSegmenter(ABC):
    """Segments images: `Segmenter` with one network, `EDeconvNet` with two."""

    classes: list[str]  #: names by class id, the background first
    palette: NDArray[np.uint8]  #: (256, 3) RGB by class id
    device: torch.device
    mode: str  #: the default mode, one of `unpool.cards.MODES`
    measured_modes: tuple[str, ...]  #: the modes that an evaluation compares
    presence_threshold: float  #: the default class presence threshold, see `postprocess`
    crf: DenseCRF | None  #: what crf="auto" stands for, or none
    separator = ", "  #: of the steps in a description

    @overload
    def __call__(self, image: list[Any], **options: Any) -> list[Segmentation]: ...

    @overload
    def __call__(self, image: Any, **options: Any) -> Segmentation: ...

    def __call__(
        self,
        image: Any,
        *,
        crf: str | DenseCRF | None = None,
        presence_threshold: float | None = None,
        void_below: float = 0.0,
        **options: Any,
    ) -> Segmentation | list[Segmentation]:
        """Segment one image, or each of a list; labels have the size of the image.

        Args:
            image: a path, a Pillow image, an array, a tensor, or another kind that
                `unpool.vision.inputs.as_image` takes; or a list of them.
            crf: a dense CRF that refines the probabilities, or the name of one of `CRF_PRESETS`;
                "auto" for the one that was chosen for the weights, if any.
            presence_threshold: excludes classes that reach this probability on less than 1 % of
                the image, see `postprocess`; by default the segmenter's own.
            void_below: pixels of a lower confidence get the label 255, see
                `Segmentation.confidence`.
            **options: of `predict`.

        Raises:
            ImageError, ShapeError: not an image.
            OptionError: an unknown option, mode, preset, method or CRF, a threshold that is no
                probability, or a number below 1.
        """
        if isinstance(image, list | tuple):
            more = {"crf": crf, "presence_threshold": presence_threshold, "void_below": void_below}
            return [cast(Segmentation, self(one, **more, **options)) for one in image]
        require_known(options, [*OPTIONS, "crf", "presence_threshold", "void_below"])
        settings: dict[str, Any] = {"crf": crf, "presence_threshold": presence_threshold}
        settings["void_below"] = void_below
        self.describe(**settings, **options)  # checks them
        pixels = self.preprocess(image)
        found = self.postprocess(pixels, self.predict(pixels, **options), **settings)
        return replace(found, source=Path(image)) if isinstance(image, str | PathLike) else found

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.classes)} classes, {self.describe()})"

    def find_crf(self, crf: str | DenseCRF | None) -> str | DenseCRF | None:
        """The dense CRF that is meant: for "auto" the one that was chosen for the weights."""
        return self.crf if crf == AUTO else crf

    def preprocess(self, image: Any) -> "Pixels":
        """Read an image of any kind, upright, as (H, W, 3) uint8, RGB."""
        return as_image(image)

    def require_scores(self, image: "Pixels", mode: str | None = None) -> None:
        """Refuse an image whose class scores would not be kept: a large one by tiles."""
        if (mode or self.mode) == "tiles" and is_large(image):
            raise OptionError(
                f"got scores=True for {megapixels(image)} by tiles, whose class scores are not "
                "kept; leave scores out, cut the image into parts, or pass mode='whole'"
            )

    @abstractmethod
    def predict(self, image: "Pixels", *args: Any, **options: Any) -> Prediction | TiledPrediction:
        """The logits of one image, (H, W, 3) uint8, RGB; of a large one by tiles, band by band."""

    def postprocess(
        self,
        image: "Pixels",
        prediction: Prediction | TiledPrediction,
        crf: str | DenseCRF | None = None,
        presence_threshold: float | None = None,
        void_below: float = 0.0,
    ) -> Segmentation:
        """The labels of an image from its logits, see `postprocess`."""
        crf, own = self.find_crf(crf), self.presence_threshold
        threshold = own if presence_threshold is None else presence_threshold
        if isinstance(prediction, TiledPrediction):
            settings = crf, threshold, void_below
            return segment_bands(prediction, self.classes, self.palette, *settings)
        return postprocess(
            image,
            prediction.logits,
            self.classes,
            self.palette,
            prediction.boxes,
            crf,
            threshold,
            prediction.temperature,
            void_below,
            prediction.uncertainty,
        )

    def describe(
        self,
        mode: str | None = None,
        *,
        crf: str | DenseCRF | None = None,
        presence_threshold: float | None = None,
        void_below: float = 0.0,
        **options: Any,
    ) -> str:
        """Describe how images are segmented with these options; refuse unsupported modes."""
        threshold = self.presence_threshold if presence_threshold is None else presence_threshold
        steps = describe_postprocessing(threshold, self.find_crf(crf), void_below)
        return self.separator.join([self.describe_network(mode, **options), *steps])

    @abstractmethod
    def describe_network(self, mode: str | None = None, **options: Any) -> str:
        """Describe the steps of `predict` with these options; refuse unsupported modes."""


def require_fitting(mode: str, options: Mapping[str, Any], own: str = "") -> None:
    """Refuse options of another mode than the one in use; `own` says where that comes from.

    >>> require_fitting("tiles", {"tile": 512})
    """
    for kind, names, what in (("instance", INSTANCES, "proposals"), ("tiles", TILES, "tiles")):
        idle = " and ".join(f"{name}={options[name]!r}" for name in options if name in names)
        if idle and mode != kind:
            raise OptionError(
                f"got {idle} in mode={mode!r}{own}, where there are no {what}; pass mode={kind!r}, "
                "or leave that option out"
            )


def predict_tiles(image: "Pixels", *how: Any) -> Prediction | TiledPrediction:
    """The logits of an image by tiles; `how` are the other arguments of `TiledPrediction`."""
    tiles = TiledPrediction(image, *how)
    if is_large(image):
        return tiles
    return Prediction(tiles.logits, temperature=tiles.temperature)
