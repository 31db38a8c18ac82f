"""`unpool bench import`: how long a program waits before anything happens.

What bounds it is the import of torch, which is why `unpool --help` and `import unpool` do without.
"""

import os
import subprocess
import sys
import time
from typing import Any

import torch

from unpool.bench.machine import describe
from unpool.bench.rounds import Progress, Work, in_turn, require_positive, spread

_PROGRAMS = {
    "python": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import unpool": ["-c", "import unpool"],
    "import unpool.segment": ["-c", "import unpool.segment"],
    "unpool --help": ["-m", "unpool", "--help"],
    "unpool info": ["-m", "unpool", "info"],
}


def measure(rounds: int = 5, *, progress: Progress | None = None) -> dict[str, Any]:
    """Seconds of processes that do nothing but begin; an empty Python and torch for comparison.

    Args:
        rounds: how many are counted.
        progress: called before each part.

    Raises:
        OptionError: fewer than one round.
    """
    require_positive(rounds=rounds)
    works = {name: _work(arguments) for name, arguments in _PROGRAMS.items()}
    seconds = in_turn(works, rounds, progress=progress)
    return {
        "seconds": {name: spread(each) for name, each in seconds.items()},
        "rounds": rounds,
        "machine": describe(),
    }


def _work(arguments: list[str]) -> Work:
    def run() -> float:
        own = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=own)
        return time.perf_counter() - start

    return run
