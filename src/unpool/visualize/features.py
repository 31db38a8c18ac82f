"""Images as a model sees them, and what it makes of them: feature vectors and probabilities."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unpool.errors import ImageError, OptionError
from unpool.vision.images import Pixels, read_image
from unpool.visualize.activations import Layer, Probe, list_layers, require_finite
from unpool.visualize.class_scores import is_probability
from unpool.visualize.layers import stages
from unpool.visualize.preprocessing import Subject

Progress = Callable[[int, int, str], None]
"""Called with how much is done, the total, and what is being done."""

_CONTAINERS = ("Sequential", "Flatten", "Identity", "Dropout", "Dropout2d")
_WEIGHING = ("Linear", "Conv2d")


class Views(NamedTuple):
    """Images that could be read."""

    images: list[Path]
    crops: list[Pixels]  #: what the model sees of each, (S, S, 3) uint8, RGB
    shapes: list[tuple[int, int]]  #: height and width of each image
    failed: dict[str, str]  #: those that could not be read, and why


def read_views(
    subject: Subject, images: Sequence[Path], tell: Callable[[int], None] | None = None
) -> Views:
    """Read images as a model sees them; one that cannot be read is passed over.

    Raises:
        ImageError: none can be read.
    """
    views = Views([], [], [], {})
    for number, path in enumerate(images, 1):
        try:
            image = read_image(path)
        except ImageError as error:
            views.failed[str(path)] = str(error)
        else:
            views.images.append(path)
            views.crops.append(subject.inputs.crop(image))
            views.shapes.append((image.shape[0], image.shape[1]))
        if tell is not None:
            tell(number)
    if not views.images:
        reason = next(iter(views.failed.values()), "there are none")
        raise ImageError(f"none of {len(images)} images can be used: {reason}")
    return views


def mean_color(subject: Subject) -> tuple[int, int, int]:
    """The color that a model takes for zero, RGB, 0 to 255: a gray, mostly.

    >>> from unpool.visualize.preprocessing import Inputs
    >>> mean_color(Subject(nn.Identity(), "none", Inputs()))
    (124, 116, 104)
    """
    inputs = subject.inputs
    scaled = [min(max(round(v * 255 / inputs.range), 0), 255) for v in inputs.mean]
    red, green, blue = scaled if inputs.order == "RGB" else scaled[::-1]
    return red, green, blue


class Gauge:
    """Measures what a model makes of what it sees: features of some layers, class probabilities.

    Args:
        subject: the model; it stays as it is.
        layers: names from `list_layers`.

    Raises:
        OptionError: no such layer.

    >>> from unpool.visualize.preprocessing import Inputs
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> gauge = Gauge(Subject(model, "small", Inputs(8, 8)), ["0"])
    >>> features, probability = gauge([np.zeros((8, 8, 3), np.uint8)])
    >>> features["0"].shape, probability.shape
    (torch.Size([1, 144]), torch.Size([1, 4]))
    """

    def __init__(self, subject: Subject, layers: Sequence[str]) -> None:
        Probe(subject.model, layers)  # which tells of a wrong name
        self._subject, self._layers = subject, list(layers)
        self._probe = Probe(_Whole(subject.model), ["model", *(f"model.{n}" for n in layers)])

    @torch.no_grad()
    def __call__(self, crops: Sequence[Pixels]) -> tuple[dict[str, Tensor], Tensor | None]:
        """Feature vectors and class probabilities of what is seen.

        Args:
            crops: (S, S, 3) uint8, RGB, each.

        Returns:
            The features of each layer, (N, D) on the CPU, by name; and probabilities (N, K), or
            None where the model gives no scores of classes. Those of a model that segments are the
            mean over the image.

        Raises:
            OptionError: a layer or the model gives values that are not finite.
        """
        images = self._subject.prepare(crops)
        found = self._probe(images)
        probability = _probability(found["model"], images)
        vectors = {name: found[f"model.{name}"].flatten(1).float().cpu() for name in self._layers}
        for name, values in vectors.items():
            require_finite(f"layer {name!r}", values)
        if probability is None:
            return vectors, None
        require_finite("the model", probability)
        return vectors, probability.cpu()


class _Whole(nn.Module):
    """A model as a layer with a name, so that what it gives can be seen beside its layers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        return self.model(x)


def _probability(output: Tensor, images: Tensor) -> Tensor | None:
    if not _scores(output.shape[1:], images.shape[2:]):
        return None
    output = output.float()
    if not is_probability(output):
        output = output.softmax(1)
    return output.mean((2, 3)) if output.dim() == 4 else output


def _scores(shape: Sequence[int], sides: Sequence[int]) -> bool:
    """Whether an output of (K,) or (K, h, w) holds scores of classes, for the image or pixels."""
    return len(shape) in (1, 3) and shape[0] > 1 and list(shape[1:]) in ([], list(sides))


def choose_layers(subject: Subject) -> tuple[list[str], str]:
    """Layers with maps that are worth a look, and the top layer: the last below the class scores.

    >>> from unpool.models import ZFNet
    >>> from unpool.visualize.preprocessing import Inputs
    >>> net = ZFNet(10, widths=(8, 16, 24, 24, 16), code=32, size=64).eval()
    >>> choose_layers(Subject(net, "small", Inputs(64, 64)))
    (['features.relu1', 'features.norm1', 'features.relu2', 'features.relu5'], 'classifier.relu7')

    Raises:
        OptionError: the model has no such layers.
    """
    trial = subject.trial()
    layers = [layer for layer in list_layers(subject.model, trial) if layer.shape]
    whole = Probe(_Whole(subject.model), ["model"])(trial)["model"]
    classes = whole.shape[1] if _scores(whole.shape[1:], trial.shape[2:]) else None
    below = _below([layer for layer in layers if _is_own(layer)], classes, whole.dim() == 4)
    chosen = stages(below)
    if not below or not chosen:
        raise OptionError(
            f"got no layers, and {subject.name} has none that are known to be worth a look; name "
            f"some of {', '.join(layer.name for layer in layers[:5])} ..."
        )
    return chosen, below[-1].name


def _below(layers: Sequence[Layer], classes: int | None, segments: bool) -> list[Layer]:
    """The layers without those at the end that give the scores of classes.

    Of a classifier the last that weighs is the first of those; a network that segments may add up
    scores of several layers.

    >>> mlp = [Layer(n, k, (5,)) for n, k in (("a", "Linear"), ("b", "ReLU"), ("c", "Linear"))]
    >>> [layer.name for layer in _below(mlp, 5, segments=False)]
    ['a', 'b']
    """
    left = list(layers)
    while left and left[-1].shape[0] == classes:
        if left.pop().kind in _WEIGHING and not segments:
            break
    return left


def _is_own(layer: Layer) -> bool:
    """Whether a layer gives something that the one before it did not."""
    return layer.kind not in _CONTAINERS
