"""Which devices there are, and whether bfloat16 pays on them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unpool.devices import (
    bf16_pays,
    find_device,
    find_dtype,
    find_int8_obstacle,
    require_bf16,
    training_layout,
)
from unpool.errors import OptionError


def test_auto_is_the_gpu_where_there_is_one():
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["cuda:99", "meta", "gpu", ""])
def test_others_are_refused(name):
    with pytest.raises(OptionError, match=f"got device {name!r}; this machine has cpu"):
        find_device(name)


@pytest.mark.parametrize(
    ("has", "layout"),
    [
        ({"architecture": "x86_64", "avx512_f": False}, torch.contiguous_format),
        ({"architecture": "x86_64", "avx512_f": True}, torch.channels_last),
        ({"architecture": "arm"}, torch.channels_last),
    ],
)
def test_the_layout_of_training(monkeypatch, has, layout):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert training_layout(torch.device("cpu")) == layout
    assert training_layout(torch.device("cuda")) == torch.channels_last


@pytest.mark.parametrize("instructions", ["amx_bf16", "avx512_bf16"])
def test_bfloat16_pays_where_the_processor_multiplies_it(monkeypatch, instructions):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instructions: True})
    assert bf16_pays(torch.device("cpu"))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instructions: False, "avx2": True})
    assert not bf16_pays(torch.device("cpu"))


@pytest.mark.parametrize(
    ("has", "able"),
    [
        ({"avx512_bw": True, "avx512_vl": True, "avx512_dq": True}, True),
        ({"avx_ne_convert": True}, True),
        ({"avx512_bw": True, "avx2": True}, False),
        ({"avx2": True}, False),
    ],
)
def test_bfloat16_is_refused_where_it_cannot_be_computed(monkeypatch, has, able):
    capabilities = {"architecture": "x86_64", **has}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    if able:
        require_bf16(torch.device("cpu"))
    else:
        with pytest.raises(OptionError, match="got precision bf16, which the cpu of this machine"):
            require_bf16(torch.device("cpu"))


# ---- forked processes ----------------------------------------------------------------------------

FORK = """
import multiprocessing, os, sys
import numpy as np
import torch
from unpool import Segmenter
from unpool.errors import OptionError
from unpool.models import DeconvNet

def load():
    torch.manual_seed(0)
    return Segmenter(DeconvNet(2, ((1, 32), (1, 64)), None, 64), ["background", "cat"])

def work(threads, segmenter, before):
    if threads:
        torch.set_num_threads(threads)
    try:
        found = (segmenter or load())(image)
    except OptionError as error:
        assert "forked after PyTorch had started its threads" in str(error)
        os._exit(3)
    os._exit(0 if before is None or np.array_equal(found.labels, before) else 4)

image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
if __name__ == "__main__":
    method, parent, threads, loaded = sys.argv[1], *map(int, sys.argv[2:])
    torch.set_num_threads(parent)
    segmenter = before = None
    if loaded:
        segmenter = load()
        before = segmenter(image).labels
    given = threads, segmenter if loaded == 1 else None, before
    process = multiprocessing.get_context(method).Process(target=work, args=given)
    process.start()
    process.join(300)
    process.kill()
    sys.exit(process.exitcode)
"""


@pytest.mark.parametrize(
    ("method", "parent", "threads", "loaded", "code"),
    [
        ("fork", 2, 0, 1, 3),  # a segmenter from before the fork
        ("fork", 2, 0, 2, 3),  # another one, loaded after the fork
        ("fork", 2, 1, 1, 0),
        ("fork", 1, 0, 1, 0),
        ("fork", 2, 0, 0, 0),  # the first one
        ("spawn", 2, 0, 1, 0),
    ],
)
def test_forked_processes_never_hang(tmp_path, method, parent, threads, loaded, code):
    if sys.platform != "linux" or "libgomp" not in Path("/proc/self/maps").read_text():
        pytest.skip("another OpenMP takes care of forks")
    (tmp_path / "fork.py").write_text(FORK)
    command = [sys.executable, tmp_path / "fork.py", method, parent, threads, loaded]
    assert subprocess.run([str(part) for part in command], check=False).returncode == code


VNNI = {"avx512_vnni": True, "avx512_bf16": True}


@pytest.mark.parametrize(
    ("has", "obstacle"),
    [
        (VNNI, None),
        ({"avx_vnni": True}, None),
        ({"avx2": True, "avx512_f": True}, "the processor has no instructions for int8"),
    ],
)
def test_int8_needs_its_instructions(monkeypatch, has, obstacle):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    found = find_int8_obstacle(torch.device("cpu"))
    assert found is None if obstacle is None else found.startswith(obstacle)


def test_int8_needs_the_operators_of_torch(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: VNNI)
    monkeypatch.setattr("unpool.devices._INT8_OPERATORS", ("qconv_prepack", "qconv9"))
    assert "has no int8 convolutions" in find_int8_obstacle(torch.device("cpu"))


@pytest.mark.parametrize(
    ("has", "dtype"), [({"avx512_bf16": True}, torch.bfloat16), ({}, torch.float32)]
)
def test_without_int8_it_is_the_next_precision(monkeypatch, has, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    instead = {torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]
    with pytest.warns(UserWarning, match=f"the processor has no .*; using {instead}"):
        assert find_dtype("int8", False, torch.device("cpu")) == dtype


def test_the_dtype_of_a_precision(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: VNNI)
    cpu = torch.device("cpu")
    assert find_dtype("int8", False, cpu) == torch.int8
    assert find_dtype("auto", False, cpu) == torch.bfloat16
    assert find_dtype("auto", True, cpu) == torch.float32
    assert find_dtype("fp32", False, cpu) == torch.float32
    with pytest.raises(OptionError, match="precision int8 and exact; leave one of them out"):
        find_dtype("int8", True, cpu)
