"""Train a network by a recipe, on labeled images."""

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import closing
from itertools import accumulate
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from unpool import distributed
from unpool.data.batches import Batch, batches
from unpool.data.classes import VOID
from unpool.data.copy_paste import find_paster
from unpool.data.crops import Cut, Draw, Views, class_balance, draw_views, draw_windows, take_turns
from unpool.data.datasets import DataSet, open_data, read_labels, read_sample
from unpool.data.windows import find_proposals, object_windows, proposal_windows, repeat_rare
from unpool.devices import find_device
from unpool.errors import DataError, OptionError
from unpool.files import write_json
from unpool.models import FCN, DeconvNet, save_pretrained
from unpool.models.vgg import MEAN_BGR, prepare, trunk_table
from unpool.recipes import SegmentationRecipe
from unpool.segment.evaluate import evaluate
from unpool.segment.growing import Learner, Plain, Scaffold
from unpool.segment.segmenter import Segmenter, score_whole
from unpool.segment.start import Start, begin, keep_start, mix, read_start
from unpool.training.loop import arithmetic, estimate_statistics, fit, parts_of, set_learning
from unpool.training.run import (
    Preparation,
    Report,
    Run,
    Validation,
    begun,
    curves_missing,
    draw_curves,
    writing,
)
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
    where = find_device(distributed.local(device))
    learn, choose = open_data(data, split), open_data(data, val)
    if learn.classes != choose.classes:
        raise DataError(f"got other classes in {split} than in {val}; write them to classes.txt")
    shown = count_classes(learn)
    count_classes(choose)  # which reads all that the validations will read
    with distributed.join(where):
        parts = parts_of(recipe)
        torch.manual_seed(recipe.seed)
        learner = build(recipe, len(learn.classes)).to(where)
        learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        start = None
        if not begun(Path(output)):  # weights that are refused leave no run folder
            start = begin(learner, recipe, learn.classes, trunk_weights, trunk_inputs)
        run = Run(
            Path(output),
            recipe,
            learn.classes,
            learner,
            resume=resume,
            tensorboard=tensorboard,
            arguments={
                "data": str(Path(data).resolve()),
                "split": split,
                "val": val,
                "trunk_weights": trunk_weights and str(Path(trunk_weights).resolve()),
                "trunk_inputs": trunk_inputs,
            },
        )
        with closing(run):
            if start is None:
                start = read_start(run)
            else:
                keep_start(run, start)
            if unseen := [name for name, n in zip(learn.classes, shown, strict=True) if not n]:
                run.note(f"no mask of {split} shows {', '.join(unseen)}, which cannot be learned")
            if missing := curves_missing():
                run.note(missing)
            draw = sources(recipe, learn, run.folder, report)
            first, size = run.progress.step * parts, recipe.batch // parts
            stream = batches(draw, size, first, distributed.rank(), distributed.world())
            _fit(run, stream, choose, report)
            return _finish(run, start, stream, learn, choose, command)


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
    def show(done: int, total: int) -> None:
        if report is not None:
            report(Preparation(done, total))

    cache = folder / "proposals.npz"
    if distributed.rank() > 0:
        distributed.barrier()  # for the first process, which finds them
    found = find_proposals(data, cache=cache, progress=show)
    if distributed.rank() == 0:
        distributed.barrier()
    return found


def _fit(
    run: Run[SegmentationRecipe, Learner],
    stream: Iterator[Batch],
    choose: DataSet,
    report: Report | None,
) -> None:
    """Do the steps that are left; validate and save in between."""
    recipe = run.recipe
    last = sum(phase.steps for phase in recipe.phases)
    depth = max(phase.stages for phase in recipe.phases)
    if run.tired:
        return
    for step in fit(run.learner, stream, recipe, run.progress, run.optimizer_state):
        run.log(step, report)
        if step.n % (recipe.validate_every or last) == 0 or step.n == last:
            phase = next(p for p in recipe.phases if p.name == step.phase)
            distributed.copy_from_first(run.learner)
            miou = validate(run.learner, phase.stages, choose, recipe)
            record = Validation(step.n, step.phase, miou)
            run.log(record, report)
            run.judge(miou, phase.stages == depth)
        if step.n % recipe.save_every == 0 or step.n == last or run.tired:
            run.save()
        if run.tired:
            return


def _finish(
    run: Run[SegmentationRecipe, Learner],
    start: Start,
    stream: Iterator[Batch],
    learn: DataSet,
    choose: DataSet,
    command: str,
) -> dict[str, Any]:
    """Weights, card, images and figures of the best network."""
    run.take_best()
    net, folder, recipe = run.learner.net, run.folder, run.recipe
    if recipe.average_with_start:
        mix(net, start.tensors, recipe.average_with_start)
    set_learning(run.learner, recipe.phases[-1], recipe)
    estimate_statistics(net, stream, recipe.statistics_passes, recipe.bf16)
    distributed.copy_from_first(run.learner)
    card = describe(learn, recipe, start.card, command)
    if distributed.rank() == 0:
        with writing(folder / "weights"):
            save_pretrained(net, folder / "weights", card)
    distributed.barrier()
    segmenter = Segmenter.from_pretrained(
        folder / "weights", device=str(next(net.parameters()).device)
    )
    summary = {**evaluate(segmenter, choose), "notes": run.notes}
    if distributed.rank() == 0:
        card["figures"] = {f"{choose.root.name} {choose.split}, whole": headline(summary)}
        images = _images(segmenter, choose)
        with writing(folder):
            save_pretrained(net, folder / "weights", card)
            write_json(folder / "eval/summary.json", summary)
            write_image(folder / "plots/predictions.png", images)
            if not curves_missing():
                draw_curves(folder)
    distributed.barrier()
    return summary


@torch.no_grad()
def validate(learner: Learner, stages: int, data: DataSet, recipe: SegmentationRecipe) -> float:
    """Mean IoU of whole images, by the head after `stages` stages, at the images' own size."""
    learner.eval()
    device, k = next(learner.parameters()).device, len(data.classes)

    def score(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with arithmetic(device, recipe.bf16):
            x = prepare(torch.from_numpy(images).to(device))
            maps = learner(x, stages, last=True)[-1].float()
        maps = F.interpolate(maps, size=images.shape[1:3], mode="bilinear")
        return np.ascontiguousarray(maps.cpu().numpy())

    found = []
    for sample in distributed.shard(data.samples):
        image, truth = read_sample(sample, k)
        labels = score_whole(learner.net, image, recipe.long_side, score).argmax(0)
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
