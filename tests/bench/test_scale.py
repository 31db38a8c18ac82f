"""The command itself is measured, with a small network."""

import os
import subprocess
import sys

import pytest

from unpool.bench import scale
from unpool.errors import OptionError


def test_each_variant_does_all_images(weights):
    found = scale.measure(1, images=5, size=(20, 30), workers=(0, 1), weights=weights, broken=0.25)
    assert list(found["rate"]) == ["plain loop", "1 worker"]
    assert found["failed"] == {"plain loop": [1], "1 worker": [1]}
    assert list(found["ratio"]) == ["1 worker"]
    for kind in ("rate", "start", "cpu"):
        assert all(one["median"] > 0 for one in found[kind].values())
    plain, worker = (one["median"] for one in found["memory_gb"].values())
    assert worker > plain > 0.05


def test_the_memory_of_a_tree():
    code = "x = bytearray(b'x' * 50_000_000); print('ready', flush=True); input()"
    inner = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", inner], **pipes) as process:
        assert process.stdout.readline() == b"ready\n"
        assert 50e6 < scale._tree_memory(process.pid) < 150e6
        assert scale._tree_memory(os.getpid()) > scale._tree_memory(process.pid)
        process.stdin.close()


def test_what_cannot_be_measured(tmp_path):
    with pytest.raises(OptionError, match="wanted 3 or more"):
        scale.measure(1, images=2)
    with pytest.raises(OptionError, match="got an error in segment"):
        scale.measure(1, images=3, size=(20, 30), workers=(0,), weights=str(tmp_path / "none"))
