"""Restore large images tile by tile, in bounded memory, with cross-faded overlaps.

Restoration by FFT uses the whole image, so tiles do not give exactly the same result. With an
overlap of twice the PSF, the difference is some thousandths of the range.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpool.errors import OptionError
from unpool.limits import GIB, MIB

MEMORY = 2 * GIB
"""Bytes that an image may take before it is restored in tiles."""

_SIDE = 512  # side of a tile in pixels
# so that networks of several scales see the same cells as in the whole image
_MULTIPLE = 16  # of the places where tiles begin
_PLANES = 16  # bytes per pixel of a channel outside of the method: stored, linear, restored

Plane = NDArray[np.float32]


class Plan(NamedTuple):
    """How an image is cut into tiles."""

    side: int  #: side of a tile with its overlap; 0 for the whole image
    overlap: int
    parts: int  #: number of tiles
    memory: int  #: estimated memory in bytes

    @property
    def text(self) -> str:
        """The number of the tiles, and the memory."""
        size = f"{self.memory / GIB:.1f} GiB" if self.memory > GIB else f"{self.memory // MIB} MiB"
        return f"restoring{f' in {self.parts} tiles' if self.parts > 1 else ''}, {size}"


def plan_tiles(
    shape: Sequence[int],
    sides: Sequence[int],
    memory: int,
    tile: int | str = "auto",
    channels: int = 1,
) -> Plan:
    """Plan the tiles of an image, (H, W) or (D, H, W); only rows and columns are cut.

    Args:
        shape: shape of the image.
        sides: sides of the PSF.
        memory: bytes that the method needs for each pixel.
        tile: side of a tile; 0 for the whole image; "auto" for the whole image up to `MEMORY`.
        channels: number of channels, which are restored one by one.

    >>> plan_tiles((8000, 8000), (21, 21), 80).parts
    361
    >>> plan_tiles((1000, 1000), (21, 21), 80).parts
    1
    """
    depth = math.prod(shape[:-2])
    # a network differed from the whole image by 0.012 at one PSF side, and by 0.003 at two
    overlap = max(2 * max(sides[-2:]), 64)
    padded = math.prod(n + side for n, side in zip(shape, sides, strict=True))
    whole = padded * memory + math.prod(shape) * channels * _PLANES
    height, width = shape[-2:]
    if tile == "auto":
        # overlaps are at most half of a tile, also for large PSFs
        side = 0 if whole <= MEMORY else max(_SIDE, 4 * overlap)
    else:
        side = int(tile)
        if side and side <= overlap + 32:
            raise OptionError(
                f"got tile={side} for a PSF of {max(sides[-2:])} pixels; tiles overlap by "
                f"{overlap}: set tile={2 * overlap} or more"
            )
    if not side or (side >= height and side >= width):
        return Plan(0, 0, 1, whole)
    count = math.prod(len(_starts(n, side, overlap)) for n in (height, width))
    cut = zip((height, width), sides[-2:], strict=True)
    # 4 bytes more than for the whole: the sum of the tiles
    part = depth * math.prod(min(n, side) + k for n, k in cut)
    return Plan(side, overlap, count, part * memory + math.prod(shape) * (channels * _PLANES + 4))


def run_tiles(
    work: Callable[[Plane], Plane], plane: Plane, plan: Plan, report: Callable[[int], None]
) -> Plane:
    """Restore a channel, (H, W) or (D, H, W), tile by tile.

    Args:
        work: restores a tile.
        plane: the channel.
        plan: its tiles.
        report: called with the number of finished tiles.
    """
    report(0)
    if not plan.side:
        found = work(plane)
        report(1)
        return found
    height, width = plane.shape[-2:]
    rows, columns = (_starts(n, plan.side, plan.overlap) for n in (height, width))
    total = np.zeros_like(plane)
    for done, (y, x) in enumerate(itertools.product(rows, columns), 1):
        place = ..., slice(y, y + plan.side), slice(x, x + plan.side)
        found = work(plane[place])
        fade = np.outer(_fade(y, plan.side, height, rows), _fade(x, plan.side, width, columns))
        total[place] += found * fade.astype(np.float32)
        report(done)
    return total


def _starts(length: int, side: int, overlap: int) -> list[int]:
    """Where tiles begin, evenly spread so that neighbors overlap by at least `overlap`.

    Networks halve images, and so see the same only from multiples; the last tile may be shorter.
    """
    if length <= side:
        return [0]
    count = math.ceil((length - overlap) / (side - overlap - _MULTIPLE + 1))
    places = (i * (length - side) / (count - 1) for i in range(count))
    return [math.ceil(place / _MULTIPLE) * _MULTIPLE for place in places]


def _fade(start: int, side: int, length: int, starts: Sequence[int]) -> NDArray[np.float64]:
    """The weights of the lines of a tile; at each line, the weights of all tiles add up to 1.

    Weights rise in the middle half of the overlap with the previous tile, and fall where those of
    the next tile rise.
    """
    place = np.arange(start, min(start + side, length))

    def risen(i: int) -> NDArray[np.float64]:
        """The total weight of tiles from the i-th on, by line."""
        if i == 0:
            return np.ones(len(place))
        if i == len(starts):
            return np.zeros(len(place))
        low, high = starts[i], starts[i - 1] + side
        # only the middle half of an overlap fades: near its border, a tile is least right
        quarter = (high - low) / 4
        return np.clip((place + 0.5 - low - quarter) / (high - low - 2 * quarter), 0, 1)

    own = starts.index(start)
    return risen(own) - risen(own + 1)
