"""One process alone, and two real ones over gloo."""

import os
import socket
import subprocess
import sys

import pytest
import torch
from torch import nn

from unpool import distributed

SCRIPT = """
import sys
import torch
from torch import nn
from unpool import distributed

torch.set_num_threads(1)
with distributed.join(torch.device("cpu")):
    with distributed.join(torch.device("cpu")):  # as in an evaluation after a training run
        assert distributed.world() == 2
    rank = distributed.rank()
    for n in (0, 1, 2, 5, 8):
        items = [f"item {i}" for i in range(n)]
        share = distributed.shard(items)
        assert share == items[rank::2]
        assert distributed.gather([item.upper() for item in share]) == [i.upper() for i in items]
    assert distributed.mean(float(rank)) == 0.5
    net = nn.Linear(2, 2)
    nn.init.constant_(net.weight, rank + 1.0)
    distributed.copy_from_first(net)
    assert (net.weight == 1).all()
    both = distributed.replicate(net)
    x = torch.full((1, 2), float(rank))
    both(x).sum().backward()
    assert (net.weight.grad == 0.5).all()
    distributed.barrier()
assert distributed.world() == 1
"""


def free_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


@pytest.mark.slow
def test_two_processes():
    here = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SCRIPT],
            env={**os.environ, **here, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors


def test_one_process():
    with distributed.join(torch.device("cpu")):
        assert (distributed.rank(), distributed.world()) == (0, 1)
        assert distributed.shard([1, 2, 3]) == distributed.gather([1, 2, 3]) == [1, 2, 3]
        assert distributed.mean(2.5) == 2.5
        net = nn.Linear(1, 1)
        assert distributed.replicate(net) is net
        distributed.copy_from_first(net)
        distributed.barrier()


@pytest.mark.parametrize("device", ["cpu", "auto", "cuda:1"])
def test_without_gpus_devices_stay_as_they_are(monkeypatch, device):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert distributed.local(device) == device


def test_each_process_takes_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert distributed.local("auto") == "auto"
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert [distributed.local(d) for d in ("auto", "cuda")] == ["cuda:1"] * 2
    assert [distributed.local(d) for d in ("cpu", "cuda:0")] == ["cpu", "cuda:0"]
