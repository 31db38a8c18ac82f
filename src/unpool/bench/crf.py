"""`unpool bench crf`: the dense CRF on three photos, beside pydensecrf where that is installed.

What bounds it is gathering: each iteration moves every value to and from the cells of a lattice.
So what counts is how many cells an image and a kernel take up and how many labels there are;
with few labels, the building of the lattice.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unpool.bench.images import photos
from unpool.bench.machine import describe
from unpool.bench.rounds import Progress, in_turn, paired, part_of, require_positive, spread, timed
from unpool.ops.crf import CRF_PRESETS, DenseCRF
from unpool.ops.meanfield import mean_field, unary_from_probabilities

_LABELS, _FEW = 21, 4

Inference = Callable[[Tensor, NDArray[np.uint8], DenseCRF], Tensor]
"""Marginals (L, H, W) from energies (L, H, W), an image (H, W, 3) and a CRF."""


def measure(
    rounds: int = 5,
    *,
    presets: tuple[str, ...] = ("densecrf", "deeplab", "edeconvnet"),
    size: tuple[int, int] = (375, 500),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Seconds an image, with all of 21 labels, and with four that are likely and pruning.

    Args:
        rounds: how many are counted.
        presets: of `CRF_PRESETS`.
        size: height and width of the photos.
        progress: called before each part.

    Returns:
        Plain values: by preset and way the seconds; where pydensecrf is installed also `ratio`,
        how many times as quick as that each way is, and `different`, the fraction of pixels where
        it finds another label most probable, with all labels.

    Raises:
        OptionError: a number below 1.
    """
    require_positive(rounds=rounds)
    ways = _ways()
    results = {}
    for i, preset in enumerate(presets):
        crf, seconds, labels = CRF_PRESETS[preset], [], []
        for j, image in enumerate(photos(size).values()):
            shown = part_of(progress, 3 * i + j, 3 * len(presets), preset)
            many, few = _unary(image, _LABELS), _unary(image, _FEW)
            whole = crf._replace(prune=0)
            works = {way: timed(partial(f, many, image, whole)) for way, f in ways.items()}
            for way, f in ways.items():
                works[f"{way}, few labels"] = timed(partial(f, few, image, crf))
            seconds.append(in_turn(works, rounds, progress=shown))
            labels.append({way: f(many, image, whole).argmax(0) for way, f in ways.items()})
        results[preset] = _summary(seconds, labels)
    return {
        "size": list(size),
        "labels": _LABELS,
        "few": _FEW,
        "rounds": rounds,
        "presets": results,
        "machine": describe(),
    }


def pydensecrf(unary: Tensor, image: NDArray[np.uint8], crf: DenseCRF) -> Tensor:
    """The same CRF by the C++ package of its authors' code; it does not prune.

    Args:
        unary: energies (L, H, W), float32.
        image: (H, W, 3) uint8, RGB.
        crf: kernels and options.

    Returns:
        Marginals (L, H, W).
    """
    from pydensecrf import densecrf  # type: ignore[import-untyped]

    labels, height, width = unary.shape
    field = densecrf.DenseCRF2D(width, height, labels)
    field.setUnaryEnergy(unary.reshape(labels, -1).numpy())
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
    return torch.from_numpy(np.array(field.inference(crf.iterations))).view(unary.shape)


def _ways() -> dict[str, Inference]:
    """The ways that there are here, the other package last."""
    ways: dict[str, Inference] = {"torch": _own(compiled=False)}
    if find_spec("numba"):
        ways["compiled"] = _own(compiled=True)
    if find_spec("pydensecrf"):
        ways["pydensecrf"] = pydensecrf
    return ways


def _own(compiled: bool) -> Inference:
    def run(unary: Tensor, image: NDArray[np.uint8], crf: DenseCRF) -> Tensor:
        return mean_field(unary, torch.from_numpy(image), crf, compiled=compiled)

    return run


def _summary(
    seconds: list[dict[str, list[float]]], labels: list[dict[str, Tensor]]
) -> dict[str, Any]:
    """Medians over all rounds of all photos."""
    joined = {name: [s for found in seconds for s in found[name]] for name in seconds[0]}
    summary: dict[str, Any] = {"seconds": {name: spread(each) for name, each in joined.items()}}
    if "pydensecrf" in labels[0]:
        own = [way for way in labels[0] if way != "pydensecrf"]
        summary["ratio"] = {
            f"{way}{kind}": paired(joined[f"pydensecrf{kind}"], joined[f"{way}{kind}"])
            for kind in ("", ", few labels")
            for way in own
        }
        summary["different"] = {
            way: float(np.mean([(f[way] != f["pydensecrf"]).float().mean() for f in labels]))
            for way in own
        }
    return summary


def _unary(image: NDArray[np.uint8], active: int) -> Tensor:
    """Energies by distance to some pixels in color and place, with noise.

    The labels beyond the active ones are as good as impossible, as those of absent classes are.
    """
    random = np.random.default_rng(0)
    height, width, _ = image.shape
    y, x = np.mgrid[:height, :width]
    points = np.concatenate([image / 64, 3 * np.stack([x / width, y / height], -1)], -1)
    centers = points[random.integers(0, height, active), random.integers(0, width, active)]
    energy = 1.5 * ((points[None] - centers[:, None, None]) ** 2).sum(-1)
    energy += random.normal(0, 0.7, energy.shape)
    rest = random.uniform(12, 14, (_LABELS - active, height, width))
    energy = np.concatenate([energy, energy.min(0) + rest])
    return unary_from_probabilities((-torch.from_numpy(energy)).softmax(0).float())
