"""`unpool bench mining`: what it costs to find the strongest activations of all maps.

VGG-16 gives 13.5 million activations for an image of 224 pixels, in the 4,224 maps of its 13
convolutions. Mining reads each once more; the convolutions take a thousand operations for each. So
it should cost a few percent, and what counts is that no map is read a second time.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unpool.bench.images import photos
from unpool.bench.machine import describe
from unpool.bench.rounds import Progress, paired, require_positive, spread
from unpool.models import VGG, prepare
from unpool.models.vgg import Table
from unpool.visualize import top_activations

_COUNT = 9  # kept of each map, as in the paper


def measure(
    images: int = 32,
    rounds: int = 5,
    *,
    batch: int = 4,
    size: int = 224,
    trunk: str | Table = "vgg16",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Seconds an image of a plain forward pass, and of mining; both to the last convolution.

    They take turns batch by batch, so that a busy machine is busy for both. A batch of each goes
    before, and is not counted.

    Args:
        images: of a round: squares out of three photos.
        rounds: how many are counted.
        batch: images at a time.
        size: their side in pixels.
        trunk: of the network, which is a VGG with random weights.
        progress: called before each batch.

    Returns:
        Plain values: `ratio`, how many times as long as the plain pass mining takes, and its range
        over the rounds; `maps`, of how many the strongest are found; and what these are made of.

    Raises:
        OptionError: a number below 1.
    """
    require_positive(images=images, rounds=rounds, batch=batch, size=size)
    net = VGG(2, trunk, code=None, size=size).features[:-1].eval()  # without the last pooling
    layers = [name for name, layer in net.named_children() if isinstance(layer, nn.ReLU)]
    _in_turn(net, layers, _batches(batch, batch, size))
    plain: list[float] = []
    mined: list[float] = []
    maps = 0
    for n in range(rounds):
        stream = _batches(images, batch, size)
        if progress is not None:
            stream = _told(stream, n * images, rounds * images, progress)
        maps, *seconds = _in_turn(net, layers, stream)
        for kept, found in zip((plain, mined), seconds, strict=True):
            kept.append(found / images)
    ratio = paired(mined, plain)
    return {
        "ratio": ratio["median"],
        "ratio_range": [ratio["low"], ratio["high"]],
        "seconds_per_image": {"plain pass": spread(plain), "mining": spread(mined)},
        "maps": maps,
        "images": images,
        "batch": batch,
        "rounds": rounds,
        "machine": describe(),
    }


def _in_turn(
    net: nn.Module, layers: Sequence[str], batches: Iterator[Tensor]
) -> tuple[int, float, float]:
    """How many maps there are, and the seconds of all plain passes and of all mining."""
    plain = made = 0.0

    def stream() -> Iterator[Tensor]:
        nonlocal plain, made
        while True:
            begun = time.perf_counter()
            images = next(batches, None)
            if images is None:
                return
            ready = time.perf_counter()
            with torch.no_grad():
                net(images)
            plain += time.perf_counter() - ready
            made += time.perf_counter() - begun
            yield images

    start = time.perf_counter()
    found = top_activations(net, stream(), layers, _COUNT)
    mined = time.perf_counter() - start - made
    return sum(len(top.values) for top in found.values()), plain, mined


def _batches(count: int, batch: int, size: int) -> Iterator[Tensor]:
    """Squares out of the photos in turn, each moved a little, as a network takes them."""
    images, moves = list(photos((2 * size, 2 * size)).values()), np.random.default_rng(0)

    def square(number: int) -> NDArray[np.uint8]:
        y, x = moves.integers(0, size + 1, 2)
        return images[number % len(images)][y : y + size, x : x + size]

    for first in range(0, count, batch):
        numbers = range(first, min(first + batch, count))
        yield prepare(torch.from_numpy(np.stack([square(number) for number in numbers])))


def _told(batches: Iterator[Tensor], done: int, total: int, progress: Progress) -> Iterator[Tensor]:
    progress(done, total, "mining")
    for images in batches:
        yield images
        done += len(images)
        progress(done, total, "mining")
