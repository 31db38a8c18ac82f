"""Time and memory of segmentation against proposals, size of the image, and size of a folder.

Expected: linear time in the number of proposals; at most linear time and bounded memory in the size
of the image; and constant memory in the size of the folder. Each point is a process of its own with
the default weights, from file to files, as in `unpool segment`, and its peak memory, Python and the
libraries included. A folder is one process, whose present memory is measured as it proceeds.

usage: python -m experiments.growth [--short] [--threads N] [-o docs]
writes growth.json and growth.png
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np

from unpool.bench.harness import describe, photos, threads
from unpool.bench.memory import gigabytes, peak_memory
from unpool.files import atomic
from unpool.segment.segmenter import Segmenter
from unpool.vision.figures import plot
from unpool.vision.images import read_image, write_image

SIZE = (375, 500)
FEW = 10  # proposals, for images of several sizes
SMALL = 160  # long side of the images of the folder
PROPOSALS = (1, 10, 25, 50, 100, 150, 200)
MEGAPIXELS = (0.1, 0.5, 1, 2, 4, 8, 16, 24)
IMAGES, EARLY = 500, 100  # of the folder; the leak is the growth of memory from EARLY on

Point = dict[str, Any]


def one_image(size: tuple[int, int], rounds: int, count: int, options: dict[str, Any]) -> Point:
    """Median seconds of an image, after a warm-up, and the peak memory in GB."""
    with threads(count), TemporaryDirectory() as folder:
        source, mask = Path(folder, "photo.jpg"), Path(folder, "mask.png")
        write_image(source, next(iter(photos(size).values())))
        segmenter = Segmenter.from_pretrained("objects")
        times = []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            segmenter(read_image(source), **options).save(mask)
            times.append(time.perf_counter() - start)
    return {"seconds": round(statistics.median(times[1:]), 4), "gb": gigabytes(peak_memory())}


def folder_of(total: int, count: int) -> list[Point]:
    """Seconds and GB after several numbers of images of a folder."""
    points: list[Point] = []
    with threads(count), TemporaryDirectory() as folder:
        images = list(photos((SMALL * 3 // 4, SMALL)).values())
        sources = [Path(folder, f"{n}.jpg") for n in range(total)]
        for n, source in enumerate(sources):
            write_image(source, np.roll(images[n % len(images)], n, axis=1))
        segmenter = Segmenter.from_pretrained("objects", mode="whole", long_side=SMALL)
        segmenter(images[0])
        start = time.perf_counter()
        for n, source in enumerate(sources, 1):
            segmenter(read_image(source)).save(source.with_suffix(".png"))
            if n in (1, EARLY) or n % max(total // 20, 1) == 0:
                seconds = time.perf_counter() - start
                points.append({"x": n, "seconds": round(seconds, 4), "gb": held_now()})
    return points


def held_now() -> float:
    """Memory that the process holds now, in GB; on Linux."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e9, 4)


def apart(work: Callable[[], Any]) -> Any:
    """What a work gives in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(work).result()


def fit(points: list[Point], of: str) -> dict[str, float]:
    """The line by least squares, and how the last doubling of x compares with it.

    `exponent` is the slope of the logarithms, of what is beyond the first point, over the upper
    half of the points: 1 on a line, 2 on a parabola.
    """
    x, y = (np.array([p[name] for p in points], float) for name in ("x", of))
    slope, constant = np.polyfit(x, y, 1)
    left = ((y - slope * x - constant) ** 2).sum() / max(((y - y.mean()) ** 2).sum(), 1e-12)
    more = y - y[0]
    upper = (np.arange(len(x)) >= len(x) // 2) & (more > 0)
    exponent = np.nan
    if upper.sum() > 1:
        exponent = np.polyfit(np.log(x[upper] - x[0]), np.log(more[upper]), 1)[0]
    values = {"constant": constant, "each": slope, "r2": 1 - left, "exponent": exponent}
    return {name: round(float(v), 5) for name, v in values.items() if np.isfinite(v)}


def measure(short: bool, count: int) -> dict[str, list[Point]]:
    """The points of all curves."""
    rounds = 1 if short else 2
    instance = {"mode": "instance"}
    curves: dict[str, list[Point]] = {"proposals": [], "whole": [], "instance": []}
    works: list[tuple[str, float, Any]] = []
    for n in PROPOSALS[:3] if short else PROPOSALS:
        options = {**instance, "proposals": n}
        works.append(("proposals", n, partial(one_image, SIZE, rounds, count, options)))
    for mp in MEGAPIXELS[:3] if short else MEGAPIXELS:
        height = round((mp * 1e6 * 3 / 4) ** 0.5)
        size = height, height * 4 // 3
        for name, options in {"whole": {"mode": "whole"}, "instance": instance}.items():
            options = {**options, "proposals": FEW} if name == "instance" else options
            works.append((name, mp, partial(one_image, size, rounds, count, options)))
    with click.progressbar(works, label="images") as bar:
        for name, x, work in bar:
            curves[name].append({"x": x, **apart(work)})
    images = 20 if short else IMAGES
    click.echo(f"a folder of {images}", err=True)
    return {**curves, "folder": apart(partial(folder_of, images, count))}


def plot_growth(curves: dict[str, list[Point]], path: Path) -> None:
    """Plot seconds above, memory below; by proposals, size of the image, size of the folder."""
    columns = {
        "proposals, 500 x 375 pixels": {"proposals": "instance-wise"},
        "megapixels of the image": {"whole": "whole", "instance": f"{FEW} proposals"},
        f"images of a folder, long side {SMALL}": {"folder": "whole"},
    }
    with plot(path, (10, 5), rows=2, columns=3, sharex="col") as grid:
        for axes, (label, names) in zip(grid.T, columns.items(), strict=True):
            for name, legend in names.items():
                x = [p["x"] for p in curves[name]]
                axes[0].plot(x, [p["seconds"] for p in curves[name]], marker=".", label=legend)
                axes[1].plot(x, [p["gb"] for p in curves[name]], marker=".", label=legend)
            axes[1].set(xlabel=label)
            axes[0].legend()
            for ax in axes:
                ax.set(ylim=(0, None))
                ax.grid(alpha=0.3)
        grid[0, 0].set(ylabel="seconds")
        grid[1, 0].set(ylabel="memory, GB")


def leak(points: list[Point]) -> dict[str, float]:
    """The growth of the memory of a folder's process from EARLY images to its end."""
    early = next((p for p in points if p["x"] >= EARLY), points[0])
    grown = 1000 * (points[-1]["gb"] - early["gb"])
    over = points[-1]["x"] - early["x"]
    return {
        "gb_early": early["gb"],
        "gb_late": points[-1]["gb"],
        "mb_a_image": round(grown / over, 4),
    }


@click.command()
@click.option("--short", is_flag=True, help="A few points only, to check that it runs.")
@click.option("--threads", "count", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("-o", "--output", type=Path, default=Path("docs"), show_default=True)
def main(short: bool, count: int, output: Path) -> None:
    """Measure, and write the curves and their plot."""
    with threads(count):
        machine = describe()
    curves = measure(short, count)
    fits = {
        f"{name}, {of}": fit(points, of)
        for name, points in curves.items()
        for of in ("seconds", "gb")
    }
    found = {"curves": curves, "fits": fits, "leak": leak(curves["folder"]), "machine": machine}
    with atomic(output / "growth.json") as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n")
    plot_growth(curves, output / "growth.png")
    click.echo(json.dumps({"fits": fits, "leak": found["leak"]}))


if __name__ == "__main__":
    main()
