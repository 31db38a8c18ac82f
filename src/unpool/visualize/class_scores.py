"""Segmentation explained: the score of a class, where that is predicted, down in the pixels.

What a model gives for an image is taken as one more layer, "score", with a map for each class. A
region of such a map goes down as any other: in a decoder through the transposed filters of its
deconvolutions, and past its unpooling by taking up what lies at the switches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unpool.errors import OptionError
from unpool.visualize.activations import SCORE, ActivationRecorder, score_layer
from unpool.visualize.projection import Projection, project

_SPECK = 0.01  # fraction of the places below which a class is not looked at unasked


@dataclass(frozen=True)
class ScoreProjection(Projection):
    """What `project_scores` gives: a signal in pixels for each class."""

    regions: Tensor  #: (N, h, w) bool, where each class is predicted


def project_scores(
    model: nn.Module,
    image: Tensor,
    classes: Sequence[int] | None = None,
    *,
    names: Sequence[str] = (),
    **options: Any,
) -> ScoreProjection:
    """Project the score of a class, from all places where it is predicted, down to the pixels.

    Args:
        model: any module that gives scores (N, K, h, w), or several tensors of which that is the
            first. It stays as it is, and runs as in evaluation mode.
        image: (1, C, H, W), as the model takes it.
        classes: by number; when not given, all that are predicted at one place in a hundred or
            more, but not 0, the background; the largest first.
        names: of the classes, for messages.
        options: `rule`, `start`, `overlap`, `lrn` and `activations` of `project`.

    Returns:
        A projection for each class: `units` are the classes, `values` the sums of their scores.

    Raises:
        OptionError: a class that is predicted nowhere, or none but background; a model that gives
            something else; or what `project` refuses.
        ShapeError: an image that the model cannot take.

    The deconvnet of Zeiler, Fergus 2014, through that of Noh, Hong, Han 2015; with rule
    "saliency" the gradient of the sum of the scores (Simonyan, Vedaldi, Zisserman 2014).

    >>> from unpool.models import DeconvNet
    >>> net, image = DeconvNet(2, ((1, 4), (1, 8)), None, 32), torch.rand(1, 3, 32, 32)
    >>> label = int(score_maps(net, image).argmax(1)[0, 16, 16])
    >>> project_scores(net, image, [label]).signal.shape
    torch.Size([1, 3, 32, 32])
    """
    labels = score_maps(model, image).argmax(1)[0]
    if classes is None:
        count = labels.flatten().bincount()
        count[0] = 0
        order = count.argsort(descending=True).tolist()
        classes = [n for n in order if count[n] >= _SPECK * labels.numel()]
        if not classes:
            raise OptionError(
                f"hardly anything but {_named(0, names)} is predicted in this image; name a "
                "class, or give another image"
            )
    regions = torch.stack([find_region(labels, n, names) for n in classes])
    found = project(score_layer(model), image, SCORE, list(classes), place=regions, **options)
    return ScoreProjection(**vars(found), regions=regions)


def score_maps(model: nn.Module, images: Tensor) -> Tensor:
    """The scores (N, K, h, w) that a model gives for images (N, C, H, W).

    Raises:
        OptionError: it gives something else, such as a class for the whole image.
        ShapeError: images that it cannot take.
    """
    with torch.no_grad():
        scores = ActivationRecorder(score_layer(model), [SCORE])(images)[SCORE]
    if scores.dim() != 4 or scores.shape[1] < 2:
        raise OptionError(
            f"the model gives {tuple(scores.shape)} for images of {tuple(images.shape)}; wanted "
            "a model that segments, which gives scores (N, classes, h, w)"
        )
    return scores


def find_region(labels: Tensor, label: int, names: Sequence[str] = ()) -> Tensor:
    """Where a class is predicted.

    Args:
        labels: (h, w), the class of each place.
        label: the class wanted.
        names: of the classes, for messages.

    Returns:
        (h, w) bool.

    Raises:
        OptionError: it is predicted nowhere; the message names the classes that are.

    >>> find_region(torch.tensor([[0, 3, 3]]), 3).tolist()
    [[False, True, True]]
    """
    region = labels == label
    if not region.any():
        there = ", ".join(_named(n, names) for n in sorted(set(labels.flatten().tolist())))
        raise OptionError(
            f"got class {_named(label, names)}, which is predicted nowhere in this image; there "
            f"is {there}: name one of them, or give another image"
        )
    return region


def _named(label: int, names: Sequence[str]) -> str:
    return names[label] if label < len(names) else str(label)
