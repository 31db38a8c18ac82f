"""The training loop: phases and optimizer steps of an objective, learning-rate schedules."""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unpool import distributed
from unpool.errors import OptionError, TrainingError
from unpool.recipes import Recipe

Part = TypeVar("Part")
Group = dict[str, Any]
"""A parameter group of a PyTorch optimizer; its "peak" is the learning rate before any schedule."""

_LEAST = 0.02  #: of the peak, to which "linear" and "cosine" fall
_DROP = 0.1


class Step(NamedTuple):
    """A record of one training step."""

    n: int  #: steps done, from 1
    phase: str
    loss: float
    lr: float  #: of the first parameter group
    gradient: float  #: norm before clipping
    seconds: float

    def __str__(self) -> str:
        return f"step {self.n}, {self.phase}: loss {self.loss:.3g}, lr {self.lr:.1e}"


@dataclass
class LoopState:
    """Where a training loop stands: all that it needs to go on, besides the network."""

    step: int = 0
    optimizer: torch.optim.Optimizer | None = None


@contextmanager
def seeded(seed: int, step: int) -> Iterator[None]:
    """Seed the RNG from the step number, so that a resumed run draws the same dropout masks."""
    with torch.random.fork_rng():
        # two odd primes: no two of the usual steps and ranks share a seed
        torch.manual_seed(seed + 1_000_003 * step + 7_919 * distributed.rank())
        yield


def parts_of(recipe: Recipe) -> int:
    """The number of parts that a batch is divided into, over all processes.

    Raises:
        OptionError: the batch cannot be divided like this.
    """
    world, parts = distributed.world(), recipe.accumulate
    parts = parts if parts % world == 0 else parts * world
    if recipe.batch % parts:
        raise OptionError(
            f"got a batch of {recipe.batch} for {parts} parts ({recipe.accumulate} to accumulate, "
            f"{world} processes); set batch to a multiple of {parts}"
        )
    return parts


def optimizer_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    parts: Sequence[Part],
    losses: Callable[[Part], tuple[Tensor, Tensor]],
    clip: float | None = None,
) -> tuple[float, float]:
    """Update the parameters by the mean of the gradients of a batch's parts.

    Args:
        network: as `distributed.replicate` gave it.
        optimizer: of the parameters that learn.
        parts: those of this process.
        losses: gives the loss of a part that is minimized, and the one that is reported.
        clip: largest norm of the gradient; None for any.

    Returns:
        The reported loss, and the gradient's norm before clipping.

    Raises:
        TrainingError: one of the two is not finite; nothing is updated then.
    """
    optimizer.zero_grad(set_to_none=True)
    loss, gradient = 0.0, float("nan")
    for number, part in enumerate(parts, 1):
        # gradients are averaged over the processes once a step, not once a part
        waits = isinstance(network, DistributedDataParallel) and number < len(parts)
        with network.no_sync() if waits else nullcontext():  # type: ignore[operator]
            total, reported = losses(part)
            (total / len(parts)).backward()  # type: ignore[no-untyped-call]
        loss += float(reported.item()) / len(parts)
    loss = distributed.mean(loss)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if loss == loss:
        limit = float("inf") if clip is None else clip
        gradient = float(nn.utils.clip_grad_norm_(parameters, limit))
    if not abs(loss) + gradient < float("inf"):  # also where either is not a number
        raise TrainingError(f"the loss is {loss:.4g} with a gradient of norm {gradient:.4g}")
    optimizer.step()
    return loss, gradient


def make_optimizer(groups: list[Group], recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer, for groups of parameters."""
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, eps=recipe.eps, fused=True)
    return torch.optim.SGD(groups, momentum=recipe.momentum)


def parameter_group(parameters: Iterable[nn.Parameter], lr: float, decay: float = 0.0) -> Group:
    """A group for `make_optimizer`: its peak learning rate and its weight decay."""
    return {"params": list(parameters), "lr": lr, "peak": lr, "weight_decay": decay}


def filters_and_biases(module: nn.Module, lr: float, recipe: Recipe) -> list[Group]:
    """Two groups: filters decay; biases and scales do not, and learn at a rate of their own."""
    filters = [p for p in module.parameters() if p.dim() > 1]
    biases = [p for p in module.parameters() if p.dim() < 2]
    return [
        parameter_group(filters, lr, recipe.weight_decay),
        parameter_group(biases, lr * recipe.bias_lr),
    ]


class Rate(NamedTuple):
    """The learning rate of a step, relative to the peak of each group."""

    factor: float
    drop: float = 1.0  #: the factor by the one before, where it falls at once in this step


def warmup(n: int, steps: int) -> float:
    """The factor of step n in a linear rise over so many steps.

    >>> [warmup(n, 4) for n in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return min(1.0, (n + 1) / max(steps, 1))


def scheduled(schedule: str, n: int, steps: int) -> float:
    """The factor of step n of so many, by a recipe's `schedule`.

    >>> [scheduled(name, 5, 10) for name in ("constant", "linear")]
    [1.0, 0.5]
    """
    if schedule == "linear":
        return max(_LEAST, 1 - n / steps)
    if schedule == "cosine":
        return max(_LEAST, (1 + math.cos(math.pi * n / steps)) / 2)
    return 1.0


def dropped(n: int, every: int) -> Rate:
    """The learning rate of step n, where it falls tenfold after every so many steps.

    >>> dropped(5, 5) == Rate(0.1, drop=0.1), dropped(6, 5) == Rate(0.1)
    (True, True)
    """
    return Rate(_DROP ** (n // every), _DROP if n and n % every == 0 else 1.0)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: Rate) -> float:
    """Set each group's learning rate to a factor of its peak; the first of them is returned.

    Caffe keeps the learning rate inside of the momentum, so that a drop takes effect little by
    little; PyTorch keeps it outside, so here the momentum grows by as much as the rate falls.
    """
    for state in optimizer.state.values() if rate.drop != 1 else ():
        if state.get("momentum_buffer") is not None:
            state["momentum_buffer"] /= rate.drop
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * rate.factor
    return float(optimizer.param_groups[0]["lr"])


def lower_peaks(optimizer: torch.optim.Optimizer) -> None:
    """Drop the learning rate tenfold.

    It is stored in the optimizer state, so resumed runs keep it.
    """
    for group in optimizer.param_groups:
        group["peak"] *= _DROP


class Objective(Generic[Part]):
    """What a training loop learns: a network, its losses, and how its parameters are updated.

    A subclass gives `steps`, `groups` and `losses`; the rest has defaults.

    Args:
        learner: the network, with whatever is put around it during training; changed in place.
        recipe: its `batch`, `accumulate`, `seed`, `clip`, `warmup`, `schedule` and optimizer count.
    """

    unused = False  #: whether some learning parameters may take no part in the loss

    def __init__(self, learner: nn.Module, recipe: Recipe) -> None:
        self.learner, self.recipe = learner, recipe
        self.network = learner  #: what `losses` calls: the learner, replicated over the processes
        self.phase = 0  #: the number of the current phase

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return next(self.learner.parameters()).device

    def steps(self) -> list[int]:
        """The number of steps of each phase; every phase has an optimizer of its own."""
        raise NotImplementedError

    def groups(self) -> list[Group]:
        """The parameter groups of the current phase, see `parameter_group`."""
        raise NotImplementedError

    def losses(self, part: Part) -> tuple[Tensor, Tensor]:
        """The loss of a part of a batch that is minimized, and the one that is reported."""
        raise NotImplementedError

    def rate(self, n: int) -> Rate:
        """The learning rate of step n of the current phase, from 0."""
        steps = self.steps()[self.phase]
        rise = warmup(n, self.recipe.warmup)
        return Rate(rise * scheduled(self.recipe.schedule, n, steps))

    def name(self, step: int) -> str:
        """What the phase of a step, counted from 0 over all phases, is called in its record."""
        return "training"

    def cure(self) -> str:
        """A setting that may help where the loss diverges."""
        return "a tenth of lr"

    def enter(self, first: Part) -> None:
        """Prepare the learner for the current phase, before its first step, by its first part."""

    def set_mode(self) -> None:
        """Put the learner into training mode, before every step."""
        self.learner.train()

    def after_step(self) -> None:
        """Change the learner after an optimizer step, for example renormalize its filters."""


def fit(
    objective: Objective[Part],
    stream: Iterator[Part],
    state: LoopState | None = None,
    optimizer_state: dict[str, Any] | None = None,
) -> Iterator[Step]:
    """Train; yield a record after every step, so that the caller validates and saves in its `for`.

    Args:
        objective: what is learned.
        stream: the parts of batches, from the first one of the first step to be done.
        state: updated with every step; `state.step` steps count as done.
        optimizer_state: of a phase that was interrupted.

    Raises:
        TrainingError: the loss or its gradient is not finite.
    """
    state, end = state or LoopState(), 0
    for phase, steps in enumerate(objective.steps()):
        objective.phase = phase
        start, end = end, end + steps
        if state.step >= end:
            continue
        state.optimizer = make_optimizer(objective.groups(), objective.recipe)
        if optimizer_state is not None and state.step > start:
            state.optimizer.load_state_dict(optimizer_state)
        objective.network = distributed.replicate(objective.learner, unused=objective.unused)
        if state.step == start:
            first = next(stream)
            stream = itertools.chain([first], stream)
            objective.enter(first)
        while state.step < end:
            yield _step(objective, stream, state, state.step - start)


def _step(objective: Objective[Part], stream: Iterator[Part], state: LoopState, n: int) -> Step:
    assert state.optimizer is not None
    recipe, begun = objective.recipe, time.perf_counter()
    lr = set_learning_rate(state.optimizer, objective.rate(n))
    objective.set_mode()
    name = objective.name(state.step)
    parts = [next(stream) for _ in range(parts_of(recipe) // distributed.world())]
    try:
        with seeded(recipe.seed, state.step):
            loss, gradient = optimizer_step(
                objective.network, state.optimizer, parts, objective.losses, recipe.clip
            )
    except TrainingError as error:
        raise TrainingError(
            f"{error} ({name}, learning rate {lr:.2g}); begin a new run with lower learning "
            f"rates, such as {objective.cure()}"
        ) from None
    objective.after_step()
    state.step += 1
    return Step(state.step, name, loss, lr, gradient, time.perf_counter() - begun)
