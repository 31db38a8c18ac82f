"""Segment an image: a class for every pixel (Noh, Hong, Han 2015).

Three ways to use one network. *Whole*: the image in one pass. *Instance-wise*, as in the paper:
object proposals are cut out, enlarged, segmented one by one, and pasted back by the pixelwise
maximum or mean. *Tiles*: large images at native resolution, window by window.
"""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from unpool.cards import AGGREGATIONS, MODES
from unpool.devices import find_device, find_dtype, find_int8_obstacle, require_threads
from unpool.errors import (
    OptionError,
    WeightsError,
    require_choice,
    require_int,
    require_known,
    require_type,
)
from unpool.export.runtime import Exported, is_exported
from unpool.models import CRFRNN, MEAN_BGR, Network, from_pretrained, prepare
from unpool.models.fast import accelerate
from unpool.models.int8 import Scales, to_int8
from unpool.models.tensors import require_finite_output
from unpool.ops.crf import find_crf
from unpool.recipes.presets import METHODS, TILES, DenseCRF, Preset
from unpool.segment import timings
from unpool.segment.aggregate import Aggregate, crop_squares, find_preset, squares
from unpool.segment.pipeline import BaseSegmenter, Prediction, predict_tiles, require_fitting
from unpool.segment.postprocessing import require_presence_threshold
from unpool.segment.samples import dropout_layers, sample
from unpool.segment.smoothing import require_smoothing, smooth
from unpool.segment.tiles import TiledPrediction, Tiling, plan_tiles
from unpool.segment.whole import WholeView
from unpool.vision.boxes import reduced
from unpool.vision.images import Pixels, check_image, voc_palette

if TYPE_CHECKING:
    from unpool import Progress


class _Instances(NamedTuple):
    """Settings of instance-wise segmentation."""

    preset: str | Preset
    method: str
    proposals: int
    aggregate: str
    batch: int | None


class Segmenter(BaseSegmenter):
    """Segments images with one network.

    Args:
        model: a trained network, or an exported one, which has its own device and precision.
        classes: names by class id, the background first.
        palette: colors by class id, RGB, 0 to 255; the VOC palette when not given.
        mean: subtracted from the pixels: blue, green, red.
        long_side: long side to which whole images are resized.
        mode: the default mode, "whole", "instance" or "tiles".
        aggregate: how crops are merged by default, "max" or "mean", see `Aggregate`.
        preset: of instance-wise mode by default, see `predict`.
        smoothing: of the scores, see `unpool.segment.smoothing`.
        presence_threshold: excludes classes that reach this probability on less than 1 % of the
            image, see `postprocess`.
        crf: the dense CRF that crf="auto" stands for.
        temperature: of the logits of each mode, and of the ensemble "edeconvnet"; 1 for others.
            See `Segmentation.confidence`.
        device: "auto", "cpu", "cuda" or "cuda:n".
        precision: "bf16", "fp32", "int8", or "auto": bf16 where the hardware has it, and not if
            `exact`.
        exact: use the network as it is, not its fast form (`unpool.models.fast.accelerate`).
        scales: for int8, see `unpool.models.calibration.calibrate`.
        consume: reuse the memory of `model`; do not use it afterwards.

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
        preset: str | Preset = "paper",
        smoothing: float = 0.0,
        presence_threshold: float = 0.0,
        crf: DenseCRF | None = None,
        temperature: Mapping[str, float] | None = None,
        device: str = "auto",
        precision: str = "auto",
        exact: bool = False,
        scales: Scales | None = None,
        consume: bool = False,
    ) -> None:
        require_choice("mode", mode, MODES)
        require_choice("aggregation", aggregate, AGGREGATIONS)
        find_preset(preset)
        require_smoothing(smoothing)
        require_presence_threshold(presence_threshold)
        if crf is not None:
            find_crf(crf)
        for value in (temperature or {}).values():
            if not 0 < value < np.inf:
                raise OptionError(f"got temperature {temperature}; wanted numbers above 0")
        require_int("long_side", long_side)
        require_type("exact", exact, bool, "True or False")
        if len(classes) != model.classes:
            raise OptionError(
                f"got {len(classes)} class names for a network of {model.classes} classes"
            )
        if len(classes) > 256:
            raise OptionError(f"got {len(classes)} classes; wanted at most 256, as masks are uint8")
        if isinstance(model, Exported) and (exact or (device, precision) != ("auto", "auto")):
            raise OptionError(
                "got a device, precision or exact for an exported network; pass them to Exported"
            )
        self.device = find_device("cpu" if isinstance(model, Exported) else device)
        self.classes, self.mean, self.mode = list(classes), mean, mode
        self.long_side, self.aggregate, self.preset = long_side, aggregate, preset
        self.smoothing, self.presence_threshold = smoothing, presence_threshold
        self.crf, self.temperature = crf, dict(temperature or {})
        self.palette = voc_palette()
        if palette is not None and len(palette):
            self.palette[: len(palette)] = palette
        self.side = model.size  #: of the square crops; None for a network without them
        both = ("whole",) if self.side is None else ("whole", "instance")
        self.measured_modes = ("tiles",) if mode == "tiles" else both  #: of an evaluation
        self.exact, self.model = exact, model
        require_threads()
        if isinstance(model, Exported):
            self.dtype = model.dtype
            return
        self.dtype = find_dtype(precision, exact, self.device)
        if self.dtype == torch.int8:
            self.model = to_int8(model, scales, consume)
        elif exact:
            self.model = (model if consume else copy.deepcopy(model)).eval().to(self.device)
        else:
            self.model = accelerate(model, self.dtype, consume).to(self.device)

    @classmethod
    def from_pretrained(cls, source: str | Path = "objects", **options: Any) -> "Segmenter":
        """A segmenter with saved weights.

        Args:
            source: the name of weights that ship with the package, a folder of weights, or an
                exported network (.onnx, .xml; see `Exported`).
            **options: `mode`, `preset`, `presence_threshold`, `device`, `precision`, `exact` ... of
                the class.

        Raises:
            WeightsError: no such weights, a damaged file or card, or weights not ready for use.
            OptionError: what an exported network cannot do, or whose engine is not installed.

        >>> segmenter = Segmenter.from_pretrained("objects")
        """
        require_known(options, [*inspect.signature(cls.__init__).parameters][3:-1])
        if is_exported(source):
            names = [name for name in ("device", "precision", "exact") if name in options]
            exported = Exported(source, **{name: options.pop(name) for name in names})
            given = exported.card.segmentation(exported.classes)
            return cls(exported, **{**given, **options})
        model, card = from_pretrained(source)
        if not isinstance(model, Network):
            raise WeightsError(
                f"got {source}, weights of a {card.architecture}; wanted weights that segment "
                "images, such as those of a DeconvNet"
            )
        if not card.ready:
            raise WeightsError(f"got {source}, a {card.note or 'network still to be trained'}")
        given = {**card.segmentation(model.classes), **options, "consume": True}
        device = find_device(options.get("device", "auto"))
        if options.get("precision") == "int8" and find_int8_obstacle(device) is None:
            given["scales"] = Scales.read(source, card.sha256)
        return cls(model, **given)

    def predict(
        self,
        image: Pixels,
        *,
        mode: str | None = None,
        preset: str | Preset | None = None,
        method: str | None = None,
        proposals: int | None = None,
        aggregate: str | None = None,
        batch: int | None = None,
        tile: int | None = None,
        overlap: int | None = None,
        scale: float | None = None,
        samples: int = 0,
        progress: "Progress | None" = None,
    ) -> Prediction | TiledPrediction:
        """The logits of one image.

        Options from `preset` to `batch` are of instance-wise mode, from `tile` to `scale` of tiles.

        Args:
            image: (H, W, 3) uint8, RGB, upright.
            mode: "whole", "instance" or "tiles"; by default the segmenter's own.
            preset: "paper", "reference" (squares under 112 pixels are skipped, the others merged
                by their maximum, as in the released script), or a `Preset`; by default the
                segmenter's own.
            method: "edgeboxes", the default, or "grid".
            proposals: the largest number of squares that are segmented, 50 by default.
            aggregate: "max" or "mean", see `Aggregate`; by default that of the preset, or else the
                segmenter's own.
            batch: the number of crops at a time; by default the quickest.
            tile, overlap, scale: see `unpool.segment.tiles.plan_tiles`.
            samples: of whole images by a network with dropout: the number of passes with dropout
                left on, whose probabilities are averaged, see `unpool.segment.samples`; 0, the
                default, is one pass without.
            progress: called after each batch, tile or sample.

        Returns:
            The logits; for a large image by tiles, an object that computes them in bands.
        """
        check_image(image)
        self.require_samples(mode, samples)
        given: dict[str, Any] = {"preset": preset, "method": method, "proposals": proposals}
        given |= {"aggregate": aggregate, "batch": batch}
        given |= {"tile": tile, "overlap": overlap, "scale": scale}
        how = self.resolve(mode, progress=progress, **given)
        if isinstance(how, Tiling):
            own = self.temperature.get("tiles", 1.0)
            return predict_tiles(image, self.infer, how, len(self.classes), own, progress)
        if how is not None:
            return self._predict_instances(image, how, progress)
        with timings.stage("resizing"):
            image = reduced(image)
        view = WholeView(self.model, image, self.long_side)
        if samples:
            return self._sample(view, samples, progress)
        logits = view.paste(self.infer(view.batch))
        return Prediction(logits, temperature=self.temperature.get("whole", 1.0))

    def _predict_instances(
        self, image: Pixels, how: _Instances, progress: "Progress | None"
    ) -> Prediction:
        """The logits of an image from those of its proposals."""
        with timings.stage("resizing"):
            full_width, image = image.shape[1], reduced(image)
        with timings.stage("proposals"):
            boxes = squares(image, how.preset, how.method, how.proposals)
        merged = Aggregate(len(self.classes), image.shape[:2], how.aggregate)
        assert self.side is not None  # `resolve` refused networks without crops
        done = 0
        batch = how.batch or self.quickest_batch()
        for crops, images in crop_squares(image, boxes, self.side, batch):
            for crop, logits in zip(crops, self.infer(images), strict=True):
                merged.add(crop, logits)
            done += len(crops)
            if progress is not None:
                progress(done, len(boxes), "segmenting crops")
        scale = full_width / image.shape[1]
        boxes = np.rint(boxes * scale).astype(np.int64)
        return Prediction(merged.logits, boxes, self.temperature.get("instance", 1.0))

    @torch.inference_mode()
    def infer(self, images: Pixels) -> NDArray[np.float32]:
        """Run the network on a batch: logits (N, K, h, w) of images (N, h, w, 3) uint8, RGB.

        Raises:
            OptionError: this process was forked after PyTorch had started its threads.
            WeightsError: the logits are not finite, which labels would not show.
        """
        require_threads()
        with timings.stage("network"):
            x = prepare(torch.from_numpy(images).to(self.device), self.mean)
            logits = self.model(x.to(self.input_dtype)).float().cpu()
        require_finite_output("scores", logits)
        return smooth(np.ascontiguousarray(logits.numpy()), self.smoothing)

    def _sample(self, view: WholeView, samples: int, progress: "Progress | None") -> Prediction:
        """The mean of several passes with dropout, and how far they differ."""
        assert isinstance(self.model, nn.Module)
        with timings.stage("network"):
            x = prepare(torch.from_numpy(view.batch).to(self.device), self.mean)
            x = x.to(self.input_dtype)
            mean, variance = sample(self.model, x, samples, progress=progress)
        require_finite_output("scores", mean)
        logits = mean.clamp_min(torch.finfo(torch.float32).tiny).log()
        uncertainty = view.paste(variance.numpy())[0]
        smoothed = smooth(logits.numpy(), self.smoothing)
        return Prediction(view.paste(smoothed), uncertainty=uncertainty)

    def require_samples(self, mode: str | None, samples: int) -> None:
        """Refuse samples where there is no dropout, or no whole image."""
        require_int("samples", samples, 0)
        if samples and (mode or self.mode) != "whole":
            raise OptionError(
                f"got samples={samples} in mode={mode or self.mode!r}; they are of whole images: "
                "pass mode='whole', or leave samples out"
            )
        if samples and self.dtype == torch.int8:
            raise OptionError(f"got samples={samples} and precision int8; set precision to bf16")
        layers = [] if isinstance(self.model, Exported) else dropout_layers(self.model)
        if samples and not layers:
            raise OptionError(
                f"got samples={samples} for a network without dropout, whose passes would all be "
                "alike; pass weights of a network with dropout, such as Bayesian SegNet, or leave "
                "samples out"
            )

    @property
    def input_dtype(self) -> torch.dtype:
        """The dtype of the images: that of the arithmetic, unless a CRF compares their colors, or
        their first layer makes integers of them."""
        own = isinstance(self.model, CRFRNN) or self.dtype == torch.int8
        return torch.float32 if own else self.dtype

    def quickest_batch(self, side: int | None = None) -> int:
        """As many crops as keep a map of the first stage below 32 MiB, but at least 4.

        The side of the crops is the network's by default.
        Larger blocks of memory are requested from the system for each layer again, which costs more
        than batching gains; smaller batches read the weights of the code layers too often.
        """
        side = side or self.side
        assert side is not None
        width = self.model.trunk.table[0][1]
        crops = 2**25 // (width * side**2 * self.dtype.itemsize)
        return max(crops, 4) if self.device.type == "cpu" else 32

    def describe_network(self, mode: str | None = None, samples: int = 0, **options: Any) -> str:
        """Describe the input of the network, how crops are merged, and the precision."""
        precision = str(self.dtype).removeprefix("torch.") + (", exact" if self.exact else "")
        if isinstance(self.model, Exported):
            precision += f", {self.model.engine}"
        precision += ", CRF in the network" * isinstance(self.model, CRFRNN)  # crf= is a second one
        precision += f", scores smoothed by {self.smoothing:g}" if self.smoothing else ""
        how = self.resolve(mode, **options)
        self.require_samples(mode, samples)
        if isinstance(how, Tiling):
            return f"{how}, {precision}"
        if how is None:
            passes = f", mean of {samples} passes with dropout" if samples else ""
            return f"whole images, long side {self.long_side}, {precision}{passes}"
        crops = f"instance-wise, {how.proposals} {how.method} proposals, preset {how.preset}"
        return f"{crops}, {how.aggregate} of the scores, {precision}"

    def resolve(
        self,
        mode: str | None,
        partners: Sequence[Network | Exported] = (),
        progress: "Progress | None" = None,
        **options: Any,
    ) -> _Instances | Tiling | None:
        """Check the options of `predict`, and add the defaults; None for whole images.

        Partners are other networks that see the same tiles.
        """
        own = ", which is that of the weights" if mode is None else ""
        mode = self.mode if mode is None else mode
        require_choice("mode", mode, MODES)
        if progress is not None:
            require_type("progress", progress, Callable, "a function")
        given = {name: value for name, value in options.items() if value is not None}
        how = self._instances(**{name: given[name] for name in given if name not in TILES})
        require_fitting(mode, given, own)
        if mode == "tiles":
            return plan_tiles([self.model, *partners], **given)
        if mode == "instance" and self.side is None:
            model = self.model
            kind = model.architecture if isinstance(model, Exported) else type(model).__name__
            raise OptionError(
                f"got mode='instance' for weights of {kind}, which segments whole images; pass "
                "mode='whole', or the weights of a DeconvNet"
            )
        return None if mode == "whole" else how

    def _instances(
        self,
        preset: str | Preset | None = None,
        method: str = "edgeboxes",
        proposals: int = 50,
        aggregate: str | None = None,
        batch: int | None = None,
    ) -> _Instances:
        preset = self.preset if preset is None else preset
        aggregate = aggregate or find_preset(preset).aggregate or self.aggregate
        require_choice("the proposal method", method, METHODS)
        require_choice("aggregation", aggregate, AGGREGATIONS)
        require_int("proposals", proposals)
        if batch is not None:
            require_int("batch", batch)
        return _Instances(preset, method, proposals, aggregate, batch)
