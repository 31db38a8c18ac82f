"""Train a DeconvNet from coarse to fine, and keep what a run needs to go on and to be judged."""

import json
import pickle
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import unpool
from unpool.data.crops import Batch, Views, batches, class_balance
from unpool.data.voc import VOID, DataSet, open_data, read_sample
from unpool.errors import DataError, OptionError, UnpoolError, WeightsError
from unpool.evaluate import evaluate
from unpool.files import atomic
from unpool.models import DeconvNet, load_vgg, save_pretrained
from unpool.models.fast import bf16_pays
from unpool.models.scaffold import Scaffold
from unpool.models.vgg import MEAN_BGR, prepare
from unpool.recipes import Phase, Recipe
from unpool.segment import Segmenter, find_device, resize
from unpool.vision.drawing import contact_sheet, overlay
from unpool.vision.images import voc_palette, write_image
from unpool.vision.metrics import confusion_matrix, scores

__all__ = ["Progress", "Step", "TrainingError", "Validation", "estimate_statistics", "fit", "train"]


class Step(NamedTuple):
    """A record of one training step."""

    n: int  #: steps done, from 1
    phase: str
    loss: float  #: of the finest head
    lr: float  #: of the newest stage
    seconds: float


class Validation(NamedTuple):
    """A record of one validation."""

    n: int  #: steps done
    phase: str
    miou: float


@dataclass
class Progress:
    """Where a training stands: all that `fit` needs to go on, besides the network."""

    step: int = 0
    optimizer: torch.optim.Optimizer | None = None


class TrainingError(UnpoolError, RuntimeError):
    """The training cannot go on."""


def fit(
    scaffold: Scaffold,
    batches: Iterator[Batch],
    recipe: Recipe,
    progress: Progress | None = None,
    optimizer_state: dict[str, object] | None = None,
) -> Iterator[Step]:
    """Train; a record comes out after every step, and the caller does the rest in its `for`.

    Args:
        scaffold: the network with its heads, changed in place.
        batches: beginning with that of the first step to be done.
        recipe: its phases are done one after the other.
        progress: kept up to date; `progress.step` steps count as done.
        optimizer_state: of a phase that was left in its middle.

    Raises:
        TrainingError: the loss is not finite.
    """
    progress = progress or Progress()
    device = next(scaffold.parameters()).device
    end, grown = 0, 1
    for phase in recipe.phases:
        begin, end = end, end + phase.steps
        before, grown = grown, max(grown, phase.stages)
        if progress.step >= end:
            continue
        optimizer = progress.optimizer = _optimizer(scaffold, phase, recipe)
        if optimizer_state is not None and progress.step > begin:
            optimizer.load_state_dict(optimizer_state)
        while progress.step < end:
            start = time.perf_counter()
            batch = next(batches)
            x = prepare(torch.from_numpy(batch.images).to(device))
            if progress.step == begin:
                for stage in range(before, grown):
                    scaffold.eval().grow(stage, x)
            lr = _set_rate(optimizer, progress.step - begin, phase.steps, recipe)
            loss = _step(scaffold, x, batch.labels, optimizer, phase, recipe)
            progress.step += 1
            if not np.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss} at step {progress.step} (phase {phase.name}, learning "
                    f"rate {lr:.2g}); resume from the last checkpoint with a lower rate"
                )
            yield Step(progress.step, phase.name, loss, lr, time.perf_counter() - start)


@torch.no_grad()
def estimate_statistics(net: DeconvNet, stream: Iterator[Batch], passes: int) -> None:
    """Take batch norm's statistics anew: their mean over some batches of the finished network.

    Args:
        net: put into evaluation mode afterwards. A trunk in evaluation mode keeps its own.
        stream: of training batches.
        passes: how many of them.

    Noh, Hong, Han 2015, section 4.1; the released `BN_make_INFERENCE_script.py`.
    """
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
    device = next(net.parameters()).device
    for _ in range(passes):
        with _arithmetic(device, True):
            net(prepare(torch.from_numpy(next(stream).images).to(device)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    net.eval()


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
        self.scaffold = Scaffold(net).to(device, memory_format=torch.channels_last)
        self.progress, self.best = Progress(), -1.0
        self.optimizer_state: dict[str, Any] | None = None
        if resume and self.checkpoint.exists():
            self._restore()
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
        _forget_after(self.folder / "metrics.jsonl", self.progress.step)

    def finish(self, data: DataSet, stream: Iterator[Batch], command: str) -> dict[str, Any]:
        """Weights, card, pictures and figures of the best network."""
        if self.best_path.exists():
            self.scaffold.load_state_dict(load_state(self.best_path)["model"])
        net = self.scaffold.net
        _learning(self.scaffold, self.recipe.phases[-1])
        estimate_statistics(net, stream, self.recipe.statistics_passes)
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
        with _arithmetic(device, recipe.bf16):
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
        temporary.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n")


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a training state, whole or not at all."""
    with atomic(path) as temporary:
        torch.save(state, temporary)


def load_state(path: Path) -> dict[str, Any]:
    """Read a training state of our own.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"cannot read the checkpoint {path}: {reason}; begin a new run, or put back a copy"
        ) from None


def _step(
    scaffold: Scaffold,
    x: Tensor,
    labels: np.ndarray,
    optimizer: torch.optim.Optimizer,
    phase: Phase,
    recipe: Recipe,
) -> float:
    """One update; the finest head's loss."""
    _learning(scaffold, phase)
    truth = torch.from_numpy(labels).to(x.device).long()
    with _arithmetic(x.device, recipe.bf16):
        found = scaffold(x, phase.stages, recipe.dropout)
    losses = [_loss(f.float(), truth) for f in found]
    total = losses[-1] + recipe.coarse_weight * sum(losses[:-1])
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(parameters, recipe.clip)
    optimizer.step()
    return float(losses[-1].item())


def _loss(found: Tensor, truth: Tensor) -> Tensor:
    """Cross entropy over the pixels that are not void, coarse scores enlarged four times at most."""
    step = max(truth.shape[-1] // (4 * found.shape[-1]), 1)
    truth = truth[:, step // 2 :: step, step // 2 :: step]
    if found.shape[-2:] != truth.shape[-2:]:
        found = F.interpolate(found, size=truth.shape[-2:], mode="bilinear")
    return F.cross_entropy(found, truth, ignore_index=VOID)


def _learning(scaffold: Scaffold, phase: Phase) -> None:
    """Training mode for what learns; a trunk's batch norm stays as it is (evaluation mode)."""
    scaffold.train()
    scaffold.net.trunk.eval()
    for stage in scaffold.net.decoder[phase.stages :]:
        stage.eval()


def _optimizer(scaffold: Scaffold, phase: Phase, recipe: Recipe) -> torch.optim.Optimizer:
    """A group for each rate; filters decay, biases and batch norm do not."""
    scaffold.requires_grad_(False)
    newest = phase.stages - 1
    parts: list[tuple[nn.Module, float]] = []
    for stage in range(phase.stages):
        lr = phase.lr if stage == newest else phase.older_lr
        parts += [(scaffold.net.decoder[stage], lr), (scaffold.head(stage), lr)]
    if scaffold.net.code is not None:
        parts.append((scaffold.net.code, phase.lr if newest == 0 else phase.older_lr))
    parts += [(s, phase.trunk_lr) for s in scaffold.net.trunk.stages[phase.trunk_from - 1 :]]
    groups = []
    for module, lr in parts:
        if lr > 0:
            kept = [p.requires_grad_() for p in module.parameters()]
            for decay, of in ((recipe.weight_decay, True), (0.0, False)):
                chosen = [p for p in kept if (p.dim() > 1) == of]
                groups.append({"params": chosen, "lr": lr, "peak": lr, "weight_decay": decay})
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=recipe.momentum)
    raise OptionError(f"got optimizer {recipe.optimizer!r}; it is 'adamw' or 'sgd'")


def _set_rate(optimizer: torch.optim.Optimizer, n: int, steps: int, recipe: Recipe) -> float:
    """Set the rates of step n of a phase: a short rise, then a line down to 2 %."""
    factor = min(1.0, (n + 1) / max(recipe.warmup, 1)) * max(0.02, 1 - n / steps)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return float(optimizer.param_groups[0]["lr"])


def _arithmetic(device: torch.device, bf16: bool) -> AbstractContextManager[object]:
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16 and bf16_pays(device))


def _forget_after(path: Path, step: int) -> None:
    """Drop the records that a killed run had written after its last checkpoint."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
        with atomic(path) as temporary:
            kept = [line for line in lines if json.loads(line)["n"] <= step]
            temporary.write_text("".join(f"{line}\n" for line in kept))


def _pictures(segmenter: Segmenter, data: DataSet, count: int = 8) -> np.ndarray:
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
