"""Time and memory of runs over 10 to 10,000 small images: linear, and without a leak.

Restores images of 24 x 32 pixels by Wiener's method, in a plain loop and with two workers, and once
more when all is done, which skips all. Prints a line of JSON for each run, and at the end the
exponent of the growth of the CPU seconds beyond the start, and the memory for an image.

usage: python -m experiments.many FOLDER [--images 10 100 1000 10000] [--workers 0 2]
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from unpool.bench.scale import run_once

RESTORE = ("-m", "unpool", "restore", "--psf", "gaussian:1", "--method", "wiener", "--no-compare")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=[10, 100, 1000, 10_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    given = parser.parse_args()
    random = np.random.default_rng(0)
    for workers in given.workers:
        rows = []
        for count in given.images:
            source, output = given.folder / f"in{count}", given.folder / f"out{count}-{workers}"
            if not source.exists():
                source.mkdir(parents=True)
                for i in range(count):
                    image = random.integers(0, 256, (24, 32), dtype=np.uint8)
                    Image.fromarray(image).save(source / f"{i:06}.png")
            shutil.rmtree(output, ignore_errors=True)
            command = [sys.executable, *RESTORE, str(source), "-o", str(output), "--quiet"]
            command += ["--workers", str(workers)] if workers else []
            for again in (False, True):
                found = run_once(command, output)
                row = {"workers": workers, "images": count, "again": again, **found}
                print(json.dumps({k: round(v, 3) for k, v in row.items()}), flush=True)
                rows.append(row)
        first, (small, large) = rows[0], [row for row in rows if not row["again"]][-2:]
        beyond = [row["cpu"] - first["cpu"] for row in (small, large)]
        exponent = np.log(beyond[1] / beyond[0]) / np.log(large["images"] / small["images"])
        each = (large["memory_gb"] - small["memory_gb"]) * 1e6 / (large["images"] - small["images"])
        print(json.dumps({"workers": workers, "exponent": round(float(exponent), 3),
                          "kb_an_image": round(each, 2)}))  # fmt: skip


if __name__ == "__main__":
    main()
