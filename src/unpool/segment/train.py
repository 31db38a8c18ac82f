"""Train a network by a recipe, on labeled images."""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from unpool import distributed
from unpool.data.classes import VOID
from unpool.data.crops import (
    Batch,
    Cut,
    Draw,
    Views,
    batches,
    class_balance,
    draw_views,
    draw_windows,
    find_paster,
    take_turns,
)
from unpool.data.datasets import DataSet, open_data, read_labels, read_sample
from unpool.data.windows import find_proposals, object_windows, proposal_windows, repeat_rare
from unpool.devices import autocast
from unpool.errors import DataError, OptionError
from unpool.models import FCN, DeconvNet, save_pretrained
from unpool.models.vgg import MEAN_BGR, prepare, trunk_table
from unpool.recipes import SegmentationRecipe
from unpool.segment.evaluate import evaluate
from unpool.segment.fit import SegmentationObjective, estimate_statistics, set_mode
from unpool.segment.growing import Learner, Plain, Scaffold
from unpool.segment.segmenter import Segmenter, WholeView
from unpool.segment.start import Start, begin, keep_start, mix, read_start
from unpool.training import task as training
from unpool.training.run import Run, writing
from unpool.training.task import Preparation, Report
from unpool.vision.drawing import overlay
from unpool.vision.figures import contact_sheet
from unpool.vision.images import image_size, voc_palette, write_image
from unpool.vision.metrics import confusion_matrix, scores


def train(
    data: str | Path,
    output: str | Path,
    recipe: SegmentationRecipe,
    *,
    split: str = "train",
    val: str = "val",
    trunk_weights: str | Path | None = None,
    trunk_inputs: str = "caffe",
    resume: bool = False,
    tensorboard: bool = False,
    device: str = "auto",
    command: str = "",
    report: Report | None = None,
) -> dict[str, Any]:
    """Train by a recipe, keep the best by validation, and write weights that `Segmenter` takes.

    `unpool.training.run` describes the run folder. Under `torchrun` the processes share the
    work; every one returns the same summary.

    Args:
        data: a folder that `open_data` understands.
        output: the run folder; it must be new unless `resume`.
        recipe: what is done.
        split: the split to learn from.
        val: the split to choose by.
        trunk_weights: VGG weights for the trunk; random when not given.
        trunk_inputs: what those were trained on, see `load_vgg`.
        resume: go on from the last checkpoint; the result is that of an uninterrupted run.
        tensorboard: write records for TensorBoard, too.
        device: "auto", "cpu", "cuda" or "cuda:n".
        command: the command line, for the card.
        report: called with every `Step`, `Validation` and `Preparation`.

    Returns:
        The summary of the final evaluation on `val`, whole images; see `evaluate`. Its `notes`
        say what was amiss but no reason to stop: classes that no mask of `split` shows, curves
        that could not be drawn. Each is a warning at the beginning, too.

    Raises:
        DataError, ImageError, OptionError, WeightsError: what came cannot be used.
        TrainingError: the training failed, or its folder cannot be written to.
    """
    task = SegmentationTask(data, recipe, split, val, trunk_weights, trunk_inputs)
    return training.train(
        task,
        output,
        resume=resume,
        tensorboard=tensorboard,
        device=device,
        command=command,
        report=report,
    )


class Validation(NamedTuple):
    """A record of one validation."""

    n: int  #: steps done
    phase: str
    miou: float


class SegmentationTask(training.Task[Batch]):
    """Learn to segment from labeled images; the best network by mean IoU is kept.

    Args: see `train`.
    """

    recipe: SegmentationRecipe
    objective: SegmentationObjective
    panels = ({"miou": "mean IoU on val"},)

    def __init__(
        self,
        data: str | Path,
        recipe: SegmentationRecipe,
        split: str = "train",
        val: str = "val",
        trunk_weights: str | Path | None = None,
        trunk_inputs: str = "caffe",
    ) -> None:
        self.data, self.recipe, self.split, self.val = data, recipe, split, val
        self.trunk_weights, self.trunk_inputs = trunk_weights, trunk_inputs
        self.start: Start | None = None  #: None in a resumed run, until it is read

    def open(self) -> None:
        """Open both splits; read all masks, so that unusable ones are found at once."""
        self.learn, self.choose = open_data(self.data, self.split), open_data(self.data, self.val)
        self.classes = self.learn.classes
        if self.classes != self.choose.classes:
            raise DataError(
                f"got other classes in {self.split} than in {self.val}; write them to classes.txt"
            )
        self.counts = count_classes(self.learn)
        count_classes(self.choose)

    def arguments(self) -> dict[str, Any]:
        """The data, its splits and the trunk's weights."""
        return {
            "data": str(Path(self.data).resolve()),
            "split": self.split,
            "val": self.val,
            "trunk_weights": self.trunk_weights and str(Path(self.trunk_weights).resolve()),
            "trunk_inputs": self.trunk_inputs,
        }

    def build(self, device: torch.device) -> SegmentationObjective:
        """The recipe's network, with heads for progressive growing."""
        learner = build(self.recipe, len(self.classes)).to(device)
        learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return SegmentationObjective(learner, self.recipe)

    def warm_start(self) -> None:
        """Load the recipe's `start` and the trunk's weights."""
        learner = self.objective.learner
        self.start = begin(
            learner, self.recipe, self.classes, self.trunk_weights, self.trunk_inputs
        )

    def prepare(self, run: Run) -> None:
        """Store what weight averaging needs; note classes that cannot be learned."""
        net = self.objective.learner.net
        if self.start is None:
            self.start = read_start(run.start_path, self.recipe, net)
        else:
            keep_start(run.start_path, self.recipe, self.start)
        pairs = zip(self.classes, self.counts, strict=True)
        if unseen := [name for name, n in pairs if not n]:
            run.note(f"no mask of {self.split} shows {', '.join(unseen)}, which cannot be learned")

    def batches(self, run: Run, start: int, size: int) -> Iterator[Batch]:
        """Crops from the sources of each phase."""
        draw = sources(self.recipe, self.learn, run.folder, self.report)
        return batches(draw, size, start, distributed.rank(), distributed.world())

    def validate(self, run: Run, n: int) -> Validation:
        """Mean IoU of whole images."""
        phase = self.recipe.phases[self.objective.phase]
        miou = validate(self.objective.learner, phase.stages, self.choose, self.recipe)
        return Validation(n, phase.name, miou)

    def score(self, record: Validation) -> float | None:
        """The mean IoU of networks that have all their stages."""
        depth = max(phase.stages for phase in self.recipe.phases)
        complete = self.recipe.phases[self.objective.phase].stages == depth
        return record.miou if complete else None

    def finish(self, run: Run, stream: Iterator[Batch], command: str) -> dict[str, Any]:
        """Average weights, estimate statistics, write weights, evaluate them as stored."""
        assert self.start is not None
        net, folder, recipe = self.objective.learner.net, run.folder, self.recipe
        if recipe.average_with_start:
            mix(net, self.start.tensors, recipe.average_with_start)
        set_mode(self.objective.learner, recipe.phases[-1].stages, recipe)
        estimate_statistics(net, stream, recipe.statistics_passes, recipe.bf16)
        distributed.copy_from_first(run.learner)
        card = describe(self.learn, recipe, self.start.card, command)
        if distributed.rank() == 0:
            with writing(folder / "weights"):
                save_pretrained(net, folder / "weights", card)
        distributed.barrier()
        segmenter = Segmenter.from_pretrained(folder / "weights", device=str(self.objective.device))
        summary = {**evaluate(segmenter, self.choose), "notes": run.notes}
        if distributed.rank() == 0:
            name = f"{self.choose.root.name} {self.choose.split}, whole"
            card["figures"] = {name: headline(summary)}
            with writing(folder):
                save_pretrained(net, folder / "weights", card)
                write_image(folder / "plots/predictions.png", _images(segmenter, self.choose))
        return summary


def count_classes(data: DataSet) -> list[int]:
    """In how many images each class is found; thus what cannot be used is found at once.

    Raises:
        ImageError, DataError: a mask cannot be used, or is not of its image's size.
    """
    counts = np.zeros(len(data.classes), int)
    for sample in data.samples:
        labels = read_labels(sample, len(data.classes))
        if image_size(sample.image) != labels.shape:
            read_sample(sample, len(data.classes))  # says so
        counts[np.unique(labels[labels != VOID])] += 1
    return counts.tolist()


def build(recipe: SegmentationRecipe, classes: int) -> Learner:
    """The recipe's network, with what is put around it for its training.

    Raises:
        OptionError: a network that there is not, or more stages than its trunk has.
    """
    depth = len(trunk_table(recipe.trunk))
    for phase in recipe.phases:
        if max(phase.stages, phase.trunk_from) > depth:
            raise OptionError(
                f"got stages={phase.stages}, trunk_from={phase.trunk_from} in the phase "
                f"{phase.name!r}; this trunk has {depth} stages"
            )
    if recipe.network == "DeconvNet":
        return Scaffold(DeconvNet(classes, recipe.trunk, recipe.code, recipe.size, recipe.bn_eps))
    if recipe.network == "FCN":
        r = recipe
        net = FCN(classes, r.trunk, r.code, r.stride, r.pad, r.window, r.dropout, r.at_once)
        return Plain(net)
    raise OptionError(f"got network {recipe.network!r} in a recipe; it is 'DeconvNet' or 'FCN'")


def sources(
    recipe: SegmentationRecipe, data: DataSet, folder: Path, report: Report | None = None
) -> Draw:
    """The crops of the whole training, at each place those of its phase.

    Args:
        recipe: which crops the phases want.
        data: labeled images.
        folder: proposals are kept there, in `proposals.npz`.
        report: called while they are found.
    """
    cv2.setNumThreads(1)  # the network needs the cores
    wanted = {name for phase in recipe.phases for name in phase.sources}
    k, cut = len(data.classes), Cut(recipe.size, recipe.size, recipe.flip, recipe.color)
    known: dict[str, Draw] = {}
    if wanted & {"views", "pasted"}:
        views = Views(recipe.size, recipe.crop_long_side, recipe.aspect, recipe.flip, recipe.color)
        weights = class_balance(data, recipe.balance) if recipe.balance else None
        known["views"] = draw_views(data, views, recipe.seed, weights)
        paster = find_paster(data, recipe.paste) if "pasted" in wanted else None
        known["pasted"] = draw_views(data, views, recipe.seed, weights, paster)
    if "objects" in wanted:
        windows = repeat_rare(object_windows(data), recipe.repetition)
        larger = cut._replace(enlarged=max(recipe.enlarged, recipe.size))
        known["objects"] = draw_windows(windows, k, larger, recipe.seed)
    if "proposals" in wanted:
        windows = proposal_windows(data, _proposals(data, folder, report), recipe.overlap)
        known["proposals"] = draw_windows(
            repeat_rare(windows, recipe.repetition), k, cut, recipe.seed
        )
    if unknown := wanted - set(known):
        raise OptionError(
            f"got the source {min(unknown)!r} in a recipe; sources are views, pasted, "
            "objects, proposals"
        )
    draws = [take_turns([known[name] for name in phase.sources]) for phase in recipe.phases]
    ends = list(accumulate(phase.steps * recipe.batch for phase in recipe.phases))[:-1]
    return lambda place: draws[bisect_right(ends, place)](place)


def _proposals(data: DataSet, folder: Path, report: Report | None) -> list[NDArray[np.int64]]:
    def show(done: int, total: int, doing: str) -> None:
        if report is not None:
            report(Preparation(done, total))

    cache = folder / "proposals.npz"
    if distributed.rank() > 0:
        distributed.barrier()  # for the first process, which finds them
    found = find_proposals(data, cache=cache, progress=show)
    if distributed.rank() == 0:
        distributed.barrier()
    return found


@torch.no_grad()
def validate(learner: Learner, stages: int, data: DataSet, recipe: SegmentationRecipe) -> float:
    """Mean IoU of whole images, by the head after `stages` stages, at the images' own size."""
    learner.eval()
    device, k = next(learner.parameters()).device, len(data.classes)

    def logits(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with autocast(device, recipe.bf16):
            x = prepare(torch.from_numpy(images).to(device))
            maps = learner(x, stages, last=True)[-1].float()
        maps = F.interpolate(maps, size=images.shape[1:3], mode="bilinear")
        return np.ascontiguousarray(maps.cpu().numpy())

    found = []
    for sample in distributed.shard(data.samples):
        image, truth = read_sample(sample, k)
        view = WholeView(learner.net, image, recipe.long_side)
        labels = view.paste(logits(view.batch)).argmax(0)
        found.append(confusion_matrix(labels.astype(np.uint8), truth, k, VOID))
    return float(scores(np.sum(distributed.gather(found), 0)).miou)


def describe(
    data: DataSet, recipe: SegmentationRecipe, started: dict[str, Any], command: str
) -> dict[str, Any]:
    """The card of a trained network, without its figures; `started` is that of its beginning."""
    terms = "the terms of the data and of the trunk's weights apply"
    if started:
        terms = f"{terms}; begun with {recipe.start}: {started.get('license', 'terms unknown')}"
    return {
        "classes": data.classes,
        "palette": voc_palette()[: len(data.classes)].tolist(),
        "input": {"order": "BGR", "range": "0..255 minus mean", "mean": list(MEAN_BGR)},
        "long_side": recipe.long_side,
        "mode": "whole",
        "aggregate": started.get("aggregate", recipe.aggregate),
        "presence_threshold": recipe.presence_threshold,
        "recipe": recipe.to_json(),
        "data": f"{data.root.name} {data.split}, {len(data.samples)} images",
        "license": terms,
        "command": command,
    }


def headline(summary: dict[str, Any]) -> dict[str, Any]:
    """The figures of a summary that go on a card."""
    names = ("miou", "miou_interval", "pixel_accuracy", "mean_accuracy", "boundary_f1", "protocol")
    return {name: summary[name] for name in names}


def _images(segmenter: Segmenter, data: DataSet, count: int = 8) -> NDArray[np.uint8]:
    """Images, what was found in them, and the truth, side by side."""
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
