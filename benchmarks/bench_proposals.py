"""The time of object proposals, by image size.

The limit of edgeboxes is the scoring of windows, whose number grows with the pixels, and the edges
that each of them meets: textured images take longer. A grid costs nothing.

usage: python benchmarks/bench_proposals.py [--threads N] [--rounds N] [--json]
"""

import sys
from functools import partial
from typing import Any

from script import run

from unpool import Progress
from unpool.bench.harness import describe, in_turn, photos, spread, timed
from unpool.cli.bench import seconds_cells
from unpool.recipes.presets import METHODS
from unpool.vision.proposals import propose

SIZES = ((240, 320), (375, 500), (768, 1024), (1536, 2048))  # height, width


def measure(
    rounds: int, *, sizes: tuple[tuple[int, int], ...] = SIZES, progress: Progress
) -> dict[str, Any]:
    """Seconds per image by size and method, over three photos and all rounds."""
    works = {
        (f"{width} x {height}", method, name): partial(propose, image, method)
        for height, width in sizes
        for method in METHODS
        for name, image in photos((height, width)).items()
    }
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for (size, method, _), work in works.items():
        result = results.setdefault(size, {}).setdefault(method, {"seconds": [], "boxes": []})
        result["boxes"].append(len(work().boxes))
    named = {", ".join(key): timed(work) for key, work in works.items()}
    for key, seconds in zip(works, in_turn(named, rounds, progress=progress).values(), strict=True):
        results[key[0]][key[1]]["seconds"] += seconds
    for methods in results.values():
        for result in methods.values():
            result["seconds"] = spread(result["seconds"])
    return {"subject": "proposals", "sizes": results, "rounds": rounds, "machine": describe()}


def table(found: dict[str, Any]) -> list[list[str]]:
    rows = [["", "s an image", "range", "boxes"]]
    for size, methods in found["sizes"].items():
        for method, result in methods.items():
            boxes = ", ".join(map(str, sorted(set(result["boxes"]))))
            rows.append([f"{size}, {method}", *seconds_cells(result["seconds"]), boxes])
    return rows


if __name__ == "__main__":
    sys.exit(run(measure, table))
