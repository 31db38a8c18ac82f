"""A compact generator that trains in a minute or two on two cores, for the comparisons."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unpool import Progress
from unpool.devices import find_device
from unpool.generate.batches import Views, view_batches
from unpool.generate.train import GenerationObjective, build
from unpool.models import GenerativeNet
from unpool.recipes import GenerationRecipe
from unpool.recipes.generate import Rate
from unpool.training import loop

COMPACT = GenerationRecipe(
    "compact",
    (Rate(800, 1e-3),),
    size=64,
    code=128,
    shared=256,
    widths=(96, 64, 32),
    mask_widths=(32, 24, 16),
    mask_maps=1,
    initialization="xavier",
    batch=32,
    plain=1.0,
    optimizer="adamw",
    bias_lr=1.0,
    warmup=50,
    schedule="cosine",
)
"""Learns from views as they are, without random transformations."""


def for_steps(recipe: GenerationRecipe, steps: int, **changes: Any) -> GenerationRecipe:
    """The recipe with another number of steps (and a warmup that fits), and other changes."""
    rates = (Rate(steps, recipe.rates[0].lr),)
    return dataclasses.replace(recipe, rates=rates, warmup=min(recipe.warmup, steps), **changes)


def train_compact(
    views: Views,
    seen: NDArray[np.int64],
    styles: int,
    recipe: GenerationRecipe,
    device: str,
    on_step: Callable[[int], object],
) -> GenerativeNet:
    """Train a network in memory, without a run folder.

    Args:
        views: all views.
        seen: indices of the training views.
        styles: number of styles that the network has.
        recipe: how to train.
        device: "auto", "cpu", "cuda" or "cuda:n".
        on_step: called with the number of each finished step.
    """
    torch.manual_seed(recipe.seed)
    net = build(recipe, styles).to(find_device(device))
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    stream = view_batches(views, seen, recipe, recipe.batch)
    for step in loop.fit(GenerationObjective(net, recipe), stream):
        on_step(step.n)
    return net


def step_counter(
    progress: Progress | None, i: int, count: int, steps: int, name: str
) -> Callable[[int], None]:
    """A callback for the steps of training run `i` of `count`, which reports overall progress."""

    def on_step(n: int) -> None:
        if progress is not None:
            progress(i * steps + n, count * steps, name)

    return on_step
