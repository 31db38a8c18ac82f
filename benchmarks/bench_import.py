"""The startup time of programs: imports and the command line, beside an empty Python.

The limit is the import of torch, which `unpool --help` and `import unpool` therefore avoid.

usage: python benchmarks/bench_import.py [--threads N] [--rounds N] [--json]
"""

import os
import subprocess
import sys
from functools import partial
from typing import Any

import torch
from script import run

from unpool import Progress
from unpool.bench.harness import describe, in_turn, spread, timed
from unpool.cli.bench import seconds_cells

PROGRAMS = {
    "python": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import unpool": ["-c", "import unpool"],
    "import unpool.segment.segmenter": ["-c", "import unpool.segment.segmenter"],
    "unpool --help": ["-m", "unpool", "--help"],
    "unpool info": ["-m", "unpool", "info"],
}


def measure(rounds: int, *, progress: Progress) -> dict[str, Any]:
    """Seconds of processes that only start."""
    variables = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    start = partial(subprocess.run, check=True, stdout=subprocess.DEVNULL, env=variables)
    works = {name: timed(partial(start, [sys.executable, *p])) for name, p in PROGRAMS.items()}
    seconds = in_turn(works, rounds, progress=progress)
    return {
        "subject": "import",
        "seconds": {name: spread(each) for name, each in seconds.items()},
        "rounds": rounds,
        "machine": describe(),
    }


def table(found: dict[str, Any]) -> list[list[str]]:
    rows = ([name, *seconds_cells(seconds)] for name, seconds in found["seconds"].items())
    return [["", "s", "range"], *rows]


if __name__ == "__main__":
    sys.exit(run(measure, table))
