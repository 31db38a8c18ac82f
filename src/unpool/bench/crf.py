"""`unpool bench crf`: the dense CRF on three photos, beside pydensecrf if it is installed.

The limit is memory: each iteration gathers every value from the cells of a lattice and writes it
back. The time depends on the number of cells and labels; with few labels, on building the lattice.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unpool.bench import harness
from unpool.ops.meanfield import mean_field, unary_from_probabilities
from unpool.recipes.presets import CRF_PRESETS, DenseCRF

if TYPE_CHECKING:
    from unpool import Progress

_LABELS, _FEW = 21, 4  # of VOC, and of a typical image

Inference = Callable[[Tensor, NDArray[np.uint8], DenseCRF], Tensor]
"""Marginals (L, H, W) from energies (L, H, W), an image (H, W, 3) and a CRF."""


def measure(
    rounds: int = 5,
    *,
    presets: tuple[str, ...] = ("densecrf", "deeplab", "edeconvnet"),
    size: tuple[int, int] = (375, 500),
    progress: "Progress" = harness.silent,
) -> dict[str, Any]:
    """Seconds per image with 21 labels, and with pruning when only four of them are likely.

    Args:
        presets: names in `CRF_PRESETS`.
        size: height and width of the photos.

    Returns:
        The seconds by preset and implementation. If pydensecrf is installed also `ratio`, how many
        times as fast as pydensecrf each implementation is, and `different`, the fraction of pixels
        with another best label than pydensecrf's, of 21 labels.
    """
    harness.require_positive(rounds=rounds)
    ways = _ways()
    results = {}
    for i, preset in enumerate(presets):
        crf, seconds, labels = CRF_PRESETS[preset], [], []
        for j, image in enumerate(harness.photos(size).values()):
            many, few = _unary(image, _LABELS), _unary(image, _FEW)
            whole = crf._replace(prune=0)
            works = {way: harness.timed(partial(f, many, image, whole)) for way, f in ways.items()}
            for way, f in ways.items():
                works[f"{way}, few labels"] = harness.timed(partial(f, few, image, crf))
            part = _part(progress, 3 * i + j, 3 * len(presets), preset)
            seconds.append(harness.in_turn(works, rounds, progress=part))
            labels.append({way: f(many, image, whole).argmax(0) for way, f in ways.items()})
        results[preset] = _summary(seconds, labels)
    return {
        "size": list(size),
        "labels": _LABELS,
        "few": _FEW,
        "rounds": rounds,
        "presets": results,
        "machine": harness.describe(),
    }


def pydensecrf(unary: Tensor, image: NDArray[np.uint8], crf: DenseCRF) -> Tensor:
    """The same CRF by pydensecrf, a wrapper of the authors' C++ code; it does not prune."""
    from pydensecrf import densecrf  # type: ignore[import-untyped]

    labels, height, width = unary.shape
    field = densecrf.DenseCRF2D(width, height, labels)
    field.setUnaryEnergy(unary.reshape(labels, -1).numpy())
    name = "NO_NORMALIZATION"
    if crf.normalization != "none":
        name = f"NORMALIZE_{crf.normalization.upper()}"
    same: dict[str, Any] = {"normalization": getattr(densecrf, name)}
    for kernel in crf.kernels:
        same |= {"kernel": densecrf.DIAG_KERNEL, "sxy": kernel.xy, "compat": kernel.weight}
        if kernel.rgb is None:
            field.addPairwiseGaussian(**same)
        else:
            field.addPairwiseBilateral(srgb=kernel.rgb, rgbim=image, **same)
    return torch.from_numpy(np.array(field.inference(crf.iterations))).view(unary.shape)


def _own(unary: Tensor, image: NDArray[np.uint8], crf: DenseCRF, compiled: bool) -> Tensor:
    return mean_field(unary, torch.from_numpy(image), crf, compiled=compiled)


def _ways() -> dict[str, Inference]:
    """The installed implementations, pydensecrf last."""
    ways: dict[str, Inference] = {"torch": partial(_own, compiled=False)}
    if find_spec("numba"):
        ways["compiled"] = partial(_own, compiled=True)
    if find_spec("pydensecrf"):
        ways["pydensecrf"] = pydensecrf
    return ways


def _part(progress: "Progress", part: int, parts: int, name: str) -> "Progress":
    """The progress of one of several equal parts."""
    return lambda done, total, what: progress(part * total + done, parts * total, f"{name}, {what}")


def _summary(
    seconds: list[dict[str, list[float]]], labels: list[dict[str, Tensor]]
) -> dict[str, Any]:
    """Medians over all rounds of all photos."""
    joined = {name: [s for found in seconds for s in found[name]] for name in seconds[0]}
    summary: dict[str, Any] = {
        "seconds": {name: harness.spread(each) for name, each in joined.items()}
    }
    if "pydensecrf" in labels[0]:
        own = [way for way in labels[0] if way != "pydensecrf"]
        summary["ratio"] = {
            f"{way}{kind}": harness.paired(joined[f"pydensecrf{kind}"], joined[f"{way}{kind}"])
            for kind in ("", ", few labels")
            for way in own
        }
        summary["different"] = {
            way: float(np.mean([(f[way] != f["pydensecrf"]).float().mean() for f in labels]))
            for way in own
        }
    return summary


def _unary(image: NDArray[np.uint8], active: int) -> Tensor:
    """Energies (21, H, W) by distance to random pixels in color and position, with noise.

    Labels beyond the first `active` ones are nearly impossible, like classes absent from an image.
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
