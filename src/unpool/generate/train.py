"""Train a network that draws, by a recipe, on rendered views of objects."""

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unpool import distributed
from unpool.devices import find_device
from unpool.files import write_json
from unpool.generate.batches import (
    Lesson,
    Views,
    as_targets,
    codes,
    lessons,
    load_views,
    split_views,
)
from unpool.generate.distillation import load_teachers, taught
from unpool.generate.evaluate import compare, measure
from unpool.generate.transformations import transform_images
from unpool.generate.weights import load_forerunner
from unpool.models import GenerativeNet, from_pretrained, save_pretrained
from unpool.models.generator import initialize
from unpool.recipes import GenerationRecipe
from unpool.rendering.dataset import Chairs, open_chairs
from unpool.rendering.write import read_credits
from unpool.training.loop import (
    Progress,
    Step,
    arithmetic,
    optimizer_of,
    parts_of,
    scale_rates,
    take_step,
)
from unpool.training.run import Likeness, Preparation, Run, curves_missing, draw_curves, writing
from unpool.vision.images import write_image

_LEAST = 0.02  #: part of the first rate to which a falling one falls

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
    where = find_device(distributed.local(device))
    chairs = open_chairs(data)
    learned, held = split_views(chairs, recipe.held_out)
    with distributed.join(where):
        parts = parts_of(recipe)
        torch.manual_seed(recipe.seed)
        net = build(recipe, len(chairs.styles)).to(where)
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        styles = list(chairs.styles)
        teachers = load_teachers(recipe, styles, where)
        run = Run(
            Path(output),
            recipe,
            styles,
            net,
            resume=resume,
            tensorboard=tensorboard,
            arguments={"data": str(Path(data).resolve())},
        )
        with closing(run):
            if not len(held):
                run.note("no view is held out; what is measured was learned from")
                held = learned[:: max(len(learned) // 400, 1)]
            if missing := curves_missing():
                run.note(missing)
            views = load_views(chairs, recipe.size, _teller(report))
            choose = views.take(held)
            first, size = run.progress.step * parts, recipe.batch // parts
            stream = lessons(views, learned, recipe, size, first)
            if recipe.teachers:
                around = float(views.elevations.min()), float(views.elevations.max())
                stream = taught(stream, teachers, recipe, size, around, first)
            _fit(run, stream, choose, report)
            return _finish(run, chairs, choose, len(learned), command)


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
        old = load_forerunner(recipe, "start", recipe.start).net.state_dict()
        new = net.state_dict()
        kept = {k: v for k, v in old.items() if k in new and new[k].shape == v.shape}
        net.load_state_dict(kept, strict=False)
    return net


def fit(
    net: GenerativeNet,
    stream: Iterator[Lesson],
    recipe: GenerationRecipe,
    progress: Progress | None = None,
    optimizer_state: dict[str, object] | None = None,
) -> Iterator[Step]:
    """Train; a record comes out after every step, and the caller does the rest in its `for`.

    Args:
        net: changed in place.
        stream: the parts of batches, beginning with the first one of the first step to be done.
        recipe: what is done.
        progress: kept up to date; `progress.step` steps count as done.
        optimizer_state: of a training run that was left in its middle.

    Raises:
        TrainingError: the loss or its gradient is not finite.
    """
    progress = progress or Progress()
    optimizer = progress.optimizer = optimizer_of(_groups(net, recipe), recipe)
    if optimizer_state is not None:
        optimizer.load_state_dict(optimizer_state)
    engine, device = distributed.replicate(net), next(net.parameters()).device
    weights = recipe.rgb_weight, recipe.mask_weight, recipe.background, recipe.overlap_weight
    cure = f"--set rates.0.lr={recipe.rates[0].lr / 10:.2g}"

    def losses(part: Lesson) -> tuple[Tensor, Tensor]:
        targets = transform_images(as_targets(part.views.images, device), part.vectors.to(device))
        with arithmetic(device, recipe.bf16):
            rgb, mask = engine(*codes(part.views, net.styles, device), part.vectors.to(device))
        loss = drawing_loss(rgb.float(), mask.float(), targets, *weights)
        return loss, loss

    net.train()
    while progress.step < recipe.steps:
        lr = _set_rates(optimizer, recipe, progress.step)
        yield take_step(engine, stream, losses, recipe, progress, lr, "drawing", cure)


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


def _teller(report: Report | None) -> Callable[[int, int], None]:
    def tell(done: int, total: int) -> None:
        if report is not None and distributed.rank() == 0:
            report(Preparation(done, total))

    return tell


def _groups(net: GenerativeNet, recipe: GenerationRecipe) -> list[dict[str, Any]]:
    """Filters and biases, which learn at rates of their own; nothing decays."""
    kinds = [
        ([p for p in net.parameters() if p.dim() > 1], 1.0),
        ([p for p in net.parameters() if p.dim() < 2], recipe.bias_lr),
    ]
    lr = recipe.rates[0].lr
    return [
        {"params": chosen, "lr": lr * factor, "peak": lr * factor, "weight_decay": 0.0}
        for chosen, factor in kinds
    ]


def _set_rates(optimizer: torch.optim.Optimizer, recipe: GenerationRecipe, n: int) -> float:
    """Set the rates of step n, relative to the first."""
    first, end = recipe.rates[0].lr, 0
    rise = min(1.0, (n + 1) / max(recipe.warmup, 1))
    before = first
    for rate in recipe.rates:
        begin, end = end, end + rate.steps
        if n < end:
            break
        before = rate.lr
    factor, drop = rate.lr / first, 1.0
    if recipe.schedule == "cosine":
        factor *= max(_LEAST, (1 + math.cos(math.pi * n / recipe.steps)) / 2)
    elif n == begin:
        drop = rate.lr / before
    return scale_rates(optimizer, rise * factor, drop)


def _fit(
    run: Run[GenerationRecipe, GenerativeNet],
    stream: Iterator[Lesson],
    choose: Views,
    report: Report | None,
) -> None:
    """Do the steps that are left; validate and save in between."""
    recipe, net = run.recipe, run.learner
    for step in fit(net, stream, recipe, run.progress, run.optimizer_state):
        run.log(step, report)
        if step.n % (recipe.validate_every or recipe.steps) == 0:
            run.log(Likeness(step.n, *measure(net, choose, recipe.bf16)), report)
            _show(run, choose)
            net.train()
        if step.n % recipe.save_every == 0 or step.n == recipe.steps:
            run.save()


def _show(run: Run[GenerationRecipe, GenerativeNet], choose: Views) -> None:
    if distributed.rank() == 0:
        with writing(run.folder):
            sheet = compare(run.learner, choose, run.recipe.bf16)
            write_image(run.folder / "plots/drawings.png", sheet)


def _finish(
    run: Run[GenerationRecipe, GenerativeNet],
    chairs: Chairs,
    choose: Views,
    learned: int,
    command: str,
) -> dict[str, Any]:
    """Weights, card, images and figures of the network as it is stored."""
    folder, recipe = run.folder, run.recipe
    thanks = read_credits(chairs.root)
    terms = sorted({str(record["license"]) for record in thanks if record.get("license")})
    card = {
        "styles": list(chairs.styles),
        "elevations": sorted({view.elevation for view in chairs.views}),
        "mode": "generate",
        "recipe": recipe.to_json(),
        "data": f"{chairs.root.name}, {learned} views of {len(chairs.styles)} styles",
        "license": "the terms of the data apply" + (f": {', '.join(terms)}" if terms else ""),
        "command": command,
        "attribution": thanks,
    }
    if distributed.rank() == 0:
        with writing(folder):
            save_pretrained(run.learner, folder / "weights", card, int8=recipe.int8)
    distributed.barrier()
    stored = from_pretrained(folder / "weights")[0].to(next(run.learner.parameters()).device)
    protocol = "views at azimuths held out" if recipe.held_out else "views learned from"
    figures = measure(stored, choose)._asdict()
    figures |= {"views": len(choose.styles), "protocol": protocol}
    summary = {**figures, "notes": run.notes}
    distributed.barrier()
    if distributed.rank() == 0:
        with writing(folder):
            card["figures"] = {f"{chairs.root.name}": figures}
            save_pretrained(run.learner, folder / "weights", card, int8=recipe.int8)
            write_json(folder / "eval/summary.json", summary)
            _show(run, choose)
            if not curves_missing():
                draw_curves(folder, {"mse": "MSE inside the mask"}, {"iou": "IoU of the mask"})
    distributed.barrier()
    return summary
