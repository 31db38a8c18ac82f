"""Train a generator on rendered views of objects."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from unpool.devices import autocast
from unpool.generate import batches
from unpool.generate.batches import ViewBatch
from unpool.generate.distillation import distill, load_previous, load_teachers
from unpool.generate.evaluate import compare, measure
from unpool.generate.transformations import LENGTH, transform_images
from unpool.models.generator import GenerativeNet, initialize
from unpool.models.weights import build_network, from_pretrained
from unpool.rendering.dataset import open_chairs, read_credits
from unpool.training import loop, task

if TYPE_CHECKING:
    from unpool.recipes.generate import GenerationRecipe
    from unpool.training.run import Run


class GenerationErrors(NamedTuple):
    """A record of one validation of a generator; see `Measured`."""

    n: int  #: steps done
    mse: float
    iou: float
    iou_mean: float


def build(recipe: "GenerationRecipe", styles: int) -> GenerativeNet:
    """The recipe's network: the weights of a warm start where they fit, random ones elsewhere.

    Raises:
        OptionError: a network that cannot be built.
        WeightsError: no such weights, of another kind of network, or that may have been trained
            on held-out views.
    """
    widths = recipe.code, recipe.shared, recipe.widths, recipe.mask_widths, recipe.mask_maps
    net = build_network(GenerativeNet, styles, recipe.size, recipe.streams, LENGTH, *widths)
    initialize(net, recipe.initialization)
    if recipe.start is not None:
        old = load_previous(recipe, "start", recipe.start).model.state_dict()
        new = net.state_dict()
        kept = {k: v for k, v in old.items() if k in new and new[k].shape == v.shape}
        net.load_state_dict(kept, strict=False)
    return net


def generation_loss(
    rgb: Tensor,
    mask: Tensor,
    targets: Tensor,
    rgb_weight: float = 10.0,
    mask_weight: float = 1.0,
    background: float = 1.0,
    overlap_weight: float = 0.0,
) -> Tensor:
    """Squared errors of the colors inside the mask and of the mask, half of their sum per image.

    Args:
        rgb: generated colors, (N, 3, S, S).
        mask: generated, (N, C, S, S); each channel is compared with the true mask.
        targets: (N, 4, S, S): RGB times the true mask, and the mask.
        background: factor of the error of the colors where the true mask is 0; 1 in the paper.
            Below 1, colors may bleed over the border, where the generated mask hides them.
        overlap_weight: of 1 - IoU of generated and true mask of each image; 0 in the paper. The
            other errors are sums over pixels, so useful weights are large.

    Dosovitskiy, Springenberg, Brox 2015, equation 1 and section 3.3.

    >>> generation_loss(torch.ones(2, 3, 1, 1), torch.ones(2, 1, 1, 1), torch.zeros(2, 4, 1, 1))
    tensor(15.5000)
    """
    where = background + (1 - background) * targets[:, 3:]
    colors = ((rgb - targets[:, :3]).square() * where).sum()
    masks = (mask - targets[:, 3:]).square().sum()
    loss = rgb_weight * colors + mask_weight * masks
    if overlap_weight:
        loss = loss + overlap_weight * (1 - _overlap(mask, targets[:, 3:])).sum()
    return loss / (2 * len(targets))


def _overlap(mask: Tensor, target: Tensor) -> Tensor:
    """IoU (N,) of masks (N, C, S, S) and (N, 1, S, S), 0 to 1; their product is the overlap."""
    found = mask.mean(1, keepdim=True).clamp(0, 1)
    both = (found * target).sum((1, 2, 3))
    return both / (found.sum((1, 2, 3)) + target.sum((1, 2, 3)) - both).clamp_min(1)


class GenerationObjective(loop.Objective[ViewBatch]):
    """Squared errors of generated views and masks, see `generation_loss`."""

    learner: GenerativeNet
    recipe: "GenerationRecipe"

    def steps(self) -> list[int]:
        """A single phase with all the recipe's learning rates."""
        return [self.recipe.steps]

    def lower_rate(self) -> str:
        """A lower learning rate."""
        return f"rates.0.lr={self.recipe.rates[0].lr / 10:.2g}"

    def groups(self) -> list[loop.Group]:
        """Filters, and biases with `recipe.bias_lr`."""
        return loop.filters_and_biases(self.learner, self.recipe.rates[0].lr, self.recipe)

    def rate(self, n: int) -> loop.RateFactor:
        """The learning rate of step n, relative to the first of the recipe's rates."""
        recipe, end = self.recipe, 0
        before = first = recipe.rates[0].lr
        for rate in recipe.rates:
            begin, end = end, end + rate.steps
            if n < end:
                break
            before = rate.lr
        factor, drop = rate.lr / first, 1.0
        if recipe.schedule != "constant":
            factor *= loop.scheduled(recipe.schedule, n, recipe.steps)
        elif n == begin:
            drop = rate.lr / before
        return loop.RateFactor(loop.warmup(n, recipe.warmup) * factor, drop)

    def losses(self, part: ViewBatch) -> tuple[Tensor, Tensor]:
        """The loss of a part of a batch, as both losses."""
        recipe, device = self.recipe, self.device
        vectors = part.vectors.to(device)
        targets = transform_images(batches.as_targets(part.views.images, device), vectors)
        codes = batches.codes(part.views, self.learner.styles, device)
        with autocast(device, recipe.bf16):
            rgb, mask = self.network(*codes, vectors)
        weights = recipe.rgb_weight, recipe.mask_weight, recipe.background, recipe.overlap_weight
        loss = generation_loss(rgb.float(), mask.float(), targets, *weights)
        return loss, loss


@dataclass(eq=False)
class GenerationTask(task.Task[ViewBatch]):
    """Train on rendered views, a folder that `open_chairs` understands.

    The weights after the last step are kept; held-out views do not choose any.
    """

    data: str | Path
    recipe: "GenerationRecipe"
    objective: GenerationObjective = field(init=False)

    panels = ({"mse": "MSE inside the mask"}, {"iou": "IoU of the mask"})

    def __post_init__(self) -> None:
        self.data = Path(self.data)

    def open(self) -> None:
        """List the views, and hold some out."""
        self.chairs = open_chairs(self.data)
        self.train_indices, self.val_indices = batches.split_views(
            self.chairs, self.recipe.held_out
        )
        self.classes = list(self.chairs.styles)

    def build(self, device: torch.device) -> GenerationObjective:
        """The recipe's network; also loads the teachers."""
        net = build(self.recipe, len(self.classes)).to(device)
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.teachers = load_teachers(self.recipe, self.classes, device)
        return GenerationObjective(net, self.recipe)

    def prepare(self, run: "Run") -> None:
        """Without held-out views, evaluate on some of the training views."""
        if not len(self.val_indices):
            run.note("no view is held out; training views are evaluated")
            self.val_indices = self.train_indices[:: max(len(self.train_indices) // 400, 1)]

    def batches(self, run: "Run", start: int, size: int) -> Iterator[ViewBatch]:
        """Rendered views with random transformations, and what the teachers generate."""
        report = self.report or (lambda _: None)
        views = batches.load_views(
            self.chairs, self.recipe.size, lambda *progress: report(task.Preparation(*progress))
        )
        self.val_views = views.take(self.val_indices)
        stream = batches.view_batches(views, self.train_indices, self.recipe, size, start)
        if self.recipe.teachers:
            elevations = float(views.elevations.min()), float(views.elevations.max())
            stream = distill(stream, self.teachers, self.recipe, size, elevations, start)
        return stream

    def due(self, n: int) -> bool:
        """Every `validate_every` steps; not after the last, whose weights `finish` evaluates."""
        return n % (self.recipe.validate_every or self.recipe.steps) == 0

    def validate(self, run: "Run", n: int) -> GenerationErrors:
        """Errors on the held-out views, and a contact sheet of them."""
        found = measure(self.objective.learner, self.val_views, self.recipe.bf16)
        self._write_sheet(run)
        return GenerationErrors(n, *found)

    def describe(self, record: GenerationErrors) -> str:
        """The step and its errors."""
        errors = f"MSE {record.mse:.2e} inside the mask, IoU of the mask {record.iou:.3f}"
        return f"step {record.n} of {self.steps}: {errors}"

    def finish(self, run: "Run", stream: Iterator[ViewBatch], command: str) -> dict[str, Any]:
        """Write the weights, and evaluate them as stored."""
        recipe, net = self.recipe, self.objective.learner
        card = self._card(command)
        run.save_weights(net, card, int8=recipe.int8)
        stored = from_pretrained(run.folder / "weights")[0].to(self.objective.device)
        protocol = "views at held-out azimuths" if recipe.held_out else "training views"
        figures = measure(stored, self.val_views)._asdict()
        figures |= {"views": len(self.val_views.styles), "protocol": protocol}
        card["figures"] = {self.chairs.root.name: figures}
        run.save_weights(net, card, int8=recipe.int8)
        self._write_sheet(run)
        return {**figures, "notes": run.notes}

    def figures(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """The errors, and the number of views."""
        names = {"MSE inside the mask": f"{summary['mse']:.2e}", "IoU of the mask": summary["iou"]}
        return {**names, "views": summary["views"]}

    def _write_sheet(self, run: "Run") -> None:
        if run.is_main:
            sheet = compare(self.objective.learner, self.val_views, self.recipe.bf16)
            run.save_image("plots/views.png", sheet)

    def _card(self, command: str) -> dict[str, Any]:
        """The model card, without its figures."""
        credits, chairs = read_credits(self.chairs.root), self.chairs
        views = len(self.train_indices)
        terms = sorted({str(record["license"]) for record in credits if record.get("license")})
        return {
            "styles": list(chairs.styles),
            "elevations": sorted({view.elevation for view in chairs.views}),
            "mode": "generate",
            "recipe": self.recipe.to_json(),
            "data": f"{chairs.root.name}, {views} views of {len(chairs.styles)} styles",
            "license": "the terms of the data apply" + (f": {', '.join(terms)}" if terms else ""),
            "command": command,
            "attribution": credits,
        }
