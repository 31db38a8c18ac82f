"""The networks that are compared, their training and their figures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

import unpool
from experiments.train_once import train_once
from unpool.bench import harness
from unpool.models import prepare
from unpool.recipes import Recipe, find_recipe, step_counts
from unpool.segment.ensemble import EDeconvNet
from unpool.segment.pipeline import BaseSegmenter
from unpool.segment.segmenter import Segmenter
from unpool.segment.whole import WholeView

FIGURES = "miou", "pixel_accuracy", "boundary_f1"  #: each with its interval
SIZE = 375, 500  #: height and width of the images whose time and operations are given


class Entry(NamedTuple):
    """A network of the comparison."""

    recipe: str
    changes: Mapping[str, Any] = {}  #: of the recipe
    start: str | None = None  #: the entry with whose weights it starts
    crf: str | None = None  #: with which it is measured as well


_STEPS = (100, 120, 120, 50, 30, 40)  #: of the phases of `objects`, for twenty minutes
_SHORTER = {f"phases.{i}.steps": steps for i, steps in enumerate(_STEPS)}
_AS_OBJECTS = {
    "batch": 12,
    "balance": 0.3,
    "median_frequency": 0.0,
    "crop_long_side": (224, 448),
    "long_side": 384,
    "presence_threshold": 0.75,
}

NETWORKS: dict[str, Entry] = {
    "FCN-32s": Entry("fcn8s", {"stride": 32}),
    "FCN-16s": Entry("fcn8s", {"stride": 16}),
    "FCN-8s": Entry("fcn8s", crf="deeplab"),
    "DeepLab-LargeFOV": Entry("deeplab-small", crf="deeplab1"),
    "CRF-RNN": Entry("crfrnn-small", start="FCN-8s"),
    "SegNet": Entry("segnet-camvid", {**_AS_OBJECTS, **_SHORTER}),
    "DeconvNet": Entry("objects", {"distill": 0.0, **_SHORTER}, crf="edeconvnet"),
    "DecoupledNet, 5 masks a class": Entry("decouplednet-small", {"strong": 5}),
    "DecoupledNet, 25 masks a class": Entry("decouplednet-small", {"strong": 25}),
}
ENSEMBLE = "EDeconvNet"
PARTS = ("DeconvNet", "FCN-8s")  #: of the ensemble


def recipe_of(entry: Entry, runs: Path, steps: float = 1.0) -> Recipe:
    """The recipe of an entry, with `steps` times as many steps in each part."""
    changes = dict(entry.changes)
    if entry.start is not None:
        changes["start"] = str(runs / folder_name(entry.start) / "weights")
    recipe = find_recipe(entry.recipe, **changes)
    counts = step_counts(recipe)
    return find_recipe(recipe, **{n: max(round(count * steps), 1) for n, count in counts.items()})


def folder_name(name: str) -> str:
    """The run folder of an entry.

    >>> folder_name("DecoupledNet, 5 masks a class")
    'decouplednet-5-masks-a-class'
    """
    return name.lower().replace(",", "").replace(" ", "-")


def train(
    name: str, data: Sequence[str], runs: Path, trunk_weights: Path | None, steps: float
) -> Path:
    """Train a network, or go on with its run; returns its weights."""
    run, entry = runs / folder_name(name), NETWORKS[name]
    trunk = trunk_weights if entry.start is None else None
    train_once([*data], run, recipe_of(entry, runs, steps), trunk_weights=trunk)
    return run / "weights"


def minutes(run: Path) -> float:
    """How long the steps of a run took."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return sum(record.get("seconds", 0.0) for record in records) / 60


def operations(segmenter: Segmenter) -> int:
    """Floating-point operations of an image's convolutions and products; a multiply-add is two."""
    image = next(iter(harness.photos(SIZE).values()))
    view = WholeView(segmenter.model, image, segmenter.long_side)
    x = prepare(torch.from_numpy(view.batch), segmenter.mean)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        segmenter.model(x.float())
    return counter.get_total_flops()


def seconds(segmenters: Mapping[str, BaseSegmenter], rounds: int) -> dict[str, float]:
    """The median seconds of an image by each, in turn, in its fast form."""
    image = next(iter(harness.photos(SIZE).values()))
    works = {
        name: harness.timed(lambda s=segmenter: s(image, mode="whole"))  # type: ignore[misc]
        for name, segmenter in segmenters.items()
    }
    found = harness.in_turn(works, rounds)
    return {name: harness.spread(values)["median"] for name, values in found.items()}


def measure(
    segmenter: BaseSegmenter, data: Sequence[str], crf: str | None = None
) -> dict[str, Any]:
    """The figures of whole images of the validation part."""
    found = unpool.evaluate(segmenter, [*data], mode="whole", crf=crf)
    return {
        **{f"{name}{of}": found[name + of] for name in FIGURES for of in ("", "_interval")},
        **{key: found[key] for key in ("iou", "protocol")},
    }


def describe(name: str, weights: Path) -> dict[str, Any]:
    """What a network costs: parameters, operations and training."""
    exact = Segmenter.from_pretrained(weights, exact=True)
    parameters = sum(p.numel() for p in exact.model.parameters())  # type: ignore[union-attr]
    entry = NETWORKS[name]
    return {
        "parameters": parameters,
        "gflop": operations(exact) / 1e9,
        "minutes": minutes(weights.parent),
        "recipe": entry.recipe,
        "changes": dict(entry.changes),
    }


def load(weights: Mapping[str, Path]) -> dict[str, BaseSegmenter]:
    """The networks in their fast form, and the ensemble of two of them."""
    found: dict[str, BaseSegmenter] = {
        name: Segmenter.from_pretrained(folder) for name, folder in weights.items()
    }
    if all(name in weights for name in PARTS):
        first, second = (Segmenter.from_pretrained(weights[name]) for name in PARTS)
        found[ENSEMBLE] = EDeconvNet(first, second)
    return found
