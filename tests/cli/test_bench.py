"""`unpool bench`, with everything as small as it can be; no time is tested."""

import json
from functools import partial

import pytest
import torch

from unpool.bench import crf, harness, occlusion, training
from unpool.cli import main
from unpool.models import DeconvNet, save_pretrained

TRUNK = ((1, 4), (1, 8))
CRF = {"presets": ("deeplab",), "size": (24, 32)}
OCCLUSION = {"size": 32, "window": 8, "stride": 4, "trunk": TRUNK, "code": 8}
SUBJECTS = {
    "segment": ["--crops", "2", "--no-memory", "--weights", "WEIGHTS"],
    "crf": [],
    "occlusion": [],
    "train": ["--batch", "2"],
}


@pytest.fixture
def weights(tmp_path):
    net = DeconvNet(3, TRUNK, 16, 32)
    return str(save_pretrained(net, tmp_path / "tiny", {"classes": ["a", "b", "c"]}))


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(harness, "yardsticks", partial(harness.yardsticks, shrink=32))
    monkeypatch.setattr(crf, "_ways", lambda: {"torch": partial(crf._own, compiled=False)})
    monkeypatch.setattr(crf, "measure", partial(crf.measure, **CRF))
    monkeypatch.setattr(occlusion, "measure", partial(occlusion.measure, **OCCLUSION))
    monkeypatch.setattr(training, "_NARROW", {"trunk": TRUNK, "code": 8, "size": 32})


@pytest.mark.parametrize("subject", SUBJECTS)
def test_command(subject, weights, small, capsys):
    options = [weights if option == "WEIGHTS" else option for option in SUBJECTS[subject]]
    args = ["bench", subject, "--threads", "1", "--rounds", "1", *options]
    before = torch.get_num_threads()
    assert main([*args, "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out.splitlines()[-1])
    assert (found["subject"], found["rounds"], err) == (subject, 1, "")
    assert found["machine"]["threads"] == 1
    assert main(args) == 0
    table = capsys.readouterr().out
    assert "range" in table.splitlines()[0]
    assert "processor: " in table
    assert main([*args, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("option", ["--threads", "--rounds", "--crops"])
def test_command_refuses(option, capsys):
    assert main(["bench", "segment", option, "0"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "0 is not in the range x>=1" in err
    assert err.count("\n") == 1


def test_scale_by_the_number_of_workers(monkeypatch, capsys):
    def run(command, output):
        count = int(command[command.index("--workers") + 1]) if "--workers" in command else 1
        return {"rate": 2.0 * count, "start": 3.0, "cpu": 10.0, "memory_gb": 0.5, "failed": 1}

    monkeypatch.setattr("unpool.bench.scale.run_once", run)
    args = ["bench", "scale", "--workers", "0,4", "--images", "3", "--rounds", "2"]
    assert main([*args, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ratio"]["4 workers"] == {"median": 4.0, "low": 4.0, "high": 4.0}
    assert found["failed"] == {"plain loop": [1, 1], "4 workers": [1, 1]}
    assert main(args) == 0
    assert capsys.readouterr().out.splitlines()[2].split()[:4] == ["4", "workers", "8", "8"]
