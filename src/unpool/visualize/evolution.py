"""Feature evolution: how what excites a unit most changes while the network learns."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unpool import Progress
from unpool.errors import OptionError
from unpool.vision.figures import GRAY, add_caption, fit_square, join, patch, write_figure
from unpool.vision.images import Pixels
from unpool.visualize.activations import list_layers
from unpool.visualize.checkpoints import Checkpoint
from unpool.visualize.features import InputImages, read_inputs
from unpool.visualize.preprocessing import LoadedModel
from unpool.visualize.projection import LayerUnits, choose_units, project
from unpool.visualize.top import TopActivations, top_activations

_TILE = 64
_JUMP = (213, 94, 0)


class LayerEvolution(NamedTuple):
    """The units of a layer through T checkpoints."""

    layer: str
    units: list[int]  #: (U,)
    values: NDArray[np.float32]  #: (U, T) the strongest activation
    images: NDArray[np.int64]  #: (U, T) in which image it is; -1 where none is above zero
    boxes: NDArray[np.int64]  #: (U, T, 4) what the unit sees there: x0, y0, x1, y1 in the crop
    projections: NDArray[np.uint8]  #: (U, T, h, w, 3); gray where none is above zero

    @property
    def jumps(self) -> NDArray[np.bool_]:
        """(U, T): whether the image is another than the last one before.

        >>> none = np.zeros(0)
        >>> images = np.array([[-1, 4, -1, 4, 2]])
        >>> LayerEvolution("conv1", [0], none, images, none, none).jumps.tolist()
        [[False, False, False, False, True]]
        """
        jumps = np.zeros(self.images.shape, np.bool_)
        for row, unit in enumerate(self.images):
            last = -1
            for column, image in enumerate(unit):
                jumps[row, column] = image >= 0 and last not in (-1, image)
                last = image if image >= 0 else last
        return jumps


@dataclass(frozen=True)
class Evolution:
    """What excited some units most at each checkpoint of a training run."""

    checkpoints: list[str]
    images: list[Path]  #: those that were seen; numbers of images count in this list
    failed: dict[str, str]  #: those that could not be read, and why
    layers: list[LayerEvolution]

    def figure(self) -> Pixels:
        """A block a layer, a unit a row, checkpoints from left to right; jumps have a bar.

        Returns:
            (H, W, 3) uint8; projections below 64 pixels are enlarged, larger ones reduced.
        """
        heads = [np.full((1, _TILE + 4, 3), 255, np.uint8)] * len(self.checkpoints)
        named = zip(heads, self.checkpoints, strict=True)
        head = join([add_caption(space, _short(name)) for space, name in named], 1)
        blocks = []
        for growth in self.layers:
            rows = join([self._row(growth, i) for i in range(len(growth.units))], 0, 2)
            blocks.append(add_caption(join([head, rows], 0, 0), growth.layer))
        columns = math.ceil(math.sqrt(len(blocks)))
        parts = [blocks[i : i + columns] for i in range(0, len(blocks), columns)]
        return join([join(part, 1, 24) for part in parts], 0, 16)

    def _row(self, growth: LayerEvolution, row: int) -> Pixels:
        tiles = []
        for jump, drawn in zip(growth.jumps[row], growth.projections[row], strict=True):
            bar = np.full((_TILE, 4, 3), _JUMP if jump else 255, np.uint8)
            tiles.append(np.concatenate([bar, fit_square(drawn, _TILE)], 1))
        return join(tiles, 1)

    def to_dict(self) -> dict[str, Any]:
        """All but the projections, as plain values."""
        layers = []
        for growth in self.layers:
            units = []
            for row, unit in enumerate(growth.units):
                seen = zip(
                    self.checkpoints,
                    growth.values[row].tolist(),
                    growth.images[row].tolist(),
                    growth.boxes[row].tolist(),
                    growth.jumps[row].tolist(),
                    strict=True,
                )
                states = [
                    {
                        "checkpoint": checkpoint,
                        "value": float(f"{value:.6g}"),
                        "image": None if image < 0 else str(self.images[image]),
                        "box": None if image < 0 else box,
                        "jump": jump,
                    }
                    for checkpoint, value, image, box, jump in seen
                ]
                units.append({"unit": unit, "states": states})
            layers.append({"layer": growth.layer, "units": units})
        return {
            "checkpoints": self.checkpoints,
            "images": len(self.images),
            "failed": self.failed,
            "layers": layers,
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write `evolution.png` and `evolution.json`; gives both paths."""
        return write_figure(Path(folder, "evolution"), self.figure(), self.to_dict())


def evolve(
    checkpoints: Sequence[Checkpoint],
    images: Sequence[Path],
    layers: Sequence[str] = (),
    *,
    units: Sequence[int] = (),
    shown: int = 6,
    seed: int = 0,
    color: bool = True,
    batch: int = 32,
    progress: Progress | None = None,
    **options: Any,
) -> Evolution:
    """Find what excites some units most at each checkpoint, and project it down.

    At each checkpoint the strongest activation of a unit over all images counts. Where it jumps
    to another image, what the unit wants has changed.

    Args:
        checkpoints: states of one network, in order; one at a time is loaded.
        images: files; one that cannot be read is passed over. They are read once, and what the
            network sees of them is held: 28 kB each for crops of 96 pixels, 150 kB for 224.
        layers: names from `list_layers`; the last of each stage when not given.
        units: of every layer; randomly chosen ones when not given.
        shown: how many are chosen then.
        seed: of the random choice.
        color: show projections in color.
        batch: images at a time.
        progress: see `Progress`.
        options: `rule`, `start`, `overlap`, `lrn` and `activations` of `project`.

    Raises:
        OptionError: no checkpoints, no such layer or unit, a function without a rule, or states
            of different networks.
        ShapeError: the model takes no images of this size.
        ImageError: none of the images can be read.
        WeightsError: a checkpoint cannot be used.

    Zeiler, Fergus 2014, section 4.1 and figure 4: epochs 1, 2, 5, 10, 20, 30, 40, 64.
    """
    if not checkpoints:
        raise OptionError("got no checkpoints; name one or more, in the order of the training")
    loaded = checkpoints[0].load()
    seeds = itertools.count(seed)  # one a layer

    def pick(count: int) -> list[int]:
        generator = np.random.default_rng(next(seeds))
        return sorted(generator.choice(count, min(shown, count), replace=False).tolist())

    chosen = choose_units(loaded.model, loaded.trial_image(), layers, units, pick, **options)
    work = len(images) * (len(checkpoints) + 1)

    def report(stage: int, what: str, done: int, *_: object) -> None:
        if progress is not None:
            progress(stage * len(images) + done, work, what)

    inputs = read_inputs(loaded, images, partial(report, 0, "reading"))
    states = []
    for stage, checkpoint in enumerate(checkpoints, 1):
        loaded = loaded if stage == 1 else checkpoint.load()
        _require_same(loaded, checkpoint.name, chosen, inputs)
        watch = partial(report, stage, f"looking at {checkpoint.name}")
        stream = _batches(loaded, inputs.crops, batch, watch)
        tops = top_activations(loaded.model, stream, [block.layer.name for block in chosen], 1)
        states.append([_state(loaded, b, tops, inputs, batch, color, options) for b in chosen])
    names = [checkpoint.name for checkpoint in checkpoints]
    grown = [_growth(b, [state[i] for state in states]) for i, b in enumerate(chosen)]
    return Evolution(names, inputs.images, inputs.failed, grown)


def _short(name: str) -> str:
    """The beginning and the end of a long name, ten characters in all.

    >>> _short("epoch 12"), _short("checkpoint_002")
    ('epoch 12', 'chec.._002')
    """
    return name if len(name) <= 10 else f"{name[:4]}..{name[-4:]}"


class _State(NamedTuple):
    """What excites the units of a layer at a checkpoint; as in `LayerEvolution`, without T."""

    values: NDArray[np.float32]
    images: NDArray[np.int64]
    boxes: NDArray[np.int64]
    projections: Pixels


def _growth(block: LayerUnits, states: Sequence[_State]) -> LayerEvolution:
    parts = [np.stack(part, axis=1) for part in zip(*states, strict=True)]
    return LayerEvolution(block.layer.name, block.units, *parts)


def _require_same(
    loaded: LoadedModel, name: str, chosen: Sequence[LayerUnits], inputs: InputImages
) -> None:
    """Refuse a state of another network, or one that sees images in another way."""
    side = inputs.crops[0].shape[0]
    shapes = {layer.name: layer.shape for layer in list_layers(loaded.model, loaded.trial_image())}
    wrong = [b.layer.name for b in chosen if shapes.get(b.layer.name) != b.layer.shape]
    if wrong or loaded.preprocessing.size != side:
        what = f"no layer {wrong[0]} of that size" if wrong else f"no images of {side} pixels"
        raise OptionError(
            f"got checkpoint {name}, whose network takes or has {what}, as the first does; pass "
            "checkpoints of one training"
        )


def _batches(
    loaded: LoadedModel, crops: Sequence[Pixels], batch: int, watch: Callable[[int], None]
) -> Iterator[Tensor]:
    for start in range(0, len(crops), batch):
        yield loaded.prepare(crops[start : start + batch])
        watch(min(start + batch, len(crops)))


def _state(
    loaded: LoadedModel,
    block: LayerUnits,
    tops: dict[str, TopActivations],
    inputs: InputImages,
    batch: int,
    color: bool,
    options: dict[str, Any],
) -> _State:
    """Look at the units of a layer at a checkpoint."""
    top, name = tops[block.layer.name], block.layer.name
    values, images_ = top.values[block.units, 0], top.images[block.units, 0]
    places = None if top.places is None else top.places[block.units, 0]
    shown: list[Pixels] = []
    for start in range(0, len(values), batch):
        part = slice(start, start + batch)
        images = loaded.prepare([inputs.crops[n] for n in images_[part].tolist()])
        where: Any = "max" if places is None else places[part]
        found = project(loaded.model, images, name, block.units[part], place=where, **options)
        shown += [*found.images(color, loaded.preprocessing.order)]
    spots = [(0, 0)] * len(shown) if places is None else places.tolist()
    boxes = [block.field.box(*spot) for spot in spots]
    cut = np.stack([patch(drawn, box) for drawn, box in zip(shown, boxes, strict=True)])
    cut[(values <= 0).numpy()] = GRAY
    images_ = images_.where(values > 0, torch.tensor(-1))
    return _State(values.numpy(), images_.numpy(), np.array(boxes), cut)
