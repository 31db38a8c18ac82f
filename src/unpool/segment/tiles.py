"""Segment large images by tiles: overlapping windows at native resolution, in bounded memory.

The network sees one window at a time. Where windows overlap, their logits are averaged with
weights that fall linearly towards the edge of each window. Windows start on the grid of the deepest
pooling, so that a pixel whose receptive field lies inside every window that covers it has the
logits of a single pass over the whole image.

Logits are held for one row of windows (along the shorter side of the image), 4 bytes x classes x
window side x shorter side. For images beyond `unpool.vision.boxes.LARGEST` pixels, only labels and
confidence are kept, computed band by band: 5 bytes per pixel for any number of classes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from unpool.errors import OptionError, require_int
from unpool.export.runtime import fixed_side, least_side
from unpool.limits import MAX_SIDE
from unpool.segment import timings
from unpool.segment.confidence import label_confidence
from unpool.segment.postprocessing import PRESENT_ON
from unpool.segment.result import Segmentation
from unpool.vision.boxes import reduced_size
from unpool.vision.images import VOID, Pixels

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.export.runtime import Exported
    from unpool.models import Network
    from unpool.recipes.presets import DenseCRF

TILE = 512
"""Default side of windows; VGG-16 has a receptive field of 212 pixels."""

MAX_SCALE = 16
"""Largest factor of enlarging or reducing images; windows of 512 then see 32 or 8192 pixels."""

_BAND = 64  #: rows of logits that are converted to labels at a time


class Tiling(NamedTuple):
    """How windows cover an image; lengths are in pixels of the image unless stated otherwise.

    >>> Tiling(tile=64, side=64, overlap=16, grid=32, least=32).windows(150)
    [slice(0, 64, None), slice(32, 96, None), slice(64, 128, None), slice(96, 150, None)]
    """

    tile: int  #: side of the network's input for a full window, in pixels of the input
    side: int  #: side of a window
    overlap: int  #: smallest overlap of neighboring windows
    grid: int  #: windows start at multiples of this
    least: int  #: smallest side of the network's input; smaller images are padded with zeros

    def windows(self, length: int) -> list[slice]:
        """The windows along an axis of the image, as evenly spaced as the grid allows.

        The last one ends with the image and may be shorter than the others by less than the grid.
        """
        last = -(-max(length - self.side, 0) // self.grid)  # its start, in cells of the grid
        steps = -(-last // max((self.side - self.overlap) // self.grid, 1))
        starts = [i * last // steps * self.grid for i in range(steps + 1)] if steps else [0]
        return [slice(start, min(start + self.side, length)) for start in starts]

    def __str__(self) -> str:
        scale = self.tile / self.side
        reach = f"{self.tile} x {self.tile}, overlap {round(self.overlap * scale)}"
        return f"tiles of {reach}, {f'scale {scale:g}' if scale != 1 else 'native resolution'}"


def plan_tiles(
    models: "Sequence[Network | Exported]",
    tile: int | None = None,
    overlap: int | None = None,
    scale: float = 1.0,
) -> Tiling:
    """Choose the windows for one network, or for several networks that share them.

    Args:
        models: the networks. A network with code layers, and a DecoupledNet, fix the size of the
            windows, which then have no grid.
        tile: side of the network's input, a multiple of its stride: 2 for each pooling.
        overlap: smallest overlap of neighboring windows, in pixels of the input; by default a
            quarter of the tile.
        scale: scale at which the network sees the image; 1 is native resolution.

    Raises an `OptionError` for values that do not fit the networks.

    >>> from unpool.models import FCN
    >>> str(plan_tiles([FCN(2, ((1, 4), (1, 4)), None, stride=4, pad=1)], tile=64))
    'tiles of 64 x 64, overlap 16, native resolution'
    """
    sides = [fixed_side(model) or getattr(model, "input_size", None) for model in models]
    fixed = {side for side in sides if side is not None}
    # on a grid of the pooling cells, windows see the same cells as one pass over the image
    grid = max(least_side(model) for model in models)
    if len(fixed) > 1:
        raise OptionError(f"got networks for images of {sorted(fixed)}; tiles need one size")
    chosen = max(TILE // grid, 1) * grid if tile is None else tile
    require_int("tile", chosen)
    if fixed:
        (chosen,) = fixed
        if tile not in (None, chosen):
            raise OptionError(
                f"got tile={tile} for a network that is made for {chosen} x {chosen} pixels; leave "
                "it out, or pass scale=0.5 for windows twice as large"
            )
    elif chosen % grid or chosen > MAX_SIDE:
        near = min(max(round(chosen / grid), 1) * grid, MAX_SIDE // grid * grid)
        raise OptionError(
            f"got tile={tile}; wanted a multiple of {grid}, the network's stride, up to "
            f"{MAX_SIDE}: pass tile={near}"
        )
    overlap = chosen // 4 if overlap is None else overlap
    require_int("overlap", overlap, 0)
    if overlap > chosen // 2:
        raise OptionError(f"got overlap={overlap}; wanted at most half of the tile, {chosen // 2}")
    number = isinstance(scale, int | float) and scale is not True
    if not number or not 1 / MAX_SCALE <= scale <= MAX_SCALE:
        raise OptionError(f"got scale={scale}; wanted 1/{MAX_SCALE} to {MAX_SCALE}; 1 is native")
    least = chosen if fixed else grid
    if scale != 1:
        # resized windows cannot keep to the cells of the image, so they start anywhere
        return Tiling(chosen, max(round(chosen / scale), 1), round(overlap / scale), 1, least)
    return Tiling(chosen, chosen, overlap, 1 if fixed else grid, least)


def blend_weights(windows: Sequence[slice]) -> list[NDArray[np.float32]]:
    """The weights of each window along an axis; at every pixel, the windows' weights add up to 1.

    Weights fall linearly where a window overlaps its neighbor, but not at the image's border.

    >>> [w.tolist() for w in blend_weights([slice(0, 3), slice(1, 4)])]
    [[1.0, 0.75, 0.25], [0.25, 0.75, 1.0]]
    """
    weights, total = [], np.zeros(windows[-1].stop)
    for i, window in enumerate(windows):
        # at the centers of pixels no weight is 0, and none is divided by 0
        centers = np.arange(window.start, window.stop) + 0.5
        weight = np.ones(len(centers))
        if i > 0:
            shared = max(windows[i - 1].stop - window.start, 1)
            weight = np.minimum(weight, (centers - window.start) / shared)
        if i + 1 < len(windows):
            shared = max(window.stop - windows[i + 1].start, 1)
            weight = np.minimum(weight, (window.stop - centers) / shared)
        weights.append(weight)
        total[window] += weight
    return [
        (weight / total[window]).astype(np.float32)
        for weight, window in zip(weights, windows, strict=True)
    ]


@dataclass(frozen=True)
class TiledPrediction:
    """The prediction for an image by tiles: a `Prediction` that is computed on first use.

    Args:
        image: (H, W, 3) uint8, RGB.
        infer: computes logits (1, K, h, w) for images (1, h, w, 3).
        tiling: the windows.
        classes: number of classes K.
        temperature: divisor of the logits, see `Segmentation.confidence`.
        progress: called after each window.

    >>> tiling = Tiling(tile=4, side=4, overlap=2, grid=2, least=2)
    >>> ones = lambda images: np.ones((1, 2, *images.shape[1:3]), np.float32)
    >>> found = TiledPrediction(np.zeros((5, 9, 3), np.uint8), ones, tiling, 2)
    >>> found.logits.shape, float(found.logits.min())
    ((2, 5, 9), 1.0)
    """

    image: Pixels
    infer: Callable[[Pixels], NDArray[np.float32]]
    tiling: Tiling
    classes: int
    temperature: float = 1.0
    progress: "Progress | None" = None

    @cached_property
    def logits(self) -> NDArray[np.float32]:
        """The blended logits (K, H, W); an `OptionError` for large images, see `is_large`."""
        if is_large(self.image):
            raise OptionError(
                f"got {megapixels(self.image)} by tiles, whose logits are not kept; use the "
                "labels and their confidence, or `bands`"
            )
        merged = np.zeros((self.classes, *self.image.shape[:2]), np.float32)
        for where, logits in self.bands():
            merged[:, *where] = logits
        return merged

    def bands(
        self, first: int = 0, passes: int = 1
    ) -> Iterator[tuple[tuple[slice, slice], NDArray[np.float32]]]:
        """Yield the logits band by band; bands run along the shorter side of the image.

        Args:
            first: number of earlier passes over the image, for the progress.
            passes: number of all passes, for the progress.

        Yields:
            Rows and columns of the image, and their logits (K, h, w), whose memory is
            reused by the next step.
        """
        wide = self.image.shape[1] > self.image.shape[0]
        image = self.image.swapaxes(0, 1) if wide else self.image  # bands are now rows
        rows, columns = (self.tiling.windows(length) for length in image.shape[:2])
        down, across = blend_weights(rows), blend_weights(columns)
        count = len(rows) * len(columns)
        # one row of windows: finished lines leave it, those shared with the next row stay
        merged = np.zeros((self.classes, rows[0].stop, image.shape[1]), np.float32)
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                part = image[row, column]
                logits = self._window(part.swapaxes(0, 1) if wide else part)
                with timings.stage("blending"):
                    weight = down[i][:, None] * across[j]
                    logits = logits.swapaxes(1, 2) if wide else logits
                    merged[:, : row.stop - row.start, column] += logits * weight
                if self.progress is not None:
                    done = first * count + i * len(columns) + j + 1
                    self.progress(done, passes * count, "segmenting tiles")
            end = rows[i + 1].start if i + 1 < len(rows) else row.stop
            for top in range(row.start, end, _BAND):
                band = slice(top, min(top + _BAND, end))
                ready = merged[:, band.start - row.start : band.stop - row.start]
                side = slice(0, image.shape[1])
                yield ((side, band), ready.swapaxes(1, 2)) if wide else ((band, side), ready)
            with timings.stage("blending"):
                ahead = merged.shape[1] - (end - row.start)  # rows that the next windows share
                merged[:, :ahead] = merged[:, end - row.start :]
                merged[:, ahead:] = 0

    def _window(self, part: Pixels) -> NDArray[np.float32]:
        """The logits (K, h, w) of a window (h, w, 3)."""
        tiling, size = self.tiling, part.shape[:2]
        if tiling.side != tiling.tile:
            with timings.stage("resizing"):
                height, width = (max(round(n * tiling.tile / tiling.side), 1) for n in size)
                full = Image.fromarray(np.ascontiguousarray(part))
                part = np.array(full.resize((width, height), Image.Resampling.BILINEAR))
        height, width = part.shape[:2]
        pad = [(0, max(tiling.least - n, 0)) for n in (height, width)]
        part = np.pad(part, (*pad, (0, 0)))
        logits = self.infer(np.ascontiguousarray(part)[None])[:, :, :height, :width]
        if logits.shape[2:] == size:
            return logits[0]
        with timings.stage("resizing"):
            small = torch.from_numpy(np.ascontiguousarray(logits))
            return F.interpolate(small, size=size, mode="bilinear", antialias=True)[0].numpy()


def segment_bands(
    tiles: TiledPrediction,
    classes: list[str],
    palette: NDArray[np.uint8],
    crf: "str | DenseCRF | None" = None,
    presence_threshold: float = 0.0,
    void_below: float = 0.0,
) -> Segmentation:
    """Label a large image band by band, as `unpool.segment.postprocessing.postprocess` does.

    With a presence threshold, the image is segmented twice; the first pass finds the classes
    present.

    Raises an `OptionError` if a CRF is given, which needs the probabilities of all pixels at once.
    """
    if crf is not None:
        raise OptionError(
            f"got crf={str(crf)!r} for {megapixels(tiles.image)} by tiles; a dense CRF needs all "
            "probabilities at once: leave crf out, cut the image into parts, or pass mode='whole'"
        )
    labels = np.zeros(tiles.image.shape[:2], np.uint8)
    confidence = np.zeros(labels.shape, np.float32)
    # which classes are present is known at the end only, and scores are not kept until then
    passes = 2 if presence_threshold else 1
    kept = np.arange(len(classes))
    if presence_threshold:
        kept = _present(tiles, presence_threshold)
    for where, logits in tiles.bands(passes - 1, passes):
        with timings.stage("labels"):
            chosen = logits if len(kept) == len(logits) else logits[kept]
            labels[where] = kept.astype(np.uint8)[chosen.argmax(0)]
            sure = label_confidence(logits, kept, labels[where], tiles.temperature)
            labels[where][sure < void_below] = VOID
            confidence[where] = sure
    settings: dict[str, Any] = {"presence_threshold": presence_threshold}
    settings |= {"temperature": tiles.temperature, "stored_confidence": confidence}
    return Segmentation(tiles.image, labels, None, classes, palette, **settings)


def _present(tiles: TiledPrediction, presence_threshold: float) -> NDArray[np.int64]:
    """The classes present, as defined by `unpool.segment.postprocessing.present`."""
    certain, pixels = np.zeros(tiles.classes), tiles.image.shape[0] * tiles.image.shape[1]
    for _, logits in tiles.bands(0, 2):
        probabilities = torch.from_numpy(logits).softmax(0)
        certain += (probabilities >= presence_threshold).sum((1, 2)).numpy()
    return np.flatnonzero([True, *(certain[1:] / pixels >= PRESENT_ON)])


def is_large(image: Pixels) -> bool:
    """Whether an image has too many pixels for its scores to be kept.

    >>> is_large(np.zeros((1500, 1500, 3), np.uint8))
    True
    """
    size = image.shape[0], image.shape[1]
    return reduced_size(size) != size


def megapixels(image: Pixels) -> str:
    """The size of an image in words.

    >>> megapixels(np.zeros((1500, 1500, 3), np.uint8))
    'an image of 2.2 megapixels'
    """
    return f"an image of {image.shape[0] * image.shape[1] / 1e6:.1f} megapixels"
