"""Cards, read without torch. What is wrong with them is tested where it is told: `test_cli.py`."""

import json
import subprocess
import sys

import pytest

from unpool import cards
from unpool.cards import find_partner, find_weights, read_card, settings
from unpool.errors import WeightsError

CARD = {"format": 1, "architecture": "DeconvNet", "arguments": {}, "sha256": "0"}


def write(folder, **more):
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(json.dumps({**CARD, **more}))
    return folder


def test_a_card_is_read_without_torch(tmp_path):
    folder = write(tmp_path / "net")
    code = f"import sys; from unpool.cards import read_card; read_card({str(folder)!r})"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print(*sys.modules)"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert {"torch", "numpy", "safetensors", "click"}.isdisjoint(done.stdout.split())


@pytest.mark.parametrize("partner", ["fcn", "./fcn", "../other/fcn"])
def test_a_partner_lies_where_the_card_says(tmp_path, partner):
    net = write(tmp_path / "net", partner=partner)
    fcn = write(net / partner)
    assert find_partner(net).samefile(fcn)
    assert find_partner(str(net)).samefile(fcn)


def test_a_partner_may_be_named(tmp_path, monkeypatch):
    shipped = write(tmp_path / "pretrained/cats", partner="cats8s").parent
    fcn = write(shipped / "cats8s")
    monkeypatch.setattr(cards.resources, "files", lambda _: tmp_path)
    assert find_partner("cats") == find_weights("cats8s") == fcn
    near = write(tmp_path / "net", partner="cats8s")
    assert find_partner(near) == fcn
    write(near / "cats8s")
    assert find_partner(near) == near / "cats8s"


@pytest.mark.parametrize("partner", [{}, {"partner": None}, {"partner": 3}, {"partner": ""}])
def test_weights_without_partner(tmp_path, partner):
    folder = write(tmp_path / "net", **partner)
    with pytest.raises(
        WeightsError, match=r"net', whose card names no partner for an ensemble; write \"partner\""
    ):
        find_partner(folder)


def test_a_partner_that_is_not_there(tmp_path):
    folder = write(tmp_path / "net", partner="fcn")
    with pytest.raises(
        WeightsError, match=r"names the partner 'fcn', and there are no weights in .*net/fcn; put"
    ):
        find_partner(folder)


def test_settings_are_what_the_card_has():
    assert settings({}, 2, "x") == {"classes": ["class 0", "class 1"]}
    card = {"mode": "instance", "long_side": 64, "input": {"order": "BGR"}, "classes": ["a", "b"]}
    assert settings(card, 2, "x") == {k: v for k, v in card.items() if k != "input"}
    assert settings({"input": {"mean": [1, 2, 3]}}, 1, "x")["mean"] == (1, 2, 3)


def test_the_card_of_weights_is_the_same_everywhere(tmp_path):
    from unpool.models import weights

    assert weights.read_card is read_card
    assert read_card(write(tmp_path / "net")) == CARD
