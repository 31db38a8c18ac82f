"""The learned filters of the network as images."""

import numpy as np
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
    heads = [n for n in ("rgb", "mask") if not any(name.startswith(f"{n}.") for name in names)]
    return names + [n for n in heads if _upsampling(generator, n) is not None]


def filter_sheet(generator: Generator, layer: str, most: int = 16) -> Pixels:
    """Show the filters of a layer, all with one contrast; zero is mid-gray.

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
    module = _upsampling(generator, layer)
    assert module is not None
    filters = module.weight.detach().float().cpu().numpy()  # (inputs, outputs, k, k)
    columns = int(np.ceil(len(filters) ** 0.5))
    if filters.shape[1] != 3:
        filters = filters[:most, :most]
        columns = filters.shape[1]
        filters = filters.reshape(-1, 1, *filters.shape[2:])
    row = np.concatenate(list(filters), axis=2)  # (C, k, N * k): one signal has one contrast
    (shown,) = to_images(row, contrast="linear")
    return mosaic(np.split(shown, len(filters), axis=1), columns)


def _upsampling(generator: Generator, layer: str) -> nn.ConvTranspose2d | None:
    """The transposed convolution at the start of a stage or head."""
    modules = generator.model.get_submodule(layer).modules()
    return next((m for m in modules if isinstance(m, nn.ConvTranspose2d)), None)
