"""`unpool bench proposals`: how long the search for objects takes, by the size of the image.

What bounds edgeboxes is the scoring of windows, of which there are as many as pixels ask for, and
the edges that each of them meets: textured images take longer. A grid costs nothing, and knows
nothing.
"""

from functools import partial
from typing import Any

from unpool.bench.images import photos
from unpool.bench.machine import describe
from unpool.bench.rounds import Progress, Work, in_turn, require_positive, spread, timed
from unpool.vision.proposals import METHODS, propose

SIZES = ((240, 320), (375, 500), (768, 1024), (1536, 2048))
"""Heights and widths."""


def measure(
    rounds: int = 5,
    *,
    sizes: tuple[tuple[int, int], ...] = SIZES,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Seconds an image, by method and size; over three photos and all rounds.

    Args:
        rounds: how many are counted.
        sizes: heights and widths.
        progress: called before each part.

    Returns:
        Plain values: by size ("500 x 375", width first) and method, seconds and boxes an image.

    Raises:
        OptionError: a number below 1.
    """
    require_positive(rounds=rounds)
    works: dict[str, Work] = {}
    counts: dict[str, list[int]] = {}
    for height, width in sizes:
        for method in METHODS:
            for name, image in photos((height, width)).items():
                key = f"{width} x {height}, {method}, {name}"
                works[key] = timed(partial(propose, image, method))
                size = f"{width} x {height}, {method}"
                counts.setdefault(size, []).append(len(propose(image, method).boxes))
    seconds = in_turn(works, rounds, progress=progress)
    results: dict[str, dict[str, Any]] = {}
    for key, boxes in counts.items():
        size, _, method = key.partition(", ")
        found = [s for name, each in seconds.items() if name.startswith(f"{key}, ") for s in each]
        results.setdefault(size, {})[method] = {"seconds": spread(found), "boxes": boxes}
    return {"sizes": results, "rounds": rounds, "machine": describe()}
