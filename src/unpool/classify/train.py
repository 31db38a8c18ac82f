"""Train a classifier on a folder of images for each class."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unpool import distributed
from unpool.classify import evaluate
from unpool.classify.folders import draw_crops, open_folders, require_images
from unpool.data.crops import Batch, batches
from unpool.devices import autocast
from unpool.models import AlexNet, Classifier, ZFNet, prepare
from unpool.models.classifiers import initialize, renormalize
from unpool.models.weights import build_network
from unpool.training import loop, task
from unpool.vision.boxes import Crops

if TYPE_CHECKING:
    from unpool.recipes.classify import ClassificationRecipe
    from unpool.training.run import Run

_LISTED = 40  # classes whose recall is printed, at most


class Accuracy(NamedTuple):
    """A record of one validation of a classifier."""

    n: int  #: steps done
    epoch: int  #: epochs done
    top1: float  #: fraction of the images whose class is the most probable
    top5: float  #: fraction of those whose class is among the five most probable


def build(recipe: "ClassificationRecipe", classes: int) -> Classifier:
    """The recipe's network, with random weights."""
    kind = {"ZFNet": ZFNet, "AlexNet": AlexNet}[recipe.network]
    sizes = recipe.widths, recipe.code, recipe.size
    net: Classifier = build_network(kind, classes, *sizes, recipe.dropout, recipe.norm)
    if recipe.deviation != 0.01:  # the constructors' own
        initialize(net, recipe.deviation)
    return net


class ClassificationObjective(loop.Objective[Batch]):
    """Cross entropy of a classifier, in a single phase; an epoch has a number of images."""

    learner: Classifier
    recipe: "ClassificationRecipe"

    def __init__(self, net: Classifier, recipe: "ClassificationRecipe", images: int) -> None:
        super().__init__(net, recipe)
        self.images = images

    def epochs(self, step: int) -> int:
        """The number of epochs that are complete after some steps."""
        return min(step * self.recipe.batch // self.images, self.recipe.epochs)

    def steps(self) -> list[int]:
        """The steps of all epochs; the last batch of all may reach beyond them."""
        return [math.ceil(self.recipe.epochs * self.images / self.recipe.batch)]

    def name(self, step: int) -> str:
        """The current epoch."""
        return f"epoch {self.epochs(step) + 1} of {self.recipe.epochs}"

    def lower_rate(self) -> str:
        """A lower learning rate."""
        return f"lr={self.recipe.lr / 10:.2g}"

    def groups(self) -> list[loop.Group]:
        """Filters, which decay, and biases, which do not."""
        return loop.filters_and_biases(self.learner, self.recipe.lr, self.recipe)

    def losses(self, part: Batch) -> tuple[Tensor, Tensor]:
        """The cross entropy, as both losses."""
        labels = torch.from_numpy(part.labels).to(self.device)
        with autocast(self.device, self.recipe.bf16):
            scores = self.network(prepare(torch.from_numpy(part.images).to(self.device)))
        loss = F.cross_entropy(scores.float(), labels)
        return loss, loss

    def after_step(self) -> None:
        """Renormalize filters whose RMS is too large. Zeiler, Fergus 2014, section 3."""
        for layer in self.learner.features:
            if isinstance(layer, nn.Conv2d) and self.recipe.rms is not None:
                renormalize(layer.weight, self.recipe.rms)


@dataclass(eq=False)
class ClassificationTask(task.Task[Batch]):
    """Train on images in class folders; keep the network with the best top-1 accuracy.

    Args:
        data: a folder that `open_folders` understands.
        recipe: how to train.
        split: the split to train on.
        val: the split to validate on, with the same classes or fewer.
    """

    data: str | Path
    recipe: "ClassificationRecipe"
    split: str = "train"
    val: str = "val"
    objective: ClassificationObjective = field(init=False)

    panels = ({"top1": "top-1 on val", "top5": "top-5"},)

    def __post_init__(self) -> None:
        self.data = Path(self.data)
        recipe = self.recipe
        self.crops = Crops(recipe.size, recipe.enlarged, recipe.corners, recipe.flip)

    def open(self) -> None:
        """List both splits, and read the header of every image."""
        self.train_data = open_folders(self.data, self.split)
        self.classes = self.train_data.classes
        self.val_data = open_folders(self.data, self.val, self.classes)
        require_images(self.train_data)
        require_images(self.val_data)

    def build(self, device: torch.device) -> ClassificationObjective:
        """The recipe's network."""
        net = build(self.recipe, len(self.classes)).to(device)
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return ClassificationObjective(net, self.recipe, len(self.train_data.samples))

    def prepare(self, run: "Run") -> None:
        """Note classes without validation images."""
        present = {sample.label for sample in self.val_data.samples}
        if unseen := [n for i, n in enumerate(self.classes) if i not in present]:
            run.note(f"{self.val} has no image of {', '.join(unseen)}, which are not evaluated")

    def plan(self) -> str:
        """The size of the data and of the run."""
        return (
            f"{len(self.train_data.samples)} images of {len(self.classes)} classes: "
            f"{self.recipe.epochs} epochs, {self.steps} steps"
        )

    def batches(self, run: "Run", start: int, size: int) -> Iterator[Batch]:
        """Random crops; labels are (N,)."""
        draw = draw_crops(self.train_data, self.crops, self.recipe.seed)
        return batches(cast(Any, draw), size, start, distributed.rank(), distributed.world())

    def due(self, n: int) -> bool:
        """After every epoch."""
        return bool(self._completed(n))

    def validate(self, run: "Run", n: int) -> Accuracy:
        """Top-1 and top-5 accuracy. Also writes the weights of the recipe's `keep` epochs."""
        epochs = self._completed(n)
        for epoch in set(epochs) & set(self.recipe.keep) if run.is_main else ():
            run.save_tensors(f"checkpoints/epochs/{epoch:03}.safetensors")
        return Accuracy(n, epochs[-1], *evaluate.accuracies(self._rank()))

    def describe(self, record: Accuracy) -> str:
        """The epoch and its accuracies, in percent."""
        return (
            f"epoch {record.epoch} of {self.recipe.epochs}: top-1 {100 * record.top1:.1f} %, "
            f"top-5 {100 * record.top5:.1f} %"
        )

    def score(self, record: Accuracy) -> float:
        """The top-1 accuracy."""
        return record.top1

    def after_validation(self, run: "Run") -> None:
        """Lower the learning rate on a plateau."""
        plateau, optimizer = self.recipe.plateau, run.state.optimizer
        if plateau and optimizer and run.since_best and run.since_best % plateau == 0:
            loop.lower_peaks(optimizer)

    def finish(self, run: "Run", stream: Iterator[Batch], command: str) -> dict[str, Any]:
        """Evaluate; write weights, predictions and the confusion matrix."""
        ranked = self._rank()
        summary = {**evaluate.summarize(ranked, self.val_data, self.crops), "notes": run.notes}
        run.save_weights(self.objective.learner, self._card(summary, command))
        if run.is_main:
            run.save_image(
                "plots/predictions.png", evaluate.sheet(ranked, self.val_data, self.crops)
            )
            confusion = summary["confusion"], self.classes
            with run.writing():
                evaluate.write_confusion(run.folder / "eval/confusion.csv", *confusion)
                if task.can_plot():
                    evaluate.plot_confusion(run.folder / "plots/confusion.png", *confusion)
        return summary

    def figures(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """The recall of each class, unless there are too many, and the accuracies."""
        recall = summary["recall"] if len(summary["recall"]) <= _LISTED else {}
        top1, interval = summary["top1"], summary["top1_interval"]
        return {**recall, "top-1": top1, "95 % interval": interval, "top-5": summary["top5"]}

    def _rank(self) -> evaluate.Ranking:
        net = self.objective.learner
        return evaluate.rank(net, self.val_data, self.crops, self.recipe.bf16)

    def _completed(self, n: int) -> range:
        """The epochs that step n, from 1, completes; several if a batch exceeds an epoch."""
        return range(self.objective.epochs(n - 1) + 1, self.objective.epochs(n) + 1)

    def _card(self, summary: dict[str, Any], command: str) -> dict[str, Any]:
        names = ("top1", "top1_interval", "top5", "images", "protocol")
        data = self.train_data
        return {
            "classes": self.classes,
            "input": {
                "order": "BGR",
                "range": "0..255 minus mean",
                "mean": list(Classifier.mean),
                "size": self.recipe.size,
                "enlarged": self.recipe.enlarged,
            },
            "mode": "classify",
            "recipe": self.recipe.to_json(),
            "data": f"{data.root.name} {data.split}, {len(data.samples)} images",
            "license": "the terms of the data apply",
            "command": command,
            "figures": {
                f"{summary['data']} {summary['split']}": {name: summary[name] for name in names}
            },
        }
