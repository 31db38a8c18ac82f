"""Filters that a network has learned, as images."""

import numpy as np
from numpy.typing import NDArray
from torch import nn

from unpool.errors import OptionError
from unpool.generate.generator import Generator
from unpool.generate.interventions import list_layers
from unpool.vision.figures import mosaic
from unpool.vision.signals import to_images


def list_filters(generator: Generator) -> list[str]:
    """The layers that enlarge maps, whose filters can be drawn, in order.

    Those of three outputs, the last ones, are drawn in color.
    """
    names = [name for name in list_layers(generator.model) if ".stages." in name]
    heads = [n for n in ("rgb", "mask") if _enlarging(generator.model.get_submodule(n)) is not None]
    return names + [head for head in heads if not any(n.startswith(f"{head}.") for n in names)]


def draw_filters(generator: Generator, layer: str, most: int = 16) -> NDArray[np.uint8]:
    """Draw the filters of a layer; zero is mid-gray, and each layer has a contrast of its own.

    Args:
        generator: draws.
        layer: of `list_filters`.
        most: of a layer whose maps are not colors, how many inputs (rows) and outputs (columns).

    Returns:
        One image (H, W, 3) uint8. Of a layer that gives colors, a filter for each input; of
        others, that from each of the first inputs to each of the first outputs.

    Raises:
        OptionError: no such layer, or less than one filter.

    Dosovitskiy, Springenberg, Brox 2015, figure of the learned filters.
    """
    known = list_filters(generator)
    if layer not in known or most < 1:
        raise OptionError(
            f"got layer {layer!r} and {most} filters; wanted one or more of {', '.join(known)}"
        )
    found = _enlarging(generator.model.get_submodule(layer))
    assert found is not None
    weight = found.weight.detach().float().cpu()  # (inputs, outputs, k, k)
    if weight.shape[1] == 3:
        columns = int(np.ceil(len(weight) ** 0.5))
        return mosaic(_tiles(weight.numpy()), columns)
    chosen = weight[:most, :most]
    columns = chosen.shape[1]
    return mosaic(_tiles(chosen.flatten(0, 1)[:, None].numpy()), columns)


def _tiles(filters: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Filters (N, C, k, k) as images (N, k, k, 3) with one contrast for all."""
    row = np.concatenate(list(filters), axis=2)  # (C, k, N * k)
    (shown,) = to_images(row, contrast="linear")
    return np.stack(np.split(shown, len(filters), axis=1))


def _enlarging(module: nn.Module) -> nn.ConvTranspose2d | None:
    """The transposed convolution that a stage or head begins with."""
    return next((m for m in module.modules() if isinstance(m, nn.ConvTranspose2d)), None)
