"""EDeconvNet: DeconvNet and an FCN-8s together (Noh, Hong, Han 2015, section 4.4).

DeconvNet, which looks at one proposal after the other, captures shapes and small objects; FCN,
which looks at the whole image, locates large ones. Together they are better than either.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from unpool.cards import find_partner, read_card
from unpool.errors import OptionError, ShapeError, require_choice, require_known
from unpool.recipes.presets import EDECONVNET, ENSEMBLES, PRESETS, Preset
from unpool.segment.pipeline import BaseSegmenter, Prediction, predict_tiles
from unpool.segment.segmenter import Segmenter

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.segment.tiles import TiledPrediction
    from unpool.vision.images import Pixels


def combine(
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    ensemble: str = "mean",
    weight: float = 0.5,
) -> NDArray[np.float32]:
    """Combine the logits (K, H, W) of two networks.

    Args:
        first: of one network.
        second: of the other.
        ensemble: "mean" of the two class probability maps, as the paper has it; "product" of the
            logits with the negative ones set to zero, as the released code does.
        weight: of the first network in the mean, 0 to 1; the paper's is a half.

    Returns:
        Logits (K, H, W) whose softmax is the probability of each class.

    Noh, Hong, Han 2015, section 4.4; the released `generate_EDeconvNet_CRF_results.m`.

    >>> a, b = (np.array(v, np.float32).reshape(2, 1, 1) for v in ([2, -1], [3, 5]))
    >>> combine(a, b, "product").ravel().tolist()
    [6.0, 0.0]
    """
    require_choice("ensemble", ensemble, ENSEMBLES)
    if first.shape != second.shape:
        raise ShapeError(
            f"got scores of {first.shape} and {second.shape}; wanted those of one image, by "
            "networks of the same classes"
        )
    if ensemble == "product":
        # two scores far below 0 would have a large product
        return np.maximum(first, 0) * np.maximum(second, 0)
    if not 0 <= weight <= 1:
        raise OptionError(f"got weight={weight} of the first network; wanted 0 to 1")
    a, b = (torch.from_numpy(scores).log_softmax(0) for scores in (first, second))
    # the logarithm of 0 below would be minus infinity
    if weight in (0, 1):
        return np.asarray((a if weight else b).numpy())
    ratio = np.log((1 - weight) / weight)
    return np.asarray((torch.logaddexp(a, b + ratio) + np.log(weight)).numpy())


class EDeconvNet(BaseSegmenter):
    """Segments images with a DeconvNet, instance-wise, and an FCN, on whole images.

    Args:
        deconvnet: looks at proposals; its palette is that of the results.
        fcn: looks at the whole image; of the same classes.
        ensemble: "mean" or "product", see `combine`.
        weight: of the DeconvNet in the mean.

    Raises:
        OptionError: other classes in one than in the other, a first network without proposals, an
            unknown ensemble, or a weight that is not 0 to 1.

    >>> from unpool.models import FCN, DeconvNet
    >>> trunk = ((1, 4), (1, 4))
    >>> nets = DeconvNet(2, trunk, None, 32), FCN(2, trunk, None, stride=4, pad=1)
    >>> both = EDeconvNet(*(Segmenter(net, ["background", "cat"]) for net in nets))
    >>> both(np.zeros((20, 30, 3), np.uint8), proposals=2).labels.shape
    (20, 30)
    """

    mode, separator = "instance", "; "
    measured_modes = ("instance",)

    def __init__(
        self, deconvnet: Segmenter, fcn: Segmenter, ensemble: str = "mean", weight: float = 0.5
    ) -> None:
        require_choice("ensemble", ensemble, ENSEMBLES)
        if not 0 <= weight <= 1:
            raise OptionError(f"got weight={weight} of the DeconvNet; wanted 0 to 1")
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
        self.deconvnet, self.fcn, self.ensemble, self.weight = deconvnet, fcn, ensemble, weight
        self.classes, self.palette = deconvnet.classes, deconvnet.palette
        self.device, self.presence_threshold = deconvnet.device, deconvnet.presence_threshold
        self.crf = deconvnet.crf

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
            partner: FCN weights; those that the card of `source` names when not given, with the
                weight in the mean that it gives.
            ensemble: as of the class.
            **options: `presence_threshold`, `device`, `precision`, `exact`, as of `Segmenter`.

        Raises:
            WeightsError: no such weights, or no partner.
        """
        require_known(options, ["presence_threshold", "device", "precision", "exact"])
        own = partner is None
        partner = find_partner(source) if partner is None else partner
        first, second = (Segmenter.from_pretrained(n, **options) for n in (source, partner))
        # found for this partner; it says nothing about another one
        weight = read_card(source).ensemble_weight if own else None
        return cls(first, second, ensemble, 0.5 if weight is None else weight)

    def predict(
        self,
        image: "Pixels",
        *,
        mode: str | None = None,
        preset: str | Preset | None = None,
        samples: int = 0,
        progress: "Progress | None" = None,
        **options: Any,
    ) -> "Prediction | TiledPrediction":
        """The combined logits of both networks for one image.

        Args:
            image: (H, W, 3) uint8, RGB, upright.
            mode: of the DeconvNet; "instance" by default. By tiles, both see the same windows.
            preset: of its proposals, as of `Segmenter.predict`; "edeconvnet" is the default.
            samples, progress, **options: of the DeconvNet, see `Segmenter.predict`.

        Returns:
            Logits whose softmax is the probability of each class, and the squares of the DeconvNet.
        """
        mode, preset = mode or self.mode, None if preset == EDECONVNET else preset
        temperature = self.deconvnet.temperature.get(EDECONVNET, 1.0)
        options = {"mode": mode, "preset": preset, "progress": progress, **options}
        if mode == "tiles":
            self.deconvnet.require_samples(mode, samples)
            tiling = self.deconvnet.resolve(partners=[self.fcn.model], **options)
            how = self.infer, tiling, len(self.classes), temperature, progress
            return predict_tiles(image, *how)
        first = self.deconvnet.predict(image, samples=samples, **options)
        second = self.fcn.predict(image, mode="whole")
        assert isinstance(first, Prediction)
        logits = combine(first.logits, second.logits, self.ensemble, self.weight)
        return Prediction(logits, first.boxes, temperature)

    def infer(self, images: "Pixels") -> NDArray[np.float32]:
        """The combined logits (N, K, h, w) of a batch of images (N, h, w, 3) uint8, RGB."""
        both = zip(self.deconvnet.infer(images), self.fcn.infer(images), strict=True)
        return np.stack([combine(*pair, self.ensemble, self.weight) for pair in both])

    def describe_network(
        self, mode: str | None = None, preset: str | Preset | None = None, **options: Any
    ) -> str:
        """Describe both networks."""
        mode, preset = mode or self.mode, None if preset == EDECONVNET else preset
        if mode == "tiles":
            options["partners"] = [self.fcn.model]
        first = self.deconvnet.describe_network(mode, preset=preset, **options)
        kinds = [type(segmenter.model).__name__ for segmenter in (self.deconvnet, self.fcn)]
        same = mode == "tiles"
        second = f"{kinds[1]} ({'the same' if same else self.fcn.describe_network('whole')})"
        weighted = self.ensemble == "mean" and self.weight != 0.5
        how = f"{self.weight:g} : {1 - self.weight:g} mean" if weighted else self.ensemble
        return f"EDeconvNet: {how} of {kinds[0]} ({first}) and {second}"


def load(
    weights: str | Path = "objects",
    preset: str | None = None,
    ensemble: str | None = None,
    **options: Any,
) -> Segmenter | EDeconvNet:
    """Load a segmenter: one network, or the ensemble for the preset "edeconvnet".

    Args:
        weights: by name or folder.
        preset: "edeconvnet", or one of `unpool.recipes.presets.PRESETS`.
        ensemble: as of `EDeconvNet`, for that preset only.
        **options: `mode`, `device`, `precision`, `exact` ..., as of `Segmenter`.

    Raises:
        WeightsError: no such weights, or no partner for the ensemble.
        OptionError: an ensemble without its preset.

    >>> load("objects", "reference").mode
    'whole'
    """
    if preset is not None:
        require_choice("preset", preset, (*PRESETS, EDECONVNET))
    if preset == EDECONVNET:
        chosen = {} if ensemble is None else {"ensemble": ensemble}
        return EDeconvNet.from_pretrained(weights, **chosen, **options)
    if ensemble is not None:
        raise OptionError(
            f"got ensemble={ensemble!r} for one network; set preset='{EDECONVNET}', or leave it out"
        )
    return Segmenter.from_pretrained(weights, preset=preset or "paper", **options)
