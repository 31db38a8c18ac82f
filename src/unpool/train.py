"""Train a DeconvNet: the run folder, with all that a run needs to go on and to be judged."""

import json
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

import unpool
from unpool.data.crops import Batch, Views, batches, class_balance
from unpool.data.voc import VOID, DataSet, open_data, read_sample
from unpool.errors import DataError, OptionError, WeightsError
from unpool.evaluate import evaluate
from unpool.files import atomic
from unpool.fitting import Progress, Step, arithmetic, estimate_statistics, fit, set_learning
from unpool.models import DeconvNet, load_vgg, save_pretrained
from unpool.models.scaffold import Scaffold
from unpool.models.vgg import MEAN_BGR, prepare
from unpool.recipes import Recipe
from unpool.segment import Segmenter, find_device, resize
from unpool.vision.drawing import contact_sheet, overlay
from unpool.vision.images import voc_palette, write_image
from unpool.vision.metrics import confusion_matrix, scores

__all__ = ["Validation", "train"]


class Validation(NamedTuple):
    """A record of one validation."""

    n: int  #: steps done
    phase: str
    miou: float


def train(
    data: str | Path,
    output: str | Path,
    recipe: Recipe,
    *,
    split: str = "train",
    val: str = "val",
    trunk_weights: str | Path | None = None,
    trunk_inputs: str = "caffe",
    resume: bool = False,
    device: str = "auto",
    command: str = "",
    report: Callable[[Step | Validation], None] | None = None,
) -> dict[str, Any]:
    """Train by a recipe, keep the best by validation, and write weights that `Segmenter` takes.

    The run folder gets `config.json`, `env.json`, `metrics.jsonl`, `checkpoints/`, `plots/`,
    `weights/` (for `Segmenter.from_pretrained`) and `eval/summary.json`.

    Args:
        data: a folder that `open_data` understands.
        output: the run folder; it must be new unless `resume`.
        recipe: what is done.
        split: the split to learn from.
        val: the split to choose by.
        trunk_weights: VGG weights for the trunk; random when not given.
        trunk_inputs: what those were trained on, see `load_vgg`.
        resume: go on from the last checkpoint; the result is that of an uninterrupted run.
        device: "auto", "cpu", "cuda" or "cuda:n".
        command: the command line, for the card.
        report: called with every `Step` and `Validation`.

    Returns:
        The summary of the final evaluation on `val`, whole pictures; see `evaluate`.

    Raises:
        DataError, OptionError, WeightsError: what came cannot be used.
        TrainingError: the training failed.
    """
    learn, choose = open_data(data, split), open_data(data, val)
    if learn.classes != choose.classes:
        raise DataError(f"got other classes in {split} than in {val}; write them to classes.txt")
    run = _Run(Path(output), recipe, learn, find_device(device), resume)
    if trunk_weights is not None and run.progress.step == 0:
        load_vgg(run.scaffold.net, trunk_weights, trunk_inputs)
        run.scaffold.tie()
    weights = class_balance(learn, recipe.balance) if recipe.balance else None
    views = Views(recipe.size, recipe.long_side, recipe.aspect, recipe.flip, recipe.color)
    stream = batches(learn, views, recipe.batch, recipe.seed, run.progress.step, weights)
    last = sum(phase.steps for phase in recipe.phases)
    for step in fit(run.scaffold, stream, recipe, run.progress, run.optimizer_state):
        run.log(step, report)
        if step.n % recipe.validate_every == 0 or step.n == last:
            run.validate(step, choose, report)
        if step.n % recipe.save_every == 0 or step.n == last:
            run.save()
    return run.finish(choose, stream, command)


class _Run:
    """A run folder and what is trained in it."""

    def __init__(
        self, folder: Path, recipe: Recipe, data: DataSet, device: torch.device, resume: bool
    ) -> None:
        self.folder, self.recipe, self.data, self.device = folder, recipe, data, device
        self.checkpoint = folder / "checkpoints/last.pt"
        self.best_path = folder / "checkpoints/best.pt"
        if not resume and self.checkpoint.exists():
            raise OptionError(
                f"{folder} holds a run already; pass --resume to go on with it, or another folder"
            )
        torch.manual_seed(recipe.seed)
        net = DeconvNet(len(data.classes), recipe.trunk, recipe.code, recipe.size, recipe.bn_eps)
        self.scaffold = Scaffold(net).to(device)
        self.scaffold.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.progress, self.best = Progress(), -1.0
        self.optimizer_state: dict[str, Any] | None = None
        if resume and self.checkpoint.exists():
            self._restore()
        _forget_after(folder / "metrics.jsonl", self.progress.step)
        write_json(folder / "config.json", recipe.to_json())
        write_json(folder / "env.json", environment())

    def log(self, record: Step | Validation, report: Callable[..., None] | None) -> None:
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(record._asdict()) + "\n")
        if report is not None:
            report(record)

    def validate(self, step: Step, data: DataSet, report: Callable[..., None] | None) -> None:
        phase = next(p for p in self.recipe.phases if p.name == step.phase)
        miou = validate(self.scaffold, phase.stages, data, self.recipe)
        self.log(Validation(step.n, step.phase, miou), report)
        complete = phase.stages == len(self.scaffold.net.decoder)
        if complete and miou > self.best:
            self.best = miou
            save_state(self.best_path, {"model": self.scaffold.state_dict()})

    def save(self) -> None:
        optimizer = self.progress.optimizer
        assert optimizer is not None
        state = {
            "recipe": json.dumps(self.recipe.to_json()),
            "classes": self.data.classes,
            "step": self.progress.step,
            "best": self.best,
            "model": self.scaffold.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        save_state(self.checkpoint, state)

    def _restore(self) -> None:
        state = load_state(self.checkpoint)
        if json.loads(state["recipe"]) != self.recipe.to_json():
            raise OptionError(
                f"{self.folder} was begun with another recipe (see its config.json); resume with "
                "the same one, or begin a new run"
            )
        if state["classes"] != self.data.classes:
            raise DataError(f"{self.folder} was begun on other classes; resume on the same data")
        self.scaffold.load_state_dict(state["model"])
        self.progress.step, self.best = state["step"], state["best"]
        self.optimizer_state = state["optimizer"]

    def finish(self, data: DataSet, stream: Iterator[Batch], command: str) -> dict[str, Any]:
        """Weights, card, pictures and figures of the best network."""
        if self.best_path.exists():
            self.scaffold.load_state_dict(load_state(self.best_path)["model"])
        net = self.scaffold.net
        set_learning(self.scaffold, self.recipe.phases[-1])
        estimate_statistics(net, stream, self.recipe.statistics_passes, self.recipe.bf16)
        card = describe(net, self.data, self.recipe, command)
        save_pretrained(net, self.folder / "weights", card)
        segmenter = Segmenter.from_pretrained(self.folder / "weights", device=str(self.device))
        summary = evaluate(segmenter, data)
        card["figures"] = {f"{data.root.name} {data.split}, whole": headline(summary)}
        save_pretrained(net, self.folder / "weights", card)
        write_json(self.folder / "eval/summary.json", summary)
        write_image(self.folder / "plots/predictions.png", _pictures(segmenter, data))
        return summary


@torch.no_grad()
def validate(scaffold: Scaffold, stages: int, data: DataSet, recipe: Recipe) -> float:
    """Mean IoU of whole pictures, by the head after `stages` stages, at the pictures' own size."""
    scaffold.eval()
    device = next(scaffold.parameters()).device
    k = len(data.classes)
    total = np.zeros((k, k), np.int64)
    for sample in data.samples:
        image, truth = read_sample(sample, k)
        small = resize(image, recipe.whole_side, 2 ** len(scaffold.net.trunk.table))
        with arithmetic(device, recipe.bf16):
            x = prepare(torch.from_numpy(small[None]).to(device))
            found = scaffold(x, stages)[-1].float()
        found = F.interpolate(found, size=truth.shape, mode="bilinear")
        total += confusion_matrix(found[0].argmax(0).cpu().numpy(), truth, k, VOID)
    return float(scores(total).miou)


def describe(net: DeconvNet, data: DataSet, recipe: Recipe, command: str) -> dict[str, Any]:
    """The card of a trained network, without its figures."""
    return {
        "arguments": net.arguments,
        "classes": data.classes,
        "palette": voc_palette()[: len(data.classes)].tolist(),
        "input": {"order": "BGR", "range": "0..255 minus mean", "mean": list(MEAN_BGR)},
        "whole_side": recipe.whole_side,
        "mode": "whole",
        "recipe": recipe.to_json(),
        "data": f"{data.root.name} {data.split}, {len(data.samples)} pictures",
        "license": "the terms of the data and of the trunk's weights apply",
        "command": command,
    }


def headline(summary: dict[str, Any]) -> dict[str, Any]:
    """The figures of a summary that go on a card."""
    names = ("miou", "miou_interval", "pixel_accuracy", "mean_accuracy", "boundary_f1", "protocol")
    return {name: summary[name] for name in names}


def environment() -> dict[str, Any]:
    """What a run ran on."""
    return {
        "unpool": unpool.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }


def write_json(path: Path, values: object) -> None:
    """Write plain values as a JSON file, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n")


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a training state, whole or not at all."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def load_state(path: Path) -> dict[str, Any]:
    """Read a training state of our own.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways
        raise WeightsError(
            f"cannot read the checkpoint {path} ({type(error).__name__}); begin a new run, or put "
            "back a copy"
        ) from None


def _forget_after(path: Path, step: int) -> None:
    """Drop the records that a killed run had written after its last checkpoint."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
        with atomic(path) as temporary:
            kept = [line for line in lines if json.loads(line)["n"] <= step]
            temporary.write_text("".join(f"{line}\n" for line in kept))


def _pictures(segmenter: Segmenter, data: DataSet, count: int = 8) -> NDArray[np.uint8]:
    """Pictures, what was found in them, and the truth, side by side."""
    tiles = []
    for sample in data.samples[:: max(len(data.samples) // count, 1)][:count]:
        image, truth = read_sample(sample, len(data.classes))
        names, palette = data.classes, segmenter.palette
        shown = np.where(truth == VOID, 0, truth)
        tiles += [
            (image, sample.name),
            (segmenter(image).overlay(), "found"),
            (overlay(image, shown, palette, names), "truth"),
        ]
    return contact_sheet(tiles, columns=3)
