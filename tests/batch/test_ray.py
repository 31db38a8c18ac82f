"""The Ray engine: `make test-ray`, in an environment of its own."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.kills import digests, kill_and_resume, make_images, rows
from unpool.batch.ledger import Ledger
from unpool.batch.ray import ray_data
from unpool.batch.work import Work

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("default")]  # those of Ray's own code

COMMAND = [sys.executable, "-m", "tests.batch.shade", "in"]
RAY = ["--workers", "2", "--engine", "ray"]


def run(folder, *args, **variables):
    path = os.pathsep.join(filter(None, sys.path))
    options = {"cwd": folder, "env": {**os.environ, "PYTHONPATH": path, **variables}}
    return subprocess.Popen([*COMMAND, *args], stdout=subprocess.PIPE, text=True, **options)


def finish(process):
    out, _ = process.communicate(timeout=900)
    return process.returncode, out.splitlines()


def test_it_does_what_the_plain_loop_does(tmp_path):
    make_images(tmp_path / "in", 24)
    poison = sorted(path for path in (tmp_path / "in").rglob("*.poison.png"))
    code, lines = finish(run(tmp_path, "-o", "out", "--json", *RAY))
    records = [json.loads(line) for line in lines]
    assert (code, len(records)) == (3, 24)
    given_up = {r["source"] for r in records if "given up" in r.get("error", "")}
    assert given_up == {str(path.relative_to(tmp_path)) for path in poison}
    for path in poison:
        path.unlink()
    assert finish(run(tmp_path, "-o", "plain"))[0] == 3
    assert digests(tmp_path / "out") == digests(tmp_path / "plain")


def test_killed_runs_go_on(tmp_path):
    make_images(tmp_path / "in", 24)
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    found = kill_and_resume([[*COMMAND, "-o", "out", *RAY]], tmp_path, 3, seed, longest=900)
    assert (found["images"], found["done"]) == (24, 21)


def test_a_cluster_loses_a_node(tmp_path):
    from ray.cluster_utils import Cluster

    make_images(tmp_path / "in", 42)
    for path in (tmp_path / "in").rglob("*.poison.png"):
        path.unlink()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        cluster.wait_for_nodes()
        slow = {"RAY_ADDRESS": cluster.address, "SHADE_SECONDS": "1"}
        process = run(tmp_path, "-o", "out", "--workers", "3", "--engine", "ray", **slow)
        end = time.monotonic() + 600
        while len(rows(tmp_path / "out")) < 8 and time.monotonic() < end:
            time.sleep(0.2)
        cluster.remove_node(nodes[1], allow_graceful=False)
        assert 8 <= len(rows(tmp_path / "out")) < 40
        assert finish(process)[0] == 3
    finally:
        cluster.shutdown()
    found = rows(tmp_path / "out")
    assert len(found) == len({row["name"] for row in found}) == 40
    assert finish(run(tmp_path, "-o", "plain"))[0] == 3
    assert digests(tmp_path / "out") == digests(tmp_path / "plain")


def test_nothing_to_do(tmp_path):
    work = Work(Ledger(tmp_path, {}), "run", Path, str)
    assert list(ray_data(work, [], 1)) == []
