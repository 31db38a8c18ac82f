"""The training loop: a network is fitted to batches, phase by phase."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from unpool import parallel
from unpool.data.batches import Batch
from unpool.data.voc import VOID
from unpool.errors import OptionError, UnpoolError
from unpool.models import Network, prepare
from unpool.models.fast import bf16_pays
from unpool.models.scaffold import Learner
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

_DROP = 0.1  #: factor of the learning rate at the steps of `Phase.drop_every`


class Step(NamedTuple):
    """A record of one training step."""

    n: int  #: steps done, from 1
    phase: str
    loss: float  #: of the finest head
    lr: float  #: of the newest stage
    gradient: float  #: norm over all that learns, before it is cut
    seconds: float


@dataclass
class Progress:
    """Where a training stands: all that `fit` needs to go on, besides the network."""

    step: int = 0
    optimizer: torch.optim.Optimizer | None = None


class TrainingError(UnpoolError, RuntimeError):
    """The training cannot go on."""


def fit(
    learner: Learner,
    batches: Iterator[Batch],
    recipe: Recipe,
    progress: Progress | None = None,
    optimizer_state: dict[str, object] | None = None,
) -> Iterator[Step]:
    """Train; a record comes out after every step, and the caller does the rest in its `for`.

    Args:
        learner: the network with its heads, changed in place.
        batches: the parts of batches, beginning with the first one of the first step to be done.
        recipe: its phases are done one after the other.
        progress: kept up to date; `progress.step` steps count as done.
        optimizer_state: of a phase that was left in its middle.

    Raises:
        TrainingError: the loss or its gradient is not finite.
    """
    progress = progress or Progress()
    learner.net.trunk.checkpointing = recipe.checkpointing
    end, grown = 0, recipe.phases[0].stages
    for phase in recipe.phases:
        begin, end = end, end + phase.steps
        before, grown = grown, max(grown, phase.stages)
        if progress.step >= end:
            continue
        optimizer = progress.optimizer = _optimizer(learner, phase, recipe)
        if optimizer_state is not None and progress.step > begin:
            optimizer.load_state_dict(optimizer_state)
        engine = parallel.replicate(learner, unused=recipe.coarse_weight == 0 < phase.stages - 1)
        while progress.step < end:
            start = time.perf_counter()
            parts = [next(batches) for _ in range(parts_of(recipe) // parallel.world())]
            if progress.step == begin and before < grown:
                x = prepare(torch.from_numpy(parts[0].images).to(_device(learner)))
                for stage in range(before, grown):
                    learner.eval().grow(stage, x)
                parallel.copy_from_first(learner)
            lr = _set_rate(optimizer, progress.step - begin, phase, recipe)
            with torch.random.fork_rng():  # dropout, also of a resumed run
                rank = parallel.rank()
                torch.manual_seed(recipe.seed + 1_000_003 * progress.step + 7_919 * rank)
                loss, gradient = _step(engine, learner, parts, optimizer, phase, recipe, lr)
            progress.step += 1
            seconds = time.perf_counter() - start
            yield Step(progress.step, phase.name, loss, lr, gradient, seconds)


def parts_of(recipe: Recipe) -> int:
    """How many parts a batch is passed in, by all processes together.

    Raises:
        OptionError: the batch cannot be divided so.
    """
    world, parts = parallel.world(), recipe.accumulate
    parts = parts if parts % world == 0 else parts * world
    if recipe.batch % parts:
        raise OptionError(
            f"got a batch of {recipe.batch} for {parts} parts ({recipe.accumulate} to accumulate, "
            f"{world} processes); set batch to a multiple of {parts}"
        )
    return parts


@torch.no_grad()
def estimate_statistics(
    net: Network, stream: Iterator[Batch], passes: int, bf16: bool = True
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
    device = _device(net)
    for _ in range(passes if norms else 0):
        with arithmetic(device, bf16):
            net(prepare(torch.from_numpy(next(stream).images).to(device)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    net.eval()


def _step(
    engine: nn.Module,
    learner: Learner,
    parts: list[Batch],
    optimizer: torch.optim.Optimizer,
    phase: Phase,
    recipe: Recipe,
    lr: float,
) -> tuple[float, float]:
    """One update; the finest head's loss and the gradient's norm."""
    set_learning(learner, phase, recipe)
    optimizer.zero_grad(set_to_none=True)
    loss, gradient = 0.0, float("nan")
    for number, part in enumerate(parts, 1):
        waits = isinstance(engine, DistributedDataParallel) and number < len(parts)
        with engine.no_sync() if waits else nullcontext():  # type: ignore[operator]
            found = _losses(engine, part, phase, recipe)
            total = found[-1] + recipe.coarse_weight * sum(found[:-1])
            (total / len(parts)).backward()  # type: ignore[no-untyped-call]
        loss += float(found[-1].item()) / len(parts)
    loss = parallel.mean(loss)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if loss == loss:
        limit = float("inf") if recipe.clip is None else recipe.clip
        gradient = float(nn.utils.clip_grad_norm_(parameters, limit))
    if not abs(loss) + gradient < float("inf"):  # also where either is not a number
        raise TrainingError(
            f"the loss is {loss:.4g} with a gradient of norm {gradient:.4g} (phase {phase.name}, "
            f"learning rate {lr:.2g}); begin a new run with lower rates, such as "
            "--set phases.0.lr=1e-4"
        )
    optimizer.step()
    return loss, gradient


def _losses(engine: nn.Module, part: Batch, phase: Phase, recipe: Recipe) -> list[Tensor]:
    """The loss of each head, from the coarsest; only the last one where the others do not count."""
    device = _device(engine)
    truth = torch.from_numpy(part.labels).to(device).long()
    with arithmetic(device, recipe.bf16):
        x = prepare(torch.from_numpy(part.images).to(device))
        found = engine(x, phase.stages, recipe.dropout, recipe.coarse_weight == 0)
    return [_loss(f.float(), truth) for f in found]


def _loss(found: Tensor, truth: Tensor) -> Tensor:
    """Cross entropy over pixels that are not void; coarse scores are enlarged up to four times."""
    step = max(truth.shape[-1] // (4 * found.shape[-1]), 1)
    truth = truth[:, step // 2 :: step, step // 2 :: step]
    if found.shape[-2:] != truth.shape[-2:]:
        found = F.interpolate(found, size=truth.shape[-2:], mode="bilinear")
    valid = (truth != VOID).sum().clamp_min(1)  # a window may hold nothing but void
    return F.cross_entropy(found, truth, ignore_index=VOID, reduction="sum") / valid


def set_learning(learner: Learner, phase: Phase, recipe: Recipe) -> None:
    """Training mode for what learns; all other batch norm stays as it is (evaluation mode)."""
    learner.train()
    if not recipe.trunk_norm:
        learner.net.trunk.eval()
    for part in learner.unused(phase.stages):
        part.eval()


def _optimizer(learner: Learner, phase: Phase, recipe: Recipe) -> torch.optim.Optimizer:
    """A group for each rate and kind: filters, biases, batch norm."""
    learner.requires_grad_(False)
    parts = [(part, phase.lr) for part in learner.newest(phase.stages)]
    parts += [(part, phase.older_lr) for part in learner.older(phase.stages)]
    parts += [(s, phase.trunk_lr) for s in learner.net.trunk.stages[phase.trunk_from - 1 :]]
    groups = []
    for part, lr in parts:
        if lr > 0:
            kept = [p for p in part.parameters() if id(p) not in learner.fixed]
            groups += _groups(part, kept, lr, recipe)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=recipe.momentum)
    raise OptionError(f"got optimizer {recipe.optimizer!r}; it is 'adamw' or 'sgd'")


def _groups(
    part: nn.Module, kept: list[nn.Parameter], lr: float, recipe: Recipe
) -> list[dict[str, Any]]:
    """Filters decay, biases do not."""
    norms = [m for m in part.modules() if isinstance(m, nn.BatchNorm2d)]
    of_norm = {id(p) for norm in norms for p in norm.parameters()}
    kinds = [
        ([p for p in kept if p.dim() > 1], 1.0, True),
        ([p for p in kept if p.dim() < 2 and id(p) not in of_norm], recipe.bias_lr, False),
        ([p for p in kept if id(p) in of_norm], 1.0, recipe.decay_norm),
    ]
    for p in kept:
        p.requires_grad_()
    return [
        {
            "params": chosen,
            "lr": lr * factor,
            "peak": lr * factor,
            "weight_decay": recipe.weight_decay if decays else 0.0,
        }
        for chosen, factor, decays in kinds
    ]


def _set_rate(optimizer: torch.optim.Optimizer, n: int, phase: Phase, recipe: Recipe) -> float:
    """Set the rates of step n of a phase: a short rise, then drops or a line down to 2 %.

    Caffe keeps the rate inside the momentum, so that a drop is felt little by little; here, where
    it is outside, the momentum grows by as much as the rate falls.
    """
    factor = min(1.0, (n + 1) / max(recipe.warmup, 1))
    if phase.drop_every is None:
        factor *= max(0.02, 1 - n / phase.steps)
    else:
        factor *= _DROP ** (n // phase.drop_every)
        if n and n % phase.drop_every == 0:
            for state in optimizer.state.values():
                if state.get("momentum_buffer") is not None:
                    state["momentum_buffer"] /= _DROP
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return float(optimizer.param_groups[0]["lr"])


def arithmetic(device: torch.device, bf16: bool) -> AbstractContextManager[object]:
    """Bfloat16 arithmetic, where it is wanted and the hardware has it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16 and bf16_pays(device))


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
