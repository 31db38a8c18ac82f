"""Images a second, time to start and memory of `unpool segment` by workers and engine.

Each variant is the command itself in processes of its own. The rate is that between the first and
the last image, by the times in the ledger; what comes before the first is the start.
"""

import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unpool.batch.ledger import lines
from unpool.batch.status import status
from unpool.bench.harness import Work, describe, in_turn, made_up, paired, silent, spread
from unpool.errors import OptionError
from unpool.vision.images import write_image

if TYPE_CHECKING:
    from unpool import Progress

_EVERY = 0.3
"""Seconds between two looks at the memory."""


def measure(
    rounds: int = 3,
    *,
    images: int = 40,
    size: tuple[int, int] = (300, 451),
    workers: Sequence[int] = (0, 1, 2),
    engine: str = "processes",
    weights: str = "objects",
    precision: str | None = None,
    broken: float = 0.03,
    progress: "Progress" = silent,
) -> dict[str, Any]:
    """Measure a folder of synthetic images.

    Args:
        rounds: in which the variants take turns.
        images: how many.
        size: of each, (height, width).
        workers: numbers of processes; 0 is the plain loop.
        engine: "processes" or "ray".
        weights: by name or folder.
        precision: as of `unpool segment`.
        broken: the fraction of images that cannot be read.
        progress: called with what is measured.

    Returns:
        By variant: `rate` (images a second), `start` (seconds to the first image), `cpu` (seconds
        of all processes together, with their start) and `memory_gb` (peak, shared pages counted
        once); `ratio` of rates to the first variant; `failed`, the images that failed in each.
    """
    if images < 3:
        raise OptionError(f"got images={images}; wanted 3 or more")
    names = {f"{n} workers" if n > 1 else "1 worker" if n else "plain loop": n for n in workers}
    options = ["--no-overlay", "--quiet", "--weights", weights]
    options += ["--precision", precision] if precision else []
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        for i in range(images):
            path = folder / f"in/{i:05}.jpg"
            write_image(path, made_up(size, i))
            if int(i * broken) < int((i + 1) * broken):
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

        def run(name: str) -> float:
            count, output = names[name], folder / f"{name} {len(found[name])}"
            more = ["--workers", str(count), "--engine", engine] if count else []
            command = [sys.executable, "-m", "unpool", "segment", str(folder / "in")]
            found[name].append(run_once([*command, "-o", str(output), *options, *more], output))
            return found[name][-1]["rate"]

        works: dict[str, Work] = {name: lambda name=name: run(name) for name in names}  # type: ignore[misc]
        in_turn(works, rounds, progress=progress, warm=False)
    kinds = ("rate", "start", "cpu", "memory_gb")
    tables = {
        kind: {name: spread(one[kind] for one in all_) for name, all_ in found.items()}
        for kind in kinds
    }
    first, *others = names
    rates = {name: [one["rate"] for one in found[name]] for name in names}
    about = {"images": images, "size": list(size), "weights": Path(weights).name, "engine": engine}
    return {
        **about,
        "rounds": rounds,
        **tables,
        "ratio": {name: paired(rates[name], rates[first]) for name in others},
        "failed": {name: [int(one["failed"]) for one in all_] for name, all_ in found.items()},
        "machine": describe(),
    }


def run_once(command: list[str], output: Path) -> dict[str, float]:
    """Run a command that works on many images, and measure it.

    Args:
        command: with all arguments.
        output: the folder that it writes into, new.

    Returns:
        `rate`, `start`, `cpu` and `memory_gb` as of `measure`, and `failed`.
    """
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    peak, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(_EVERY):
            peak[0] = max(peak[0], _tree_memory(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, errors = process.communicate()
    ended.set()
    watcher.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode not in (0, 3):
        raise OptionError(f"got an error in {' '.join(command[3:])}: {errors.decode().strip()}")
    (procedure,) = {p.stem for p in (output / ".unpool/manifest").glob("*.jsonl")}
    times = sorted(line["time"] for line in lines(output, procedure))
    return {
        "rate": (len(times) - 1) / max(times[-1] - times[0], 1e-3),
        "start": times[0] - start,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "memory_gb": peak[0] / 1e9,
        "failed": status(output)["failed"],
    }


def _tree_memory(pid: int) -> int:
    """The memory of a process and all below it in bytes; pages shared by n count 1/n in each."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        with suppress(OSError, ValueError, IndexError):
            stat = Path(f"/proc/{name}/stat").read_text(encoding="utf-8", errors="replace")
            parents[int(name)] = int(stat.rpartition(")")[2].split()[1])
    total, tree = 0, {pid}
    for child in sorted(parents):  # a child has a larger number, unless they begin again
        if child in tree or parents[child] in tree:
            tree.add(child)
            with suppress(OSError, ValueError, IndexError):
                text = Path(f"/proc/{child}/smaps_rollup").read_text(encoding="utf-8")
                total += 1024 * int(text.partition("\nPss:")[2].split()[0])
    return total
