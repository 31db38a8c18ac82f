"""`unpool bench draw`: how long drawing a view takes, from its codes to bytes.

What bounds it is arithmetic, the uconvs; and for a single view the weights of fc5, which are read
once for each batch and are most of the network.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from unpool.bench.machine import describe
from unpool.bench.rounds import Progress, in_turn, require_positive, spread, timed
from unpool.cards import list_pretrained
from unpool.generate import Generator
from unpool.models import GenerativeNet

_CALLS = 10  # of a round, for a single view


def measure(
    rounds: int = 5,
    weights: str | Path | None = None,
    batch: int = 16,
    *,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Seconds a view, one at a time and in a batch.

    Args:
        rounds: how many are counted.
        weights: of a network that draws; when not given, `chairs` if they ship with the package,
            or else the published network of 128 pixels for 65 styles, with random weights.
        batch: views of a batch.
        progress: called before each part.

    Returns:
        Plain values: `network`, `size`, `parameters`, `gflop_per_view`, and `seconds_per_view`
        with the median and range by "one view" and "batch of N".

    Raises:
        OptionError: a number below 1.
        WeightsError: no such weights.
    """
    require_positive(rounds=rounds, batch=batch)
    if weights is None and "chairs" in list_pretrained():
        weights = "chairs"
    generator = _random() if weights is None else Generator.from_pretrained(weights)
    azimuths = [360 * i / batch for i in range(batch)]
    works = {
        "one view": timed(partial(generator.view, 0, azimuth=30), _CALLS),
        f"batch of {batch}": timed(partial(generator.generate, 0, azimuths)),
    }
    seconds = in_turn(works, rounds, progress=progress)
    several = [second / batch for second in seconds[f"batch of {batch}"]]
    return {
        "network": "random" if weights is None else str(weights),
        "size": generator.size,
        "parameters": sum(p.numel() for p in generator.model.parameters()),
        "gflop_per_view": round(_flop(generator) / 1e9, 3),
        "seconds_per_view": {
            "one view": spread(seconds["one view"]),
            f"batch of {batch}": spread(several),
        },
        "rounds": rounds,
        "machine": describe(),
    }


def _random() -> Generator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Generator(GenerativeNet(65), [f"style {i}" for i in range(65)])


def _flop(generator: Generator) -> int:
    codes, _ = generator.encode(0)
    with FlopCounterMode(display=False) as counter:
        generator.predict(codes)
    return counter.get_total_flops()
