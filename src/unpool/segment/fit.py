"""The objective of a segmentation network, and its final batch norm statistics."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from unpool.data.crops import Batch
from unpool.devices import autocast, training_layout
from unpool.errors import OptionError, suggest
from unpool.models import MEAN_BGR, Network, prepare
from unpool.models.crfrnn import MeanField
from unpool.ops.whitening import Whitening
from unpool.segment.whole import WholeView
from unpool.training import loop
from unpool.vision.images import VOID

if TYPE_CHECKING:
    from unpool.recipes.decoupled import DecoupledRecipe
    from unpool.recipes.segment import Phase, SegmentationRecipe
    from unpool.segment.learner import Learner

_NORMS = (nn.BatchNorm2d, Whitening)  #: the layers with running statistics


class SegmentationObjective(loop.Objective[Batch]):
    """Cross entropy at every head of a learner, phase by phase; the decoder grows in between."""

    learner: "Learner"
    recipe: "SegmentationRecipe"

    def __init__(
        self,
        learner: "Learner",
        recipe: "SegmentationRecipe",
        classes: Sequence[str] = (),
        class_weights: Sequence[float] = (),
    ) -> None:
        super().__init__(learner, recipe)
        learner.net.trunk.checkpointing = recipe.checkpointing
        self.mean = MEAN_BGR if recipe.centered else (0.0, 0.0, 0.0)
        self.class_weights = torch.tensor(class_weights) if class_weights else None
        self.undistilled = _undistilled(recipe, classes)

    @property
    def current(self) -> "Phase":
        """The current phase."""
        return self.recipe.phases[self.phase]

    @property
    def unused(self) -> bool:  # type: ignore[override]
        """Whether the coarser heads have no loss in the current phase."""
        return self.recipe.coarse_weight == 0 < self.current.stages - 1

    def steps(self) -> list[int]:
        """The number of steps of each phase."""
        return [phase.steps for phase in self.recipe.phases]

    def name(self, step: int) -> str:
        """The name of the current phase."""
        return self.current.name

    def lower_rate(self) -> str:
        """A lower learning rate of the current phase."""
        return f"phases.{self.phase}.lr={self.current.lr / 10:.2g}"

    def groups(self) -> list[loop.Group]:
        """A group for each learning rate and kind: filters, biases, batch norm."""
        learner, phase = self.learner, self.current
        # what is in no group stays as it is, also without weight decay
        learner.requires_grad_(False)
        parts = [(part, phase.lr) for part in learner.newest(phase.stages)]
        parts += [(part, phase.older_lr) for part in learner.older(phase.stages)]
        parts += [(s, phase.trunk_lr) for s in learner.net.trunk.stages[phase.trunk_from - 1 :]]
        groups = []
        for part, lr in parts:
            if lr > 0:
                kept = [p for p in part.parameters() if id(p) not in learner.fixed]
                groups += _groups(part, kept, lr, self.recipe)
        return groups

    def rate(self, n: int) -> loop.RateFactor:
        """Warmup, then the recipe's schedule, or drops where the phase has them."""
        if self.current.drop_every is None:
            return super().rate(n)
        factor, drop = loop.dropped(n, self.current.drop_every)
        return loop.RateFactor(loop.warmup(n, self.recipe.warmup) * factor, drop)

    def losses(self, part: Batch) -> tuple[Tensor, Tensor]:
        """The weighted loss of all heads, and the loss of the finest one."""
        recipe, stages = self.recipe, self.current.stages
        truth = torch.from_numpy(part.labels).to(self.device).long()
        with autocast(self.device, recipe.bf16):
            x = prepare(torch.from_numpy(part.images).to(self.device), self.mean)
            x = x.contiguous(memory_format=training_layout(self.device))
            maps = self.network(x, stages, recipe.dropout, recipe.coarse_weight == 0)
        weights = None if self.class_weights is None else self.class_weights.to(self.device)
        seen = self.learner.targets(truth)
        # bf16 has three digits, too few for sums over pixels
        found = [pixel_loss(scores.float(), seen, weights) for scores in maps]
        if part.soft is not None and recipe.distill:
            soft = torch.from_numpy(part.soft).to(self.device)
            settings = soft, truth, recipe.distill_temperature, self.undistilled
            found = [
                loss + recipe.distill * distillation_loss(scores.float(), *settings)
                for loss, scores in zip(found, maps, strict=True)
            ]
        return found[-1] + recipe.coarse_weight * sum(found[:-1]), found[-1]

    @torch.no_grad()
    def enter(self, first: Batch) -> None:
        """Initialize the decoder stages that are new in the current phase."""
        stages = [phase.stages for phase in self.recipe.phases]
        before = max(stages[: self.phase], default=stages[0])
        new = range(before, max(before, stages[self.phase]))
        for stage in new:
            x = prepare(torch.from_numpy(first.images).to(self.device), self.mean)
            self.learner.eval().grow(stage, x)

    def set_mode(self) -> None:
        """Training mode, except for the statistics of a frozen trunk, and for unused stages."""
        self.learner.train()
        if not self.recipe.trunk_norm:
            for layer in self.learner.net.trunk.modules():
                if isinstance(layer, _NORMS):
                    layer.eval()
        # their batch norm would keep statistics of maps that nothing has shaped yet
        for part in self.learner.unused(self.current.stages):
            part.eval()

    @torch.no_grad()
    def segment(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The labels (H, W) of a whole image (H, W, 3), RGB, by the finest head in use."""
        self.learner.eval()
        view = WholeView(self.learner.net, image, self.recipe.long_side)
        with autocast(self.device, self.recipe.bf16):
            x = prepare(torch.from_numpy(view.batch).to(self.device), self.mean)
            maps = self.learner(x, self.current.stages, last=True)[-1].float()
        maps = F.interpolate(maps, size=view.batch.shape[1:3], mode="bilinear")
        logits = view.paste(np.ascontiguousarray(maps.cpu().numpy()))
        return logits.argmax(0).astype(np.uint8)


@torch.no_grad()
def estimate_statistics(
    net: Network,
    stream: Iterator[Batch],
    passes: int,
    bf16: bool = True,
    mean: tuple[float, float, float] = MEAN_BGR,
) -> None:
    """Replace running statistics (of batch norm, whitening) by their mean over some batches.

    Layers in evaluation mode keep theirs; afterwards the whole network is in evaluation mode.

    Args:
        net: changed in place.
        stream: training batches.
        passes: number of batches.
        bf16: bfloat16 where the hardware supports it, as in training.
        mean: subtracted from the pixels, blue, green, red.

    Noh, Hong, Han 2015, section 4.1; the released `BN_make_INFERENCE_script.py`.
    """
    device = next(net.parameters()).device
    with cumulative_statistics(net) as norms, autocast(device, bf16):
        # networks without batch norm, such as FCNs, need no passes
        for _ in range(passes if norms else 0):
            net(prepare(torch.from_numpy(next(stream).images).to(device), mean))


@contextmanager
def cumulative_statistics(net: nn.Module) -> Iterator[list[nn.BatchNorm2d | Whitening]]:
    """Estimate running statistics by all passes inside, see `estimate_statistics`.

    Gives the layers concerned, those in training mode. Afterwards the whole network is in
    evaluation mode.
    """
    norms = [m for m in net.modules() if isinstance(m, _NORMS) and m.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean
    yield norms
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    net.eval()


def _undistilled(recipe: "SegmentationRecipe", classes: Sequence[str]) -> list[int]:
    """The ids of the classes that take no part in distillation; none without it."""
    names = recipe.distill_without if recipe.distill else ()
    for name in names:
        if name not in classes:
            raise OptionError(
                f"got distill_without with {name!r}; {suggest(name, classes)}, or set "
                "distill_without=[] for none"
            )
    return [classes.index(name) for name in names]


def pixel_loss(scores: Tensor, truth: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross entropy, the mean over the pixels that are not void.

    Args:
        scores: (N, classes, h, w); enlarged up to four times if they are coarser. If they are
            those of every s-th pixel from the first to the last, with s a power of two as in
            DeepLab, they are compared at these pixels.
        truth: class ids (N, H, W).
        weights: of the classes, (classes,). The sum of the weighted losses is divided by the number
            of pixels, as in the Caffe of SegNet; PyTorch's mean would divide by their weights.

    >>> truth = torch.zeros(1, 2, 2, dtype=torch.long)
    >>> weights = torch.tensor([3.0, 1.0])
    >>> round(float(pixel_loss(torch.zeros(1, 2, 2, 2), truth, weights)), 4)  # 3 log 2
    2.0794
    """
    grid = _grid_step(scores.shape[2:], truth.shape[1:])
    truth = truth[:, ::grid, ::grid]
    # beyond four times, labels are thinned: interpolated scores say nothing more
    step = max(truth.shape[-1] // (4 * scores.shape[-1]), 1)
    truth = truth[:, step // 2 :: step, step // 2 :: step]
    if scores.shape[-2:] != truth.shape[-2:]:
        scores = F.interpolate(scores, size=truth.shape[-2:], mode="bilinear")
    valid = (truth != VOID).sum().clamp_min(1)  # a crop may be all void
    return F.cross_entropy(scores, truth, weights, ignore_index=VOID, reduction="sum") / valid


def _grid_step(scores: torch.Size, truth: torch.Size) -> int:
    """The distance, a power of two, of the pixels that scores stand for; 1 if they lie elsewhere.

    Not any number: 8 scores, each of 8 of 64 pixels, are not 9 pixels apart.
    """
    step = (truth[1] - 1) // max(scores[1] - 1, 1)
    aligned = all(s > 1 and t - 1 == step * (s - 1) for s, t in zip(scores, truth, strict=True))
    return step if aligned and step.bit_count() == 1 else 1


def distillation_loss(
    scores: Tensor,
    soft: Tensor,
    truth: Tensor,
    temperature: float = 1.0,
    without: Sequence[int] = (),
) -> Tensor:
    """How far predictions are from those of another network, at the pixels where it has any.

    The Kullback-Leibler divergence of the class probabilities at a temperature T, times T², so that
    its gradients keep their size (Hinton, Vinyals, Dean 2015, section 2).

    Args:
        scores: logits (N, K, h, w) of the network that learns.
        soft: logits (N, K, s, s) of the other; NaN where it says nothing.
        truth: class ids (N, H, W).
        temperature: above 1, probabilities are softer, and small ones count more.
        without: classes that the other network knows badly. They take no part, and pixels that
            belong to one in truth are left out.

    >>> soft = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)
    >>> truth = torch.zeros(1, 1, 1, dtype=torch.long)
    >>> [round(float(distillation_loss(s, soft, truth)), 4) for s in (soft, -soft)]
    [0.0, 1.5232]
    """
    size = soft.shape[-2], soft.shape[-1]
    if scores.shape[-1] > size[-1]:
        scores = F.adaptive_avg_pool2d(scores, size)
    elif scores.shape[-2:] != size:
        scores = F.interpolate(scores, size=size, mode="bilinear")
    step = max(truth.shape[-1] // size[-1], 1)
    seen = truth[:, step // 2 :: step, step // 2 :: step][:, : size[0], : size[1]]
    known = soft.isfinite().all(1)
    kept = [k for k in range(soft.shape[1]) if k not in set(without)]
    if without:
        known &= ~torch.isin(seen, torch.tensor([*without], device=seen.device))
    ours = (scores[:, kept] / temperature).log_softmax(1)
    theirs = (soft[:, kept].nan_to_num() / temperature).log_softmax(1)
    apart = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(1)
    return temperature**2 * (apart * known).sum() / known.sum().clamp_min(1)


def _groups(
    part: nn.Module, kept: list[nn.Parameter], lr: float, recipe: "SegmentationRecipe"
) -> list[loop.Group]:
    """As `groups_of`, but the matrices of a CRF, at first the identity, do not decay."""
    if not isinstance(part, MeanField):
        return groups_of(part, kept, lr, recipe)
    for p in kept:
        p.requires_grad_()
    kernels = [part.spatial, part.bilateral]
    factor = recipe.compatibility_lr
    return [
        loop.parameter_group(kernels, lr),
        loop.parameter_group([part.compatibility], lr * factor),
    ]


def groups_of(
    part: nn.Module,
    kept: list[nn.Parameter],
    lr: float,
    recipe: "SegmentationRecipe | DecoupledRecipe",
) -> list[loop.Group]:
    """Groups of filters, which decay, biases, and batch norm, which decays with `decay_norm`.

    Args:
        part: of the network.
        kept: those of its parameters that are to be trained; others stay as they are.
        lr: peak learning rate.
        recipe: with the decays.
    """
    norms = [m for m in part.modules() if isinstance(m, nn.BatchNorm2d)]
    of_norm = {id(p) for norm in norms for p in norm.parameters()}
    for p in kept:
        p.requires_grad_()
    filters = [p for p in kept if p.dim() > 1]
    biases = [p for p in kept if p.dim() < 2 and id(p) not in of_norm]
    shifts = {id(norm.bias) for norm in norms if not recipe.decay_shift}
    decayed = [p for p in kept if id(p) in of_norm and id(p) not in shifts]
    groups = [
        loop.parameter_group(filters, lr, recipe.weight_decay),
        loop.parameter_group(biases, lr * recipe.bias_lr),
        loop.parameter_group(decayed, lr, recipe.weight_decay if recipe.decay_norm else 0.0),
    ]
    if shifts:
        groups.append(loop.parameter_group([p for p in kept if id(p) in shifts], lr))
    return groups
