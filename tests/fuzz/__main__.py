"""Fuzz the parsers: `python -m tests.fuzz --parser coco --seconds 10 --seed 3`.

Each of the damaged inputs must be read, or refused with an `UnpoolError` of one line. Prints a
table of counts. Inputs that fail are saved in a folder; one can be run again in this process:
`python -m tests.fuzz --parser coco --seed 3 --input 17`.
"""

import argparse
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.harness import Counts, fuzz, numbered_input, write_files
from tests.fuzz.parsers import PARSERS, valid_files

_HEAD = ("parser", "inputs", "accepted", "refused", "crashes", "hangs", "peak MiB", "slowest s")


def main() -> int:
    """Run the command; 1 if there is a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--parser", action="append", choices=PARSERS, help="one; by default all")
    parser.add_argument("--seconds", type=float, default=120, help="for each parser")
    parser.add_argument("--count", type=int, help="of inputs, in place of seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="parsers at a time")
    parser.add_argument("--output", type=Path, default=Path("fuzz-faults"), help="for bad inputs")
    parser.add_argument("--input", type=int, help="run this input alone, in this process")
    options = parser.parse_args()
    names = options.parser or list(PARSERS)
    if options.input is not None:
        return _run_one(names[0], options.seed, options.input, options.output)

    def run(name: str) -> Counts:
        count, seconds = options.count, options.seconds
        return fuzz(name, options.seed, count=count, seconds=seconds, output=options.output)

    print("| " + " | ".join(_HEAD) + " |\n" + "|---" * len(_HEAD) + "|", flush=True)
    faults = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for name, counts in zip(names, pool.map(run, names), strict=True):
            hangs = counts.number("hang")
            crashes = counts.faults.total() - hangs
            faults += crashes + hangs
            row = (name, counts.inputs, counts.accepted, counts.refused, crashes, hangs)
            peak, slowest = f"{counts.peak / 2**20:.0f}", f"{counts.slowest:.1f}"
            print("| " + " | ".join(map(str, (*row, peak, slowest))) + " |", flush=True)
            for kind, number in counts.faults.most_common():
                saved = [
                    path
                    for path in counts.saved
                    if (path / "outcome.txt").read_text("utf-8", "replace").startswith(f"{kind}\n")
                ]
                print(f"    {number} x {kind}: {', '.join(map(str, saved))}", file=sys.stderr)
    return int(faults > 0)


def _run_one(name: str, seed: int, number: int, output: Path) -> int:
    files = numbered_input(name, seed, number, valid_files(PARSERS[name]))
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    write_files(folder, files)
    print(f"input {number} of {name} is in {folder}")
    PARSERS[name].run(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
