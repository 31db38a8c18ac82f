"""Segment an image: a class for every pixel (Noh, Hong, Han 2015).

Two ways to use one network. *Whole*: the image in one pass. *Instance-wise*, as in the paper:
object proposals are cut out, enlarged, segmented one by one, and pasted back by the pixelwise
maximum or mean.
"""

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from unpool import Progress
from unpool.cards import AGGREGATIONS, MODES, settings
from unpool.devices import bf16_pays, find_device
from unpool.errors import OptionError, ShapeError, WeightsError, require_known, suggest
from unpool.export.runtime import Exported, is_exported
from unpool.models import Network, from_pretrained, prepare
from unpool.models.fast import accelerate
from unpool.models.vgg import MEAN_BGR
from unpool.ops.crf import DenseCRF
from unpool.segment import timings
from unpool.segment.aggregate import Aggregate
from unpool.segment.result import (
    Segmentation,
    describe_postprocessing,
    postprocess,
    require_presence_threshold,
)
from unpool.vision.boxes import Crop, square
from unpool.vision.images import voc_palette
from unpool.vision.inputs import as_image
from unpool.vision.proposals import propose
from unpool.vision.sizes import reduced, resize


class Preset(NamedTuple):
    """How proposals become crops.

    The released script's shift of the score map by one pixel is an error and is left out.
    """

    enlarge: float = 1.2  #: of the square around a proposal
    least_side: int = 1  #: smaller squares are passed over, before the proposals are counted
    candidates: int = 2000  #: proposals asked for
    aggregate: str | None = None  #: how crops are put together; None: as the weights want it


PRESETS = {"paper": Preset(), "reference": Preset(least_side=112, aggregate="max")}


class Segmenter:
    """Segments images with one network.

    Args:
        model: a trained network, or an exported one, which has its own device and precision.
        classes: names by class id, the background first.
        palette: colors by class id, RGB, 0 to 255; the VOC palette when not given.
        mean: subtracted from the pixels: blue, green, red.
        long_side: long side to which whole images are resized.
        mode: the default mode, "whole" or "instance".
        aggregate: how crops are put together by default, "max" or "mean", see `Aggregate`.
        presence_threshold: leaves out classes that are nowhere certain, 0..1, see `postprocess`.
        device: "auto", "cpu", "cuda" or "cuda:n".
        precision: "bf16", "fp32", or "auto": bf16 where the hardware has it, and not if `exact`.
        exact: use the network as it is, not its fast form (`unpool.models.fast.accelerate`).
        consume: take `model` itself, which nobody else may need then, to spare its memory.

    >>> from unpool.models import DeconvNet
    >>> segmenter = Segmenter(DeconvNet(2, ((1, 4),), None, 32), ["background", "cat"])
    >>> segmenter(np.zeros((20, 30, 3), np.uint8)).labels.shape
    (20, 30)
    """

    def __init__(
        self,
        model: Network | Exported,
        classes: Sequence[str],
        palette: NDArray[np.uint8] | Sequence[Sequence[int]] | None = None,
        *,
        mean: tuple[float, float, float] = MEAN_BGR,
        long_side: int = 320,
        mode: str = "whole",
        aggregate: str = "max",
        presence_threshold: float = 0.0,
        device: str = "auto",
        precision: str = "auto",
        exact: bool = False,
        consume: bool = False,
    ) -> None:
        _require("mode", mode, MODES)
        _require("aggregation", aggregate, AGGREGATIONS)
        require_presence_threshold(presence_threshold)
        if len(classes) != model.classes:
            raise OptionError(
                f"got {len(classes)} class names for a network of {model.classes} classes"
            )
        if isinstance(model, Exported) and (exact or (device, precision) != ("auto", "auto")):
            raise OptionError(
                "got a device, precision or exact for an exported network; pass them to Exported"
            )
        self.device = find_device("cpu" if isinstance(model, Exported) else device)
        self.classes, self.mean, self.mode = list(classes), mean, mode
        self.long_side, self.aggregate, self.presence_threshold = (
            long_side,
            aggregate,
            presence_threshold,
        )
        self.palette = voc_palette()
        if palette is not None and len(palette):
            self.palette[: len(palette)] = palette
        self.side = model.size  #: of the square crops; None for a network without them
        self.measured_modes = ("whole",) if self.side is None else MODES  #: of an evaluation
        self.exact, self.model = exact, model
        if isinstance(model, Exported):
            self.dtype = model.dtype
            return
        self.dtype = _dtype(precision, exact, self.device)
        if exact:
            self.model = (model if consume else copy.deepcopy(model)).eval().to(self.device)
        else:
            self.model = accelerate(model, self.dtype, consume).to(self.device)

    @classmethod
    def from_pretrained(cls, source: str | Path = "objects", **options: Any) -> "Segmenter":
        """A segmenter with saved weights.

        Args:
            source: the name of weights that ship with the package, a folder of weights, or an
                exported network (.onnx, .xml; see `Exported`).
            **options: `mode`, `presence_threshold`, `device`, `precision`, `exact` of the class.

        Raises:
            WeightsError: no such weights, a damaged file or card, or weights not ready for use.
            OptionError: what an exported network cannot do, or whose engine is not installed.

        >>> segmenter = Segmenter.from_pretrained("objects")
        """
        require_known(options, [*inspect.signature(cls.__init__).parameters][3:-1])
        if is_exported(source):
            names = [name for name in ("device", "precision", "exact") if name in options]
            exported = Exported(source, **{name: options.pop(name) for name in names})
            given = settings(exported.card, exported.classes, source)
            return cls(exported, **{**given, **options})
        model, card = from_pretrained(source)
        if not isinstance(model, Network):
            raise WeightsError(
                f"got {source}, weights of a {card['architecture']}, which classifies whole "
                "images; take weights of a DeconvNet or an FCN"
            )
        if not card.get("ready", True):
            raise WeightsError(f"got {source}, a {card.get('note', 'network still to be trained')}")
        return cls(model, **{**settings(card, model.classes, source), **options, "consume": True})

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
        **options: Any,
    ) -> Segmentation | list[Segmentation]:
        """Segment one image, or each of a list.

        Args:
            image: a path, a Pillow image, an array, a tensor, or another kind that
                `unpool.vision.inputs.as_image` takes; or a list of them.
            crf: a dense CRF that refines the probabilities, or the name of one of `CRF_PRESETS`.
            presence_threshold: leaves out classes that are nowhere certain, 0..1, see
                `postprocess`; the segmenter's own when not given.
            **options: as of `score`.

        Returns:
            Labels and probabilities at the size of the image; a list of them for a list.

        Raises:
            ImageError, ShapeError: not an image.
            OptionError: an unknown mode, preset, method or CRF, a presence threshold that is no
                probability, or a number below 1.
        """
        if isinstance(image, list | tuple):
            more = {"crf": crf, "presence_threshold": presence_threshold, **options}
            return [cast(Segmentation, self(one, **more)) for one in image]
        require_known(options, [*inspect.signature(self.score).parameters][1:])
        image = as_image(image)
        presence_threshold = (
            self.presence_threshold if presence_threshold is None else presence_threshold
        )
        scores, boxes = self.score(image, **options)
        return postprocess(
            image, scores, self.classes, self.palette, boxes, crf, presence_threshold
        )

    def score(
        self,
        image: NDArray[np.uint8],
        *,
        mode: str | None = None,
        preset: str | Preset = "paper",
        method: str = "edgeboxes",
        proposals: int = 50,
        aggregate: str | None = None,
        batch: int | None = None,
        progress: Progress | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The raw scores of one image, before softmax.

        Args:
            image: (H, W, 3) uint8, RGB, upright.
            mode: "whole" or "instance"; the segmenter's own when not given.
            preset: for instance-wise mode, "paper", "reference" (squares under 112 pixels are
                passed over, the others merged by their maximum, as in the released script), or a
                `Preset`.
            method: of the proposals, "edgeboxes" or "grid".
            proposals: how many squares are segmented at most.
            aggregate: "max" or "mean", see `Aggregate`; that of the preset, or else the
                segmenter's own, when not given.
            batch: how many at a time; as many as is quickest when not given.
            progress: called after each batch.

        Returns:
            Scores (K, H, W), of the `reduced` image where it has more than `LARGEST` pixels; and
            the squares (P, 4) that were segmented, in pixels of the image; none for a whole one.
        """
        _require_image(image)
        with timings.stage("resizing"):
            full_width, image = image.shape[1], reduced(image)
        if self._resolve(mode) == "whole":
            scores = score_whole(self.model, image, self.long_side, self._score)
            return scores, np.zeros((0, 4), np.int64)
        if proposals < 1:
            raise OptionError(f"got proposals={proposals}; wanted 1 or more")
        with timings.stage("proposals"):
            boxes = squares(image, preset, method, proposals)
        how = aggregate or _preset(preset).aggregate or self.aggregate
        merged = Aggregate(len(self.classes), image.shape[:2], how)
        for crop, found in self.crops(image, boxes, batch, progress):
            with timings.stage("pasting"):
                merged.add(crop, found)
        return merged.scores, np.rint(boxes * (full_width / image.shape[1])).astype(np.int64)

    def describe(
        self,
        mode: str | None = None,
        preset: str | Preset = "paper",
        method: str = "edgeboxes",
        proposals: int = 50,
        aggregate: str | None = None,
        crf: str | DenseCRF | None = None,
        presence_threshold: float | None = None,
        **_: Any,
    ) -> str:
        """How images are segmented with these options, in words; refuses modes there are not."""
        precision = str(self.dtype).removeprefix("torch.") + (", exact" if self.exact else "")
        if isinstance(self.model, Exported):
            precision += f", {self.model.engine}"
        last = [
            precision,
            *describe_postprocessing(
                self.presence_threshold if presence_threshold is None else presence_threshold, crf
            ),
        ]
        if self._resolve(mode) == "whole":
            return ", ".join([f"whole images, long side {self.long_side}", *last])
        how = aggregate or _preset(preset).aggregate or self.aggregate
        crops = f"instance-wise, {proposals} {method} proposals, preset {preset}"
        return ", ".join([crops, f"{how} of the scores", *last])

    def _resolve(self, mode: str | None) -> str:
        """The mode that was asked for, or else the segmenter's own; one that it has."""
        mode = self.mode if mode is None else mode
        _require("mode", mode, MODES)
        if mode == "instance" and self.side is None:
            model = self.model
            kind = model.architecture if isinstance(model, Exported) else type(model).__name__
            raise OptionError(
                f"got mode 'instance' for weights of {kind}, which segments whole images; pass "
                "mode 'whole', or the weights of a DeconvNet"
            )
        return mode

    def crops(
        self,
        image: NDArray[np.uint8],
        boxes: NDArray[np.int64],
        batch: int | None = None,
        progress: Progress | None = None,
    ) -> Iterator[tuple[Crop, NDArray[np.float32]]]:
        """The squares of an image, each with its raw scores (K, S, S).

        Args:
            image: (H, W, 3) uint8, RGB.
            boxes: the squares, (P, 4).
            batch: how many are passed at a time; as many as is quickest when not given.
            progress: called after each batch.
        """
        assert self.side is not None
        batch = self._quickest_batch() if batch is None else batch
        if batch < 1:
            raise OptionError(f"got batch={batch}; wanted 1 or more")
        crops = [Crop((b[0], b[1], b[2], b[3]), self.side) for b in boxes.tolist()]
        for start in range(0, len(crops), batch):
            part = crops[start : start + batch]
            with timings.stage("crops"):
                images = np.stack([c.take(image) for c in part])
            yield from zip(part, self._score(images), strict=True)
            if progress is not None:
                progress(start + len(part), len(crops), "segmenting crops")

    def _quickest_batch(self) -> int:
        """As many crops as keep a map of the first stage below 32 MiB, but 4 at least.

        Larger blocks of memory are taken from the system anew for each layer, which costs more
        than batches gain; smaller batches read the weights of the code layers too often.
        """
        assert self.side is not None
        width = self.model.trunk.table[0][1]
        crops = 2**25 // (width * self.side**2 * self.dtype.itemsize)
        return max(crops, 4) if self.device.type == "cpu" else 32

    @torch.inference_mode()
    def _score(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Raw scores (N, K, h, w) of images (N, h, w, 3) in one batch."""
        with timings.stage("network"):
            return self._run(images)

    def _run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        x: Tensor = prepare(torch.from_numpy(images).to(self.device), self.mean)
        return np.ascontiguousarray(self.model(x.to(self.dtype)).float().cpu().numpy())


def score_whole(
    model: Network | Exported,
    image: NDArray[np.uint8],
    long_side: int,
    score: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Scores (K, H, W) of an image in one pass.

    Args:
        model: a network with a code is made for one size, and sees the square around the image.
        image: (H, W, 3) uint8, RGB.
        long_side: to which the image is resized for any other network.
        score: gives the scores (N, K, h, w) of images (N, h, w, 3).
    """
    height, width = image.shape[:2]
    if model.size is not None and model.fc is not None:
        side = max(height, width)
        x, y = (width - side) // 2, (height - side) // 2
        crop = Crop((x, y, x + side, y + side), model.size)
        scores = np.full((model.classes, height, width), -np.inf, np.float32)
        crop.paste(score(crop.take(image)[None])[0], scores)
        return scores
    with timings.stage("resizing"):
        resized = resize(image, long_side, least=2 ** len(model.trunk.table))
    small = torch.from_numpy(score(resized[None]))
    with timings.stage("resizing"):
        large = F.interpolate(small, size=(height, width), mode="bilinear", antialias=True)
        return np.asarray(large[0].numpy())


def squares(
    image: NDArray[np.uint8],
    preset: str | Preset = "paper",
    method: str = "edgeboxes",
    count: int = 50,
) -> NDArray[np.int64]:
    """The squares that instance-wise segmentation looks at, the most promising first.

    Args:
        image: (H, W, 3) uint8, RGB.
        preset: how proposals become squares.
        method: of the proposals.
        count: how many are kept, counted after small ones have been passed over.

    Returns:
        (P, 4) x0, y0, x1, y1 in pixels, P at most `count`; may reach beyond the image.
    """
    preset = _preset(preset)
    found = propose(image, method, max(preset.candidates, count))
    boxes = square(found.boxes, preset.enlarge)
    return boxes[boxes[:, 2] - boxes[:, 0] >= preset.least_side][:count]


def _dtype(precision: str, exact: bool, device: torch.device) -> torch.dtype:
    _require("precision", precision, ("auto", "bf16", "fp32"))
    if exact and precision == "bf16":
        raise OptionError("got precision bf16 and exact; leave one of them out")
    bf16 = precision == "bf16" or (precision == "auto" and not exact and bf16_pays(device))
    return torch.bfloat16 if bf16 else torch.float32


def _preset(preset: str | Preset) -> Preset:
    if isinstance(preset, Preset):
        return preset
    _require("preset", preset, tuple(PRESETS))
    return PRESETS[preset]


def _require_image(image: NDArray[np.uint8]) -> None:
    came = f"a {type(image).__name__} for an image"
    if isinstance(image, np.ndarray):
        if image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8 and image.size:
            return
        came = f"an image of {image.shape} {image.dtype}"
    raise ShapeError(
        f"got {came}; wanted (H, W, 3) uint8 RGB: read it with unpool.vision.images.read_image"
    )


def _require(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise OptionError(f"got {what} {value!r}; {suggest(value, known)}")
