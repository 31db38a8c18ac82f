"""The training loop: a network is fitted to batches, phase by phase, from coarse to fine."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from unpool.data.crops import Batch
from unpool.data.voc import VOID
from unpool.errors import OptionError, UnpoolError
from unpool.models import DeconvNet, prepare
from unpool.models.fast import bf16_pays
from unpool.models.scaffold import Scaffold
from unpool.recipes import Phase, Recipe

__all__ = [
    "Progress",
    "Step",
    "TrainingError",
    "arithmetic",
    "estimate_statistics",
    "fit",
    "set_learning",
]


class Step(NamedTuple):
    """A record of one training step."""

    n: int  #: steps done, from 1
    phase: str
    loss: float  #: of the finest head
    lr: float  #: of the newest stage
    seconds: float


@dataclass
class Progress:
    """Where a training stands: all that `fit` needs to go on, besides the network."""

    step: int = 0
    optimizer: torch.optim.Optimizer | None = None


class TrainingError(UnpoolError, RuntimeError):
    """The training cannot go on."""


def fit(
    scaffold: Scaffold,
    batches: Iterator[Batch],
    recipe: Recipe,
    progress: Progress | None = None,
    optimizer_state: dict[str, object] | None = None,
) -> Iterator[Step]:
    """Train; a record comes out after every step, and the caller does the rest in its `for`.

    Args:
        scaffold: the network with its heads, changed in place.
        batches: beginning with that of the first step to be done.
        recipe: its phases are done one after the other.
        progress: kept up to date; `progress.step` steps count as done.
        optimizer_state: of a phase that was left in its middle.

    Raises:
        TrainingError: the loss is not finite.
    """
    progress = progress or Progress()
    device = next(scaffold.parameters()).device
    end, grown = 0, 1
    for phase in recipe.phases:
        begin, end = end, end + phase.steps
        before, grown = grown, max(grown, phase.stages)
        if progress.step >= end:
            continue
        optimizer = progress.optimizer = _optimizer(scaffold, phase, recipe)
        if optimizer_state is not None and progress.step > begin:
            optimizer.load_state_dict(optimizer_state)
        while progress.step < end:
            start = time.perf_counter()
            batch = next(batches)
            x = prepare(torch.from_numpy(batch.images).to(device))
            if progress.step == begin:
                for stage in range(before, grown):
                    scaffold.eval().grow(stage, x)
            lr = _set_rate(optimizer, progress.step - begin, phase.steps, recipe)
            with torch.random.fork_rng():
                torch.manual_seed(recipe.seed + 1_000_003 * progress.step)  # dropout, also resumed
                loss = _step(scaffold, x, batch.labels, optimizer, phase, recipe)
            progress.step += 1
            if not np.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss} at step {progress.step} (phase {phase.name}, learning "
                    f"rate {lr:.2g}); resume from the last checkpoint with a lower rate"
                )
            yield Step(progress.step, phase.name, loss, lr, time.perf_counter() - start)


@torch.no_grad()
def estimate_statistics(
    net: DeconvNet, stream: Iterator[Batch], passes: int, bf16: bool = True
) -> None:
    """Take batch norm's statistics anew: their mean over some batches of the finished network.

    Args:
        net: put into evaluation mode afterwards. A trunk in evaluation mode keeps its own.
        stream: of training batches.
        passes: how many of them.
        bf16: bfloat16 arithmetic where the hardware has it, as in the training.

    Noh, Hong, Han 2015, section 4.1; the released `BN_make_INFERENCE_script.py`.
    """
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
    device = next(net.parameters()).device
    for _ in range(passes):
        with arithmetic(device, bf16):
            net(prepare(torch.from_numpy(next(stream).images).to(device)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    net.eval()


def _step(
    scaffold: Scaffold,
    x: Tensor,
    labels: NDArray[np.uint8],
    optimizer: torch.optim.Optimizer,
    phase: Phase,
    recipe: Recipe,
) -> float:
    """One update; the finest head's loss."""
    set_learning(scaffold, phase)
    truth = torch.from_numpy(labels).to(x.device).long()
    with arithmetic(x.device, recipe.bf16):
        found = scaffold(x, phase.stages, recipe.dropout)
    losses = [_loss(f.float(), truth) for f in found]
    total = losses[-1] + recipe.coarse_weight * sum(losses[:-1])
    optimizer.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(parameters, recipe.clip)
    optimizer.step()
    return float(losses[-1].item())


def _loss(found: Tensor, truth: Tensor) -> Tensor:
    """Cross entropy over pixels that are not void; coarse scores are enlarged up to four times."""
    step = max(truth.shape[-1] // (4 * found.shape[-1]), 1)
    truth = truth[:, step // 2 :: step, step // 2 :: step]
    if found.shape[-2:] != truth.shape[-2:]:
        found = F.interpolate(found, size=truth.shape[-2:], mode="bilinear")
    return F.cross_entropy(found, truth, ignore_index=VOID)


def set_learning(scaffold: Scaffold, phase: Phase) -> None:
    """Training mode for what learns; a trunk's batch norm stays as it is (evaluation mode)."""
    scaffold.train()
    scaffold.net.trunk.eval()
    for stage in scaffold.net.decoder[phase.stages :]:
        stage.eval()


def _optimizer(scaffold: Scaffold, phase: Phase, recipe: Recipe) -> torch.optim.Optimizer:
    """A group for each rate; filters decay, biases and batch norm do not."""
    scaffold.requires_grad_(False)
    newest = phase.stages - 1
    parts: list[tuple[nn.Module, float]] = []
    for stage in range(phase.stages):
        lr = phase.lr if stage == newest else phase.older_lr
        parts += [(scaffold.net.decoder[stage], lr), (scaffold.head(stage), lr)]
    if scaffold.net.code is not None:
        parts.append((scaffold.net.code, phase.lr if newest == 0 else phase.older_lr))
    parts += [(s, phase.trunk_lr) for s in scaffold.net.trunk.stages[phase.trunk_from - 1 :]]
    groups = []
    for module, lr in parts:
        if lr > 0:
            kept = [p.requires_grad_() for p in module.parameters()]
            for decay, of in ((recipe.weight_decay, True), (0.0, False)):
                chosen = [p for p in kept if (p.dim() > 1) == of]
                groups.append({"params": chosen, "lr": lr, "peak": lr, "weight_decay": decay})
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=recipe.momentum)
    raise OptionError(f"got optimizer {recipe.optimizer!r}; it is 'adamw' or 'sgd'")


def _set_rate(optimizer: torch.optim.Optimizer, n: int, steps: int, recipe: Recipe) -> float:
    """Set the rates of step n of a phase: a short rise, then a line down to 2 %."""
    factor = min(1.0, (n + 1) / max(recipe.warmup, 1)) * max(0.02, 1 - n / steps)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return float(optimizer.param_groups[0]["lr"])


def arithmetic(device: torch.device, bf16: bool) -> AbstractContextManager[object]:
    """Bfloat16 arithmetic, where it is wanted and the hardware has it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16 and bf16_pays(device))
