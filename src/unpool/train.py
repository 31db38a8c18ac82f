"""Train a DeconvNet from coarse to fine, and keep what a run needs to go on and to be judged."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unpool.data.crops import Batch
from unpool.data.voc import VOID
from unpool.errors import OptionError, UnpoolError
from unpool.models.fast import bf16_pays
from unpool.models.scaffold import Scaffold
from unpool.models.vgg import prepare
from unpool.recipes import Phase, Recipe

__all__ = ["Progress", "Step", "estimate_statistics", "fit"]


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
            loss = _step(scaffold, x, batch.labels, optimizer, phase, recipe)
            progress.step += 1
            if not np.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss} at step {progress.step} (phase {phase.name}, learning "
                    f"rate {lr:.2g}); resume from the last checkpoint with a lower rate"
                )
            yield Step(progress.step, phase.name, loss, lr, time.perf_counter() - start)


@torch.no_grad()
def estimate_statistics(net: nn.Module, batches: Iterator[Batch], passes: int) -> None:
    """Take batch norm's statistics anew, as the mean over some batches of the finished network.

    Only the decoder's and the code's: a trunk whose batch norm was not trained keeps its own.

    Noh, Hong, Han 2015, section 4.1; the released `BN_make_INFERENCE_script.py`.
    """
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
    device = next(net.parameters()).device
    net.train()
    for _ in range(passes):
        net(prepare(torch.from_numpy(next(batches).images).to(device)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    net.eval()
