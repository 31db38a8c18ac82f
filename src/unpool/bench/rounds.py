"""Paired runs: what is compared is done in turn, so that a busy machine is busy for all of it."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from unpool.errors import OptionError

Work = Callable[[], float]
"""Something to be measured; gives the seconds that count."""

Progress = Callable[[int, int, str], object]
"""Called with how much is done, the total, and what is being done."""


def in_turn(
    works: Mapping[str, Work], rounds: int, *, progress: Progress | None = None, warm: bool = True
) -> dict[str, list[float]]:
    """The seconds of each work in each round: A B C, A B C, ...

    Args:
        works: by name, in the order in which they take turns.
        rounds: how many are counted.
        progress: called before each work.
        warm: do a round first that is not counted.

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


def part_of(progress: Progress | None, part: int, parts: int, name: str) -> Progress | None:
    """The progress of one of several equal parts, for `in_turn`.

    >>> part_of(print, 1, 3, "deeplab")(2, 10, "torch")
    12 30 deeplab, torch
    """
    if progress is None:
        return None
    return lambda done, total, doing: progress(
        part * total + done, parts * total, f"{name}, {doing}"
    )


def timed(work: Callable[[], object], calls: int = 1) -> Work:
    """A work that counts the seconds of a call, the mean of a few.

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
    return {name: _rounded(value) for name, value in found.items()}


def paired(slow: Sequence[float], quick: Sequence[float]) -> dict[str, float]:
    """How many times as quick: median and range of what each round says.

    >>> paired([3, 30], [1, 10])["median"]
    3.0
    """
    return spread(s / q for s, q in zip(slow, quick, strict=True))


def require_positive(**numbers: Any) -> None:
    """Refuse numbers below 1.

    Raises:
        OptionError: one is.
    """
    for name, number in numbers.items():
        if number < 1:
            raise OptionError(f"got {name}={number}; wanted 1 or more")


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
