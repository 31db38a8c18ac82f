"""Train a classifier by a recipe, on a folder of images for each class."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from unpool import distributed
from unpool.classify.evaluate import draw_confusion, rank, shares, sheet, summarize, write_confusion
from unpool.classify.folders import ClassFolders, draw_crops, open_folders, require_images
from unpool.data.crops import Batch, Draw, batches
from unpool.devices import autocast
from unpool.errors import OptionError
from unpool.files import atomic
from unpool.models import AlexNet, Classifier, ZFNet, prepare, save_pretrained
from unpool.models.classifiers import initialize, renormalize
from unpool.recipes import ClassificationRecipe
from unpool.training import loop
from unpool.training import task as training
from unpool.training.curves import curves_missing
from unpool.training.loop import Group, LoopState, Step, lower_peaks
from unpool.training.run import Run, writing
from unpool.vision.boxes import Crops
from unpool.vision.images import write_image


class Plan(NamedTuple):
    """What a training run is going to do."""

    images: int  #: images to learn from
    classes: int
    epochs: int
    steps: int


class Accuracy(NamedTuple):
    """A record of one validation of a classifier."""

    n: int  #: steps done
    epoch: int  #: epochs done
    top1: float  #: fraction of the images whose class is the most probable
    top5: float  #: fraction of those whose class is among the five most probable


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
    return training.train(
        ClassificationTask(data, recipe, split, val),
        output,
        resume=resume,
        tensorboard=tensorboard,
        device=device,
        command=command,
        report=report,
    )


class ClassificationTask(training.Task[Batch]):
    """Learn to classify from folders of images; the best network by top-1 accuracy is kept.

    Args: see `train_classifier`.
    """

    recipe: ClassificationRecipe
    objective: "ClassificationObjective"
    panels = ({"top1": "top-1 on val", "top5": "top-5"},)

    def __init__(
        self, data: str | Path, recipe: ClassificationRecipe, split: str = "train", val: str = "val"
    ) -> None:
        self.data, self.recipe, self.split, self.val = data, recipe, split, val

    def open(self) -> None:
        """Open both splits, of the same classes or fewer."""
        self.learn = open_folders(self.data, self.split)
        self.classes = self.learn.classes
        self.choose = open_folders(self.data, self.val, self.classes)
        require_images(self.learn)
        require_images(self.choose)

    def arguments(self) -> dict[str, Any]:
        """The data and its splits."""
        return {"data": str(Path(self.data).resolve()), "split": self.split, "val": self.val}

    def build(self, device: torch.device) -> "ClassificationObjective":
        """The recipe's network."""
        net = build(self.recipe, len(self.classes)).to(device)
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return ClassificationObjective(net, self.recipe, len(self.learn.samples))

    def prepare(self, run: Run) -> None:
        """Note classes that the validation does not see."""
        present = {sample.label for sample in self.choose.samples}
        if unseen := [n for i, n in enumerate(self.classes) if i not in present]:
            run.note(f"no image of {self.val} is of {', '.join(unseen)}, which are not judged")

    def batches(self, run: Run, start: int, size: int) -> Iterator[Batch]:
        """Crops; their labels are (N,)."""
        recipe, images = self.recipe, len(self.learn.samples)
        if self.report is not None:
            steps = steps_of(recipe, images)
            self.report(Plan(images, len(self.classes), recipe.epochs, steps))
        draw = cast(Draw, draw_crops(self.learn, _crops(recipe), recipe.seed))
        return batches(draw, size, start, distributed.rank(), distributed.world())

    def due(self, n: int) -> bool:
        """After every epoch."""
        return bool(self._ended(n))

    def validate(self, run: Run, n: int) -> Accuracy:
        """Top-1 and top-5 accuracy; the weights of the recipe's `keep` epochs are written."""
        ended = self._ended(n)
        _keep(run, ended, self.recipe)
        ranked = rank(self.objective.learner, self.choose, _crops(self.recipe), self.recipe.bf16)
        return Accuracy(n, ended[-1], *shares(ranked))

    def score(self, record: Accuracy) -> float:
        """The top-1 accuracy."""
        return record.top1

    def after_validation(self, run: Run) -> None:
        """Lower the learning rate on a plateau."""
        plateau, optimizer = self.recipe.plateau, run.state.optimizer
        if plateau and optimizer and run.since_best and run.since_best % plateau == 0:
            lower_peaks(optimizer)

    def finish(self, run: Run, stream: Iterator[Batch], command: str) -> dict[str, Any]:
        """Weights, card, images and figures of the best network."""
        net, folder, recipe, learn = self.objective.learner, run.folder, self.recipe, self.learn
        crops = _crops(recipe)
        ranked = rank(net, self.choose, crops, recipe.bf16)
        summary = {**summarize(ranked, self.choose, crops), "notes": run.notes}
        if distributed.rank() == 0:
            confusion = summary["confusion"]
            with writing(folder):
                save_pretrained(net, folder / "weights", _card(learn, recipe, summary, command))
                write_confusion(folder / "eval/confusion.csv", confusion, learn.classes)
                write_image(folder / "plots/predictions.png", sheet(ranked, self.choose, crops))
                if not curves_missing():
                    draw_confusion(folder / "plots/confusion.png", confusion, learn.classes)
        return summary

    def _ended(self, n: int) -> range:
        """The epochs that step n, from 1, ends; small data may end several in a step."""
        images = len(self.learn.samples)
        before, done = (epochs_done(self.recipe, images, step) for step in (n - 1, n))
        return range(before + 1, done + 1)


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


class ClassificationObjective(loop.Objective[Batch]):
    """Cross entropy of a classifier; `images` is the number of images of an epoch."""

    learner: Classifier
    recipe: ClassificationRecipe

    def __init__(self, net: Classifier, recipe: ClassificationRecipe, images: int) -> None:
        super().__init__(net, recipe)
        self.images = images

    def steps(self) -> list[int]:
        """A single phase."""
        return [steps_of(self.recipe, self.images)]

    def name(self, step: int) -> str:
        """The epoch."""
        epoch = epochs_done(self.recipe, self.images, step) + 1
        return f"epoch {epoch} of {self.recipe.epochs}"

    def cure(self) -> str:
        """A lower learning rate."""
        return f"lr={self.recipe.lr / 10:.2g}"

    def groups(self) -> list[Group]:
        """Filters decay, biases do not."""
        return loop.filters_and_biases(self.learner, self.recipe.lr, self.recipe)

    def losses(self, part: Batch) -> tuple[Tensor, Tensor]:
        """The cross entropy, twice."""
        truth = torch.from_numpy(part.labels).to(self.device)
        with autocast(self.device, self.recipe.bf16):
            found = self.network(prepare(torch.from_numpy(part.images).to(self.device)))
        loss = F.cross_entropy(found.float(), truth)
        return loss, loss

    def after_step(self) -> None:
        """Renormalize filters whose RMS is too large. Zeiler, Fergus 2014, section 3."""
        for layer in self.learner.features:
            if isinstance(layer, nn.Conv2d) and self.recipe.rms is not None:
                renormalize(layer.weight, self.recipe.rms)


def fit(
    net: Classifier,
    stream: Iterator[Batch],
    recipe: ClassificationRecipe,
    images: int,
    state: LoopState | None = None,
    optimizer_state: dict[str, object] | None = None,
) -> Iterator[Step]:
    """Train a classifier by a recipe, see `unpool.training.loop.fit`.

    Args:
        net, stream, recipe, state, optimizer_state: as there; labels are (N,).
        images: the number of images of an epoch.
    """
    objective = ClassificationObjective(net, recipe, images)
    return loop.fit(objective, stream, state, optimizer_state)


def steps_of(recipe: ClassificationRecipe, images: int) -> int:
    """How many steps the training has."""
    return math.ceil(recipe.epochs * images / recipe.batch)


def epochs_done(recipe: ClassificationRecipe, images: int, step: int) -> int:
    """How many epochs are over after so many steps."""
    return min(step * recipe.batch // images, recipe.epochs)


def _crops(recipe: ClassificationRecipe) -> Crops:
    return Crops(recipe.size, recipe.enlarged, recipe.corners, recipe.flip)


def _keep(run: Run, ended: range, recipe: ClassificationRecipe) -> None:
    """Keep the weights of the epochs that the recipe names, to see features evolve."""
    if distributed.rank() > 0:
        return
    for epoch in set(ended) & set(recipe.keep):
        path = run.folder / f"checkpoints/epochs/{epoch:03}.safetensors"
        tensors = {k: v.detach().cpu().contiguous() for k, v in run.learner.state_dict().items()}
        with writing(path), atomic(path) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})


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
