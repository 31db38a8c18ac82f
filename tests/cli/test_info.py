import json
from pathlib import Path

import torch

import unpool
from unpool import recipes
from unpool.cards import Card, read_card
from unpool.models import list_pretrained
from unpool.recipes.generate import CHAIRS
from unpool.recipes.segment import FINETUNE


def test_versions_weights_and_recipes(run, weights, monkeypatch):
    figures = {"val": {"miou": 0.4424, "images": 80}}
    card = Card("VGG", {}, "0", figures=figures, license="none", palette=[[0, 0, 0]])
    monkeypatch.setattr("unpool.cli.info.list_pretrained", lambda: ["cats"])
    monkeypatch.setattr("unpool.cli.info.read_card", {"cats": card}.__getitem__)
    monkeypatch.setattr(recipes, "RECIPES", {"short": FINETUNE, "chairs": CHAIRS})
    code, out, err = run("info", "--json")
    assert (code, err, len(out)) == (0, [], 1)
    facts = json.loads(out[0])
    assert facts["unpool"] == unpool.__version__
    assert facts["torch"] == torch.__version__
    assert facts["weights"] == {"cats": {"figures": figures, "license": "none"}}
    assert facts["recipes"] == ["short", "chairs"]
    assert "devices" not in facts
    facts = json.loads(run("info", "--devices", "--json")[1][0])
    assert (facts["devices"][0], set(facts["bf16"]) <= set(facts["devices"])) == ("cpu", True)
    lines = run("info")[1]
    assert {f"unpool: {unpool.__version__}", "devices: shown with --devices"} <= set(lines)
    assert {"  cats:", "        miou: 44.2 %", "    license: none"} <= set(lines)
    assert {"  short: segmentation, DeconvNet", "  chairs: generation"} <= set(lines)
    assert json.loads(run("info", "--weights", "cats", "--json")[1][0]) == card.to_dict()
    lines = run("info", "--weights", "cats")[1]
    shown = ["license: none", "figures:", "  val:", "    miou: 44.2 %", "    images: 80"]
    assert lines[-5:] == shown


def test_the_card_of_a_folder(run, weights):
    card = json.loads(Path(weights, "card.json").read_text())
    assert json.loads(run("info", "--weights", weights, "--json")[1][0]) == card
    lines = run("info", "--weights", weights)[1]
    assert "classes: background, cat, dog" in lines
    assert max(map(len, lines)) <= 80


def test_the_weights_of_the_package(run):
    names = [*json.loads(run("info", "--json")[1][0])["weights"]]
    assert names == list_pretrained()
    for name in names:
        shown = json.loads(run("info", "--weights", name, "--json")[1][0])
        assert shown == read_card(name).to_dict()
