"""The timing scripts of `benchmarks/` with small arguments; no time is tested."""

import importlib
import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

from unpool.generate import Generator
from unpool.models import DeconvNet, GenerativeNet, save_pretrained

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
TRUNK = ((2, 4), (1, 6))


@pytest.fixture
def script(monkeypatch):
    """Import a script as `python benchmarks/NAME.py` would, beside its siblings."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


def generator():
    net = GenerativeNet(2, 16, code=4, shared=6, widths=(5,), mask_widths=(3,), mask_maps=1)
    return Generator(net, ["a", "b"], device="cpu")


@pytest.fixture
def small(script, monkeypatch):
    """A script with everything as small as it can be: its `run`, to be called with arguments."""
    less = {"bench_top": {"size": 32, "trunk": TRUNK}, "bench_proposals": {"sizes": ((40, 60),)}}
    monkeypatch.setattr(script("bench_generate"), "untrained", generator)
    monkeypatch.setattr(script("bench_import"), "PROGRAMS", {"python": ["-c", "pass"]})

    def run(name, *argv, **defaults):
        module = script(name)
        measure = partial(module.measure, **less.get(name, {}))
        return script("script").run(measure, module.table, argv, **defaults)

    return run


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bench_top", {"images": 6}),
        ("bench_generate", {"weights": "random", "batch": 2}),
        ("bench_proposals", {}),
        ("bench_import", {}),
        ("bench_restore", {"side": 64, "steps": 2}),
    ],
)
def test_each_script(name, options, small, capsys):
    before = torch.get_num_threads()
    args = ["--threads", "1", "--rounds", "1"]
    assert small(name, *args, "--json", **options) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["subject"], found["rounds"], err) == (name.removeprefix("bench_"), 1, "")
    assert found["machine"]["threads"] == 1
    assert small(name, *args, **options) == 0
    table = capsys.readouterr().out
    assert "range" in table.splitlines()[0]
    assert "processor: " in table
    assert torch.get_num_threads() == before


@pytest.mark.skipif(not shutil.which("chromium"), reason="no Chromium")
def test_the_studio(script, small, monkeypatch, tmp_path, capsys):
    net = DeconvNet(2, TRUNK, None, 32)
    weights = save_pretrained(net, tmp_path / "tiny", {"classes": ["background", "cat"]})
    monkeypatch.setattr(
        script("bench_studio"), "STUDIO", [*script("bench_studio").STUDIO, "--weights", weights]
    )
    assert small("bench_studio", "--rounds", "2", "--json") == 0
    seconds = json.loads(capsys.readouterr().out)["seconds"]
    assert 0 < seconds["segmentation"]["median"] < seconds["drop to mask"]["median"] < 60


def test_mistakes(small, capsys):
    assert small("bench_top", "--images", "0", images=32) == 2
    assert capsys.readouterr().err.endswith(": got images=0; wanted 1 or more\n")
    with pytest.raises(SystemExit, match="2"):
        small("bench_top", "--crops", "1")


def test_the_search_sees_what_the_plain_pass_sees(script, monkeypatch):
    top = script("bench_top")
    searched, passed = [], []
    top_activations = top.top_activations

    def counted(net, batches, layers, count):
        def kept():
            for batch in batches:
                searched.append(batch)
                yield batch

        net.register_forward_pre_hook(lambda net, args: passed.append(args[0]))
        return top_activations(net, kept(), layers, count)

    monkeypatch.setattr(top, "top_activations", counted)
    found = top.measure(7, 2, batch=3, size=32, trunk=TRUNK, progress=lambda *_: None)
    assert found["maps"] == 4 + 4 + 6
    assert [len(images) for images in searched] == [3, 3, 3, 1, 3, 3, 1]
    for batch in searched:
        assert sum(batch is other for other in passed) >= 1
    low, high = found["ratio_range"]
    assert 0 < low <= found["ratio"] <= high
    assert list(found["seconds_per_image"]) == ["plain pass", "search"]


def test_proposals_of_every_method_and_photo(script):
    proposals = script("bench_proposals")
    found = proposals.measure(1, sizes=((40, 60),), progress=lambda *_: None)
    assert set(found["sizes"]) == {"60 x 40"}
    (methods,) = found["sizes"].values()
    assert set(methods) == {"edgeboxes", "grid"}
    assert all(len(result["boxes"]) == 3 for result in methods.values())


def test_operations_of_the_generator(script, monkeypatch):
    module = script("bench_generate")
    monkeypatch.setattr(module, "untrained", generator)
    found = module.measure(2, weights="random", batch=3, progress=lambda *_: None)
    assert list(found["seconds_per_view"]) == ["one view", "batch of 3"]
    branches = sum((inputs + 4) * 4 for inputs in (2, 4, 28))  # fc1 and fc2
    code = 12 * 6 + 6 * 6 + 6 * 64 * (5 + 3)
    uconvs = 64 * 25 * (5 * 3 + 3 * 1)
    assert module.operations(generator()) == 2 * (branches + code + uconvs)
    biases = 3 * 8 + 12 + 64 * 8
    assert found["parameters"] == branches + code + 25 * (5 * 3 + 3) + biases
