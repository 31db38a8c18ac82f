"""The cost of finding the strongest activations of all maps, beside a plain forward pass.

VGG-16 gives 13.5 million activations for an image of 224 pixels, in the 4,224 maps of its 13
convolutions. The search reads each activation once more, and the convolutions take a thousand
operations for each, so it should cost a few percent as long as no map is read a second time.

usage: python benchmarks/bench_top.py [--threads N] [--rounds N] [--images N] [--json]
"""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from script import run
from torch import Tensor, nn

from unpool import Progress
from unpool.bench.harness import describe, paired, photos, spread
from unpool.cli.bench import seconds_cells
from unpool.models import VGG, prepare
from unpool.models.vgg import Table
from unpool.visualize import top_activations

COUNT = 9  # kept of each map, as in the paper
HEADER = ["", "s an image", "range", "times as long"]


def measure(
    images: int,
    rounds: int,
    *,
    batch: int = 4,
    size: int = 224,
    trunk: str | Table = "vgg16",
    progress: Progress,
) -> dict[str, Any]:
    """Seconds per image of a plain forward pass and of the search, both to the last convolution.

    They alternate batch by batch, so that a busy machine slows down both. A batch of each comes
    first as a warm-up. The network is a VGG with random weights; the images are squares of `size`
    pixels from three photos.
    """
    net = VGG(2, trunk, code=None, size=size).features[:-1].eval()  # without the last pooling
    layers = [name for name, layer in net.named_children() if isinstance(layer, nn.ReLU)]
    search(net, layers, batches(batch, batch, size))
    plain: list[float] = []
    searched: list[float] = []
    maps = 0
    for n in range(rounds):
        stream = counted(batches(images, batch, size), n * images, rounds * images, progress)
        maps, *seconds = search(net, layers, stream)
        for kept, found in zip((plain, searched), seconds, strict=True):
            kept.append(found / images)
    ratio = paired(searched, plain)
    return {
        "subject": "top",
        "ratio": ratio["median"],
        "ratio_range": [ratio["low"], ratio["high"]],
        "seconds_per_image": {"plain pass": spread(plain), "search": spread(searched)},
        "maps": maps,
        "images": images,
        "batch": batch,
        "rounds": rounds,
        "machine": describe(),
    }


def search(
    net: nn.Module, layers: Sequence[str], batches: Iterator[Tensor]
) -> tuple[int, float, float]:
    """The number of maps, and the seconds of all plain passes and of the whole search."""
    plain = outside = 0.0

    def stream() -> Iterator[Tensor]:
        nonlocal plain, outside
        while True:
            begun = time.perf_counter()
            images = next(batches, None)
            if images is None:
                return
            ready = time.perf_counter()
            with torch.no_grad():
                net(images)
            plain += time.perf_counter() - ready
            outside += time.perf_counter() - begun
            yield images

    start = time.perf_counter()
    found = top_activations(net, stream(), layers, COUNT)
    searched = time.perf_counter() - start - outside
    return sum(len(top.values) for top in found.values()), plain, searched


def batches(count: int, batch: int, size: int) -> Iterator[Tensor]:
    """Randomly placed squares of the photos in turn, preprocessed."""
    images, random = list(photos((2 * size, 2 * size)).values()), np.random.default_rng(0)
    for first in range(0, count, batch):
        squares = []
        for number in range(first, min(first + batch, count)):
            y, x = random.integers(0, size + 1, 2)
            squares.append(images[number % len(images)][y : y + size, x : x + size])
        yield prepare(torch.from_numpy(np.stack(squares)))


def counted(
    batches: Iterator[Tensor], done: int, total: int, progress: Progress
) -> Iterator[Tensor]:
    """The batches, reporting after each how many images are done."""
    for images in batches:
        yield images
        done += len(images)
        progress(done, total, "searching")


def table(found: dict[str, Any]) -> list[list[str]]:
    ratios = {"search": f"{found['ratio']:.2f}"}
    seconds = found["seconds_per_image"].items()
    return [HEADER, *([name, *seconds_cells(s), ratios.get(name, "-")] for name, s in seconds)]


if __name__ == "__main__":
    sys.exit(run(measure, table, images=32))
