"""What all benchmarks share: photos, interleaved timing, and the machine with its largest rates.

The variants take turns, so that a busy machine slows all of them down alike.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from unpool.errors import OptionError
from unpool.models.fast import Convolution
from unpool.models.int8 import Scale, integer_form
from unpool.vision.images import read_image

if TYPE_CHECKING:
    from unpool import Progress

CONVOLUTIONS = ((64, 224, 1), (64, 224, 4), (128, 112, 4), (256, 56, 4), (512, 28, 4), (512, 14, 4))
"""Channels, side and batch size of the feature maps: those of the five stages of VGG-16."""

PRODUCTS = ((2048, 2048, 2048), (1024, 4096, 4096))
"""Rows, inner dimension and columns of the matrix products."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}

Work = Callable[[], float]
"""Something to measure; returns the seconds that count."""

_FLOP = 40e9  # of a measurement, which then takes about a tenth of a second
_COPIED = 2**28  # bytes, more than the caches hold
_CAPABILITIES = ("avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16")
_PHOTOS = ("astronaut", "chelsea", "coffee")


class Yardstick(NamedTuple):
    """A work of known size, to measure a limit of the machine."""

    amount: int  #: per call: floating-point operations, or bytes read and written
    work: Work


def photos(size: tuple[int, int]) -> dict[str, NDArray[np.uint8]]:
    """Three images (H, W, 3) uint8, RGB, of the size (height, width), by name.

    They are photos of scikit-image, or synthetic if it is not installed.

    >>> [photo.shape for photo in photos((20, 30)).values()]
    [(20, 30, 3), (20, 30, 3), (20, 30, 3)]
    """
    if find_spec("skimage") is None:
        return {f"made up {seed}": made_up(size, seed) for seed in range(len(_PHOTOS))}
    folder = resources.files("skimage")
    found = {}
    for name in _PHOTOS:
        image = read_image(Path(str(folder / f"data/{name}.png")))
        shrinks = image.shape[0] * image.shape[1] > size[0] * size[1]
        how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        found[name] = np.asarray(cv2.resize(image, size[::-1], interpolation=how), np.uint8)
    return found


def made_up(size: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    """A synthetic image (H, W, 3) uint8: colored noise, stronger in large structures, like photos.

    >>> made_up((20, 30), 0).shape
    (20, 30, 3)
    """
    random = np.random.default_rng(seed)
    image = np.zeros((*size, 3), np.float32)
    for octave in range(1, 9):
        spots = random.standard_normal((2**octave, 2**octave, 3)).astype(np.float32)
        enlarged = cv2.resize(spots, size[::-1], interpolation=cv2.INTER_CUBIC)
        image += np.asarray(enlarged, np.float32) / 1.6**octave
    image = (image - image.min()) / (image.max() - image.min())
    return (255 * image).astype(np.uint8)


def silent(done: int, total: int, doing: str) -> None:
    """Show no progress."""


def in_turn(
    works: Mapping[str, Work], rounds: int, *, progress: "Progress" = silent, warm: bool = True
) -> dict[str, list[float]]:
    """The seconds of each work in each round: A B C, A B C, ...

    With `warm`, a warm-up round comes first, which is not counted.

    >>> in_turn({"a": lambda: 1.0, "b": lambda: 2.0}, rounds=2)
    {'a': [1.0, 1.0], 'b': [2.0, 2.0]}
    """
    require_positive(rounds=rounds)
    seconds: dict[str, list[float]] = {name: [] for name in works}
    total = (rounds + warm) * len(works)
    for n in range(rounds + warm):
        for i, (name, work) in enumerate(works.items()):
            progress(n * len(works) + i, total, name)
            found = work()
            if n >= warm:
                seconds[name].append(found)
    return seconds


def timed(work: Callable[[], object], calls: int = 1) -> Work:
    """A work that measures the mean seconds of `calls` calls.

    >>> timed(lambda: None)() < 1
    True
    """

    def run() -> float:
        start = time.perf_counter()
        for _ in range(calls):
            work()
        return (time.perf_counter() - start) / calls

    return run


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median and range, to four digits.

    >>> spread([3, 1, 2])
    {'median': 2.0, 'low': 1.0, 'high': 3.0}
    """
    values = list(values)
    found = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def paired(slow: Sequence[float], quick: Sequence[float]) -> dict[str, float]:
    """How many times as fast: median and range of the ratios, round by round.

    >>> paired([3, 30], [1, 10])["median"]
    3.0
    """
    return spread(s / q for s, q in zip(slow, quick, strict=True))


def require_positive(**numbers: int) -> None:
    """Raise an `OptionError` if a number is below 1."""
    for name, number in numbers.items():
        if number < 1:
            raise OptionError(f"got {name}={number}; wanted 1 or more")


@contextmanager
def threads(count: int | None) -> Iterator[int]:
    """Set the number of threads of PyTorch and OpenCV inside a `with`; None changes nothing.

    >>> with threads(1) as count:
    ...     count == torch.get_num_threads()
    True
    """
    before = torch.get_num_threads(), cv2.getNumThreads()
    if count is not None:
        require_positive(threads=count)
        torch.set_num_threads(count)
        cv2.setNumThreads(count)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def describe() -> dict[str, Any]:
    """The processor, its instruction sets and its load average of the last minute."""
    has = torch.cpu.get_capabilities()
    return {
        "processor": has.get("cpu_name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capabilities": [name for name in _CAPABILITIES if has.get(name)],
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def yardsticks(precisions: Iterable[str], shrink: int = 1) -> dict[str, Yardstick]:
    """Convolutions, matrix products and a copy, to interleave with the works they are limits of.

    Precisions are names in `DTYPES`; `shrink` divides channels, matrix sizes and the copy's size.

    >>> list(yardsticks(["fp32"], shrink=16))[-1]
    'copy'
    """
    found = {}
    for precision in precisions:
        dtype = DTYPES[precision]
        for channels, side, count in CONVOLUTIONS:
            channels = max(channels // shrink, 1)
            shape = f"{count} x {channels} x {side} x {side}"
            found[f"convolution {precision} {shape}"] = _convolution(channels, side, count, dtype)
        for product in PRODUCTS if dtype.is_floating_point else ():
            rows, inner, columns = (side // shrink for side in product)
            name = f"product {precision} {rows} x {inner} x {columns}"
            found[name] = _product(rows, inner, columns, dtype)
    source = torch.ones(_COPIED // 4 // shrink)
    target = torch.empty_like(source)
    found["copy"] = Yardstick(2 * source.nbytes, timed(lambda: target.copy_(source)))
    return found


def peaks(
    works: Mapping[str, Yardstick], seconds: Mapping[str, Sequence[float]]
) -> dict[str, dict[str, Any]]:
    """The largest rates of `yardsticks` by median time, in GFLOP/s, and in GB/s of the copy.

    Returns:
        The rate and the shape that reached it, by kind: "convolution fp32", "product bf16",
        "copy" ...
    """
    best: dict[str, dict[str, Any]] = {}
    for name, work in works.items():
        words = name.split()
        kind, shape = " ".join(words[:2]), " ".join(words[2:])
        rate = work.amount / spread(seconds[name])["median"] / 1e9
        if rate > best.get(kind, {"rate": 0})["rate"]:
            best[kind] = {"rate": float(f"{rate:.4g}"), "shape": shape}
    return best


def _convolution(channels: int, side: int, count: int, dtype: torch.dtype) -> Yardstick:
    """A 3 x 3 convolution, channels-last as in the fast form of the networks."""
    x = torch.randn(count, channels, side, side).mul_(50).abs_()
    w = torch.randn(channels, channels, 3, 3)
    flop = 2 * 9 * channels**2 * count * side**2
    if dtype == torch.int8:
        layer = integer_form(Convolution(w.float(), None, True, [1, 1]), Scale(1.0, 0, 1.0), dtype)
        maps = x.to(torch.uint8, memory_format=torch.channels_last)
        return Yardstick(flop, timed(lambda: layer(maps), _calls(flop)))
    x, w = (t.to(dtype, memory_format=torch.channels_last) for t in (x, w))
    return Yardstick(flop, timed(lambda: F.conv2d(x, w, padding=1), _calls(flop)))


def _product(rows: int, inner: int, columns: int, dtype: torch.dtype) -> Yardstick:
    a, b = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
    flop = 2 * rows * inner * columns
    return Yardstick(flop, timed(lambda: a @ b, _calls(flop)))


def _calls(flop: int) -> int:
    return min(max(round(_FLOP / flop), 1), 50)
