"""Train a segmentation network on labeled images."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch

from unpool import distributed
from unpool.data import crops
from unpool.data.datasets import DataSet, require_objects
from unpool.data.frequencies import count_classes, draw_weights, median_frequency
from unpool.data.layouts import assumption
from unpool.data.mixture import Part, open_parts, parse_part, validation_parts
from unpool.data.windows import object_windows, proposal_windows, repeat_rare
from unpool.devices import training_layout
from unpool.errors import OptionError, require_path
from unpool.models.vgg import MEAN_BGR
from unpool.segment import learner
from unpool.segment import start as initial
from unpool.segment.fit import SegmentationObjective, estimate_statistics
from unpool.segment.task import BaseSegmentationTask, Validation, proposals
from unpool.vision.images import image_size

if TYPE_CHECKING:
    from unpool.recipes.segment import SegmentationRecipe
    from unpool.training import task
    from unpool.training.run import Run


@dataclass(eq=False)
class SegmentationTask(BaseSegmentationTask[crops.Batch]):
    """Train on labeled images; keep the network with the best mean IoU.

    Args:
        data: a folder that `open_data` understands; or several parts, see `unpool.data.mixture`.
        recipe: how to train.
        split: the split to train on, of the parts that name none.
        val: the split to validate on, or several, see `validation_parts`.
        trunk_weights: VGG weights for the trunk, or the folder of weights of a network whose trunk
            is taken; random without them.
        trunk_inputs: the preprocessing of these weights, see `load_vgg`.
        by_color: whether masks are read by their colors, see `open_data`.
        crowd: how COCO's `iscrowd=1` is read, see `open_data`.
        soft: a folder of soft labels to distill from, see `open_parts`.
    """

    recipe: "SegmentationRecipe"
    soft: str | Path | None = None
    objective: SegmentationObjective = field(init=False)

    def __post_init__(self) -> None:
        given = [self.data] if isinstance(self.data, str | Path) else [*self.data]
        self.parts = [parse_part(part) for part in given]
        # with absolute paths, to be resumed; a folder alone stays as it is
        alone = self.parts == [Part(Path(given[0]))]
        self.data = Path(given[0]) if alone else [str(part.resolve()) for part in self.parts]
        self.val = self.val if isinstance(self.val, str) else [*self.val]
        if self.soft is not None:
            self.soft = require_path("soft", self.soft)
        self.check_options()
        self.start: initial.WarmStart | None = None  # of a resumed run: None until it is read

    def open(self) -> None:
        """Open both splits, and read all masks, so that unusable ones are found at once."""
        self.require_trunk()
        if (self.soft is None) != (self.recipe.distill == 0):
            got = "no soft labels" if self.soft is None else f"soft={self.soft}"
            raise OptionError(
                f"got distill={self.recipe.distill:g} and {got}; wanted both, the weight of the "
                "loss and the folder, or neither"
            )
        soft = None if self.soft is None else Path(self.soft)
        self.train_data = open_parts(self.parts, self.split, soft, **self.reading)
        val = [self.val] if isinstance(self.val, str) else self.val
        held_out = validation_parts(self.parts, val)
        self.val_data = open_parts(held_out, "val", **self.reading)
        self.classes = self.train_data.classes
        self.recipe = scaled_to(self.train_data, self.recipe)
        self.require_same_classes()
        self.counts = count_classes(self.train_data)
        # reads all masks, so that a bad one is found now, and not by the first validation
        count_classes(self.val_data)
        self.class_weights = self._class_weights()
        require_objects(self.train_data, empty=False)
        require_objects(self.val_data)

    def build(self, device: torch.device) -> SegmentationObjective:
        """The recipe's network, with heads for progressive growing."""
        network = learner.build(self.recipe, len(self.classes)).to(device)
        network.to(memory_format=training_layout(device))  # type: ignore[call-overload]
        return SegmentationObjective(network, self.recipe, self.classes, self.class_weights)

    def warm_start(self) -> None:
        """Load the recipe's `start` and the trunk's weights."""
        self.start = initial.warm_start(
            *(self.objective.learner, self.recipe, self.classes),
            *(self.trunk_weights, self.trunk_inputs),
        )

    def prepare(self, run: "Run") -> None:
        """Store the initial weights for averaging; note classes without training images."""
        if self.start is None:
            self.start = initial.read_start(run.start_path, self.recipe, self.objective.learner.net)
        elif run.is_main:
            initial.store_start(run.start_path, self.start)
        if layers := ", ".join(self.start.left):
            run.note(f"{self.recipe.start} does not fit {layers}, which keep their first weights")
        self.note_warnings(run, self.train_data)
        if assumed := assumption(
            self.train_data.assumed, self.classes, self.counts.images.tolist()
        ):
            run.note(assumed)
        pairs = zip(self.classes, self.counts.images, strict=True)
        self.note_unseen(run, "mask", [name for name, n in pairs if not n])

    def batches(self, run: "Run", start: int, size: int) -> Iterator[crops.Batch]:
        """Crops from the sources of each phase."""
        draw = sources(self.recipe, self.train_data, run.folder, self.report)
        return crops.batches(draw, size, start, distributed.rank(), distributed.world())

    def describe(self, record: Validation) -> str:
        """The step and the mean IoU, in percent."""
        return (
            f"step {record.n} of {self.steps}, {record.phase}: mean IoU {100 * record.miou:.1f} %"
        )

    def score(self, record: Validation) -> float | None:
        """The mean IoU of networks that have all their stages."""
        depth = max(phase.stages for phase in self.recipe.phases)
        return record.miou if self.objective.current.stages == depth else None

    def finish(self, run: "Run", stream: Iterator[crops.Batch], command: str) -> dict[str, Any]:
        """Average weights, estimate statistics, write weights, and evaluate them as stored."""
        assert self.start is not None
        net, recipe = self.objective.learner.net, self.recipe
        if recipe.average_with_start:
            # before the statistics are estimated, which are those of the averaged weights
            initial.average_weights(net, self.start.tensors, recipe.average_with_start)
        self.objective.phase = len(recipe.phases) - 1  # also if the run stopped early
        self.objective.set_mode()
        estimate_statistics(net, stream, recipe.statistics_passes, recipe.bf16, self.objective.mean)
        distributed.copy_from_first(run.learner)
        return self.save_evaluated(run, net, self._card(self.start, command))

    def _class_weights(self) -> list[float]:
        """The weights of classes in the loss; none by default."""
        given = [*self.recipe.class_weights]
        if given and len(given) != len(self.classes):
            raise OptionError(
                f"got {len(given)} class_weights for {len(self.classes)} classes; wanted as many: "
                "set class_weights=[] for none"
            )
        if power := self.recipe.median_frequency:
            given = median_frequency(self.counts, power).tolist()
        return given

    def _card(self, start: initial.WarmStart, command: str) -> dict[str, Any]:
        """The model card without its figures."""
        recipe, data = self.recipe, self.train_data
        terms = "the terms of the data and of the trunk's weights apply"
        if start.card is not None:
            own = start.card.license or "terms unknown"
            terms = f"{terms}; initialized from {recipe.start}: {own}"
        return self.card(
            command,
            f"{data.title}, {len(data.samples)} images",
            recipe.long_side,
            self.objective.mean,
            aggregate=(start.card and start.card.aggregate) or recipe.aggregate,
            smoothing=recipe.smoothing,
            presence_threshold=recipe.presence_threshold,
            class_images=dict(zip(data.classes, self.counts.images.tolist(), strict=True)),
            license=terms,
        )


def scaled_to(data: DataSet, recipe: "SegmentationRecipe") -> "SegmentationRecipe":
    """The recipe with sizes of the images, where it leaves them open.

    `long_side` becomes their median, at least the side of a crop and at most 640, as larger images
    take too long on a CPU. Crops are enlarged to between 7/12 and 7/6 of it.
    """
    if recipe.long_side == 0:
        # the headers of 200 images tell the median well enough
        some = data.samples[:: max(len(data.samples) // 200, 1)]
        median = float(np.median([max(image_size(sample.image)) for sample in some]))
        recipe = replace(recipe, long_side=round(min(max(median, recipe.size), 640)))
    if recipe.crop_long_side == (0, 0):
        low, high = round(recipe.long_side * 7 / 12), round(recipe.long_side * 7 / 6)
        recipe = replace(recipe, crop_long_side=(low, high))
    return recipe


def sources(
    recipe: "SegmentationRecipe", data: DataSet, folder: Path, report: "task.Report | None" = None
) -> crops.Draw:
    """Training crops of the whole run, at each position those of its phase.

    Args:
        recipe: its phases name their sources.
        data: labeled images.
        folder: where proposals are kept, in `proposals.npz`.
        report: called with every `Preparation`.
    """
    cv2.setNumThreads(1)  # the network needs the cores
    wanted = {name for phase in recipe.phases for name in phase.sources}
    k = len(data.classes)
    crop = crops.WindowCrop(recipe.size, recipe.size, recipe.flip, recipe.color)
    known: dict[str, crops.Draw] = {}
    if wanted & {"views", "pasted"}:
        views = crops.Views(
            recipe.size, recipe.crop_long_side, recipe.aspect, recipe.flip, recipe.color
        )
        weights = draw_weights(data, recipe.balance)
        known["views"] = crops.draw_views(data, views, recipe.seed, weights)
        paster = crops.find_paster(data, recipe.paste) if "pasted" in wanted else None
        known["pasted"] = crops.draw_views(data, views, recipe.seed, weights, paster)
    if "crops" in wanted:
        fill = [round(v) if recipe.centered else 0 for v in reversed(MEAN_BGR)]  # the mean, RGB
        plain = crops.Views(recipe.size, None, 0.0, recipe.flip, recipe.color, fill)
        weights = draw_weights(data, recipe.balance)
        known["crops"] = crops.draw_views(data, plain, recipe.seed, weights)
    if "images" in wanted:
        weights = draw_weights(data, recipe.balance)
        whole = crops.WholeImages(recipe.image_size, recipe.flip, recipe.color)
        known["images"] = crops.draw_views(data, whole, recipe.seed, weights)
    if "objects" in wanted:
        windows = repeat_rare(object_windows(data), recipe.repetition)
        larger = crop._replace(enlarged=max(recipe.enlarged, recipe.size))
        known["objects"] = crops.draw_windows(windows, k, larger, recipe.seed)
    if "proposals" in wanted:
        boxes = proposals(data, folder, report)
        windows = repeat_rare(proposal_windows(data, boxes, recipe.overlap), recipe.repetition)
        known["proposals"] = crops.draw_windows(windows, k, crop, recipe.seed)
    draws = [crops.interleave([known[name] for name in phase.sources]) for phase in recipe.phases]
    ends = list(accumulate(phase.steps * recipe.batch for phase in recipe.phases))[:-1]
    return lambda place: draws[bisect_right(ends, place)](place)
