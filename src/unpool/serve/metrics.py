"""Metrics as Prometheus reads them: requests by route and status, seconds, the queue, memory."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unpool.serve.engine import Engine

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""The upper bounds of the histogram, in seconds."""


class Metrics:
    """Counts of the answers since the start.

    >>> from unpool.serve.engine import Engine
    >>> metrics = Metrics()
    >>> metrics.count("/v1/segment", 200, 0.3)
    >>> print(metrics.text(Engine()).splitlines()[2])
    unpool_requests_total{route="/v1/segment",status="200"} 1
    """

    def __init__(self) -> None:
        self._requests = Counter[tuple[str, int]]()
        self._buckets = Counter[float]()
        self._sum = 0.0

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count an answer; the histogram has the seconds of those with status 200.

        Args:
            route: the path of the route, one of few, not that of the request.
            status: the code.
            seconds: from the first byte of the request to the last one of the answer.
        """
        self._requests[route, status] += 1
        if status == 200:
            self._buckets[next((b for b in BUCKETS if seconds <= b), float("inf"))] += 1
            self._sum += seconds

    def text(self, engine: "Engine") -> str:
        """All metrics, in the text format 0.0.4."""
        return "\n".join(self._lines(engine)) + "\n"

    def _lines(self, engine: "Engine") -> Iterator[str]:
        yield from _head("unpool_requests_total", "counter", "Answers by route and status.")
        for (route, status), number in sorted(self._requests.items()):
            yield f'unpool_requests_total{{route="{route}",status="{status}"}} {number}'
        yield from _head("unpool_request_seconds", "histogram", "Duration of answers with 200.")
        total = 0
        for bound in (*BUCKETS, float("inf")):
            total += self._buckets[bound]
            text = "+Inf" if bound == float("inf") else f"{bound:g}"
            yield f'unpool_request_seconds_bucket{{le="{text}"}} {total}'
        yield f"unpool_request_seconds_sum {self._sum:.6f}"
        yield f"unpool_request_seconds_count {total}"
        yield from _head("unpool_jobs", "gauge", "Requests at work and in the queue.")
        yield f"unpool_jobs {engine.jobs}"
        yield from _head("unpool_ready", "gauge", "Whether the weights are loaded.")
        yield f"unpool_ready {int(engine.ready)}"
        if memory := resident():
            yield from _head("process_resident_memory_bytes", "gauge", "Memory of the process.")
            yield f"process_resident_memory_bytes {memory}"


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def resident() -> int:
    """Bytes of memory of this process; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
