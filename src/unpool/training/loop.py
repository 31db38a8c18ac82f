"""The training loop: a network is fitted to batches, phase by phase."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from unpool import distributed
from unpool.data.batches import Batch
from unpool.data.classes import VOID
from unpool.devices import bf16_pays
from unpool.errors import OptionError, TrainingError
from unpool.models import Network, prepare
from unpool.recipes import Phase, Recipe, SegmentationRecipe
from unpool.segment.growing import Learner

Part = TypeVar("Part")
_Losses = tuple[Tensor, Tensor]

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
    """Where a training run stands: all that `fit` needs to go on, besides the network."""

    step: int = 0
    optimizer: torch.optim.Optimizer | None = None


def fit(
    learner: Learner,
    batches: Iterator[Batch],
    recipe: SegmentationRecipe,
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
        engine = distributed.replicate(learner, unused=recipe.coarse_weight == 0 < phase.stages - 1)
        if progress.step == begin and before < grown:
            first = next(batches)
            batches = itertools.chain([first], batches)
            _grow(learner, range(before, grown), first)

        def losses(part: Batch, phase: Phase = phase, engine: nn.Module = engine) -> _Losses:
            found = _losses(engine, part, phase, recipe)
            return found[-1] + recipe.coarse_weight * sum(found[:-1]), found[-1]

        while progress.step < end:
            n = progress.step - begin
            lr = set_rate(optimizer, n, phase.steps, recipe.warmup, phase.drop_every)
            set_learning(learner, phase, recipe)
            yield take_step(
                engine, batches, losses, recipe, progress, lr, phase.name, "--set phases.0.lr=1e-4"
            )


def take_step(
    engine: nn.Module,
    stream: Iterator[Part],
    losses: Callable[[Part], _Losses],
    recipe: Recipe,
    progress: Progress,
    lr: float,
    phase: str,
    cure: str,
) -> Step:
    """One step of a training run, of whatever kind.

    Args:
        engine: the network, as `distributed.replicate` gave it, in training mode.
        stream: gives the parts of batches.
        losses: gives the loss of a part that is made smaller, and the one to report.
        recipe: its `batch`, `accumulate`, `seed` and `clip` count.
        progress: with its optimizer, at its rates; one step further afterwards.
        lr: the rate to report.
        phase: where the training stands.
        cure: what may help where the loss runs away.

    Raises:
        TrainingError: the loss or its gradient is not finite.
    """
    assert progress.optimizer is not None
    start = time.perf_counter()
    parts = [next(stream) for _ in range(parts_of(recipe) // distributed.world())]
    where = f"{phase}, learning rate {lr:.2g}"
    with chance_of(recipe.seed, progress.step):
        loss, gradient = descend(
            engine, progress.optimizer, parts, losses, recipe.clip, where, cure
        )
    progress.step += 1
    return Step(progress.step, phase, loss, lr, gradient, time.perf_counter() - start)


@contextmanager
def chance_of(seed: int, step: int) -> Iterator[None]:
    """Let all chance (dropout) depend on the step alone; a resumed run has the same."""
    with torch.random.fork_rng():
        torch.manual_seed(seed + 1_000_003 * step + 7_919 * distributed.rank())
        yield


def parts_of(recipe: Recipe) -> int:
    """How many parts a batch is passed in, by all processes together.

    Raises:
        OptionError: the batch cannot be divided so.
    """
    world, parts = distributed.world(), recipe.accumulate
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


def _grow(learner: Learner, stages: range, batch: Batch) -> None:
    """Let stages begin that were not in use, by what a first batch makes of them."""
    x = prepare(torch.from_numpy(batch.images).to(_device(learner)))
    for stage in stages:
        learner.eval().grow(stage, x)
    distributed.copy_from_first(learner)


def descend(
    engine: nn.Module,
    optimizer: torch.optim.Optimizer,
    parts: list[Part],
    losses: Callable[[Part], _Losses],
    clip: float | None,
    where: str,
    cure: str,
) -> tuple[float, float]:
    """One update by the mean of the gradients of a batch's parts.

    Args:
        engine: the network, as `distributed.replicate` gave it.
        optimizer: of what learns.
        parts: of this process.
        losses: gives the loss of a part that is made smaller, and the one to report.
        clip: largest norm of the gradient; None for any.
        where: the training stands, for the message of an error.
        cure: what may help.

    Returns:
        The loss, and the gradient's norm before it is cut.

    Raises:
        TrainingError: one of the two is not finite.
    """
    optimizer.zero_grad(set_to_none=True)
    loss, gradient = 0.0, float("nan")
    for number, part in enumerate(parts, 1):
        waits = isinstance(engine, DistributedDataParallel) and number < len(parts)
        with engine.no_sync() if waits else nullcontext():  # type: ignore[operator]
            total, shown = losses(part)
            (total / len(parts)).backward()  # type: ignore[no-untyped-call]
        loss += float(shown.item()) / len(parts)
    loss = distributed.mean(loss)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if loss == loss:
        limit = float("inf") if clip is None else clip
        gradient = float(nn.utils.clip_grad_norm_(parameters, limit))
    if not abs(loss) + gradient < float("inf"):  # also where either is not a number
        raise TrainingError(
            f"the loss is {loss:.4g} with a gradient of norm {gradient:.4g} ({where}); begin a new "
            f"run with lower rates, such as {cure}"
        )
    optimizer.step()
    return loss, gradient


def _losses(
    engine: nn.Module, part: Batch, phase: Phase, recipe: SegmentationRecipe
) -> list[Tensor]:
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


def set_learning(learner: Learner, phase: Phase, recipe: SegmentationRecipe) -> None:
    """Training mode for what learns; all other batch norm stays as it is (evaluation mode)."""
    learner.train()
    if not recipe.trunk_norm:
        learner.net.trunk.eval()
    for part in learner.unused(phase.stages):
        part.eval()


def _optimizer(learner: Learner, phase: Phase, recipe: SegmentationRecipe) -> torch.optim.Optimizer:
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
    return optimizer_of(groups, recipe)


def optimizer_of(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer for groups of parameters.

    Raises:
        OptionError: an optimizer that there is not.
    """
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, eps=getattr(recipe, "eps", 1e-8), fused=True)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=recipe.momentum)
    raise OptionError(f"got optimizer {recipe.optimizer!r}; it is 'adamw' or 'sgd'")


def _groups(
    part: nn.Module, kept: list[nn.Parameter], lr: float, recipe: SegmentationRecipe
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


def set_rate(
    optimizer: torch.optim.Optimizer, n: int, steps: int, warmup: int, drop_every: int | None
) -> float:
    """Set the rates of step n of so many: a short rise, then drops or a line down to 2 %."""
    factor = min(1.0, (n + 1) / max(warmup, 1))
    if drop_every is None:
        return scale_rates(optimizer, factor * max(0.02, 1 - n / steps))
    drops = bool(n) and n % drop_every == 0
    return scale_rates(optimizer, factor * _DROP ** (n // drop_every), _DROP if drops else 1.0)


def scale_rates(optimizer: torch.optim.Optimizer, factor: float, drop: float = 1.0) -> float:
    """Set each rate to `factor` of its peak; the first of them is returned.

    Caffe keeps the rate inside the momentum, so that a drop is felt little by little; here, where
    it is outside, the momentum grows by as much as the rate falls.

    Args:
        optimizer: whose groups have a "peak".
        factor: of the peak.
        drop: the new factor by the one before, where it falls at once in this step.
    """
    for state in optimizer.state.values() if drop != 1 else ():
        if state.get("momentum_buffer") is not None:
            state["momentum_buffer"] /= drop
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return float(optimizer.param_groups[0]["lr"])


def arithmetic(device: torch.device, bf16: bool) -> AbstractContextManager[object]:
    """Bfloat16 arithmetic, where it is wanted and the hardware has it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16 and bf16_pays(device))


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
