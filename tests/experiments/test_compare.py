"""Every network trained on the same data, measured, and the page."""

import json
from pathlib import Path

from click.testing import CliRunner

from experiments.compare import __main__ as command
from experiments.compare import networks
from experiments.compare.networks import Entry, folder_name, recipe_of
from tests.experiments.test_results import data  # noqa: F401 (a fixture)
from unpool.models import from_pretrained
from unpool.recipes import RECIPES

TINY = {
    "trunk": ((1, 8),) * 5,
    "size": 32,
    "batch": 2,
    "long_side": 40,
    "crop_long_side": (32, 40),
    "statistics_passes": 1,
}
SMALL = {
    "FCN-8s": Entry("fcn8s", {**TINY, "code": 8}),
    "DeconvNet": Entry("objects", {**TINY, "distill": 0.0}, crf="deeplab"),
}


def test_the_page_is_made_by_one_command_and_not_again(data, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(networks, "NETWORKS", SMALL)
    monkeypatch.setattr(command, "NETWORKS", SMALL)
    runs, pages = tmp_path / "runs", tmp_path / "docs"
    pages.mkdir()
    arguments = ["--data", str(data), "--steps", "0.001", "--rounds", "1"]
    arguments += ["--runs", str(runs), "-o", str(pages)]
    done = CliRunner().invoke(command.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    found = json.loads((pages / "compare.json").read_text())
    rows = found["rows"]
    assert [*rows] == ["FCN-8s", "DeconvNet", "DeconvNet + CRF", "EDeconvNet", "EDeconvNet + CRF"]
    weights = runs / "compare/fcn-8s/weights/model.safetensors"
    net, _ = from_pretrained(weights.parent)
    assert rows["FCN-8s"]["parameters"] == sum(p.numel() for p in net.parameters())
    assert rows["DeconvNet"]["gflop"] > rows["FCN-8s"]["gflop"] > 0
    text = (pages / "compare.md").read_text()
    assert f"| DeconvNet + CRF |  |  |  |  | {100 * rows['DeconvNet + CRF']['miou']:.1f} (" in text
    before = weights.stat().st_mtime_ns
    monkeypatch.setattr(networks, "measure", None)  # it would fail
    again = CliRunner().invoke(command.main, arguments, catch_exceptions=False)
    assert again.exit_code == 0
    assert weights.stat().st_mtime_ns == before


def test_an_unknown_network():
    done = CliRunner().invoke(command.main, ["--data", "x", "--only", "FCN-8"])
    assert done.exit_code == 2
    assert "'FCN-8s'" in done.output or "FCN-8s" in done.output


def test_an_entry_may_start_with_another(tmp_path, monkeypatch):
    known = {**SMALL, "more": Entry("finetune-fcn8s", start="FCN-8s")}
    monkeypatch.setattr(networks, "NETWORKS", known)
    recipe = recipe_of(known["more"], tmp_path, steps=0.5)
    assert recipe.start == str(tmp_path / "fcn-8s/weights")
    assert [phase.steps for phase in recipe.phases] == [30, 90]


def test_each_network_has_a_recipe():
    names = [folder_name(name) for name in networks.NETWORKS]
    assert len(set(names)) == len(names)
    for entry in networks.NETWORKS.values():
        assert entry.recipe in RECIPES
        recipe_of(entry, Path("runs"))
