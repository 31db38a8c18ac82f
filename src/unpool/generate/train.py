"""Train a network that draws, by a recipe, on rendered views of objects."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unpool import distributed
from unpool.devices import autocast
from unpool.generate.batches import (
    Lesson,
    as_targets,
    codes,
    lessons,
    load_views,
    split_views,
)
from unpool.generate.distillation import load_previous, load_teachers, taught
from unpool.generate.evaluate import compare, measure
from unpool.generate.transformations import transform_images
from unpool.models import GenerativeNet, from_pretrained, save_pretrained
from unpool.models.generator import initialize
from unpool.recipes import GenerationRecipe
from unpool.rendering.dataset import Chairs, open_chairs
from unpool.rendering.write import read_credits
from unpool.training import loop
from unpool.training import task as training
from unpool.training.loop import Group, LoopState, Rate, Step
from unpool.training.run import Run, writing
from unpool.training.task import Preparation
from unpool.vision.images import write_image


class Likeness(NamedTuple):
    """A record of one validation of a network that generates."""

    n: int  #: steps done
    mse: float  #: squared error of colors 0 to 1, over the pixels inside the true masks
    iou: float  #: of generated and true masks, the pixels of all views together
    iou_mean: float  #: the mean over the views


Report = Callable[[Step | Likeness | Preparation], None]


def train_generator(
    data: str | Path,
    output: str | Path,
    recipe: GenerationRecipe,
    *,
    resume: bool = False,
    tensorboard: bool = False,
    device: str = "auto",
    command: str = "",
    report: Report | None = None,
) -> dict[str, Any]:
    """Train by a recipe, measure on views that were held out, and write weights.

    `unpool.training.run` describes the run folder. The weights are those after the last step: the
    held-out views choose nothing. Begun by `torchrun`, the processes share the work; every one
    returns the same summary.

    Args:
        data: a folder that `open_chairs` understands.
        output: the run folder; it must be new unless `resume`.
        recipe: what is done.
        resume: go on from the last checkpoint; the result is that of an uninterrupted run.
        tensorboard: write records for TensorBoard, too.
        device: "auto", "cpu", "cuda" or "cuda:n".
        command: the command line, for the card.
        report: called with every `Step` and `Likeness`, and while images are read.

    Returns:
        `mse`, `iou` and `iou_mean` of the stored weights, see `Measured`; `views`, their number;
        `protocol`, which views they are; and `notes`, what was amiss but no reason to stop.

    Raises:
        DataError, OptionError, WeightsError: what came cannot be used.
        TrainingError: the training failed, or its folder cannot be written to.
    """
    return training.train(
        GenerationTask(data, recipe),
        output,
        resume=resume,
        tensorboard=tensorboard,
        device=device,
        command=command,
        report=report,
    )


class GenerationTask(training.Task[Lesson]):
    """Learn to generate rendered views; the weights after the last step are kept.

    Args: see `train_generator`.
    """

    recipe: GenerationRecipe
    objective: "GenerationObjective"
    panels = ({"mse": "MSE inside the mask"}, {"iou": "IoU of the mask"})

    def __init__(self, data: str | Path, recipe: GenerationRecipe) -> None:
        self.data, self.recipe = data, recipe

    def open(self) -> None:
        """Open the views, and hold some out."""
        self.chairs = open_chairs(self.data)
        self.learned, self.held = split_views(self.chairs, self.recipe.held_out)
        self.classes = list(self.chairs.styles)

    def arguments(self) -> dict[str, Any]:
        """The data."""
        return {"data": str(Path(self.data).resolve())}

    def build(self, device: torch.device) -> "GenerationObjective":
        """The recipe's network, with the weights of a warm start; teachers are loaded, too."""
        net = build(self.recipe, len(self.classes)).to(device)
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.teachers = load_teachers(self.recipe, self.classes, device)
        return GenerationObjective(net, self.recipe)

    def prepare(self, run: Run) -> None:
        """Without held-out views, measure on some of those learned from."""
        if not len(self.held):
            run.note("no view is held out; what is measured was learned from")
            self.held = self.learned[:: max(len(self.learned) // 400, 1)]

    def batches(self, run: Run, start: int, size: int) -> Iterator[Lesson]:
        """Rendered views with random transformations, and what teachers generate."""
        views = load_views(self.chairs, self.recipe.size, self._show_progress)
        self.choose = views.take(self.held)
        stream = lessons(views, self.learned, self.recipe, size, start)
        if self.recipe.teachers:
            around = float(views.elevations.min()), float(views.elevations.max())
            stream = taught(stream, self.teachers, self.recipe, size, around, start)
        return stream

    def due(self, n: int) -> bool:
        """At every `validate_every` steps only: nothing is chosen by the last one."""
        return n % (self.recipe.validate_every or self.recipe.steps) == 0

    def validate(self, run: Run, n: int) -> Likeness:
        """Errors on the held-out views, and a sheet of them."""
        record = Likeness(n, *measure(self.objective.learner, self.choose, self.recipe.bf16))
        self._write_sheet(run)
        return record

    def finish(self, run: Run, stream: Iterator[Lesson], command: str) -> dict[str, Any]:
        """Weights, card, images and figures of the network as it is stored."""
        folder, recipe, net = run.folder, self.recipe, self.objective.learner
        card = _card(self.chairs, recipe, len(self.learned), command)
        if distributed.rank() == 0:
            with writing(folder):
                save_pretrained(net, folder / "weights", card, int8=recipe.int8)
        distributed.barrier()
        stored = from_pretrained(folder / "weights")[0].to(self.objective.device)
        protocol = "views at azimuths held out" if recipe.held_out else "views learned from"
        figures = measure(stored, self.choose)._asdict()
        figures |= {"views": len(self.choose.styles), "protocol": protocol}
        distributed.barrier()
        if distributed.rank() == 0:
            with writing(folder):
                card["figures"] = {f"{self.chairs.root.name}": figures}
                save_pretrained(net, folder / "weights", card, int8=recipe.int8)
        self._write_sheet(run)
        return {**figures, "notes": run.notes}

    def _write_sheet(self, run: Run) -> None:
        if distributed.rank() == 0:
            with writing(run.folder):
                sheet = compare(self.objective.learner, self.choose, self.recipe.bf16)
                write_image(run.folder / "plots/drawings.png", sheet)

    def _show_progress(self, done: int, total: int, *_: str) -> None:
        if self.report is not None:
            self.report(Preparation(done, total))


def build(recipe: GenerationRecipe, styles: int) -> GenerativeNet:
    """The recipe's network; what fits in the weights it begins with is taken from them.

    Raises:
        OptionError: a network that cannot be built.
        WeightsError: no such weights, of another kind of network, or that may have learned from
            views that are to be held out.
    """
    net = GenerativeNet(
        styles,
        recipe.size,
        recipe.streams,
        28,
        recipe.code,
        recipe.shared,
        recipe.widths,
        recipe.mask_widths,
        recipe.mask_maps,
    )
    initialize(net, recipe.initialization)
    if recipe.start is not None:
        old = load_previous(recipe, "start", recipe.start).model.state_dict()
        new = net.state_dict()
        kept = {k: v for k, v in old.items() if k in new and new[k].shape == v.shape}
        net.load_state_dict(kept, strict=False)
    return net


class GenerationObjective(loop.Objective[Lesson]):
    """Squared errors of generated views and masks, see `drawing_loss`."""

    learner: GenerativeNet
    recipe: GenerationRecipe

    def steps(self) -> list[int]:
        """A single phase, whose learning rate changes."""
        return [self.recipe.steps]

    def name(self, step: int) -> str:
        """There is a single phase."""
        return "drawing"

    def cure(self) -> str:
        """A lower learning rate."""
        return f"rates.0.lr={self.recipe.rates[0].lr / 10:.2g}"

    def groups(self) -> list[Group]:
        """Filters and biases, which learn at rates of their own; nothing decays."""
        return loop.filters_and_biases(self.learner, self.recipe.rates[0].lr, self.recipe)

    def rate(self, n: int) -> Rate:
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
        return Rate(loop.warmup(n, recipe.warmup) * factor, drop)

    def losses(self, part: Lesson) -> tuple[Tensor, Tensor]:
        """The loss of a part, twice."""
        recipe, device = self.recipe, self.device
        vectors = part.vectors.to(device)
        targets = transform_images(as_targets(part.views.images, device), vectors)
        with autocast(device, recipe.bf16):
            rgb, mask = self.network(*codes(part.views, self.learner.styles, device), vectors)
        weights = recipe.rgb_weight, recipe.mask_weight, recipe.background, recipe.overlap_weight
        loss = drawing_loss(rgb.float(), mask.float(), targets, *weights)
        return loss, loss


def fit(
    net: GenerativeNet,
    stream: Iterator[Lesson],
    recipe: GenerationRecipe,
    state: LoopState | None = None,
    optimizer_state: dict[str, object] | None = None,
) -> Iterator[Step]:
    """Train a generator by a recipe, see `unpool.training.loop.fit`."""
    return loop.fit(GenerationObjective(net, recipe), stream, state, optimizer_state)


def drawing_loss(
    rgb: Tensor,
    mask: Tensor,
    targets: Tensor,
    rgb_weight: float = 10.0,
    mask_weight: float = 1.0,
    background: float = 1.0,
    overlap_weight: float = 0.0,
) -> Tensor:
    """Squared errors of the colors inside the mask and of the mask, a half of the mean per image.

    Args:
        rgb: drawn, (N, 3, S, S).
        mask: drawn, (N, C, S, S); each of its channels is to be the mask.
        targets: (N, 4, S, S): RGB times the mask, and the mask.
        rgb_weight: of the first error.
        mask_weight: of the second one.
        background: of the first one where the true mask is 0; 1 as published. Less lets colors run
            over the border, which nobody sees under the drawn mask.
        overlap_weight: of 1 - IoU of drawn and true mask, image by image, where the products
            and sums of values 0 to 1 stand for intersection and union (a union of less than a
            pixel counts as one); 0 as published. The other errors are sums over pixels, so that
            a weight that counts is a large one.

    Dosovitskiy, Springenberg, Brox 2015, equation 1 and section 3.3.

    >>> drawing_loss(torch.ones(2, 3, 1, 1), torch.ones(2, 1, 1, 1), torch.zeros(2, 4, 1, 1))
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
    """IoU of masks with values between 0 and 1, (N,); (N, C, S, S) and (N, 1, S, S) come."""
    drawn = mask.mean(1, keepdim=True).clamp(0, 1)
    both = (drawn * target).sum((1, 2, 3))
    return both / (drawn.sum((1, 2, 3)) + target.sum((1, 2, 3)) - both).clamp_min(1)


def _card(chairs: Chairs, recipe: GenerationRecipe, learned: int, command: str) -> dict[str, Any]:
    """The model card, without its figures."""
    thanks = read_credits(chairs.root)
    terms = sorted({str(record["license"]) for record in thanks if record.get("license")})
    return {
        "styles": list(chairs.styles),
        "elevations": sorted({view.elevation for view in chairs.views}),
        "mode": "generate",
        "recipe": recipe.to_json(),
        "data": f"{chairs.root.name}, {learned} views of {len(chairs.styles)} styles",
        "license": "the terms of the data apply" + (f": {', '.join(terms)}" if terms else ""),
        "command": command,
        "attribution": thanks,
    }
