"""Occluders put on an image, and a network run for each of them: the plain way, for any model."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unpool.errors import ShapeError
from unpool.visualize.activations import first_tensor
from unpool.visualize.occlusion.window import Box
from unpool.visualize.shadow import shadow_copy

Baseline = float | Tensor
"""What an occluder shows: a number, one a channel (C,), or an image (C, H, W)."""


class Naive:
    """Runs a model on an image with an occluder, for many positions: what needs no chain.

    Args:
        model: any module.
        image: (1, C, H, W).
        baseline: what the occluder shows, (C, H, W).
        watched: a layer, and a unit of it whose total activation is wanted.
        batch: positions at a time.
    """

    def __init__(
        self,
        model: nn.Module,
        image: Tensor,
        baseline: Tensor,
        watched: tuple[str, int] | None = None,
        batch: int = 8,
    ) -> None:
        self._image, self._baseline, self._batch = image, baseline, batch
        self._shadow = shadow_copy(model)
        self._runs = 0
        self._total: Tensor | None = None
        if watched is not None:
            self._watch(*watched)
        self.output = self._run(image.clone())[0]  #: of the unoccluded image

    @torch.inference_mode()
    def __call__(self, boxes: Sequence[Box]) -> tuple[Tensor, Tensor | None]:
        """The outputs (P, K) for occluders at some boxes, and the totals (P,) float64 or None."""
        found = [
            self._run(occluded(self._image, self._baseline, boxes[start : start + self._batch]))
            for start in range(0, len(boxes), self._batch)
        ]
        outputs, totals = zip(*found, strict=True)
        return torch.cat(outputs), None if totals[0] is None else torch.cat(totals)

    @torch.inference_mode()
    def _run(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        self._runs, self._total = 0, None
        output = self._shadow(images)
        return output, self._total

    def _watch(self, layer: str, unit: int) -> None:
        modules = dict(self._shadow.named_modules())
        name, wanted = layer, 1
        if layer not in modules:  # a further run of a layer that is used again
            name, _, call = layer.rpartition(":")
            wanted = int(call)

        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self._runs += 1
            maps = first_tensor(output)
            if self._runs == wanted and maps is not None:
                self._total = maps[:, unit].flatten(1).sum(1, dtype=torch.float64)

        modules[name].register_forward_hook(hook)


def occluded(image: Tensor, baseline: Tensor, boxes: Sequence[Box]) -> Tensor:
    """Copies of an image, each with an occluder."""
    images = image.repeat(len(boxes), 1, 1, 1)
    for copy, (x0, y0, x1, y1) in zip(images, boxes, strict=True):
        copy[:, y0:y1, x0:x1] = baseline[:, y0:y1, x0:x1]
    return images


def baseline_image(baseline: Baseline, image: Tensor) -> Tensor:
    """What an occluder shows wherever it is, (C, H, W).

    Raises:
        ShapeError: it does not fit the image, or that is not a single one.
    """
    if image.dim() != 4 or len(image) != 1 or not image.is_floating_point():
        raise ShapeError(
            f"got an image of {tuple(image.shape)} {image.dtype}; wanted one, (1, C, H, W), of "
            "floating-point numbers, prepared as the model takes it"
        )
    color = torch.as_tensor(baseline, dtype=image.dtype, device=image.device)
    color = color[:, None, None] if color.dim() == 1 else color
    try:
        return color.expand(image.shape[1:])
    except RuntimeError:
        raise ShapeError(
            f"got a baseline of {tuple(color.shape)} for images of {tuple(image.shape[1:])}; "
            f"wanted a number, one a channel ({image.shape[1]},), or an image"
        ) from None
