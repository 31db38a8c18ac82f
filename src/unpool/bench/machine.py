"""The machine, and the largest rates it reaches: convolutions, matrix products, copies."""

import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import cv2
import torch
from torch.nn import functional as F

from unpool.bench.rounds import Work, require_positive, spread, timed

CONVOLUTIONS = ((64, 224, 1), (64, 224, 4), (128, 112, 4), (256, 56, 4), (512, 28, 4), (512, 14, 4))
"""Channels, side and batch size of the feature maps: those of the five stages of VGG-16."""

PRODUCTS = ((2048, 2048, 2048), (1024, 4096, 4096))
"""Rows, inner dimension and columns of the matrix products."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_FLOP = 40e9  #: of a measurement, which then takes about a tenth of a second
_COPIED = 2**28  #: bytes, more than the caches hold
_CAPABILITIES = ("avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16")


class Yardstick(NamedTuple):
    """A work of known size, to measure a limit of the machine."""

    amount: int  #: per call: floating-point operations, or bytes read and written
    work: Work


@contextmanager
def threads(count: int | None) -> Iterator[int]:
    """Set the number of threads of PyTorch and OpenCV inside a `with`; None changes nothing.

    Raises:
        OptionError: fewer than one thread.

    >>> with threads(1) as count:
    ...     count == torch.get_num_threads()
    True
    """
    if count is not None:
        require_positive(threads=count)
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        if count is not None:
            torch.set_num_threads(count)
            cv2.setNumThreads(count)
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

    Args:
        precisions: of the convolutions and products, names in `DTYPES`.
        shrink: divides channels, matrix sizes and the size of the copy.

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
        for rows, inner, columns in PRODUCTS:
            sides = rows // shrink, inner // shrink, columns // shrink
            shape = " x ".join(map(str, sides))
            found[f"product {precision} {shape}"] = _product(*sides, dtype)
    source = torch.ones(_COPIED // 4 // shrink)
    target = torch.empty_like(source)
    found["copy"] = Yardstick(2 * source.nbytes, timed(lambda: target.copy_(source)))
    return found


def peaks(
    works: Mapping[str, Yardstick], seconds: Mapping[str, Sequence[float]]
) -> dict[str, dict[str, Any]]:
    """The largest rates by median time, in GFLOP/s, and in GB/s of the copy.

    Args:
        works: from `yardsticks`.
        seconds: their times in each round, by the same names.

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
    x = torch.randn(count, channels, side, side).to(dtype, memory_format=torch.channels_last)
    w = torch.randn(channels, channels, 3, 3).to(dtype, memory_format=torch.channels_last)
    flop = 2 * 9 * channels**2 * count * side**2
    return Yardstick(flop, timed(lambda: F.conv2d(x, w, padding=1), _calls(flop)))


def _product(rows: int, inner: int, columns: int, dtype: torch.dtype) -> Yardstick:
    a, b = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
    flop = 2 * rows * inner * columns
    return Yardstick(flop, timed(lambda: a @ b, _calls(flop)))


def _calls(flop: int) -> int:
    return min(max(round(_FLOP / flop), 1), 50)
