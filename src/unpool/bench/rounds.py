"""Interleaved timing: the variants take turns, so that a busy machine slows all of them down."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from unpool import Progress
from unpool.errors import OptionError

Work = Callable[[], float]
"""Something to measure; returns the seconds that count."""


def in_turn(
    works: Mapping[str, Work], rounds: int, *, progress: Progress | None = None, warm: bool = True
) -> dict[str, list[float]]:
    """The seconds of each work in each round: A B C, A B C, ...

    Args:
        works: by name, in the order of their turns.
        rounds: how many are counted.
        progress: called before each work.
        warm: run a warm-up round first, which is not counted.

    Raises:
        OptionError: fewer than one round.

    >>> in_turn({"a": lambda: 1.0, "b": lambda: 2.0}, rounds=2)
    {'a': [1.0, 1.0], 'b': [2.0, 2.0]}
    """
    require_positive(rounds=rounds)
    seconds: dict[str, list[float]] = {name: [] for name in works}
    total = (rounds + warm) * len(works)
    for n in range(rounds + warm):
        for i, (name, work) in enumerate(works.items()):
            if progress is not None:
                progress(n * len(works) + i, total, name)
            found = work()
            if n >= warm:
                seconds[name].append(found)
    return seconds


def timed(work: Callable[[], object], calls: int = 1) -> Work:
    """A work that measures the mean seconds of `calls` calls.

    >>> timed(lambda: None)() < 1
    True
    """

    def run() -> float:
        start = time.perf_counter()
        for _ in range(calls):
            work()
        return (time.perf_counter() - start) / calls

    return run


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median and range, to four digits.

    >>> spread([3, 1, 2])
    {'median': 2.0, 'low': 1.0, 'high': 3.0}
    """
    values = list(values)
    found = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def paired(slow: Sequence[float], quick: Sequence[float]) -> dict[str, float]:
    """How many times as fast: median and range of the ratios, round by round.

    >>> paired([3, 30], [1, 10])["median"]
    3.0
    """
    return spread(s / q for s, q in zip(slow, quick, strict=True))


def require_positive(**numbers: int) -> None:
    """Refuse numbers below 1.

    Raises:
        OptionError: a number is below 1.
    """
    for name, number in numbers.items():
        if number < 1:
            raise OptionError(f"got {name}={number}; wanted 1 or more")
