"""Speed of the dense CRF, beside pydensecrf where that can be imported.

What bounds it is gathering: each iteration moves every value to and from the lattice cells. So
what counts is how many cells a picture and a kernel take up, how many labels there are, and, with
few labels, the building of the lattice. All runs of a picture are taken in turn, on one thread,
and the quickest of each counts; the table has medians over the pictures. The last line is JSON.

usage: python benchmarks/bench_crf.py [rounds]
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage import data
from skimage.transform import resize
from torch import Tensor

from unpool.ops import CRF_PRESETS, DenseCRF, mean_field, unary_from_probabilities

try:
    from pydensecrf import densecrf
except ImportError:
    densecrf = None

SIZE = (375, 500)
LABELS = 21
PHOTOS = ("astronaut", "chelsea", "coffee")
PRESETS = ("densecrf", "deeplab", "edeconvnet")


def unary_of(image: NDArray[np.uint8], active: int) -> Tensor:
    """Energies by distance to pixels in color and place, with noise; the labels beyond the active
    ones are as good as impossible."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    points = np.concatenate([image / 64, 3 * np.stack([x / SIZE[1], y / SIZE[0]], -1)], -1)
    centers = points[random.integers(0, SIZE[0], active), random.integers(0, SIZE[1], active)]
    energy = 1.5 * ((points[None] - centers[:, None, None]) ** 2).sum(-1)
    energy += random.normal(0, 0.7, energy.shape)
    rest = random.uniform(12, 14, (LABELS - active, *SIZE))
    energy = np.concatenate([energy, energy.min(0) + rest])
    return unary_from_probabilities((-torch.from_numpy(energy)).softmax(0).float())


def pydensecrf(unary: Tensor, image: NDArray[np.uint8], crf: DenseCRF) -> NDArray[np.float32]:
    """The same CRF by the C++ package."""
    field = densecrf.DenseCRF2D(SIZE[1], SIZE[0], LABELS)
    field.setUnaryEnergy(unary.reshape(LABELS, -1).numpy())
    options: dict[str, Any] = {
        "kernel": densecrf.DIAG_KERNEL,
        "normalization": {
            "none": densecrf.NO_NORMALIZATION,
            "before": densecrf.NORMALIZE_BEFORE,
            "after": densecrf.NORMALIZE_AFTER,
            "symmetric": densecrf.NORMALIZE_SYMMETRIC,
        }[crf.normalization],
    }
    for kernel in crf.kernels:
        if kernel.rgb is None:
            field.addPairwiseGaussian(sxy=kernel.xy, compat=kernel.weight, **options)
        else:
            field.addPairwiseBilateral(
                sxy=kernel.xy, srgb=kernel.rgb, rgbim=image, compat=kernel.weight, **options
            )
    return np.array(field.inference(crf.iterations)).reshape(unary.shape)


def milliseconds(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The least time of each, all taken in turn, after a round that is not counted.

    Time of the processor, so that other jobs on the machine count less.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds + 1):
        for name, work in works.items():
            start = time.process_time()
            work()
            times[name].append(1e3 * (time.process_time() - start))
    return {name: min(found[1:]) for name, found in times.items()}


def measure(image: NDArray[np.uint8], preset: str, rounds: int) -> dict[str, float]:
    """Milliseconds of each way on one picture; "few" is with four active labels."""
    crf, picture = CRF_PRESETS[preset], torch.from_numpy(image)
    whole = crf._replace(prune=0)
    many, few = unary_of(image, LABELS), unary_of(image, 4)
    works: dict[str, Callable[[], object]] = {
        "own": lambda: mean_field(many, picture, whole),
        "own few": lambda: mean_field(few, picture, whole),
        "own few, pruned": lambda: mean_field(few, picture, crf),
    }
    if densecrf is not None:
        works["pydensecrf"] = lambda: pydensecrf(many, image, crf)
        works["pydensecrf few"] = lambda: pydensecrf(few, image, crf)
    return milliseconds(works, rounds)


def main(rounds: int = 5) -> None:
    """Print a table, and the same as JSON."""
    torch.set_num_threads(1)
    results, ratios = {}, {}
    print(f"dense CRF, {SIZE}, {LABELS} labels, 1 thread, ms of processor time")
    for preset in PRESETS:
        found = []
        for name in PHOTOS:
            image = (255 * resize(getattr(data, name)(), SIZE, anti_aliasing=True)).astype(np.uint8)
            found.append(measure(image, preset, rounds))
        middle = {way: statistics.median(each[way] for each in found) for way in found[0]}
        results[preset] = middle
        for way, spent in middle.items():
            print(f"  {preset:11s} {way:16s} {spent:8.0f} ms", flush=True)
        if densecrf is not None:
            for ratio, (slow, quick) in {
                "whole": ("pydensecrf", "own"),
                "pruned": ("pydensecrf few", "own few, pruned"),
            }.items():
                value = statistics.median(each[slow] / each[quick] for each in found)
                ratios[f"{preset} {ratio}"] = round(value, 2)
                print(f"  {preset:11s} {ratio + ', times as fast':24s} {value:5.2f}", flush=True)
    print(json.dumps({"size": SIZE, "labels": LABELS, "ms": results, "times as fast": ratios}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
