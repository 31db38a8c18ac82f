"""Feature vectors and class probabilities of images, and the layers that analyses use."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from unpool.errors import OptionError
from unpool.visualize import activations
from unpool.visualize.activations import SCORE, ActivationRecorder, Layer, score_layer

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.vision.images import Pixels
    from unpool.visualize.preprocessing import LoadedModel

_PASSING = ("Sequential", "Flatten", "Identity", "Dropout", "Dropout2d")  # compute nothing


class InputImages(NamedTuple):
    """Images that were read, as the model sees them."""

    images: list[Path]
    crops: list["Pixels"]  #: what the model sees of each, (S, S, 3) uint8, RGB
    shapes: list[tuple[int, int]]  #: height and width of each image
    failed: dict[str, str]  #: unreadable files, with the reasons

    def batches(self, loaded: "LoadedModel", size: int) -> Iterator[Tensor]:
        """The crops as input of the model, (N, 3, S, S) with N up to `size`."""
        for start in range(0, len(self.crops), size):
            yield loaded.prepare(self.crops[start : start + size])


def read_inputs(
    loaded: "LoadedModel", images: Sequence[Path], progress: "Progress | None" = None
) -> InputImages:
    """Read images and crop what the model sees of them, see `LoadedModel.read_crops`."""
    inputs = InputImages([], [], [], {})
    for path, crop, shape in loaded.read_crops(images, inputs.failed, progress):
        inputs.images.append(path)
        inputs.crops.append(crop)
        inputs.shapes.append(shape)
    return inputs


def mean_color(loaded: "LoadedModel") -> tuple[int, int, int]:
    """The color that is zero in a model's input, RGB, 0 to 255, usually a gray.

    >>> from unpool.visualize.preprocessing import LoadedModel, Preprocessing
    >>> mean_color(LoadedModel(torch.nn.Identity(), "none", Preprocessing()))
    (124, 116, 104)
    """
    preprocessing = loaded.preprocessing
    scaled = [min(max(round(v * 255 / preprocessing.range), 0), 255) for v in preprocessing.mean]
    red, green, blue = scaled if preprocessing.order == "RGB" else scaled[::-1]
    return red, green, blue


class FeatureExtractor:
    """Computes features of some layers, by names from `list_layers`, and class probabilities.

    >>> from unpool.visualize.preprocessing import LoadedModel, Preprocessing
    >>> import numpy as np
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> extract = FeatureExtractor(LoadedModel(model, "small", Preprocessing(8, 8)), ["0"])
    >>> features, probability = extract([np.zeros((8, 8, 3), np.uint8)])
    >>> features["0"].shape, probability.shape
    (torch.Size([1, 144]), torch.Size([1, 4]))
    """

    def __init__(self, loaded: "LoadedModel", layers: Sequence[str]) -> None:
        ActivationRecorder(loaded.model, layers)  # checks the names as they were given
        self._loaded, self._layers = loaded, list(layers)
        names = [SCORE, *(f"{SCORE}.{name}" for name in layers)]
        self._recorder = ActivationRecorder(score_layer(loaded.model), names)

    @torch.no_grad()
    def __call__(self, crops: Sequence["Pixels"]) -> tuple[dict[str, Tensor], Tensor | None]:
        """Feature vectors and class probabilities of crops, (S, S, 3) uint8, RGB, each.

        Returns:
            The features of each layer by name, (N, D) float32, and the probabilities, (N, K), or
            None for a model without class scores; both on the CPU. A segmentation network gives
            their mean over the image.

        Raises:
            OptionError: a layer or the model gives values that are not finite.
        """
        images = self._loaded.prepare(crops)
        found = self._recorder(images)
        vectors = {name: found[f"{SCORE}.{name}"].flatten(1).float().cpu() for name in self._layers}
        for name, values in vectors.items():
            activations.require_finite(f"layer {name!r}", values)
        scores = found[SCORE].float()
        if not _is_score(scores.shape[1:], images.shape[2:]):
            return vectors, None
        probability = scores if activations.is_probability(scores) else scores.softmax(1)
        probability = probability.mean((2, 3)) if scores.dim() == 4 else probability
        activations.require_finite("the model", probability)
        return vectors, probability.cpu()


def _is_score(shape: Sequence[int], sides: Sequence[int]) -> bool:
    """Whether an output (K,) or (K, h, w) holds class scores of an image or of its pixels."""
    return len(shape) in (1, 3) and shape[0] > 1 and list(shape[1:]) in ([], list(sides))


def choose_layers(loaded: "LoadedModel") -> tuple[list[str], str]:
    """The last layer with feature maps of each stage, and the last layer below the class scores.

    >>> from unpool.models import ZFNet
    >>> from unpool.visualize.preprocessing import LoadedModel, Preprocessing
    >>> net = ZFNet(10, widths=(8, 16, 24, 24, 16), code=32, size=64).eval()
    >>> choose_layers(LoadedModel(net, "small", Preprocessing(64, 64)))
    (['features.relu1', 'features.norm1', 'features.relu2', 'features.relu5'], 'classifier.relu7')

    Raises:
        OptionError: the model has no such layers.
    """
    trial = loaded.trial_image()
    layers = [layer for layer in activations.list_layers(loaded.model, trial) if layer.shape]
    output = ActivationRecorder(score_layer(loaded.model), [SCORE])(trial)[SCORE]
    classes = output.shape[1] if _is_score(output.shape[1:], trial.shape[2:]) else None
    own = [layer for layer in layers if layer.kind not in _PASSING]
    below = _below_scores(own, classes, output.dim() == 4)
    chosen = activations.stage_ends(below)
    if not chosen:
        raise OptionError(
            f"got no layers, and {loaded.name} has no stages whose last layer could be used; name "
            f"some of {', '.join(layer.name for layer in layers[:5])} ..."
        )
    return chosen, below[-1].name


def _below_scores(layers: Sequence[Layer], classes: int | None, segments: bool) -> list[Layer]:
    """The layers without those at the end that compute the class scores.

    In a classifier, these start with the last layer that has weights; a segmentation network may
    add up the scores of several layers.

    >>> mlp = [Layer(n, k, (5,)) for n, k in (("a", "Linear"), ("b", "ReLU"), ("c", "Linear"))]
    >>> [layer.name for layer in _below_scores(mlp, 5, segments=False)]
    ['a', 'b']
    """
    left = list(layers)
    while left and left[-1].shape[0] == classes:
        if left.pop().kind in ("Linear", "Conv2d") and not segments:
            break
    return left
