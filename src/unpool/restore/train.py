"""Train a network that deblurs on a folder of sharp images, which are blurred here."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unpool.data.unlabeled import find_training_images, hold_out
from unpool.devices import autocast, training_layout
from unpool.errors import OptionError, ShapeError, WeightsError
from unpool.models.deblur import CRCNet, Deblur, IRDNet
from unpool.models.multiscale import SRN, BlindNet, MSResNet, pyramid
from unpool.models.weights import build_network, from_pretrained
from unpool.ops.inversion import noise_level
from unpool.restore.evaluate import psnr, ssim
from unpool.restore.examples import VALIDATED, BlurBatch, draw_examples, validation_cases
from unpool.training import loop, task
from unpool.vision.figures import contact_sheet
from unpool.vision.psf import PSF, find_psf

if TYPE_CHECKING:
    from unpool.recipes.restore import RestorationRecipe
    from unpool.training.run import Run

BORDER = 8
"""Pixels along the border that are not counted in validation."""


# crops are mostly border, and images are not: with all of it counted, nothing was gained inside
_INNER = 0.75  # how often the margin of crops is left out


class RestorationScores(NamedTuple):
    """The record of a validation of a network that deblurs."""

    n: int  #: number of finished steps
    psnr: float  #: in dB, mean over held-out images and PSFs
    blurred: float  #: of the blurred images
    worst: float  #: the smallest gain of a PSF and level of noise, in dB


def build(recipe: "RestorationRecipe") -> Deblur:
    """The recipe's network, with random weights."""
    sizes = {"width": recipe.width, "blocks": recipe.blocks}
    given = {name: value for name, value in sizes.items() if value is not None}
    match recipe.network:
        case "IRDNet":
            more = {"steps": recipe.components, "variation": recipe.variation}
            return build_network(IRDNet, **given, **more)
        case "BlindNet":
            return build_network(BlindNet, **given)
        case "CRCNet":
            if "blocks" in given:
                given["units"] = given.pop("blocks")
            return build_network(CRCNet, **given)
        case "MSResNet":
            return build_network(MSResNet, **given, channels=recipe.channels)
    return build_network(SRN, **given, channels=recipe.channels, lstm=recipe.lstm)


def restoration_loss(kind: str, found: Tensor, truth: Tensor) -> Tensor:
    """The loss of restored images (N, C, H, W) by a recipe's `loss`.

    "crcnet" is 2500 times the mean squared error plus 100 times the norms of the differences to
    the next pixel, of the error of the whole batch, as in the authors' code. "psnr" is the mean
    logarithm of the squared errors of the images, in which borders have a tenth of the weight.

    >>> restoration_loss("l1", torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
    tensor(1.)
    """
    gap = found - truth
    if kind == "l1":
        return gap.abs().mean()
    if kind == "mse":
        return gap.square().mean()
    if kind == "psnr":
        inside = gap[..., BORDER:-BORDER, BORDER:-BORDER].square().mean((1, 2, 3))
        # beyond 70 dB, an image hardly counts any more
        return (inside + gap.square().mean((1, 2, 3)) / 10 + 1e-7).log10().mean()
    slopes = [gap.diff(dim=axis).norm() for axis in (2, 3)]
    return 2500 * gap.square().mean() + 100 * (slopes[0] + slopes[1])


class RestorationObjective(loop.Objective[BlurBatch]):
    """The distance of restored images from the sharp ones, at all scales of a network."""

    learner: Deblur
    recipe: "RestorationRecipe"

    def steps(self) -> list[int]:
        """A single phase."""
        return [self.recipe.steps]

    def groups(self) -> list[loop.Group]:
        """Filters, and biases without weight decay."""
        return loop.filters_and_biases(self.learner, self.recipe.lr, self.recipe)

    def rate(self, n: int) -> loop.RateFactor:
        """The learning rate of step n, with the recipe's `drops` and `power`."""
        recipe, (factor, drop) = self.recipe, super().rate(n)
        factor *= recipe.drop ** sum(n >= step for step in recipe.drops)
        factor *= (1 - n / recipe.steps) ** (recipe.power or 0)
        return loop.RateFactor(factor, drop)

    def losses(self, part: BlurBatch) -> tuple[Tensor, Tensor]:
        """The loss of a batch, as both losses."""
        recipe, device = self.recipe, self.device
        y, truth, psf, sigma = (tensor.to(device) for tensor in part)
        with autocast(device, recipe.bf16):
            if isinstance(self.learner, IRDNet):
                margin = recipe.margin if float(torch.rand(())) < _INNER else 0
                truth = truth[..., margin : y.shape[2] - margin, margin : y.shape[3] - margin]
                found = [self.network(y, psf, _either(sigma, y), margin=margin)]
            elif isinstance(self.learner, CRCNet):
                found = [self.network(y)]
            else:
                assert isinstance(self.learner, BlindNet | MSResNet | SRN)
                found = self.network(pyramid(y, self.learner.scales))
        loss = y.new_zeros(())
        truths = pyramid(truth, len(found))
        for scale, (x, target) in enumerate(zip(found, truths, strict=True)):
            weight = recipe.scale_weight if scale else 1.0
            # squares of small differences vanish in bf16
            loss = loss + weight * restoration_loss(recipe.loss, x.float(), target)
        return loss, loss


def _either(sigma: Tensor, y: Tensor) -> Tensor:
    """The true noise for half of the images, and what is estimated from them for the others."""
    # in use the noise is mostly estimated, and too high where there is little of it
    return torch.where(torch.rand_like(sigma) < 0.5, sigma, noise_level(y).mean(1))


def require_trainable(psf: PSF, side: int) -> None:
    """Raise an error if a recipe's only PSF is none, a volume, or larger than its `psf_side`."""
    if not psf.known:
        raise OptionError("got psf='none' in a recipe; leave it out for random PSFs")
    size = " x ".join(map(str, psf.kernel.shape))
    if psf.kernel.ndim == 3:
        raise ShapeError(
            f"got psf={psf.name!r} of {size} in a recipe; networks restore images, not volumes: "
            "choose one page of the PSF"
        )
    if max(psf.kernel.shape) > side:
        raise OptionError(
            f"got psf={psf.name!r} of {size} pixels for psf_side={side} in a recipe; "
            f"set psf_side={max(psf.kernel.shape)}"
        )


@dataclass(eq=False)
class RestorationTask(task.Task[BlurBatch]):
    """Train on a folder of sharp images, searched recursively; the best weights are kept.

    Held-out images are blurred by fixed PSFs for validation.
    """

    data: str | Path
    recipe: "RestorationRecipe"
    objective: RestorationObjective = field(init=False)

    panels = ({"psnr": "PSNR of held-out images, dB", "blurred": "blurred"},)

    def __post_init__(self) -> None:
        self.data = Path(self.data)
        given = self.recipe.network == "IRDNet"
        psf = shlex.quote(self.recipe.psf or "motion:13,30") if given else "none"
        self.usage = f"unpool restore blurred.png --psf {psf} --weights"

    def open(self) -> None:
        """List the images, read their headers, and hold some out."""
        recipe, self.classes = self.recipe, []
        if recipe.psf is not None:
            require_trainable(find_psf(recipe.psf), recipe.psf_side)
        images = find_training_images(Path(self.data), recipe.patch + recipe.psf_side - 1)
        self.images, self.val_images = hold_out(images, recipe.held_out)

    def build(self, device: torch.device) -> RestorationObjective:
        """The recipe's network."""
        net = build(self.recipe).to(device)
        net.to(memory_format=training_layout(device))  # type: ignore[call-overload]
        return RestorationObjective(net, self.recipe)

    def warm_start(self) -> None:
        """Load the recipe's initial weights, of the same network."""
        if self.recipe.start is not None:
            learner = self.objective.learner
            net, _ = from_pretrained(self.recipe.start)
            if type(net) is not type(learner) or net.arguments != learner.arguments:
                raise WeightsError(
                    f"got start={self.recipe.start}, weights of another network; pass those of "
                    f"{type(learner).__name__} with {learner.arguments}"
                )
            learner.load_state_dict(net.state_dict())

    def prepare(self, run: "Run") -> None:
        """Blur the validation images, or training images if none are held out."""
        if not self.val_images:
            run.note("no image is held out; training images are evaluated")
        self.val = validation_cases(self.val_images or self.images[:8], self.recipe)

    def plan(self) -> str:
        """The size of the data and of the run."""
        count = sum(p.numel() for p in self.objective.learner.parameters())
        name = f"{self.recipe.network} of {count:,} parameters"
        return f"{len(self.images)} images, {self.steps} steps: {name}"

    def batches(self, run: "Run", start: int, size: int) -> Iterator[BlurBatch]:
        """Random crops, blurred."""
        return draw_examples(self.images, self.recipe, size, start)

    def validate(self, run: "Run", n: int) -> RestorationScores:
        """Restore the validation images, and draw some of them."""
        rows = self._measure(self.objective.learner)
        self._write_sheet(run)
        after, before = (np.array([row[name] for row in rows]) for name in ("psnr", "blurred"))
        worst = float((after - before).min())
        return RestorationScores(n, float(after.mean()), float(before.mean()), worst)

    def describe(self, record: RestorationScores) -> str:
        """The step, and how much the images gained."""
        gain = f"{record.blurred:.2f} dB, restored {record.psnr:.2f}"
        return f"step {record.n} of {self.steps}: blurred {gain}, least gain {record.worst:.2f}"

    def score(self, record: RestorationScores) -> float:
        """PSNR."""
        return record.psnr

    def finish(self, run: "Run", stream: Iterator[BlurBatch], command: str) -> dict[str, Any]:
        """Write the weights, and evaluate them as stored."""
        recipe, net = self.recipe, self.objective.learner
        root = Path(self.data).resolve()
        card: dict[str, Any] = {
            "mode": "restore",
            "recipe": recipe.to_json(),
            "data": f"{root.name}, {len(self.images)} images, blurred by formula",
            "license": "the terms of the data apply",
            "command": command,
        }
        run.save_weights(net, card, int8=recipe.int8)
        # figures are those of the weights as stored, with filters in int8
        stored = from_pretrained(run.folder / "weights")[0].to(self.objective.device)
        protocol = f"squares of {VALIDATED} pixels in the middle of "
        summary = {
            "cases": self._measure(stored),
            "images": len(self.val_images) or min(len(self.images), 8),
            "protocol": protocol + ("held-out images" if self.val_images else "training images"),
        }
        card["figures"] = {root.name: summary}
        run.save_weights(net, card, int8=recipe.int8)
        self._write_sheet(run)
        return {**summary, "notes": run.notes}

    def figures(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """PSNR of each PSF and level of noise, before and after."""
        return {
            f"{row['psf']}, noise {row['noise']:.2g}": f"{row['blurred']:.2f} -> "
            f"{row['psnr']:.2f} dB, SSIM {row['ssim']:.3f}"
            for row in summary["cases"]
        }

    def _measure(self, net: Deblur) -> list[dict[str, Any]]:
        rows = []
        for name, sigma, batch in self.val:
            after = restored(net, batch).cpu().numpy()
            before, truth = batch.blurred.numpy(), batch.sharp.numpy()
            inside = (..., slice(BORDER, -BORDER), slice(BORDER, -BORDER))
            pairs = [(a[inside], t[inside]) for a, t in zip(after, truth, strict=True)]
            blurred = zip(before, truth, strict=True)
            rows.append({
                "psf": name,
                "noise": sigma,
                "psnr": float(np.mean([psnr(*pair) for pair in pairs])),
                "ssim": float(np.mean([ssim(a.transpose(1, 2, 0), t.transpose(1, 2, 0))
                                       for a, t in pairs])),
                "blurred": float(np.mean([psnr(b[inside], t[inside]) for b, t in blurred])),
            })  # fmt: skip
        return rows

    def _write_sheet(self, run: "Run") -> None:
        """Draw an image of each case: blurred, restored and sharp."""
        if not run.is_main:
            return
        tiles = []
        for i, (name, sigma, batch) in enumerate(self.val):
            at = i % len(batch.sharp)
            one = BlurBatch(*(tensor[at : at + 1] for tensor in batch))
            images = one.blurred, restored(self.objective.learner, one).cpu(), one.sharp
            captions = f"{name}, noise {sigma:.2g}", "restored", "sharp"
            tiles += [(_pixels(x[0]), text) for x, text in zip(images, captions, strict=True)]
        run.save_image("plots/restored.png", contact_sheet(tiles, 3))


@torch.no_grad()
def restored(net: Deblur, batch: BlurBatch) -> Tensor:
    """The images of a batch, restored in evaluation mode."""
    device = next(net.parameters()).device
    y, _, psf, sigma = (tensor.to(device) for tensor in batch)
    training = net.training
    net.eval()
    found: Tensor = net(y, psf, sigma) if isinstance(net, IRDNet) else net(y)
    net.train(training)
    return found


def _pixels(image: Tensor) -> Any:
    """An image (C, H, W), 0 to 1, for display."""
    values = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return np.repeat(values, 3, 2) if values.shape[2] == 1 else values
