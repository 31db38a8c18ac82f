"""Projections of class scores: which pixels of an image a segmentation of it rests on.

The output of a model is treated as one more layer, "score", with a map for each class. Below it, a
signal passes a decoder as it passes other layers: through the transposed filters of deconvolutions,
and through unpooling by reading the values at the switches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unpool.errors import OptionError
from unpool.visualize.activations import SCORE, ActivationRecorder, score_layer
from unpool.visualize.projection import Projection, project


@dataclass(frozen=True, repr=False)
class ScoreProjection(Projection):
    """The result of `project_scores`: `units` are classes, `values` the sums of their scores."""

    regions: Tensor  #: (N, h, w) bool, where each class is predicted


def project_scores(
    model: nn.Module,
    image: Tensor,
    classes: Sequence[int] | None = None,
    *,
    names: Sequence[str] = (),
    **options: Any,
) -> ScoreProjection:
    """Project the score of a class down to the pixels, from all places where it is predicted.

    Args:
        model: any module that gives scores (N, K, h, w), alone or as the first of several tensors;
            otherwise as for `project`.
        image: (1, C, H, W), preprocessed.
        classes: by number; when not given, all but 0, the background, that cover 1 % of the image
            or more, the largest first.
        names: of the classes, for error messages.
        options: `rule`, `start`, `overlap`, `lrn` and `activations` of `project`.

    Raises:
        OptionError: a class that is predicted nowhere, nothing but background, a model without such
            scores, or what `project` refuses.

    The deconvnet of Zeiler, Fergus 2014, through that of Noh, Hong, Han 2015; with rule
    "saliency", the gradient of the sum of the scores (Simonyan, Vedaldi, Zisserman 2014).

    >>> from unpool.models import DeconvNet
    >>> net, image = DeconvNet(2, ((1, 4), (1, 8)), None, 32), torch.rand(1, 3, 32, 32)
    >>> label = int(score_maps(net, image).argmax(1)[0, 16, 16])
    >>> project_scores(net, image, [label]).signal.shape
    torch.Size([1, 3, 32, 32])
    """
    labels = score_maps(model, image).argmax(1)[0]
    if classes is None:
        classes = largest_classes(labels, least=0.01)
        if not classes:
            raise OptionError(
                f"hardly anything but {_name(0, names)} is predicted in this image; name a class, "
                "or pass another image"
            )
    regions = torch.stack([find_region(labels, n, names) for n in classes])
    found = project(score_layer(model), image, SCORE, list(classes), place=regions, **options)
    return ScoreProjection(**vars(found), regions=regions)


def score_maps(model: nn.Module, images: Tensor) -> Tensor:
    """The scores (N, K, h, w) that a model gives for images (N, C, H, W).

    Raises:
        OptionError: it gives something else, such as a class for the whole image.
    """
    with torch.no_grad():
        scores = ActivationRecorder(score_layer(model), [SCORE])(images)[SCORE]
    require_maps(scores.shape[1:], images)
    return scores


def require_maps(shape: Sequence[int], images: Tensor) -> None:
    """Raise an `OptionError` if a model that gives this shape for an image does not segment."""
    if len(shape) != 3 or shape[0] < 2:
        raise OptionError(
            f"the model gives {tuple(shape)} for an image of {tuple(images.shape[1:])}; wanted "
            "a model that segments, which gives scores (classes, h, w)"
        )


def largest_classes(labels: Tensor, least: float = 0) -> list[int]:
    """The classes of a label map (h, w) but 0, the background, the largest first.

    Classes that cover a smaller fraction than `least` are left out.

    >>> largest_classes(torch.tensor([[0, 0, 3], [1, 3, 3]]))
    [3, 1]
    """
    counts = labels.flatten().bincount()
    counts[0] = 0
    order = counts.argsort(descending=True, stable=True).tolist()
    return [n for n in order if counts[n] >= max(least * labels.numel(), 1)]


def find_region(labels: Tensor, label: int, names: Sequence[str] = ()) -> Tensor:
    """Where a label map (h, w) has a class, as bool.

    Raises:
        OptionError: nowhere; the message names the classes that it has.

    >>> find_region(torch.tensor([[0, 3, 3]]), 3).tolist()
    [[False, True, True]]
    """
    region = labels == label
    if not region.any():
        present = ", ".join(_name(n, names) for n in sorted(set(labels.flatten().tolist())))
        raise OptionError(
            f"got class {_name(label, names)}, which is predicted nowhere in this image; there "
            f"is {present}: name one of them, or pass another image"
        )
    return region


def _name(label: int, names: Sequence[str]) -> str:
    return names[label] if label < len(names) else str(label)
