"""What the training tasks of this application share: options, validation on masks, model card."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from unpool import distributed
from unpool.data.windows import find_proposals
from unpool.errors import DataError, WeightsError, require_choice, require_path, require_type
from unpool.files import require_regular
from unpool.models.weights import INPUTS
from unpool.segment import evaluate
from unpool.segment.segmenter import Segmenter
from unpool.training import task
from unpool.training.loop import Part
from unpool.vision.images import voc_palette

if TYPE_CHECKING:
    from unpool.data.datasets import DataSet
    from unpool.data.outlines import Crowd
    from unpool.recipes import Recipe
    from unpool.training.run import Run

_ON_CARD = ("miou", "miou_interval", "pixel_accuracy", "mean_accuracy", "boundary_f1", "protocol")


class Validation(NamedTuple):
    """A record of one validation."""

    n: int  #: steps done
    phase: str
    miou: float


@dataclass(eq=False)
class BaseSegmentationTask(task.Task[Part]):
    """Options of the data and the trunk; mean IoU of whole images; weights with their figures.

    The objective of a subclass has a method `segment`: the labels of an image.

    Args:
        data: a folder with the images of both splits.
        recipe: how to train.
        split: the split to train on.
        val: the split to validate on.
        trunk_weights: VGG weights for the trunk, or the folder of weights of a network whose trunk
            is taken; random without them.
        trunk_inputs: the preprocessing of these weights, see `load_vgg`.
        by_color: whether masks are read by their colors, see `open_data`.
        crowd: how COCO's `iscrowd=1` is read, see `open_data`.
    """

    data: str | Path | Sequence[str]
    recipe: "Recipe"
    split: str = "train"
    val: str | Sequence[str] = "val"
    trunk_weights: str | Path | None = None
    trunk_inputs: str = "caffe"
    by_color: bool | None = None
    crowd: "Crowd | None" = None

    panels = ({"miou": "mean IoU on val"},)
    usage = "unpool segment PHOTOS --weights"
    val_data: "DataSet" = field(init=False, repr=False)  #: set by `open`

    def check_options(self) -> None:
        """Refuse options of the trunk and the masks that have a wrong type or value."""
        if self.trunk_weights is not None:
            self.trunk_weights = require_path("trunk_weights", self.trunk_weights)
        if self.by_color is not None:
            require_type("by_color", self.by_color, bool, "True or False")
        require_choice("trunk_inputs", self.trunk_inputs, INPUTS)

    @property
    def reading(self) -> dict[str, Any]:
        """The options by which masks are read."""
        return {"by_color": self.by_color, "crowd": self.crowd}

    def require_trunk(self) -> None:
        """Refuse weights of the trunk that are neither a file nor a folder."""
        if self.trunk_weights is not None and not Path(self.trunk_weights).is_dir():
            require_regular(self.trunk_weights, WeightsError)

    def require_same_classes(self) -> None:
        """Refuse splits of different classes."""
        if self.classes != self.val_data.classes:
            raise DataError(
                f"got other classes in {self.split} than in {self.val}; write them to classes.txt"
            )

    def note_warnings(self, run: "Run", data: "DataSet") -> None:
        """Note what is odd about the training data, and about that of the validation."""
        for warning in dict.fromkeys(data.warnings + self.val_data.warnings):
            run.note(warning)

    def note_unseen(self, run: "Run", what: str, names: Iterable[str]) -> None:
        """Note the classes that no mask, or image, of the training data shows."""
        if unseen := ", ".join(names):
            run.note(f"no {what} of {self.split} shows {unseen}, which cannot be learned")

    def validate(self, run: "Run", n: int) -> Validation:
        """Mean IoU of whole images."""
        objective: Any = self.objective
        miou = evaluate.mean_iou(objective.segment, self.val_data)
        return Validation(n, objective.name(n), miou)

    def figures(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """The IoU of each class, and the averages."""
        return evaluate.figures(summary)

    def card(
        self, command: str, data: str, long_side: int, mean: Sequence[float], **own: Any
    ) -> dict[str, Any]:
        """The model card without its figures; `own` adds to it, or replaces what it says."""
        return {
            "classes": self.classes,
            "palette": voc_palette()[: len(self.classes)].tolist(),
            "input": {"order": "BGR", "range": "0..255 minus mean", "mean": [*mean]},
            "long_side": long_side,
            "mode": "whole",
            "recipe": self.recipe.to_json(),
            "data": data,
            "license": "the terms of the data and of the trunk's weights apply",
            "command": command,
            **own,
        }

    def save_evaluated(self, run: "Run", net: nn.Module, card: dict[str, Any]) -> dict[str, Any]:
        """Write weights, evaluate them as stored, and add the figures to their card.

        Args:
            run: gets the weights, and an image of predictions.
            net: one of `MODELS`.
            card: without figures.

        Returns:
            The summary of the evaluation, with the notes of the run.
        """
        run.save_weights(net, card)
        weights, device = run.folder / "weights", str(next(net.parameters()).device)
        # read back, since rounding of the stored weights is part of the figures
        segmenter = Segmenter.from_pretrained(weights, device=device)
        summary = {**evaluate.evaluate(segmenter, self.val_data), "notes": run.notes}
        figures = {figure: summary[figure] for figure in _ON_CARD}
        run.save_weights(net, {**card, "figures": {f"{self.val_data.title}, whole": figures}})
        if run.is_main:
            run.save_image("plots/predictions.png", evaluate.sheet(segmenter, self.val_data))
        return summary


def proposals(data: "DataSet", folder: Path, report: task.Report | None) -> list[NDArray[np.int64]]:
    """The object proposals of all images, kept in `proposals.npz` of a run folder.

    Args:
        data: labeled images.
        folder: of the run.
        report: called with every `Preparation`.
    """

    def show(done: int, total: int, *_: str) -> None:
        if report is not None:
            report(task.Preparation(done, total, "finding proposals"))

    # the first process writes the file that the others read
    with distributed.first_before_others():
        return find_proposals(data, cache=folder / "proposals.npz", progress=show)
