"""Deconvolution networks: from a code back to pixels, by unpooling with switches and deconvolution.

    segmenter = unpool.load("objects")              # weights by name, folder, run folder or file
    result = segmenter("photo.jpg")                 # a path, an image, an array, a tensor, a list
    result.save("out/photo.png")

    unpool.train("own/", "runs/mine", "finetune")   # a recipe by name, its values by keyword
    unpool.evaluate("runs/mine", "own/")["miou"]
    unpool.project(model, x, model.features[4], unit=7).save("unit7.png")

Names are loaded when they are first used, so that `import unpool` and `unpool --help` are quick:
neither torch nor OpenCV is imported before something needs it.
"""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from unpool.generate import Generator
    from unpool.recipes import Recipe
    from unpool.restore.restorer import Restorer
    from unpool.restore.result import Restored
    from unpool.segment.ensemble import EDeconvNet
    from unpool.segment.segmenter import Segmenter
    from unpool.vision.images import Pixels
    from unpool.visualize.projection import Projection

__version__ = "0.1.0"

Progress = Callable[[int, int, str], None]
"""A progress callback: how much is done, the total, and what is being done."""

_HOME = {
    "EDeconvNet": "segment.ensemble",
    "Generator": "generate",
    "Restored": "restore.result",
    "Restorer": "restore.restorer",
    "Segmentation": "segment.result",
    "Segmenter": "segment.segmenter",
}

__all__ = [
    "DataError",
    "EDeconvNet",
    "Generator",
    "ImageError",
    "OptionError",
    "Progress",
    "Restored",
    "Restorer",
    "Segmentation",
    "Segmenter",
    "ShapeError",
    "TrainingError",
    "UnpoolError",
    "WeightsError",
    "evaluate",
    "load",
    "project",
    "read_image",
    "train",
]


def read_image(source: Any) -> "Pixels":
    """Read an image of any usual kind, upright, as (H, W, 3) uint8, RGB.

    Args:
        source: a path, the bytes of an image file, a binary file, a Pillow image, an array or a
            tensor; see `unpool.vision.inputs.as_image`.
    """
    from unpool.vision.inputs import as_image

    return as_image(source)


def load(
    source: str | Path = "objects", **options: Any
) -> "Segmenter | EDeconvNet | Generator | Restorer":
    """Load trained weights, ready for use.

    Args:
        source: the name of weights that ship with the package (`unpool info` lists them), a folder
            of weights, a run folder, or an exported network (.onnx, .xml).
        **options: of a segmenter `mode`, `preset`, `ensemble`, `device`, `precision`, `exact` and
            `presence_threshold`; `preset="edeconvnet"` gives the ensemble. Of a generator
            `device`. Of a network that deblurs those of `Restorer` besides `method`.

    Raises:
        WeightsError: no such weights, or damaged ones.
        OptionError: an unknown option, or one that does not fit these weights.

    >>> load("objects").classes[:3]
    ['background', 'aeroplane', 'bicycle']
    """
    import inspect

    from unpool.cards import read_card
    from unpool.errors import require_known
    from unpool.recipes.restore import NETWORKS

    architecture = read_card(source).architecture
    if architecture == "GenerativeNet":
        from unpool.generate import Generator

        require_known(options, ["device"])
        return Generator.from_pretrained(source, **options)
    if architecture in NETWORKS:
        from unpool.restore.restorer import Restorer

        own = [*inspect.signature(Restorer).parameters]
        require_known(options, [name for name in own if name not in ("method", "weights")])
        return Restorer(weights=source, **options)
    from unpool.segment.ensemble import load as load_segmenter

    return load_segmenter(source, **options)


def train(
    data: str | Path | Sequence[str | Path] | None = None,
    output: str | Path | None = None,
    recipe: "str | Recipe | None" = None,
    *,
    resume: bool | str | Path = False,
    **values: Any,
) -> dict[str, Any]:
    """Train a network on your own data, and keep everything in a run folder.

    The progress is printed to standard error; `report=False` is silent.

    Args:
        data: labeled images in a layout that `unpool check` knows, or several such folders, such as
            `["own", "others:pseudo=0.3"]`; a folder for each class for a classifier; rendered views
            for a generator; any images for a sparse coder, sharp ones for a network that deblurs.
        output: the run folder, which `load`, `evaluate` and `--weights` understand.
        recipe: a name (`unpool info` lists them), or a recipe.
        resume: the run folder of an interrupted run, `train(resume="runs/mine")`, which needs
            nothing else; or True, with all that the run was started with.
        **values: of `unpool.training.task.train`: `device`, `tensorboard`, `report`; of the task,
            by the recipe's `options`: `split`, `val`, `trunk_weights`, `trunk_inputs`, `by_color`,
            `crowd`, `soft`; all others are values of the recipe: `batch=8`, `steps=300` of all
            phases together, `**{"phases.0.lr": 1e-4}`.

    Returns:
        The summary of the final evaluation, as in `eval/summary.json`.

    Raises:
        DataError, ImageError, OptionError, WeightsError: input that cannot be used.
        TrainingError: the training run failed, or its folder cannot be written to.
    """
    import inspect

    from unpool.errors import OptionError, require_path
    from unpool.recipes import KINDS, find_recipe
    from unpool.training.task import resumed_task
    from unpool.training.task import train as run

    engine = {*inspect.getfullargspec(run).kwonlyargs} & values.keys()
    options = {*getattr(recipe, "options", ())}.union(*(kind.options for kind in KINDS.values()))
    settings = {key: values.pop(key) for key in engine}
    of_task = {key: values.pop(key) for key in options & values.keys()}
    if not isinstance(resume, bool):
        paths = {"data": data, "output": output}
        of_task |= {k: _folders(k, path) for k, path in paths.items() if path is not None}
        output = require_path("resume", resume)
        task = resumed_task(output, recipe, values, of_task)
    elif data is None or output is None or recipe is None:
        given = {"data": data, "output": output, "recipe": recipe}
        missing = " and ".join(name for name, value in given.items() if value is None)
        raise OptionError(
            f"got no {missing}; wanted train(data, output, recipe), or the folder of an "
            "interrupted run alone: train(resume=folder)"
        )
    else:
        task = find_recipe(recipe, **values).make_task(_folders("data", data), **of_task)
    return run(task, output, resume=bool(resume), **settings)


def _folders(name: str, value: Any) -> Any:
    """A path, or several as texts, since a part of the data may name a split and a weight."""
    from unpool.errors import require_path

    if name == "data" and isinstance(value, list | tuple) and value:
        return [str(require_path(name, part)) for part in value]
    return require_path(name, value)


def evaluate(
    weights: "str | Path | Segmenter | EDeconvNet",
    data: str | Path | Sequence[str | Path],
    split: str = "val",
    *,
    by_color: bool | None = None,
    crowd: Literal["void", "object"] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Measure a segmentation network on labeled images.

    Args:
        weights: what `load` takes, or a segmenter.
        data: labeled images in a layout that `unpool check` knows, or several such folders.
        split: the part of the data.
        by_color: read masks by their colors, True, or trust their indices whatever their palettes
            are, False; see `unpool.data.open_data`.
        crowd: read COCO's annotations with `iscrowd=1` as "object" or as "void"; see there.
        **options: of `load`, unless a segmenter is given, and of the segmenter's call: `mode`,
            `proposals`, `crf` ...

    Returns:
        The figures and their protocol: `miou`, `miou_interval`, `iou` by class, `pixel_accuracy`,
        `boundary_f1`, `images`, `dropped` ...; see `unpool.segment.evaluate.summarize`.

    Raises:
        WeightsError, DataError, OptionError: weights, data or options that cannot be used.
    """
    from unpool.data.mixture import open_parts, parse_part
    from unpool.errors import OptionError
    from unpool.recipes.presets import LOADING
    from unpool.segment.ensemble import load as load_segmenter
    from unpool.segment.evaluate import evaluate as measure
    from unpool.segment.pipeline import BaseSegmenter

    missing: dict[str, str] = {}
    given = _folders("data", data)
    parts = [parse_part(part) for part in (given if isinstance(given, list) else [given])]
    labeled = open_parts(parts, split, missing=missing, by_color=by_color, crowd=crowd)
    chosen = {name: options.pop(name) for name in LOADING if name in options}
    if not isinstance(weights, BaseSegmenter):
        weights = load_segmenter(weights, options.get("preset"), **chosen)
    elif chosen:
        raise OptionError(f"got {', '.join(chosen)} for a loaded segmenter; set it in unpool.load")
    return measure(weights, labeled, missing=missing, **options)


def project(
    model: Any, image: Any, layer: Any, unit: Any = None, *, preprocess: Any = None, **options: Any
) -> "Projection":
    """Project a unit of a layer down to the pixels that excite it (Zeiler, Fergus 2014).

    Args:
        model: any `torch.nn.Module`, or weights by name or folder.
        image: a prepared batch (N, 3, H, W), floating-point; or an image of any other kind that
            `read_image` takes, or a list of them, which are then prepared by `preprocess`.
        layer: a name in `model.named_modules()`, or the module itself.
        unit: which map; the strongest by default.
        preprocess: "imagenet", "caffe", "none", or a `unpool.visualize.Preprocessing`; that of the
            card for weights, "imagenet" by default.
        **options: of `unpool.visualize.project`: `place`, `rule`, `start` ...

    Raises:
        OptionError: no such layer, unit, rule or option.
        ShapeError, ImageError: an image that does not fit the model.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    >>> project(model, torch.rand(1, 3, 16, 16), model[1], unit=2).units
    tensor([2])
    """
    import inspect
    from dataclasses import replace

    from torch import Tensor, nn

    from unpool.errors import OptionError, require_known
    from unpool.vision.inputs import as_image
    from unpool.visualize import project as project_units
    from unpool.visualize.preprocessing import find_preprocessing, load_model

    require_known(options, [*inspect.signature(project_units).parameters][4:])
    if isinstance(model, str | Path):
        loaded = load_model(model)
        model, preprocess = loaded.model, preprocess or loaded.preprocessing
    if not isinstance(model, nn.Module):
        raise OptionError(
            f"got a model of type {type(model).__name__}; wanted a torch module, or weights by the "
            "name or folder that load takes, such as project('objects', ...)"
        )
    preparation = find_preprocessing("imagenet" if preprocess is None else preprocess)
    if isinstance(image, Tensor) and image.dim() == 4 and image.is_floating_point():
        images = image
    else:
        each = image if isinstance(image, list | tuple) and image else [image]
        images = preparation.prepare([preparation.crop(as_image(one)) for one in each])
        images = images.to(next(model.parameters(), images).device)
    found = project_units(model, images, layer, unit, **options)
    return replace(found, order=preparation.order)


def __getattr__(name: str) -> object:
    if name in __all__:  # the others are errors
        home = importlib.import_module(f"unpool.{_HOME.get(name, 'errors')}")
        return getattr(home, name)
    raise AttributeError(f"module 'unpool' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
