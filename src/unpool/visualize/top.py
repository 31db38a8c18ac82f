"""Find the images with the strongest activations of each unit, in one pass for all units."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unpool.errors import OptionError, ShapeError
from unpool.visualize.activations import ActivationRecorder, require_finite


class TopActivations(NamedTuple):
    """The strongest activations of C units of a layer, at most one an image, strongest first.

    Of equal ones, the first image comes first.
    """

    values: Tensor  #: (C, K) float32
    images: Tensor  #: (C, K) int64, numbers of the images in the order in which they were given
    places: Tensor | None  #: (C, K, 2) int64, row and column; None for layers without feature maps

    @property
    def dead(self) -> int:
        """The number of units that are never above zero."""
        return int((self.values[:, 0] <= 0).sum())


def top_activations(
    model: nn.Module,
    batches: Iterable[Tensor | Sequence[Tensor]],
    layers: Sequence[str],
    count: int = 9,
    *,
    progress: Callable[[int], None] | None = None,
) -> dict[str, TopActivations]:
    """Find the strongest activations of each unit, in one pass over the images for all layers.

    For each image, the maximum of a feature map counts. The model runs no further than the deepest
    layer, and feature maps are not kept: memory grows with the number of units, not of images. The
    results are in the order in which the layers run.

    Args:
        batches: preprocessed images, (N, C, H, W) each; or the tuples of a data loader, of which
            the first item is taken. Sizes may differ from batch to batch.
        layers: names from `list_layers`; their outputs are (N, C, h, w) or (N, C).
        count: K, activations kept of each unit; fewer if there are fewer images.
        progress: called with the number of images done.

    Raises:
        OptionError: no such layer, another output, a count below 1, no images, or activations that
            are not finite.
        ShapeError: images that the model cannot take, or batches with other numbers of units.

    Zeiler, Fergus 2014, section 4 and figure 2: the top 9 activations over the validation set.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    >>> batches = torch.rand(5, 3, 8, 8), torch.rand(2, 3, 8, 8)
    >>> found = top_activations(model, batches, ["1"], count=3)
    >>> found["1"].images.shape, found["1"].places.shape
    (torch.Size([4, 3]), torch.Size([4, 3, 2]))
    """
    if count < 1:
        raise OptionError(f"got count={count}; wanted 1 or more")
    recorder, seen, kept = ActivationRecorder(model, layers), 0, dict[str, _Strongest]()

    def visit(layer: str, maps: Tensor) -> None:
        kept.setdefault(layer, _Strongest(layer, count)).update(maps, seen)

    with torch.no_grad():
        for batch in batches:
            images = batch if isinstance(batch, Tensor) else batch[0]
            recorder.visit(images, visit)
            seen += len(images)
            if progress is not None:
                progress(seen)
    if not seen:
        raise OptionError("got no images; wanted one or more")
    return {layer: strongest.result() for layer, strongest in kept.items()}


class _Strongest:
    """The strongest activations of a layer so far."""

    def __init__(self, layer: str, count: int) -> None:
        self.layer, self.count = layer, count
        self._values = self._images = self._places = torch.empty(0)
        self._mapped = False  # whether the layer has feature maps

    def update(self, maps: Tensor, first: int) -> None:
        """Merge the output of the layer for a batch whose first image has the number `first`."""
        rows = self._row_maxima(maps)
        values = rows.amax(2).float()
        require_finite(f"layer {self.layer!r}", values)
        if not self._values.numel():
            units, self._mapped = maps.shape[1], maps.dim() == 4
            self._values = values.new_empty(units, 0)
            self._images = torch.empty(units, 0, dtype=torch.int64, device=maps.device)
            self._places = torch.empty(units, 0, 2, dtype=torch.int64, device=maps.device)
        if len(self._values) != values.shape[1]:
            raise ShapeError(
                f"layer {self.layer!r} gives {values.shape[1]} maps, and gave {len(self._values)} "
                "before; pass images of one size"
            )
        full = self._values.shape[1] == self.count
        better = values > self._values[:, -1] if full else torch.ones_like(values, dtype=torch.bool)
        if not better.any():
            return
        image, unit = better.nonzero().unbind(1)
        places = torch.zeros(*values.shape, 2, dtype=torch.int64, device=maps.device)
        if maps.dim() == 4:  # only better activations need a place
            row = rows[image, unit].argmax(1)
            column = maps[image, unit, row].argmax(1)
            places[image, unit] = torch.stack([row, column], 1)
        numbers = torch.arange(first, first + len(values), device=maps.device)
        self._merge(values.T, numbers.expand(values.shape[1], -1), places.transpose(0, 1))

    def _row_maxima(self, maps: Tensor) -> Tensor:
        """The maximum of each row of each map, (N, C, h), or (N, C, 1) without maps.

        With these, a place is found without scanning a whole map again.
        """
        if maps.dim() not in (2, 4) or maps.is_complex() or 0 in maps.shape:
            raise OptionError(
                f"layer {self.layer!r} gives {tuple(maps.shape)}; wanted (N, C, h, w) or (N, C): "
                "choose another of list_layers"
            )
        if maps.dim() == 2:
            return maps[:, :, None]
        if maps.is_contiguous(memory_format=torch.channels_last):  # 20 times as fast in this layout
            return maps.permute(0, 2, 3, 1).amax(2).transpose(1, 2)
        return maps.amax(3)

    def _merge(self, values: Tensor, images: Tensor, places: Tensor) -> None:
        """Keep the strongest of the old and the new; the stable sort puts old ones first."""
        both = torch.cat([self._values, values], 1).sort(dim=1, descending=True, stable=True)
        self._values, order = (t[:, : self.count] for t in both)
        self._images = torch.cat([self._images, images], 1).gather(1, order)
        spots = torch.cat([self._places, places], 1)
        self._places = spots.gather(1, order[:, :, None].expand(-1, -1, 2))

    def result(self) -> TopActivations:
        """The result, on the CPU."""
        places = self._places.cpu() if self._mapped else None
        return TopActivations(self._values.cpu(), self._images.cpu(), places)
