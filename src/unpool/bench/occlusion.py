"""`unpool bench occlusion`: occlusion of VGG-16, incremental, by a plain loop, and by Captum.

The limit is convolution. With an occluder of 32 pixels and a stride of 8, the cells that the
occluder affects take 6.8 times fewer multiplications than whole images; fully connected layers
gain nothing.
"""

import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unpool.bench import harness
from unpool.models import VGG, Table, prepare
from unpool.models.classifiers import initialize
from unpool.visualize.occlusion.chain import trace_chain
from unpool.visualize.occlusion.incremental import Incremental
from unpool.visualize.occlusion.occlude import Naive
from unpool.visualize.occlusion.window import Box, occluder_windows

if TYPE_CHECKING:
    from unpool import Progress


def measure(
    rounds: int = 3,
    *,
    full: bool = False,
    window: int = 32,
    stride: int = 8,
    batch: int = 8,
    size: int = 224,
    trunk: str | Table = "vgg16",
    code: int | None = 4096,
    progress: "Progress" = harness.silent,
) -> dict[str, Any]:
    """Seconds per position: incremental, a plain loop, and Captum with batches of 1 and `batch`.

    The incremental method computes all positions, and its setup counts. In the others all
    positions take the same time; without `full`, they compute those of a stride as large as the
    occluder.

    Args:
        full: compute all positions by the other methods, too.
        window, stride: side of the occluder, and distance of two positions, in pixels.
        batch: positions at a time, for the plain loop and Captum.
        size: side of the image in pixels.
        trunk, code: of the network, a VGG with random weights.

    Returns:
        `ratio_plain` and `ratio_captum`: how many times as long as the incremental method the plain
        loop and the faster Captum variant take per position, with their ranges; `different`: the
        largest difference from the plain loop's outputs, relative to the largest output; and the
        figures behind these. Without Captum, `ratio_captum` is None and `captum` says so.
    """
    harness.require_positive(rounds=rounds, batch=batch)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = VGG(1000, trunk, code, size).eval()
        initialize(net, None)
    image = prepare(
        torch.from_numpy(next(iter(harness.photos((size, size)).values())))[None], net.mean
    )
    gray = torch.zeros(image.shape[1:])
    every = occluder_windows((size, size), window, stride).boxes()
    step = stride if full else window
    some = occluder_windows((size, size), window, step).boxes()
    works: dict[str, Callable[[], float]] = {
        "incremental": partial(_incremental, net, image, gray, every),
        "plain": partial(_plain, net, image, gray, some, batch),
    }
    if find_spec("captum"):
        for n in (1, batch):
            works[f"captum {n}"] = partial(_captum, net, image, window, step, n, len(some))
    seconds = harness.in_turn(works, rounds, progress=progress)
    plain = harness.paired(seconds["plain"], seconds["incremental"])
    captums = [name for name in works if "captum" in name]
    faster = min(captums, key=lambda name: min(seconds[name]), default="")
    other = harness.paired(seconds[faster], seconds["incremental"]) if faster else {}
    return {
        "network": f"VGG, {sum(p.numel() for p in net.parameters()):,} parameters",
        "size": [size, size],
        "occluder": window,
        "stride": stride,
        "positions": {"incremental": len(every), "others": len(some), "all": len(every)},
        "batch": batch,
        "rounds": rounds,
        "captum": faster or "not installed: skipped",
        "seconds_per_position": {name: harness.spread(each) for name, each in seconds.items()},
        "different": _difference(net, image, gray, some[:: max(len(some) // 8, 1)], batch),
        "machine": harness.describe(),
        "ratio_plain_range": [plain["low"], plain["high"]],
        "ratio_captum_range": [other["low"], other["high"]] if other else None,
        "ratio_plain": plain["median"],
        "ratio_captum": other.get("median"),
    }


def _incremental(net: VGG, image: Tensor, gray: Tensor, boxes: list[Box]) -> float:
    """Seconds per position as in `occlude`, setup included."""
    start = time.perf_counter()
    run = Incremental(trace_chain(net, image), image, gray)
    for first in range(0, len(boxes), 256):
        run(boxes[first : first + 256])
    return (time.perf_counter() - start) / len(boxes)


def _plain(net: VGG, image: Tensor, gray: Tensor, boxes: list[Box], batch: int) -> float:
    run = Naive(net, image, gray, batch=batch)
    start = time.perf_counter()
    run(boxes)
    return (time.perf_counter() - start) / len(boxes)


def _captum(net: VGG, image: Tensor, window: int, stride: int, batch: int, count: int) -> float:
    from captum.attr import Occlusion  # type: ignore[import-untyped]

    sides = [(image.shape[1], side, side) for side in (window, stride)]
    start = time.perf_counter()
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Occlusion(net).attribute(image, *sides, target=0, perturbations_per_eval=batch)
    return (time.perf_counter() - start) / (count + 1)  # it also runs the unoccluded image


def _difference(net: VGG, image: Tensor, gray: Tensor, boxes: list[Box], batch: int) -> float:
    found, _ = Incremental(trace_chain(net, image), image, gray)(boxes)
    wanted, _ = Naive(net, image, gray, batch=batch)(boxes)
    return float(f"{float((found - wanted).abs().max() / wanted.abs().max()):.2g}")
