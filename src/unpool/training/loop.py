"""The training loop: objectives, optimizer steps and learning-rate schedules."""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unpool import distributed
from unpool.errors import OptionError, TrainingError, WeightsError

if TYPE_CHECKING:
    from unpool.recipes.recipe import Recipe

Part = TypeVar("Part")
Group = dict[str, Any]
"""A parameter group of an optimizer; its "peak" is the learning rate before any schedule."""

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
    """The state of a training loop besides the network."""

    step: int = 0
    optimizer: torch.optim.Optimizer | None = None


@contextmanager
def seeded(seed: int, step: int) -> Iterator[None]:
    """Seed the RNG from the step number, so that a resumed run draws the same dropout masks."""
    with torch.random.fork_rng():
        # two odd primes: no two of the usual steps and ranks share a seed
        torch.manual_seed(seed + 1_000_003 * step + 7_919 * distributed.rank())
        yield


def parts_of(recipe: "Recipe") -> int:
    """The number of parts that a batch is divided into, over all processes."""
    world, parts = distributed.world(), recipe.accumulate
    # processes with fewer parts than others would wait for their gradients forever
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
        network: the result of `distributed.replicate`.
        optimizer: of the trained parameters.
        parts: those of this process.
        losses: see `Objective.losses`.
        clip: largest norm of the gradient; None for no limit.

    Returns:
        The reported loss, and the gradient's norm before clipping.

    Raises:
        TrainingError: one of the two is not finite; nothing has been updated.
    """
    optimizer.zero_grad(set_to_none=True)
    loss, gradient = 0.0, math.nan
    for number, part in enumerate(parts, 1):
        # gradients are averaged over the processes once a step, not once a part
        local = isinstance(network, DistributedDataParallel) and number < len(parts)
        with network.no_sync() if local else nullcontext():  # type: ignore[operator]
            total, reported = losses(part)
            (total / len(parts)).backward()  # type: ignore[no-untyped-call]
        loss += float(reported.item()) / len(parts)
    loss = distributed.mean(loss)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    # with NaN the gradient stays NaN, and clipping would spread it
    if loss == loss:
        gradient = float(nn.utils.clip_grad_norm_(parameters, math.inf if clip is None else clip))
    if not abs(loss) + gradient < math.inf:  # true for NaN, too
        raise TrainingError(f"the loss is {loss:.4g} with a gradient of norm {gradient:.4g}")
    optimizer.step()
    return loss, gradient


def make_optimizer(groups: list[Group], recipe: "Recipe") -> torch.optim.Optimizer:
    """The recipe's optimizer of parameter groups."""
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, eps=recipe.eps, fused=True)
    return torch.optim.SGD(groups, momentum=recipe.momentum)


def parameter_group(parameters: Iterable[nn.Parameter], lr: float, decay: float = 0.0) -> Group:
    """A group for `make_optimizer`, with its peak learning rate and weight decay."""
    return {"params": list(parameters), "lr": lr, "peak": lr, "weight_decay": decay}


def filters_and_biases(module: nn.Module, lr: float, recipe: "Recipe") -> list[Group]:
    """Two groups: filters, with weight decay; biases and scales without, at `recipe.bias_lr`."""
    filters = [p for p in module.parameters() if p.dim() > 1]
    biases = [p for p in module.parameters() if p.dim() < 2]
    decaying = parameter_group(filters, lr, recipe.weight_decay)
    return [decaying, parameter_group(biases, lr * recipe.bias_lr)]


class RateFactor(NamedTuple):
    """The learning rate of a step, relative to the peak of each group."""

    factor: float
    drop: float = 1.0  #: the ratio to the previous factor, in the step of a sudden drop


def warmup(n: int, steps: int) -> float:
    """The factor of step n in a linear warmup over a number of steps.

    >>> [warmup(n, 4) for n in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return min(1.0, (n + 1) / max(steps, 1))


def scheduled(schedule: str, n: int, steps: int) -> float:
    """The factor of step n of a number of steps, by a recipe's `schedule`.

    >>> [scheduled(name, 5, 10) for name in ("constant", "linear")]
    [1.0, 0.5]
    """
    if schedule == "linear":
        return max(_LEAST, 1 - n / steps)
    if schedule == "cosine":
        return max(_LEAST, (1 + math.cos(math.pi * n / steps)) / 2)
    return 1.0


def dropped(n: int, every: int) -> RateFactor:
    """The learning rate of step n, if it falls tenfold after every `every` steps.

    >>> dropped(5, 5) == RateFactor(0.1, drop=0.1), dropped(6, 5) == RateFactor(0.1)
    (True, True)
    """
    return RateFactor(_DROP ** (n // every), _DROP if n and n % every == 0 else 1.0)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: RateFactor) -> float:
    """Set each group's learning rate to a factor of its peak; return that of the first group.

    Caffe's momentum buffer contains the learning rate, so that a drop takes effect gradually.
    PyTorch's does not, so it is divided by the drop here.
    """
    for state in optimizer.state.values() if rate.drop != 1 else ():
        if state.get("momentum_buffer") is not None:
            state["momentum_buffer"] /= rate.drop
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * rate.factor
    return float(optimizer.param_groups[0]["lr"])


def lower_peaks(optimizer: torch.optim.Optimizer) -> None:
    """Drop the learning rate tenfold. Resumed runs keep it, in the optimizer state."""
    for group in optimizer.param_groups:
        group["peak"] *= _DROP


class Objective(Generic[Part]):
    """A network, its loss and its parameter groups: what the training loop minimizes.

    A subclass implements `steps`, `groups` and `losses`.

    Args:
        learner: the network, possibly with additional heads; changed in place.
        recipe: how to train it.
    """

    unused = False  #: whether the loss may not depend on some of the trained parameters

    def __init__(self, learner: nn.Module, recipe: "Recipe") -> None:
        self.learner, self.recipe = learner, recipe
        self.network = learner  #: what `losses` calls: the learner, replicated over the processes
        self.phase = 0  #: the number of the current phase

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self.learner.parameters()).device

    def steps(self) -> list[int]:
        """The number of steps of each phase; every phase gets a new optimizer."""
        raise NotImplementedError

    def groups(self) -> list[Group]:
        """The parameter groups of the current phase, see `parameter_group`."""
        raise NotImplementedError

    def losses(self, part: Part) -> tuple[Tensor, Tensor]:
        """Two losses of a part of a batch: the one to minimize, and the one to report."""
        raise NotImplementedError

    def rate(self, n: int) -> RateFactor:
        """The learning rate of step n of the current phase, from 0."""
        factor = scheduled(self.recipe.schedule, n, self.steps()[self.phase])
        return RateFactor(warmup(n, self.recipe.warmup) * factor)

    def name(self, step: int) -> str:
        """The name of the phase of a step, counted from 0 over all phases, for its record."""
        return "training"

    def lower_rate(self) -> str:
        """The setting to suggest if the loss diverges."""
        return "a tenth of lr"

    def enter(self, first: Part) -> None:
        """Prepare the learner for the current phase, given its first part of a batch."""

    def set_mode(self) -> None:
        """Put the learner into training mode; called before every step."""
        self.learner.train()

    def after_step(self) -> None:
        """Constrain the parameters after an optimizer step, for example renormalize filters."""


def fit(
    objective: Objective[Part],
    stream: Iterator[Part],
    state: LoopState | None = None,
    optimizer_state: dict[str, Any] | None = None,
) -> Iterator[Step]:
    """Train, and yield a record after every step, so that the caller can validate and save.

    Args:
        objective: network and loss.
        stream: parts of batches, beginning with those of step `state.step`.
        state: updated with every step; its first `state.step` steps are skipped.
        optimizer_state: of an interrupted phase.

    Raises:
        TrainingError: the loss or its gradient is not finite.
        WeightsError: the optimizer state is that of another network.
    """
    state, end = state or LoopState(), 0
    for phase, steps in enumerate(objective.steps()):
        objective.phase = phase
        start, end = end, end + steps
        if state.step >= end:
            continue
        state.optimizer = make_optimizer(objective.groups(), objective.recipe)
        # between two phases, the state is that of the optimizer before
        if optimizer_state is not None and state.step > start:
            _restore(state.optimizer, optimizer_state)
        # a phase that goes on has its new layers already
        if state.step == start:
            first = next(stream)
            stream = itertools.chain([first], stream)
            objective.enter(first)
        # after `enter`: it also gives every process the parameters of the first
        objective.network = distributed.replicate(objective.learner, unused=objective.unused)
        while state.step < end:
            yield _step(objective, stream, state, state.step - start)


def _restore(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the state of an optimizer from a checkpoint; a `WeightsError` if it is another's."""
    # `load_state_dict` takes settings from the file as they are, learning rates among them
    before = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(state)
        for own, group in zip(before, optimizer.param_groups, strict=True):
            if wrong := [k for k, v in own.items() if not _is_like(group[k], v)]:
                raise ValueError(f"{wrong[0]} is {group[wrong[0]]}")
        for parameter, values in optimizer.state.items():
            for name, value in values.items():
                if isinstance(value, Tensor) and value.dim() and value.shape != parameter.shape:
                    raise ValueError(f"{name} is {tuple(value.shape)}")
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise WeightsError(
            f"got a checkpoint whose optimizer state does not fit the network ({error}); put back "
            "a copy, or start a new run in another folder"
        ) from None


def _is_like(value: Any, other: Any) -> bool:
    """Whether a setting of an optimizer is of the kind of another, and finite."""
    if isinstance(other, float):
        return isinstance(value, float | int) and math.isfinite(value)
    return type(value) is type(other)


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
            f"{error} ({name}, learning rate {lr:.2g}); start a new run with lower learning "
            f"rates, such as {objective.lower_rate()}"
        ) from None
    objective.after_step()
    state.step += 1
    return Step(state.step, name, loss, lr, gradient, time.perf_counter() - begun)
