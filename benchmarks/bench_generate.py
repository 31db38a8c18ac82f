"""The time of generating a view, from its codes to an image.

The limit is arithmetic, the uconvs; for a single view it is the weights of fc5, which are most of
the network and are read once per batch.

usage: python benchmarks/bench_generate.py [--threads N] [--rounds N] [--weights NAME] [--batch N]
       [--json]
"""

import sys
from functools import partial
from typing import Any

import torch
from script import run
from torch.utils.flop_counter import FlopCounterMode

from unpool import Progress
from unpool.bench.harness import describe, in_turn, spread, timed
from unpool.cli.bench import seconds_cells
from unpool.generate import Generator
from unpool.models import GenerativeNet

CALLS = 10  # of a round, for a single view


def measure(
    rounds: int, *, weights: str = "chairs", batch: int = 16, progress: Progress
) -> dict[str, Any]:
    """Seconds per view, one at a time and in a batch.

    `weights` are those of a generator, or "random" for the published network of 128 pixels and 65
    styles.
    """
    generator = untrained() if weights == "random" else Generator.from_pretrained(weights)
    azimuths = [360 * i / batch for i in range(batch)]
    works = {
        "one view": timed(partial(generator.view, 0, azimuth=30), CALLS),
        f"batch of {batch}": timed(partial(generator.generate, 0, azimuths)),
    }
    one, several = in_turn(works, rounds, progress=progress).values()
    return {
        "subject": "generate",
        "network": weights,
        "size": generator.size,
        "parameters": sum(p.numel() for p in generator.model.parameters()),
        "gflop_per_view": round(operations(generator) / 1e9, 3),
        "seconds_per_view": {
            "one view": spread(one),
            f"batch of {batch}": spread(second / batch for second in several),
        },
        "rounds": rounds,
        "machine": describe(),
    }


def untrained() -> Generator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Generator(GenerativeNet(65), [f"style {i}" for i in range(65)])


def operations(generator: Generator) -> int:
    """Floating-point operations of a view."""
    codes, _ = generator.encode(0)
    with FlopCounterMode(display=False) as counter:
        generator.predict(codes)
    return counter.get_total_flops()


def table(found: dict[str, Any]) -> list[list[str]]:
    seconds = found["seconds_per_view"].items()
    return [["", "s a view", "range"], *([name, *seconds_cells(s)] for name, s in seconds)]


if __name__ == "__main__":
    sys.exit(run(measure, table, weights="chairs", batch=16))
