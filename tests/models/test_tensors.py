"""Files of tensors: what is read is finite and not larger than the file."""

import json
import os
import random
import zipfile
from contextlib import suppress

import pytest
import torch
from safetensors.torch import load_file, save_file

from unpool.errors import WeightsError
from unpool.models.tensors import load_torch, read_tensors

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.count": torch.tensor([5, 6])}


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_are_read_as_fp32_and_integers_as_they_are(tmp_path, name, dtype):
    state = {**STATE, "a.weight": STATE["a.weight"].to(dtype)}
    (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)
    found = read_tensors(tmp_path / name)
    assert list(found) == list(load_file(tmp_path / name) if "safe" in name else state)
    assert found["a.weight"].dtype == torch.float32
    assert all(torch.equal(found[k], v) for k, v in STATE.items())


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
@pytest.mark.parametrize(
    "value", [torch.nan, torch.inf, -torch.inf, torch.tensor(1e39, dtype=torch.float64)]
)
def test_values_that_are_not_finite_in_fp32(tmp_path, name, value):
    state = {**STATE, "bad": torch.zeros(3, 4, dtype=torch.float64)}
    state["bad"][1, 2] = value
    (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)
    with pytest.raises(WeightsError, match="where bad is not finite"):
        read_tensors(tmp_path / name)


def test_a_variance_below_zero(tmp_path):
    norm = torch.nn.BatchNorm2d(3)
    save_file(norm.state_dict(), tmp_path / "a.safetensors")
    assert len(read_tensors(tmp_path / "a.safetensors")) == 5
    norm.running_mean[1], norm.running_var[1] = -6, -6  # the mean may be
    save_file(norm.state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="where running_var is a variance below zero; the file"):
        read_tensors(tmp_path / "a.safetensors")


def test_many_large_tensors_come_back_in_order(tmp_path):
    state = {f"{i:02}": torch.full((2**22,), float(i)) for i in range(9)}  # 16 MiB each
    save_file(state, tmp_path / "a.safetensors")
    found = read_tensors(tmp_path / "a.safetensors")
    assert list(found) == list(state)
    assert all(torch.equal(found[k], v) for k, v in state.items())


def test_a_hundred_thousand_names_are_refused_at_once(tmp_path):
    about = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({str(i): about for i in range(100_000)}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(WeightsError, match="it has 100000 tensors, more than 10000"):
        read_tensors(path)


@pytest.mark.parametrize(
    "state",
    [
        {"a": torch.zeros(1).expand(10**12)},
        {f"{i}": view for i, view in enumerate([torch.zeros(1000).view(10, 100)] * 100)},
        {f"{i}": torch.zeros(0) for i in range(10_001)},
    ],
    ids=["expanded", "shared", "many"],
)
def test_tensors_larger_than_their_file(tmp_path, state):
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"or larger than|too many objects"):
        read_tensors(tmp_path / "a.pth")


@pytest.mark.parametrize("value", [torch.zeros(2).to_sparse(), torch.zeros(2, device="meta")])
def test_only_plain_tensors_are_taken(tmp_path, value):
    torch.save({"a": value}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="more than named tensors; save its state_dict"):
        read_tensors(tmp_path / "a.pth")


def repacked(source, target, compression):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))


def test_compressed_and_damaged_archives_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"a": torch.zeros(10**6)}, path)
    repacked(path, tmp_path / "stored.pth", zipfile.ZIP_STORED)
    assert torch.equal(load_torch(tmp_path / "stored.pth")["a"], torch.zeros(10**6))
    repacked(path, tmp_path / "packed.pth", zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="its parts are compressed"):
        read_tensors(tmp_path / "packed.pth")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="data/0 is damaged"):
        read_tensors(path)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_pipes_and_devices_are_refused(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(WeightsError, match="a pipe, device or socket"):
        read_tensors(tmp_path / name)
    with pytest.raises(WeightsError, match="a pipe, device or socket"):
        read_tensors("/dev/zero")


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "legacy.pth"])
def test_damaged_files_give_tensors_or_an_error_of_the_package(tmp_path, name):
    path = tmp_path / name
    if name.endswith("safetensors"):
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization="legacy" not in name)
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content[: rng.choice([None, rng.randrange(len(content))])])
        with suppress(WeightsError):
            read_tensors(path)


def test_absurdly_large_values_are_refused(tmp_path):
    torch.save({"a": torch.tensor([1e9, -1e11])}, tmp_path / "a.pth")
    read_tensors(tmp_path / "a.pth")
    for value in (1e13, -1e38):
        torch.save({"a": torch.tensor([0, value])}, tmp_path / "a.pth")
        with pytest.raises(WeightsError, match="where a is not finite"):
            read_tensors(tmp_path / "a.pth")


@pytest.mark.parametrize("legacy", [False, True])
def test_nested_tuples_do_not_crash_python(tmp_path, legacy):
    deep = b"\x80\x02}(N" + b"\x85" * 1_000_000 + b"K\x01u."  # the key of a dictionary
    path = tmp_path / "a.pth"
    if legacy:
        torch.save({}, path, _use_new_zipfile_serialization=False)
        path.write_bytes(path.read_bytes().replace(b"\x80\x02}q\x00.", deep))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", deep)
            archive.writestr("a/version", "3")
    with pytest.raises(WeightsError, match="with too many objects; save its state_dict"):
        read_tensors(path)
