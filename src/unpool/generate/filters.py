"""The learned filters of the network as images."""

import numpy as np
from numpy.typing import NDArray
from torch import nn

from unpool.errors import OptionError, suggest
from unpool.generate.generator import Generator
from unpool.generate.units import list_layers
from unpool.vision.drawing import to_images
from unpool.vision.figures import mosaic
from unpool.vision.images import Pixels


def list_filters(generator: Generator) -> list[str]:
    """The upsampling layers, whose filters can be shown, in order.

    Filters with three outputs, those of the last layers, are shown in color.
    """
    names = [name for name in list_layers(generator.model) if ".stages." in name]
    heads = [
        n for n in ("rgb", "mask") if _upsampling(generator.model.get_submodule(n)) is not None
    ]
    return names + [head for head in heads if not any(n.startswith(f"{head}.") for n in names)]


def filter_sheet(generator: Generator, layer: str, most: int = 16) -> Pixels:
    """Show the filters of a layer; zero is mid-gray, and the contrast is the layer's own.

    Args:
        generator: the network.
        layer: see `list_filters`.
        most: of a layer whose outputs are not colors, the number of inputs (rows) and outputs
            (columns) shown.

    Returns:
        One image, (H, W, 3) uint8. For a layer with color outputs, a filter for each input; for
        others, the filter from each of the first inputs to each of the first outputs.

    Raises:
        OptionError: no such layer, or less than one filter.

    Dosovitskiy, Springenberg & Brox 2015, figure of the learned filters.
    """
    known = list_filters(generator)
    if layer not in known:
        raise OptionError(f"got layer {layer!r}; {suggest(layer, known)}")
    if most < 1:
        raise OptionError(f"got most={most}; wanted 1 or more")
    module = _upsampling(generator.model.get_submodule(layer))
    assert module is not None
    weight = module.weight.detach().float().cpu()  # (inputs, outputs, k, k)
    if weight.shape[1] == 3:
        columns = int(np.ceil(len(weight) ** 0.5))
        return mosaic(_tiles(weight.numpy()), columns)
    chosen = weight[:most, :most]
    columns = chosen.shape[1]
    return mosaic(_tiles(chosen.flatten(0, 1)[:, None].numpy()), columns)


def _tiles(filters: NDArray[np.float32]) -> Pixels:
    """Filters (N, C, k, k) as images (N, k, k, 3) with one contrast for all."""
    row = np.concatenate(list(filters), axis=2)  # (C, k, N * k)
    (shown,) = to_images(row, contrast="linear")
    return np.stack(np.split(shown, len(filters), axis=1))


def _upsampling(module: nn.Module) -> nn.ConvTranspose2d | None:
    """The transposed convolution at the start of a stage or head."""
    return next((m for m in module.modules() if isinstance(m, nn.ConvTranspose2d)), None)
