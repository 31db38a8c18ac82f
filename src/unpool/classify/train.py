"""Train a classifier by a recipe, on a folder of images for each class."""

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from unpool import distributed
from unpool.classify.evaluate import draw_confusion, rank, shares, sheet, summarize, write_confusion
from unpool.classify.folders import ClassFolders, draw_crops, open_folders, require_images
from unpool.data.batches import Batch, batches
from unpool.data.crops import Draw
from unpool.devices import find_device
from unpool.errors import OptionError
from unpool.files import atomic, write_json
from unpool.models import AlexNet, Classifier, ZFNet, prepare, save_pretrained
from unpool.models.classifiers import initialize, renormalize
from unpool.recipes import ClassificationRecipe
from unpool.training.loop import (
    Progress,
    Step,
    arithmetic,
    optimizer_of,
    parts_of,
    set_rate,
    take_step,
)
from unpool.training.run import Accuracy, Run, curves_missing, draw_curves, writing
from unpool.vision.boxes import Crops
from unpool.vision.images import write_image

_DROP = 0.1  #: factor of the learning rate where the validations stand still
_TOP = 5


class Plan(NamedTuple):
    """What a training run is going to do."""

    images: int  #: images to learn from
    classes: int
    epochs: int
    steps: int


Report = Callable[[Plan | Step | Accuracy], None]


def train_classifier(
    data: str | Path,
    output: str | Path,
    recipe: ClassificationRecipe,
    *,
    split: str = "train",
    val: str = "val",
    resume: bool = False,
    tensorboard: bool = False,
    device: str = "auto",
    command: str = "",
    report: Report | None = None,
) -> dict[str, Any]:
    """Train by a recipe, keep the best by validation, and write weights.

    `unpool.training.run` describes the run folder. Under `torchrun` the processes share the
    work; every one returns the same summary.

    Args:
        data: a folder that `open_folders` understands.
        output: the run folder; it must be new unless `resume`.
        recipe: what is done.
        split: the split to learn from.
        val: the split to choose by, of the same classes or fewer.
        resume: go on from the last checkpoint; the result is that of an uninterrupted run.
        tensorboard: write records for TensorBoard, too.
        device: "auto", "cpu", "cuda" or "cuda:n".
        command: the command line, for the card.
        report: called with the `Plan`, and every `Step` and `Accuracy`.

    Returns:
        The summary of the final evaluation on `val`, see `summarize`. Its `notes` say what was
        amiss but no reason to stop; each is a warning at the beginning, too.

    Raises:
        DataError, ImageError, OptionError, WeightsError: what came cannot be used.
        TrainingError: the training failed, or its folder cannot be written to.
    """
    where = find_device(distributed.local(device))
    learn = open_folders(data, split)
    choose = open_folders(data, val, learn.classes)
    require_images(learn)
    require_images(choose)
    with distributed.join(where):
        parts = parts_of(recipe)
        torch.manual_seed(recipe.seed)
        net = build(recipe, len(learn.classes)).to(where)
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        run = Run(
            Path(output),
            recipe,
            learn.classes,
            net,
            resume=resume,
            tensorboard=tensorboard,
            arguments={"data": str(Path(data).resolve()), "split": split, "val": val},
        )
        with closing(run):
            present = {sample.label for sample in choose.samples}
            if unseen := [n for i, n in enumerate(learn.classes) if i not in present]:
                run.note(f"no image of {val} is of {', '.join(unseen)}, which are not judged")
            if missing := curves_missing():
                run.note(missing)
            draw = cast(Draw, draw_crops(learn, _crops(recipe), recipe.seed))  # labels are (N,)
            first, size = run.progress.step * parts, recipe.batch // parts
            stream = batches(draw, size, first, distributed.rank(), distributed.world())
            _fit(run, stream, learn, choose, report)
            return _finish(run, learn, choose, command)


def build(recipe: ClassificationRecipe, classes: int) -> Classifier:
    """The recipe's network.

    Raises:
        OptionError: a network that there is not, or that cannot be built.
    """
    networks: dict[str, type[AlexNet | ZFNet]] = {"ZFNet": ZFNet, "AlexNet": AlexNet}
    if recipe.network not in networks:
        raise OptionError(f"got network {recipe.network!r} in a recipe; it is 'ZFNet' or 'AlexNet'")
    kind = networks[recipe.network]
    net = kind(classes, recipe.widths, recipe.code, recipe.size, recipe.dropout)
    if recipe.deviation != 0.01:  # with which both begin
        initialize(net, recipe.deviation)
    return net


def fit(
    net: Classifier,
    stream: Iterator[Batch],
    recipe: ClassificationRecipe,
    images: int,
    progress: Progress | None = None,
    optimizer_state: dict[str, object] | None = None,
) -> Iterator[Step]:
    """Train; a record comes out after every step, and the caller does the rest in its `for`.

    Args:
        net: changed in place.
        stream: the parts of batches, beginning with the first one of the first step to be done;
            their labels are (N,).
        recipe: what is done.
        images: how many images an epoch has.
        progress: kept up to date; `progress.step` steps count as done.
        optimizer_state: of a training run that was left in its middle.

    Raises:
        TrainingError: the loss or its gradient is not finite.
    """
    progress = progress or Progress()
    optimizer = progress.optimizer = optimizer_of(_groups(net, recipe), recipe)
    if optimizer_state is not None:
        optimizer.load_state_dict(optimizer_state)
    engine, steps = distributed.replicate(net), steps_of(recipe, images)
    losses, cure = partial(_losses, engine, recipe), f"--set lr={recipe.lr / 10:.2g}"
    while progress.step < steps:
        drops = steps if recipe.plateau else None  # never by itself, see `_drop`; or on a line
        lr = set_rate(optimizer, progress.step, steps, recipe.warmup, drops)
        epoch = f"epoch {epochs_done(recipe, images, progress.step) + 1} of {recipe.epochs}"
        net.train()
        step = take_step(engine, stream, losses, recipe, progress, lr, epoch, cure)
        for layer in net.features:
            if isinstance(layer, nn.Conv2d) and recipe.rms is not None:
                renormalize(layer.weight, recipe.rms)
        yield step


def steps_of(recipe: ClassificationRecipe, images: int) -> int:
    """How many steps the training has."""
    return math.ceil(recipe.epochs * images / recipe.batch)


def epochs_done(recipe: ClassificationRecipe, images: int, step: int) -> int:
    """How many epochs are over after so many steps."""
    return min(step * recipe.batch // images, recipe.epochs)


def _crops(recipe: ClassificationRecipe) -> Crops:
    return Crops(recipe.size, recipe.enlarged, recipe.corners, recipe.flip)


def _groups(net: Classifier, recipe: ClassificationRecipe) -> list[dict[str, Any]]:
    """Filters decay, biases do not."""
    kinds = [
        ([p for p in net.parameters() if p.dim() > 1], recipe.weight_decay),
        ([p for p in net.parameters() if p.dim() < 2], 0.0),
    ]
    return [
        {"params": chosen, "lr": recipe.lr, "peak": recipe.lr, "weight_decay": decay}
        for chosen, decay in kinds
    ]


def _losses(engine: nn.Module, recipe: ClassificationRecipe, part: Batch) -> tuple[Tensor, Tensor]:
    device = next(engine.parameters()).device
    truth = torch.from_numpy(part.labels).to(device)
    with arithmetic(device, recipe.bf16):
        found = engine(prepare(torch.from_numpy(part.images).to(device)))
    loss = F.cross_entropy(found.float(), truth)
    return loss, loss


def _fit(
    run: Run[ClassificationRecipe, Classifier],
    stream: Iterator[Batch],
    learn: ClassFolders,
    choose: ClassFolders,
    report: Report | None,
) -> None:
    """Do the steps that are left; validate, keep and save in between."""
    recipe, net, images = run.recipe, run.learner, len(learn.samples)
    if report is not None and distributed.rank() == 0:
        report(Plan(images, len(learn.classes), recipe.epochs, steps_of(recipe, images)))
    if run.tired:
        return
    for step in fit(net, stream, recipe, images, run.progress, run.optimizer_state):
        run.log(step, report)
        before, done = (epochs_done(recipe, images, n) for n in (step.n - 1, step.n))
        if done > before:
            _keep(run, range(before + 1, done + 1))
            ranked = rank(net, choose, _crops(recipe), recipe.bf16)
            record = Accuracy(step.n, done, *shares(ranked))
            run.log(record, report)
            run.judge(record.top1)
            if recipe.plateau and run.stale and run.stale % recipe.plateau == 0:
                _drop(run.progress)
        if done > before or step.n % recipe.save_every == 0:
            run.save()
        if run.tired:
            return


def _drop(progress: Progress) -> None:
    """Let the learning rate fall; the optimizer's state tells it to a run that goes on."""
    assert progress.optimizer is not None
    for group in progress.optimizer.param_groups:
        group["peak"] *= _DROP


def _keep(run: Run[ClassificationRecipe, Classifier], ended: range) -> None:
    """Keep the weights of the epochs that the recipe names, to see features evolve."""
    if distributed.rank() > 0:
        return
    for epoch in set(ended) & set(run.recipe.keep):
        path = run.folder / f"checkpoints/epochs/{epoch:03}.safetensors"
        tensors = {k: v.detach().cpu().contiguous() for k, v in run.learner.state_dict().items()}
        with writing(path), atomic(path) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})


def _finish(
    run: Run[ClassificationRecipe, Classifier],
    learn: ClassFolders,
    choose: ClassFolders,
    command: str,
) -> dict[str, Any]:
    """Weights, card, images and figures of the best network."""
    run.take_best()
    net, folder, recipe = run.learner, run.folder, run.recipe
    crops = _crops(recipe)
    ranked = rank(net, choose, crops, recipe.bf16)
    summary = {**summarize(ranked, choose, crops), "notes": run.notes}
    if distributed.rank() == 0:
        with writing(folder):
            save_pretrained(net, folder / "weights", _card(learn, recipe, summary, command))
            write_json(folder / "eval/summary.json", summary)
            write_confusion(folder / "eval/confusion.csv", summary["confusion"], learn.classes)
            write_image(folder / "plots/predictions.png", sheet(ranked, choose, crops))
            if not curves_missing():
                draw_curves(folder, {"top1": "top-1 on val", "top5": "top-5"})
                draw_confusion(folder / "plots/confusion.png", summary["confusion"], learn.classes)
    distributed.barrier()
    return summary


def _card(
    learn: ClassFolders, recipe: ClassificationRecipe, summary: dict[str, Any], command: str
) -> dict[str, Any]:
    """What the weights say of themselves."""
    names = ("top1", "top1_interval", "top5", "images", "protocol")
    figures = {name: summary[name] for name in names}
    return {
        "classes": learn.classes,
        "input": {
            "order": "BGR",
            "range": "0..255 minus mean",
            "mean": list(Classifier.mean),
            "size": recipe.size,
            "enlarged": recipe.enlarged,
        },
        "mode": "classify",
        "recipe": recipe.to_json(),
        "data": f"{learn.root.name} {learn.split}, {len(learn.samples)} images",
        "license": "the terms of the data apply",
        "command": command,
        "figures": {f"{summary['data']} {summary['split']}": figures},
    }
