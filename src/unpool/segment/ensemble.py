"""EDeconvNet: DeconvNet and an FCN-8s together (Noh, Hong, Han 2015, section 4.4).

DeconvNet, which looks at one proposal after the other, finds shapes and small objects; FCN, which
looks at the whole image, finds the rough place of large ones. Together they are better than each.
"""

import inspect
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray

from unpool.cards import find_partner
from unpool.errors import OptionError, ShapeError, require_known, suggest
from unpool.ops.crf import DenseCRF
from unpool.segment.result import Segmentation, describe_postprocessing, postprocess
from unpool.segment.segmenter import PRESETS, Preset, Segmenter
from unpool.vision.inputs import as_image

ENSEMBLES = ("mean", "product")

EDECONVNET = "edeconvnet"
"""The preset of the ensemble; its proposals are those of the preset "paper"."""


def combine(
    first: NDArray[np.float32], second: NDArray[np.float32], ensemble: str = "mean"
) -> NDArray[np.float32]:
    """One score for each class and pixel from those of two networks.

    Args:
        first: raw scores (K, H, W).
        second: raw scores (K, H, W).
        ensemble: "mean" of the two class probability maps, as the paper has it; "product" of the
            scores with the negative ones set to zero, as the released code does.

    Returns:
        Scores (K, H, W) whose softmax is the probability of each class.

    Raises:
        OptionError: an unknown ensemble.
        ShapeError: scores of different shapes.

    Noh, Hong, Han 2015, section 4.4; the released `generate_EDeconvNet_CRF_results.m`.

    >>> a, b = (np.array(v, np.float32).reshape(2, 1, 1) for v in ([2, -1], [3, 5]))
    >>> combine(a, b, "product").ravel().tolist()
    [6.0, 0.0]
    """
    _require(ensemble)
    if first.shape != second.shape:
        raise ShapeError(
            f"got scores of {first.shape} and {second.shape}; wanted those of one image, by "
            "networks of the same classes"
        )
    if ensemble == "product":
        return np.maximum(first, 0) * np.maximum(second, 0)
    both = [torch.from_numpy(scores).log_softmax(0) for scores in (first, second)]
    return np.asarray((torch.logaddexp(*both) - np.log(2)).numpy())


class EDeconvNet:
    """Segments images with a DeconvNet, instance-wise, and an FCN, on whole images.

    Args:
        deconvnet: looks at proposals; its palette is that of the results.
        fcn: looks at the whole image; of the same classes.
        ensemble: "mean" or "product", see `combine`.

    Raises:
        OptionError: other classes in one than in the other, a first network without proposals, or
            an unknown ensemble.

    >>> from unpool.models import FCN, DeconvNet
    >>> trunk = ((1, 4), (1, 4))
    >>> nets = DeconvNet(2, trunk, None, 32), FCN(2, trunk, None, stride=4, pad=1)
    >>> both = EDeconvNet(*(Segmenter(net, ["background", "cat"]) for net in nets))
    >>> both(np.zeros((20, 30, 3), np.uint8), proposals=2).labels.shape
    (20, 30)
    """

    mode = "instance"
    measured_modes = ("instance",)

    def __init__(self, deconvnet: Segmenter, fcn: Segmenter, ensemble: str = "mean") -> None:
        _require(ensemble)
        if deconvnet.side is None:
            raise OptionError(
                f"got a {type(deconvnet.model).__name__}, which segments whole images, as the "
                "network for proposals; pass a DeconvNet first, then the FCN"
            )
        if deconvnet.classes != fcn.classes:
            raise OptionError(
                f"got networks of the classes {', '.join(deconvnet.classes)} and "
                f"{', '.join(fcn.classes)}; wanted the same in the same order: take weights that "
                "were trained on the same data"
            )
        self.deconvnet, self.fcn, self.ensemble = deconvnet, fcn, ensemble
        self.classes, self.palette = deconvnet.classes, deconvnet.palette
        self.device, self.presence_threshold = deconvnet.device, deconvnet.presence_threshold

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path = "objects",
        partner: str | Path | None = None,
        *,
        ensemble: str = "mean",
        **options: Any,
    ) -> "EDeconvNet":
        """An ensemble with saved weights.

        Args:
            source: DeconvNet weights, by name or folder.
            partner: FCN weights; those that the card of `source` names when not given.
            ensemble: as of the class.
            **options: `presence_threshold`, `device`, `precision`, `exact`, as of `Segmenter`.

        Raises:
            WeightsError: no such weights, or no partner.
            OptionError: as of the class.
        """
        partner = find_partner(source) if partner is None else partner
        first, second = (Segmenter.from_pretrained(n, **options) for n in (source, partner))
        return cls(first, second, ensemble)

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
            crf: a dense CRF that refines the result, or the name of one of `CRF_PRESETS`.
            presence_threshold: leaves out classes that are nowhere certain, 0..1, see
                `postprocess`; the DeconvNet's when not given.
            **options: as of `score`.

        Returns:
            Labels and probabilities at the size of the image; a list of them for a list.
        """
        if isinstance(image, list | tuple):
            more = {"crf": crf, "presence_threshold": presence_threshold, **options}
            return [cast(Segmentation, self(one, **more)) for one in image]
        require_known(options, [*inspect.signature(self.deconvnet.score).parameters][1:])
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
        preset: str | Preset = EDECONVNET,
        **options: Any,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The scores of one image, of both networks together.

        Args:
            image: (H, W, 3) uint8, RGB, upright.
            mode: of the DeconvNet; "instance" when not given.
            preset: of its proposals: "edeconvnet", or as of `Segmenter.score`.
            **options: of the DeconvNet, see `Segmenter.score`.

        Returns:
            Scores (K, H, W) whose softmax is the probability of each class, and the squares (P, 4)
            that were segmented.
        """
        scores, boxes = self.deconvnet.score(
            image, mode=mode or self.mode, preset=_of_proposals(preset), **options
        )
        whole, _ = self.fcn.score(image, mode="whole")
        return combine(scores, whole, self.ensemble), boxes

    def describe(
        self,
        mode: str | None = None,
        preset: str | Preset = EDECONVNET,
        crf: str | DenseCRF | None = None,
        presence_threshold: float | None = None,
        **options: Any,
    ) -> str:
        """How images are segmented with these options, in words, for the protocol of figures."""
        first = self.deconvnet.describe(
            mode or self.mode, _of_proposals(preset), presence_threshold=0, **options
        )
        second = self.fcn.describe("whole", presence_threshold=0)
        both = f"{_kind(self.deconvnet)} ({first}) and {_kind(self.fcn)} ({second})"
        last = describe_postprocessing(
            self.presence_threshold if presence_threshold is None else presence_threshold, crf
        )
        return "; ".join([f"EDeconvNet: {self.ensemble} of {both}", *last])


def load(
    weights: str | Path = "objects",
    preset: str | None = None,
    ensemble: str | None = None,
    **options: Any,
) -> Segmenter | EDeconvNet:
    """What segments by a preset: one network, or for the preset "edeconvnet" the ensemble.

    Args:
        weights: by name or folder.
        preset: "edeconvnet", or one of those of `Segmenter.score`.
        ensemble: as of `EDeconvNet`, for that preset only.
        **options: `device`, `precision`, `exact`, as of `Segmenter`.

    Raises:
        WeightsError: no such weights, or no partner for the ensemble.
        OptionError: an ensemble without its preset.

    >>> load("objects", "reference").mode
    'whole'
    """
    if preset not in (None, EDECONVNET, *PRESETS):
        raise OptionError(f"got preset {preset!r}; {suggest(preset, (*PRESETS, EDECONVNET))}")
    if preset == EDECONVNET:
        chosen = {} if ensemble is None else {"ensemble": ensemble}
        return EDeconvNet.from_pretrained(weights, **chosen, **options)
    if ensemble is not None:
        raise OptionError(
            f"got ensemble {ensemble!r} for one network; set preset='{EDECONVNET}', or leave it out"
        )
    return Segmenter.from_pretrained(weights, **options)


def _of_proposals(preset: str | Preset) -> str | Preset:
    return "paper" if preset == EDECONVNET else preset


def _kind(segmenter: Segmenter) -> str:
    return type(segmenter.model).__name__


def _require(ensemble: str) -> None:
    if ensemble not in ENSEMBLES:
        raise OptionError(f"got ensemble {ensemble!r}; it is one of {', '.join(ENSEMBLES)}")
