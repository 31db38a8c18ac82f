"""Richardson-Lucy deconvolution beside scikit-image's, with the same result.

Both do 30 iterations with the same borders. scikit-image is timed as it is called for photos, whose
8 or 16 bits become float64, and with float32 as well; ours works in float32.

usage: python benchmarks/bench_restore.py [--threads N] [--rounds N] [--json]
"""

import sys
from typing import Any

import numpy as np
import torch
from script import run
from skimage.restoration import richardson_lucy as reference

from unpool import Progress
from unpool.bench.harness import describe, in_turn, paired, spread, timed
from unpool.cli.bench import seconds_cells
from unpool.ops.blur import blur
from unpool.ops.inversion import richardson_lucy
from unpool.vision.psf import find_psf


def measure(
    rounds: int, *, side: int = 1024, steps: int = 30, psf: str = "shake:2", progress: Progress
) -> dict[str, Any]:
    """Seconds for an image of side x side pixels, and how far the results differ."""
    kernel = torch.from_numpy(find_psf(psf).kernel)
    generator = torch.Generator().manual_seed(0)
    sharp = torch.rand(1, 1, side // 8, side // 8, generator=generator).repeat_interleave(8, 2)
    y = blur(sharp.repeat_interleave(8, 3), kernel).clamp_min(0)
    y = (y + 0.002 * torch.randn(y.shape, generator=generator)).clamp_min(0)
    plain, k = y[0, 0].numpy(), kernel.numpy()
    deep = plain.astype(np.float64), k.astype(np.float64)
    works = {
        "unpool": lambda: richardson_lucy(y, kernel, steps, "zero", start=0.5),
        "unpool, default edges": lambda: richardson_lucy(y, kernel, steps),
        "scikit-image, float64": lambda: reference(*deep, num_iter=steps, clip=False),
        "scikit-image, float32": lambda: reference(plain, k, num_iter=steps, clip=False),
    }
    gap = float(np.abs(works["unpool"]()[0, 0].numpy() - works["scikit-image, float64"]()).max())
    found = in_turn({n: timed(w) for n, w in works.items()}, rounds, progress=progress)
    ratios = {
        name: paired(found[name], found["unpool"])
        for name in works
        if name.startswith("scikit-image")
    }
    return {
        "subject": "restore",
        "size": [side, side],
        "psf": psf,
        "steps": steps,
        "seconds": {name: spread(seconds) for name, seconds in found.items()},
        "times_as_long": ratios,
        "largest_difference": gap,
        "rounds": rounds,
        "machine": describe(),
    }


def table(found: dict[str, Any]) -> list[list[str]]:
    rows = [["", "s", "range", "times unpool"]]
    for name, seconds in found["seconds"].items():
        ratio = found["times_as_long"].get(name)
        rows.append([name, *seconds_cells(seconds), f"{ratio['median']:.1f}" if ratio else ""])
    return [*rows, ["largest difference", f"{found['largest_difference']:.1e}", "", ""]]


if __name__ == "__main__":
    sys.exit(run(measure, table, side=1024, steps=30))
