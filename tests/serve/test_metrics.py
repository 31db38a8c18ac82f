"""The text that Prometheus reads."""

import re

from unpool.serve.engine import Engine
from unpool.serve.metrics import BUCKETS, MEDIA_TYPE, Metrics, resident

LINE = re.compile(r'([a-z_]+)(\{(?:[a-z]+="[^"]*",?)+\})? ([0-9.]+)')


def read(text):
    """The values by name and labels; each name has been described before."""
    described, found = set(), {}
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("#"):
            described.add(line.split()[2])
            continue
        name, labels, value = LINE.fullmatch(line).groups()
        assert {name, re.sub("_(bucket|sum|count)$", "", name)} & described
        found[name + (labels or "")] = float(value)
    return found


def test_counts_and_the_histogram():
    metrics = Metrics()
    durations = [0.05, 0.06, 3.0, 100.0]
    for seconds in durations:
        metrics.count("/v1/segment", 200, seconds)
    metrics.count("/v1/segment", 429, 0.0)
    found = read(metrics.text(Engine()))
    assert found['unpool_requests_total{route="/v1/segment",status="200"}'] == 4
    assert found['unpool_requests_total{route="/v1/segment",status="429"}'] == 1
    for bound in BUCKETS:
        label = f'unpool_request_seconds_bucket{{le="{bound:g}"}}'
        assert found[label] == sum(seconds <= bound for seconds in durations)
    assert found['unpool_request_seconds_bucket{le="+Inf"}'] == 4
    assert found["unpool_request_seconds_count"] == 4
    assert abs(found["unpool_request_seconds_sum"] - sum(durations)) < 1e-6
    assert (found["unpool_jobs"], found["unpool_ready"]) == (0, 0)


def test_memory():
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert 0.2 * peak < resident() < 1.2 * peak


def test_the_route(calls):
    answer = calls.get("/metrics")
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert read(answer.text)["unpool_ready"] == 1
    calls.get("/nowhere/" + "x" * 50)
    assert "nowhere" not in calls.get("/metrics").text
