"""Feature evolution: how the strongest activations of units change during training."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from unpool.devices import find_device
from unpool.errors import OptionError, WeightsError
from unpool.files import read_json, require_regular
from unpool.models import AlexNet, ZFNet, load_tensors
from unpool.models.weights import build_network
from unpool.recipes import ClassificationRecipe
from unpool.vision.figures import GRAY, add_caption, fit_square, join, patch, write_figure
from unpool.visualize.activations import list_layers
from unpool.visualize.features import InputImages, read_inputs
from unpool.visualize.preprocessing import LoadedModel, Preprocessing, load_model
from unpool.visualize.projection import LayerUnits, choose_units, project
from unpool.visualize.top import TopActivations, top_activations

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.vision.images import Pixels

_TILE = 64  # pixels; smaller projections are enlarged by a whole factor, larger ones reduced
_JUMP = (213, 94, 0)  # RGB of the bars, the orange of Okabe and Ito


class Checkpoint(NamedTuple):
    """A state of a network during training."""

    name: str  #: such as "epoch 12"
    load: Callable[[], LoadedModel]


class LayerEvolution(NamedTuple):
    """U units of a layer at T checkpoints."""

    layer: str
    units: list[int]  #: (U,)
    values: NDArray[np.float32]  #: (U, T) the strongest activation
    images: NDArray[np.int64]  #: (U, T) the index of its image; -1 if no activation is above zero
    boxes: NDArray[np.int64]  #: (U, T, 4) its receptive field: x0, y0, x1, y1 in the crop
    projections: NDArray[np.uint8]  #: (U, T, h, w, 3) RGB; gray if no activation is above zero

    @property
    def jumps(self) -> NDArray[np.bool_]:
        """(U, T): whether the image differs from that at the checkpoint before.

        Checkpoints without an image are skipped.

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
    """The strongest activations of some units at each checkpoint of a training run."""

    checkpoints: list[str]
    images: list[Path]  #: those that were read; indices of images refer to this list
    failed: dict[str, str]  #: unreadable files, with the reasons
    layers: list[LayerEvolution]

    def figure(self) -> "Pixels":
        """A block for each layer, with units as rows and checkpoints as columns, (H, W, 3) uint8.

        A bar marks where the image of the strongest activation changes.
        """
        blank = np.full((1, _TILE + 4, 3), 255, np.uint8)
        head = join([add_caption(blank, _short(name)) for name in self.checkpoints], 1)
        blocks = []
        for layer in self.layers:
            rows = []
            for jumps, projections in zip(layer.jumps, layer.projections, strict=True):
                bars = [np.full((_TILE, 4, 3), _JUMP if jump else 255, np.uint8) for jump in jumps]
                tiles = [fit_square(projection, _TILE) for projection in projections]
                rows.append(join([np.concatenate(p, 1) for p in zip(bars, tiles, strict=True)], 1))
            blocks.append(add_caption(join([head, join(rows, 0, 2)], 0, 0), layer.layer))
        columns = math.ceil(math.sqrt(len(blocks)))
        starts = range(0, len(blocks), columns)
        return join([join(blocks[i : i + columns], 1, 24) for i in starts], 0, 16)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the projections, as plain values."""
        layers = []
        for layer in self.layers:
            arrays = zip(layer.values, layer.images, layer.boxes, layer.jumps, strict=True)
            units = [
                {"unit": unit, "states": self._states(*of_unit)}
                for unit, of_unit in zip(layer.units, arrays, strict=True)
            ]
            layers.append({"layer": layer.layer, "units": units})
        return {
            "checkpoints": self.checkpoints,
            "images": len(self.images),
            "failed": self.failed,
            "layers": layers,
        }

    def _states(self, *arrays: NDArray[Any]) -> list[dict[str, Any]]:
        """A unit at each checkpoint, of its values, images, boxes and jumps."""
        return [
            {
                "checkpoint": checkpoint,
                "value": float(f"{value:.6g}"),
                "image": None if image < 0 else str(self.images[image]),
                "box": None if image < 0 else box.tolist(),
                "jump": bool(jump),
            }
            for checkpoint, value, image, box, jump in zip(self.checkpoints, *arrays, strict=True)
        ]

    def save(self, folder: str | Path) -> list[Path]:
        """Write `evolution.png` and `evolution.json`, and return both paths."""
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
    progress: "Progress | None" = None,
    **options: Any,
) -> Evolution:
    """Find the strongest activation of some units at each checkpoint, and project it to pixels.

    At each checkpoint the strongest activation of a unit over all images counts. A jump to another
    image means that the unit responds to something else.

    Args:
        checkpoints: states of one network, in order; they are loaded one at a time.
        images: files; unreadable ones are skipped. They are read once, and their crops are kept in
            memory: 28 kB each for 96 x 96 pixels, 150 kB for 224 x 224.
        layers: names from `list_layers`; the last of each stage when not given.
        units: the units of each layer to follow; `shown` random ones when not given.
        shown: see `units`.
        batch: images at a time.
        options: `rule`, `start`, `overlap`, `lrn` and `activations` of `project`.

    Raises:
        OptionError: no checkpoints, no such layer or unit, a function without a rule, or states
            of different networks.
        ShapeError, ImageError: the model takes no images of this size, or none can be read.
        WeightsError: a checkpoint cannot be used.

    Zeiler, Fergus 2014, section 4.1 and figure 4: epochs 1, 2, 5, 10, 20, 30, 40, 64.
    """
    if not checkpoints:
        raise OptionError("got no checkpoints; pass one or more, in the order of training")
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
    names = [part.name for part in chosen]
    states = []
    for stage, checkpoint in enumerate(checkpoints, 1):
        loaded = loaded if stage == 1 else checkpoint.load()
        _require_same(loaded, checkpoint.name, chosen, inputs)
        watch = partial(report, stage, f"looking at {checkpoint.name}")
        batches = inputs.batches(loaded, batch)
        tops = top_activations(loaded.model, batches, names, 1, progress=watch)
        states.append(
            [_state(loaded, c, tops[c.name], inputs, batch, color, options) for c in chosen]
        )
    evolved = []
    for part, *of_layer in zip(chosen, *states, strict=True):
        stacked = [np.stack(arrays, axis=1) for arrays in zip(*of_layer, strict=True)]
        evolved.append(LayerEvolution(part.name, part.units, *stacked))
    return Evolution([c.name for c in checkpoints], inputs.images, inputs.failed, evolved)


def _short(name: str) -> str:
    """A name of at most ten characters; the middle of a longer one is left out.

    >>> _short("epoch 12"), _short("checkpoint_002")
    ('epoch 12', 'chec.._002')
    """
    return name if len(name) <= 10 else f"{name[:4]}..{name[-4:]}"


def _require_same(
    loaded: LoadedModel, name: str, chosen: Sequence[LayerUnits], inputs: InputImages
) -> None:
    """Refuse a checkpoint of another network, or one with another size of input."""
    side = inputs.crops[0].shape[0]
    shapes = {layer.name: layer.shape for layer in list_layers(loaded.model, loaded.trial_image())}
    wrong = [b.name for b in chosen if shapes.get(b.name) != b.shape]
    if wrong or loaded.preprocessing.size != side:
        what = f"no layer {wrong[0]} of that size" if wrong else f"no images of {side} pixels"
        raise OptionError(
            f"got checkpoint {name}, whose network takes or has {what}, as the first does; pass "
            "checkpoints of one training run"
        )


def _state(
    loaded: LoadedModel,
    part: LayerUnits,
    top: TopActivations,
    inputs: InputImages,
    batch: int,
    color: bool,
    options: dict[str, Any],
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], "Pixels"]:
    """The values, images, boxes and projections of `LayerEvolution` at one checkpoint."""
    name, units = part.name, part.units
    values, numbers = top.values[units, 0], top.images[units, 0]
    places = None if top.places is None else top.places[units, 0]
    shown: list[Pixels] = []
    for start in range(0, len(units), batch):
        rows = slice(start, start + batch)
        images = loaded.prepare([inputs.crops[n] for n in numbers[rows].tolist()])
        place: Any = "max" if places is None else places[rows]
        found = project(loaded.model, images, name, units[rows], place=place, **options)
        shown += [*found.images(color, loaded.preprocessing.order)]
    spots = [(0, 0)] * len(shown) if places is None else places.tolist()
    boxes = [part.field.box(*spot) for spot in spots]
    patches = np.stack([patch(image, box) for image, box in zip(shown, boxes, strict=True)])
    patches[(values <= 0).numpy()] = GRAY
    numbers = numbers.where(values > 0, torch.tensor(-1))
    return values.numpy(), numbers.numpy(), np.array(boxes), patches


def checkpoints_of_run(run: str | Path, device: str = "auto") -> list[Checkpoint]:
    """The epochs whose weights were kept in the run folder of a classifier, in order.

    It is the folder of `unpool train zfnet-small` or `zfnet`; training may still be going on.

    Raises:
        WeightsError: no such folder, no epochs in it, or a damaged config.json or first epoch.
    """
    folder, where = Path(run), find_device(device)
    epochs = sorted(folder.glob("checkpoints/epochs/*.safetensors"))
    if not epochs:
        raise WeightsError(
            f"got run {folder}, which has no checkpoints/epochs/*.safetensors; pass the folder of "
            "a zfnet-small run, or use named_checkpoints"
        )
    try:
        recipe = ClassificationRecipe.from_json(read_json(folder / "config.json", WeightsError))
        recipe.check()
        with safe_open(require_regular(epochs[0], WeightsError), "pt") as tensors:
            classes = tensors.get_slice("classifier.fc8.bias").get_shape()[0]
    except (OSError, ValueError, IndexError, SafetensorError) as error:
        raise WeightsError(
            f"got run {folder}, whose config.json or first epoch cannot be used ({error}); copy "
            "the folder again"
        ) from None

    def load(path: Path) -> LoadedModel:
        network = AlexNet if recipe.network == "AlexNet" else ZFNet
        sizes = classes, recipe.widths, recipe.code, recipe.size
        net = build_network(network, *sizes, recipe.dropout)
        load_tensors(net, path)
        # as in training: BGR from 0 to 255 minus the mean
        inputs = Preprocessing(recipe.size, recipe.enlarged, net.mean, (1.0,) * 3, "BGR", 255)
        return LoadedModel(net.to(where).eval(), recipe.name, inputs, where)

    return [Checkpoint(f"epoch {int(path.stem)}", partial(load, path)) for path in epochs]


def named_checkpoints(paths: Sequence[str | Path], **options: Any) -> list[Checkpoint]:
    """Checkpoints in the order given, named after their files or folders.

    Args:
        paths: folders of weights; or files of tensors for the model that the options name.
        options: of `load_model`; `weights` or `torch_model` for files of tensors only.

    Raises:
        OptionError: files of tensors without a model, or folders of weights with one.
    """
    model = [name for name in ("weights", "torch_model") if options.get(name) is not None]
    found = []
    places = [Path(path) for path in paths]
    for path, name in zip(places, _unique_names(places), strict=True):
        if path.is_dir():
            if model:
                raise OptionError(
                    f"got checkpoint {path}, a folder of weights, whose card names its model; "
                    f"leave out {model[0]}={str(options[model[0]])!r}"
                )
            load = partial(load_model, **{**options, "weights": path})
        else:
            if not model:
                raise OptionError(
                    f"got checkpoint {path}, which is no folder of weights; if it is a file of "
                    "tensors, name their model with torch_model='PACKAGE.MODULE:FACTORY' or "
                    "weights='NAME'"
                )
            load = partial(_load_tensors, path, options)
        found.append(Checkpoint(name, load))
    return found


def _load_tensors(path: Path, options: dict[str, Any]) -> LoadedModel:
    loaded = load_model(**options)
    load_tensors(loaded.model, path)
    return loaded


def _unique_names(paths: Sequence[Path]) -> list[str]:
    """The names of files and folders, with as many parent folders as make them unique.

    >>> _unique_names([Path("e1.pt"), Path("e2.pt")])
    ['e1', 'e2']
    >>> _unique_names([Path("e1/net.pt"), Path("e2/net.pt")])
    ['e1/net', 'e2/net']
    """
    full = [path.parent.resolve() / path.name for path in paths]
    bare = [path if path.is_dir() else path.with_suffix("") for path in full]
    bare = [path.parent if path.name == "weights" else path for path in bare]
    if len(set(bare)) < len(set(full)):
        bare = full
    depth = 1
    while len({path.parts[-depth:] for path in bare}) < len(set(bare)):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in bare]
