"""`unpool bench train`: the time and memory of a training step.

The time is limited by arithmetic, three times that of segmenting; the batch size by the activations
kept for the gradient. bf16 halves both. Checkpointing keeps a fraction of the activations, for a
third more arithmetic.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from unpool.bench import harness
from unpool.bench.memory import alone, gigabytes, nothing, peak_of_batch, trace
from unpool.devices import bf16_pays
from unpool.errors import OptionError
from unpool.models import DeconvNet

if TYPE_CHECKING:
    from unpool import Progress


class Mode(NamedTuple):
    """How a step is computed."""

    bf16: bool
    checkpointing: bool


MODES = {
    "fp32": Mode(False, False),
    "fp32, checkpointing": Mode(False, True),
    "bf16": Mode(True, False),
    "bf16, checkpointing": Mode(True, True),
}

_NARROW: dict[str, Any] = {"trunk": ((2, 16), (2, 32), (3, 64), (3, 128), (3, 128)), "code": 1024}
_BATCH, _MEASURED = 64, 8  # for memory: the published batch size, and one that fits a laptop


def measure(
    batch: int = 4,
    rounds: int = 5,
    *,
    full: bool = False,
    processes: bool = False,
    progress: "Progress" = harness.silent,
) -> dict[str, Any]:
    """Seconds per image of a training step, and the memory of a step with 64 images.

    The step is the published one: cross entropy, SGD with momentum and weight decay, all layers
    trained. Memory is computed: all tensors of a step are followed with two small batches, and each
    total is linear in the batch size (`peak_of_batch`).

    Args:
        batch: images of a timed step, 2 or more, which batch norm needs.
        full: use the published network, instead of one a quarter as wide.
        processes: also run two steps with 8 images in a process per mode, and compare its peak
            memory with the computed one.

    Returns:
        `seconds_per_image` by mode, `ratio` of fp32 to each mode, and `memory_gb`.
    """
    harness.require_positive(rounds=rounds)
    if batch < 2:
        raise OptionError(f"got batch={batch}; batch norm learns from 2 images or more")
    check = _check(full, progress) if processes else None
    step = Step(_network(full))
    bf16 = bf16_pays(torch.device("cpu"))
    modes = {name: mode for name, mode in MODES.items() if bf16 or not mode.bf16}
    works = {name: harness.timed(partial(step, batch, mode)) for name, mode in modes.items()}
    seconds = harness.in_turn(works, rounds, progress=progress)
    memory = {}
    for i, (name, mode) in enumerate(MODES.items()):
        progress(i, len(MODES), f"memory, {name}")
        kept, peaks = compute_memory(step, mode, (_BATCH, _MEASURED))
        memory[name] = {"kept": gigabytes(kept * _BATCH), "peak": gigabytes(peaks[_BATCH])}
        if check is not None:
            check[name]["computed"] = gigabytes(peaks[_MEASURED])
    return {
        "network": "the published one" if full else "a quarter of the published width",
        "batch": batch,
        "seconds_per_image": {k: harness.spread(s / batch for s in v) for k, v in seconds.items()},
        "ratio": {name: harness.paired(seconds["fp32"], each) for name, each in seconds.items()},
        "memory_batch": _BATCH,
        "memory_gb": memory,
        "check_batch": _MEASURED,
        "check_gb": check,
        "rounds": rounds,
        "machine": harness.describe(),
    }


def compute_memory(step: "Step", mode: Mode, batches: Sequence[int]) -> tuple[int, dict[int, int]]:
    """The bytes of a step's tensors, extrapolated from steps with two and three images.

    Returns:
        The bytes that an image adds to the memory between forward and backward, itself and its
        scores included; and the peak by batch size: weights, momentum, gradients and activations.
        Scratch space inside operations is left out.
    """
    step(2, mode)  # creates the momentum buffers
    tried = (2, 3)
    forward = [trace(partial(step.loss, n, mode), step.held())[-1] for n in tried]
    traces = {n: trace(partial(step, n, mode), step.held()) for n in tried}
    return forward[1] - forward[0], {batch: peak_of_batch(batch, traces) for batch in batches}


class Step:
    """A training step of the published recipe, on random images; it changes `net`."""

    def __init__(self, net: DeconvNet) -> None:
        self.net = net.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4
        )

    def __call__(self, batch: int, mode: Mode) -> None:
        """Run one step on `batch` images."""
        self.loss(batch, mode).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def loss(self, batch: int, mode: Mode) -> Tensor:
        """The cross entropy of a batch, with its graph."""
        size = self.net.size
        x = torch.randn(batch, size, size, 3).permute(0, 3, 1, 2)
        truth = torch.zeros(batch, size, size, dtype=torch.int64)
        self.net.trunk.checkpointing = mode.checkpointing
        with torch.autocast("cpu", torch.bfloat16, enabled=mode.bf16):
            scores = self.net(x)
        return F.cross_entropy(scores.float(), truth)

    def held(self) -> list[Tensor]:
        """The tensors that live between steps: weights, statistics, momentum."""
        states = [v for state in self.optimizer.state.values() for v in state.values()]
        momentum = [value for value in states if isinstance(value, Tensor)]
        return [*self.net.parameters(), *self.net.buffers(), *momentum]


def steps_alone(full: bool, mode: str) -> Iterator[None]:
    """Run two steps, the second with momentum, to measure their memory."""
    step = Step(_network(full))
    yield
    for _ in range(2):
        step(_MEASURED, MODES[mode])


def _check(full: bool, progress: "Progress") -> dict[str, dict[str, float | None]]:
    """The peak memory of a process per mode, and of an empty one."""
    (empty,) = alone(nothing)
    check = {}
    for i, name in enumerate(MODES):
        progress(i, len(MODES), f"memory of a process, {name}")
        peak = alone(steps_alone, full, name)[-1]
        check[name] = {"process": gigabytes(peak), "empty_process": gigabytes(empty)}
    return check


def _network(full: bool) -> DeconvNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DeconvNet() if full else DeconvNet(**_NARROW)
