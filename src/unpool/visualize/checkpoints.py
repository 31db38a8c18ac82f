"""Checkpoints of a network, from a run folder or named one by one, loaded when needed."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from unpool.devices import find_device
from unpool.errors import OptionError, WeightsError
from unpool.models import AlexNet, ZFNet, load_tensors
from unpool.recipes import ClassificationRecipe
from unpool.visualize.preprocessing import LoadedModel, Preprocessing, load_model


class Checkpoint(NamedTuple):
    """A state of a network during training."""

    name: str  #: such as "epoch 12"
    load: Callable[[], LoadedModel]


def checkpoints_of_run(run: str | Path, device: str = "auto") -> list[Checkpoint]:
    """The epochs whose weights were kept in the run folder of a classifier, in order.

    Args:
        run: the folder of `unpool train zfnet-small` or `zfnet`; training may still be going on.
        device: "auto", "cpu", "cuda" or "cuda:n".

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
        recipe = ClassificationRecipe.from_json(
            json.loads((folder / "config.json").read_text("utf-8"))
        )
        with safe_open(epochs[0], "pt") as tensors:
            classes = tensors.get_slice("classifier.fc8.bias").get_shape()[0]
    except (OSError, ValueError, SafetensorError) as error:
        raise WeightsError(
            f"got run {folder}, whose config.json or first epoch cannot be used ({error}); copy "
            "the folder again"
        ) from None

    def load(path: Path) -> LoadedModel:
        network = AlexNet if recipe.network == "AlexNet" else ZFNet
        net = network(classes, recipe.widths, recipe.code, recipe.size, recipe.dropout)
        load_tensors(net, path)
        # as in training: BGR from 0 to 255 minus the mean
        inputs = Preprocessing(recipe.size, recipe.enlarged, net.mean, (1.0,) * 3, "BGR", 255)
        return LoadedModel(net.to(where).eval(), recipe.name, inputs, where)

    return [Checkpoint(f"epoch {int(path.stem)}", partial(load, path)) for path in epochs]


def named_checkpoints(paths: Sequence[str | Path], **options: Any) -> list[Checkpoint]:
    """Checkpoints in the order given, named after their files or folders.

    Args:
        paths: folders of weights; or files of tensors, as `load_tensors` reads them, for the model
            that the options name.
        options: of `load_model`; `weights` or `torch_model` for files of tensors only.

    Raises:
        OptionError: files of tensors without a model, or folders of weights with one.
    """
    model = [name for name in ("weights", "torch_model") if options.get(name) is not None]
    found = []
    places = [Path(path) for path in paths]
    for path, name in zip(places, _unique_names(places), strict=True):
        if path.is_dir() and model:
            raise OptionError(
                f"got checkpoint {path}, a folder of weights, whose card names its model; leave "
                f"out {model[0]}={str(options[model[0]])!r}"
            )
        if not path.is_dir() and not model:
            raise OptionError(
                f"got checkpoint {path}, which is no folder of weights; if it is a file of "
                "tensors, name their model with torch_model='PACKAGE.MODULE:FACTORY' or "
                "weights='NAME'"
            )
        of_folder = partial(load_model, **{**options, "weights": path})
        load = of_folder if path.is_dir() else partial(_load_tensors, path, options)
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
