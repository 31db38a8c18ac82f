"""Images generated from some cells of the first feature maps."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unpool.errors import OptionError, suggest
from unpool.generate.codes import Style
from unpool.generate.generator import Generator
from unpool.generate.result import GeneratedImage, postprocess
from unpool.generate.units import intervene, list_layers

PATTERNS = ("center-2", "center-4", "center-6", "center-8", "border", "checkerboard", "other")
"""Names of sets of cells of the 8 x 8 maps; "other" is the complement of "checkerboard"."""


def mask_cells(
    generator: Generator,
    style: Style,
    cells: Sequence[NDArray[np.bool_]],
    *,
    azimuth: float = 301.0,
    elevation: float = 20.0,
) -> list[GeneratedImage]:
    """Generate an object with all but some cells of the 8 x 8 maps of FC-5 set to zero.

    Args:
        generator: the network; the maps of all its streams are masked.
        style: as for `Generator.view`.
        cells: one array per image, (8, 8) bool, true where cells are kept; see `pattern`.
        azimuth: of the view, in degrees.
        elevation: likewise.

    Raises:
        OptionError: no such style, or cells of another shape.

    Dosovitskiy, Springenberg & Brox 2015, figure of the spatial masks.
    """
    kept = torch.from_numpy(np.stack(cells))[:, None]

    def keep(y: Tensor) -> Tensor:
        if kept.shape[2:] != y.shape[2:]:
            wanted = " x ".join(map(str, y.shape[2:]))
            raise OptionError(f"got cells of {tuple(kept.shape[2:])}; wanted {wanted}")
        return y * kept.to(y)

    layers = [name for name in list_layers(generator.model) if name.endswith("fc5")]
    codes, notes = generator.encode([style] * len(cells), azimuth, elevation)
    with intervene(generator.model, dict.fromkeys(layers, keep)):
        return postprocess(*generator.predict(codes, batch=len(codes.view)), notes)


def pattern(name: str, side: int = 8) -> NDArray[np.bool_]:
    """The cells of one of `PATTERNS`, (side, side) bool.

    Raises:
        OptionError: no such pattern.

    >>> pattern("center-2", 4).astype(int).tolist()
    [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    if name not in PATTERNS:
        raise OptionError(f"got the pattern {name!r}; {suggest(name, PATTERNS)}")
    rows, columns = np.indices((side, side))
    ring = np.minimum(np.minimum(rows, columns), side - 1 - np.maximum(rows, columns))
    if name == "border":
        return np.asarray(ring == 0)
    if name.startswith("center-"):
        return np.asarray(ring >= (side - int(name.removeprefix("center-"))) / 2)
    return np.asarray((rows + columns) % 2 == (name == "other"))
