"""Train a `DecoupledNet`: classification on weak labels, segmentation on a few strong labels."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from unpool import distributed
from unpool.data.crops import WindowCrop
from unpool.data.datasets import open_data, require_objects
from unpool.data.loading import load_ahead
from unpool.data.subsets import Examples, draw_subsets, draw_weak, stack, subset_windows
from unpool.data.weak import open_weak
from unpool.devices import autocast, training_layout
from unpool.errors import require_type
from unpool.models import MEAN_BGR, DecoupledNet, prepare
from unpool.models.weights import build_network
from unpool.segment.fit import cumulative_statistics, groups_of, pixel_loss
from unpool.segment.start import load_trunk
from unpool.segment.task import BaseSegmentationTask, Validation, proposals
from unpool.segment.whole import WholeView
from unpool.training import loop

if TYPE_CHECKING:
    from unpool.recipes.decoupled import DecoupledRecipe
    from unpool.training.run import Run

PHASES = "classification", "segmentation"


class DecoupledLearner(nn.Module):
    """Runs one of the two networks at a time, for training."""

    def __init__(self, net: DecoupledNet, dropout: float = 0.0) -> None:
        super().__init__()
        self.net, self.dropout = net, dropout

    def forward(self, x: Tensor, shown: Tensor | None = None) -> Tensor:
        """Compute class scores (N, K - 1), or with `shown` pixel scores (N, 2, h, w).

        The probability that enters the bridge is that of the maximum, as in the authors' code.

        Args:
            x: images (N, 3, S, S), see `prepare`.
            shown: 1 for each foreground class, (N, K - 1).
        """
        maps, switches = self.net.trunk(x)
        dropped = F.dropout2d(maps, self.dropout, self.training)
        if shown is None:
            return self.net.classify(dropped).pooled("average")
        found = self.net.classify(maps)
        bridged = self.net.bridge(found, found.probabilities("maximum") * shown)
        return self.net.segment(dropped, switches, bridged)


class DecoupledObjective(loop.Objective[Examples]):
    """First binary cross entropy of each class, then cross entropy of foreground and background."""

    learner: DecoupledLearner
    recipe: "DecoupledRecipe"

    def steps(self) -> list[int]:
        """The number of steps of each part."""
        return [self.recipe.classify_steps, self.recipe.segment_steps]

    def name(self, step: int) -> str:
        """The name of the current part."""
        return PHASES[self.phase]

    def lower_rate(self) -> str:
        """Suggest a lower learning rate for the current part."""
        name = ("classify_lr", "segment_lr")[self.phase]
        return f"{name}={getattr(self.recipe, name) / 10:.2g}"

    def groups(self) -> list[loop.Group]:
        """Parameter groups by learning rate and kind; other parameters are frozen."""
        net, recipe = self.learner.net, self.recipe
        net.requires_grad_(False)
        parts: list[tuple[nn.Module, float]] = [
            (net.classifier, recipe.classify_lr),
            (net.trunk, recipe.classify_trunk_lr),
        ]
        if self.phase:
            own = net.norms, net.fc, net.decoder, net.score
            parts = [(part, recipe.segment_lr) for part in own]
        groups = []
        for part, lr in parts:
            if lr > 0:
                groups += groups_of(part, list(part.parameters()), lr, recipe)
        return groups

    def rate(self, n: int) -> loop.RateFactor:
        """Warmup, then the recipe's schedule, or the drops of the second part."""
        if not self.phase or self.recipe.drop_every is None:
            return super().rate(n)
        factor, drop = loop.dropped(n, self.recipe.drop_every)
        return loop.RateFactor(loop.warmup(n, self.recipe.warmup) * factor, drop)

    def losses(self, part: Examples) -> tuple[Tensor, Tensor]:
        """The loss of the current part, returned as both losses."""
        scores = self.scores(part)
        if part.labels is None:
            shown = torch.from_numpy(part.shown).to(self.device)
            loss = F.binary_cross_entropy_with_logits(scores, shown)
        else:
            loss = pixel_loss(scores, torch.from_numpy(part.labels).to(self.device).long())
        return loss, loss

    def scores(self, part: Examples) -> Tensor:
        """Scores of classes, or of pixels if the examples have masks."""
        shown = None if part.labels is None else torch.from_numpy(part.shown).to(self.device)
        with autocast(self.device, self.recipe.bf16):
            x = prepare(torch.from_numpy(part.images).to(self.device))
            x = x.contiguous(memory_format=training_layout(self.device))
            found: Tensor = self.network(x, shown)
        return found.float()

    @torch.no_grad()
    def segment(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The labels (H, W) of a whole image (H, W, 3), RGB."""
        net = self.learner.eval().net
        view = WholeView(net, image, self.recipe.size)
        with autocast(self.device, self.recipe.bf16):
            p = net(prepare(torch.from_numpy(view.batch).to(self.device))).float()
        return view.paste(np.ascontiguousarray(p.cpu().numpy())).argmax(0).astype(np.uint8)


@dataclass(eq=False)
class DecoupledTask(BaseSegmentationTask[Examples]):
    """Train on images, some of which have masks; keep the network with the best mean IoU.

    Args:
        data: a folder that `open_weak` understands.
        recipe: how to train, and which masks to use.
        split: the split to train on.
        val: the split to validate on, with masks.
        trunk_weights: VGG weights for the trunk, or a folder of weights of a network whose trunk to
            use; by default random.
        trunk_inputs: the preprocessing of these weights, see `load_vgg`.
        by_color: whether masks are read by their colors, see `open_data`.
        crowd: how COCO's `iscrowd=1` is read, see `open_data`.
    """

    data: str | Path
    recipe: "DecoupledRecipe"
    val: str = "val"
    objective: DecoupledObjective = field(init=False)

    def __post_init__(self) -> None:
        self.data = Path(self.data)
        self.check_options()
        require_type("val", self.val, str, "the name of a split")

    def open(self) -> None:
        """Open both splits, and read all masks to find unusable ones early."""
        self.require_trunk()
        which = self.recipe.strong_split, self.recipe.strong, self.recipe.seed
        self.labeled = open_weak(self.data, self.split, *which, **self.reading)
        self.val_data = open_data(self.data, self.val, **self.reading)
        self.classes = self.labeled.strong.classes
        self.require_same_classes()
        require_objects(self.labeled.strong, empty=False)
        require_objects(self.val_data)

    def build(self, device: torch.device) -> DecoupledObjective:
        """Build the recipe's network, with random weights."""
        r = self.recipe
        sizes = r.trunk, r.code, r.seg_code, r.size, r.window, r.stages, r.bridge, r.bn_eps
        net = build_network(DecoupledNet, len(self.classes), *sizes).to(device)
        net.to(memory_format=training_layout(device))  # type: ignore[call-overload]
        return DecoupledObjective(DecoupledLearner(net, r.dropout), r)

    def warm_start(self) -> None:
        """Load the trunk's weights, and those of fc6 and fc7 where they fit."""
        if self.trunk_weights is not None:
            load_trunk(self.objective.learner.net, self.trunk_weights, self.trunk_inputs)

    def prepare(self, run: "Run") -> None:
        """Report what the data lacks."""
        self.note_warnings(run, self.labeled.strong)
        weak = {label for image in self.labeled.images for label in image.shown}
        unseen = [name for i, name in enumerate(self.classes) if i and i not in weak]
        self.note_unseen(run, "image", unseen)

    def plan(self) -> str:
        """The size of the data and of the run."""
        strong, images = len(self.labeled.strong.samples), len(self.labeled.images)
        return f"classes of {images} images, masks of {strong} of them: {self.steps} steps"

    def batches(self, run: "Run", start: int, size: int) -> Iterator[Examples]:
        """Crops of all images with their classes, then crops with binary masks."""
        cv2.setNumThreads(1)  # leave the cores to the network
        r, classes, strong = self.recipe, len(self.classes), self.labeled.strong
        boxes = proposals(strong, run.folder, self.report)
        windows = subset_windows(strong, boxes, r.proposals, r.subset, r.overlap)
        crop = WindowCrop(r.size, r.enlarged, r.flip, r.color)
        draw = draw_subsets(windows, classes, crop, r.seed)
        draw_first = draw_weak(self.labeled.images, classes, crop, r.seed)
        first = r.classify_steps * r.batch // size  # batches of the first part

        def make(n: int) -> Examples:
            chosen = draw_first if n < first else draw
            return stack([chosen(place) for place in range(n * size, (n + 1) * size)])

        return load_ahead(make, start, distributed.rank(), distributed.world())

    def due(self, n: int) -> bool:
        """Validate as usual, but not before the second part."""
        return n > self.recipe.classify_steps and super().due(n)

    def describe(self, record: Validation) -> str:
        """The step and the mean IoU, in percent."""
        return f"step {record.n} of {self.steps}: mean IoU {100 * record.miou:.1f} %"

    def score(self, record: Validation) -> float:
        """The mean IoU."""
        return record.miou

    def finish(self, run: "Run", stream: Iterator[Examples], command: str) -> dict[str, Any]:
        """Estimate statistics, write weights, and evaluate them as stored."""
        objective, net = self.objective, self.objective.learner.net
        objective.phase = len(PHASES) - 1
        objective.set_mode()
        with torch.no_grad(), cumulative_statistics(net):
            for _ in range(self.recipe.statistics_passes):
                objective.scores(next(stream))
        distributed.copy_from_first(run.learner)
        strong, images = self.labeled.strong, len(self.labeled.images)
        data = f"{strong.title}: classes of {images} images, masks of {len(strong.samples)} of them"
        return self.save_evaluated(run, net, self.card(command, data, self.recipe.size, MEAN_BGR))
