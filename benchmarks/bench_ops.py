"""Speed of pooling with switches and of unpooling.

What bounds them is memory: each moves a map a few times and computes next to nothing. So each is
shown beside a plain copy of the same map, measured in the same run; the copy's fraction of the time
tells how near to the bound an operation is. The last line is JSON.

usage: python benchmarks/bench_ops.py
"""

import json
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from unpool.ops import pool, unpool

SHAPE = (8, 64, 224, 224)  # the first stage of VGG-16, the largest


def milliseconds(work: Callable[[], object], runs: int = 7) -> float:
    """Median time of a call, after one that is not counted."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def measure(dtype: torch.dtype, layout: torch.memory_format) -> dict[str, float]:
    """Milliseconds of each operation, on maps of one type and layout."""
    x = torch.randn(SHAPE).to(dtype).contiguous(memory_format=layout)
    target = torch.empty_like(x)
    y, flat = pool(x)
    _, phase = pool(x, form="phase")
    return {
        "copy": milliseconds(lambda: target.copy_(x)),
        "pool flat": milliseconds(lambda: pool(x)),
        "pool phase": milliseconds(lambda: pool(x, form="phase")),
        "F.max_pool2d": milliseconds(lambda: F.max_pool2d(x, 2, return_indices=True)),
        "unpool flat": milliseconds(lambda: unpool(y, flat)),
        "unpool phase": milliseconds(lambda: unpool(y, phase)),
        "unpool sum": milliseconds(lambda: unpool(y, flat, overlap="sum")),
        "F.max_unpool2d": milliseconds(lambda: F.max_unpool2d(y, flat.index, 2)),
    }


def main() -> None:
    """Print a table, and the same as JSON."""
    results = {}
    for dtype in (torch.float32, torch.bfloat16):
        for layout in (torch.contiguous_format, torch.channels_last):
            name = f"{dtype} {layout}".replace("torch.", "")
            results[name] = found = measure(dtype, layout)
            print(f"{name}, {SHAPE}, {torch.get_num_threads()} threads")
            for work, time_ms in found.items():
                print(
                    f"  {work:15s} {time_ms:8.1f} ms   copy / this: {found['copy'] / time_ms:.2f}"
                )
    print(json.dumps({"shape": SHAPE, "threads": torch.get_num_threads(), "ms": results}))


if __name__ == "__main__":
    main()
