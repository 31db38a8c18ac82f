"""Train a sparse coder on a folder of images, layer by layer."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from unpool import distributed
from unpool.coding.images import center_crops, draw_crops
from unpool.coding.parts import Quality, filter_sheet, rebuild
from unpool.data.unlabeled import find_training_images, hold_out
from unpool.errors import OptionError
from unpool.models.coder import SparseCoder, coherence, learn_filters
from unpool.models.weights import build_network
from unpool.ops.coding import coding_cost
from unpool.training import loop, task

if TYPE_CHECKING:
    from unpool.models.coder import Code
    from unpool.recipes.coder import CodingRecipe
    from unpool.training.run import Run

ORIENTED = 0.5  #: `coherence` from which a filter counts as oriented


class CodingScores(NamedTuple):
    """The record of a validation of a coder."""

    n: int  #: number of finished steps
    layer: int  #: the layer in training, from 1
    snr: float  #: signal-to-noise ratio of reconstructed images in dB
    nonzeros: float  #: fraction of nonzero values in its maps
    oriented: int  #: number of first-layer filters with a `coherence` above `ORIENTED`


def build(recipe: "CodingRecipe") -> SparseCoder:
    """Build the recipe's network, with random filters."""
    maps = [layer.maps for layer in recipe.layers]
    cells, lam = (recipe.kernel, recipe.pool, recipe.pair), [recipe.lam] * len(maps)
    return build_network(SparseCoder, maps, *cells, lam=lam, steps=recipe.iterations)


class CodingObjective(loop.Objective[Tensor]):
    """The cost of sparse codes, with two phases for each layer: learning and settling.

    A step codes a batch with the current filters, and then fits the filters of the layer by
    conjugate gradients. This replaces the gradient step: the learning rate is zero.
    """

    learner: SparseCoder
    recipe: "CodingRecipe"
    coded: "tuple[Tensor, Code]"  #: images of the current step, and their code

    @property
    def layer(self) -> int:
        """The layer of the current phase, from 1."""
        return self.phase // 2 + 1

    @property
    def lam(self) -> float:
        """The weight of sparsity of the current phase."""
        return self.recipe.lam if self.phase % 2 else self.recipe.layers[self.layer - 1].lam

    def steps(self) -> list[int]:
        """The number of steps of each phase."""
        return [n for layer in self.recipe.layers for n in (layer.steps, layer.settling)]

    def name(self, step: int) -> str:
        """The name of the layer in training."""
        return f"layer {self.layer} of {len(self.recipe.layers)}"

    def groups(self) -> list[loop.Group]:
        """The filters of the layer, which the optimizer does not change."""
        return [loop.parameter_group([self.learner.filters(self.layer)], 0.0)]

    def losses(self, part: Tensor) -> tuple[Tensor, Tensor]:
        """The coding cost per image of images (N, 1, H, W), returned as both losses."""
        y, steps = part.to(self.device), self.recipe.learning_iterations
        with torch.no_grad():
            code = self.learner.encode(y, self.layer, lam=self.lam, steps=steps)
        self.coded = y, code
        operator = self.learner.operator(code.switches)
        cost = coding_cost(y, operator, code.maps, self.lam) / len(y)
        return cost, cost

    def after_step(self) -> None:
        """Fit the filters to the images of this step."""
        learn_filters(self.learner, *self.coded, self.recipe.gradients)


@dataclass(eq=False)
class CodingTask(task.Task[Tensor]):
    """Learn filters from a folder of images, searched recursively; labels are not needed.

    The filters of the last step are kept; held-out images are not used to choose a step.
    """

    data: str | Path
    recipe: "CodingRecipe"
    objective: CodingObjective = field(init=False)

    panels = ({"snr": "SNR of held-out images, dB"}, {"nonzeros": "fraction of nonzeros"})

    def __post_init__(self) -> None:
        self.data = Path(self.data)

    def open(self) -> None:
        """List the images, read their headers, and hold some out."""
        recipe, self.classes = self.recipe, []
        images = find_training_images(Path(self.data), recipe.crop, recipe.long_side)
        self.images, self.val_images = hold_out(images, recipe.held_out)

    def build(self, device: torch.device) -> CodingObjective:
        """The recipe's network."""
        if distributed.world() > 1:
            raise OptionError(
                f"got {distributed.world()} processes; conjugate gradients run in one: start "
                "without torchrun"
            )
        return CodingObjective(build(self.recipe).to(device), self.recipe)

    def prepare(self, run: "Run") -> None:
        """Read the validation crops, from training images if none are held out."""
        if not self.val_images:
            run.note("no image is held out; training images are evaluated")
        images = self.val_images or self.images[:8]
        self.val = center_crops(images, self.recipe.crop, self.recipe.long_side)

    def plan(self) -> str:
        """The size of the data and of the run."""
        layers = ", ".join(f"{layer.maps} filters" for layer in self.recipe.layers)
        return f"{len(self.images)} images, {self.steps} steps: {layers}"

    def batches(self, run: "Run", start: int, size: int) -> Iterator[Tensor]:
        """Random crops, (N, 1, S, S)."""
        recipe = self.recipe
        cuts: dict[str, Any] = {"each": recipe.crops, "long_side": recipe.long_side}
        return draw_crops(self.images, size, recipe.crop, **cuts, seed=recipe.seed, start=start)

    def validate(self, run: "Run", n: int) -> CodingScores:
        """Code held-out crops at the layer in training, and draw the filters."""
        layer = self.objective.layer
        self._write_sheet(run, layer)
        return CodingScores(n, layer, *self._measure(layer), self._oriented())

    def describe(self, record: CodingScores) -> str:
        """The step, and the quality of reconstructions."""
        rebuilt = f"{record.snr:.1f} dB from {record.nonzeros:.1%} nonzeros"
        oriented = f"{record.oriented} oriented filters in layer 1"
        return f"step {record.n} of {self.steps}, layer {record.layer}: {rebuilt}, {oriented}"

    def finish(self, run: "Run", stream: Iterator[Tensor], command: str) -> dict[str, Any]:
        """Write the weights, and evaluate every layer."""
        count = len(self.recipe.layers)
        rows = [self._measure(layer) for layer in range(1, count + 1)]
        summary = {
            "layers": [row._asdict() for row in rows],
            "oriented": self._oriented(),
            "filters": self.recipe.layers[0].maps,
            "images": len(self.val_images),
            "protocol": f"squares of {self.recipe.crop} pixels in the middle of "
            + ("held-out images" if self.val_images else "training images"),
        }
        root = Path(self.data).resolve()
        card = {
            "long_side": self.recipe.long_side,
            "recipe": self.recipe.to_json(),
            "data": f"{root.name}, {len(self.images)} images",
            "license": "the terms of the data apply",
            "command": command,
            "figures": {root.name: summary},
        }
        run.save_weights(self.objective.learner, card)
        self._write_sheet(run, count)
        return {**summary, "notes": run.notes}

    def figures(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """SNR and nonzeros of each layer, and the number of oriented filters."""
        found: dict[str, Any] = {}
        for number, row in enumerate(summary["layers"], start=1):
            found[f"layer {number}, SNR"] = f"{row['snr']:.1f} dB"
            found[f"layer {number}, nonzeros"] = row["nonzeros"]
        return {**found, "oriented filters": f"{summary['oriented']} of {summary['filters']}"}

    def _measure(self, layer: int) -> Quality:
        coder = self.objective.learner
        return rebuild(coder, self.val.to(self.objective.device), layer).quality

    def _oriented(self) -> int:
        return int((coherence(self.objective.learner.filters(1).detach()) > ORIENTED).sum())

    def _write_sheet(self, run: "Run", layers: int) -> None:
        if run.is_main:
            coder = self.objective.learner
            sheet = filter_sheet(coder, self.val.to(self.objective.device), layers)
            run.save_image("plots/filters.png", sheet)
