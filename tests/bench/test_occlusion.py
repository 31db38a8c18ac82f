"""`unpool bench occlusion`, on a small network."""

import json
from functools import partial

import torch

from unpool.bench import occlusion
from unpool.cli import main

SMALL = {"size": 32, "window": 8, "stride": 4, "trunk": ((1, 4), (1, 4)), "code": 8}


def test_command(capsys, monkeypatch):
    monkeypatch.setattr(occlusion, "measure", partial(occlusion.measure, **SMALL))
    assert main(["bench", "occlusion", "--rounds", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["subject"], found["rounds"]) == ("occlusion", 2)
    assert found["positions"] == {"incremental": 49, "others": 16, "all": 49}
    assert found["different"] < 1e-5
    seconds = found["seconds_per_position"]
    assert min(found["ratio_plain"], *(s["low"] for s in seconds.values())) > 0
    if found["ratio_captum"] is not None:
        assert list(seconds) == ["incremental", "plain", "captum 1", "captum 8"]
        assert found["captum"] in seconds
    assert main(["bench", "occlusion", "--rounds", "1", "--full"]) == 0
    assert "s a position" in capsys.readouterr().out


def test_without_captum(monkeypatch):
    monkeypatch.setattr(occlusion, "find_spec", lambda name: None)
    found = occlusion.measure(1, full=True, **SMALL)
    assert (found["captum"], found["ratio_captum"]) == ("not installed: skipped", None)
    assert found["positions"]["others"] == 49
    assert torch.get_default_dtype() == torch.float32
