"""Cards: read without torch, checked, and written as they were."""

import json
import subprocess
import sys

import pytest

from unpool import cards
from unpool.cards import (
    Card,
    find_partner,
    find_weights,
    list_pretrained,
    read_card,
    weights_digest,
)
from unpool.errors import WeightsError
from unpool.recipes.presets import CRF_PRESETS, DenseCRF, Kernel

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


@pytest.mark.parametrize("partner", [{}, {"partner": None}, {"partner": ""}])
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


@pytest.mark.parametrize("name", list_pretrained())
def test_shipped_cards_are_written_as_they_are(name, tmp_path):
    read_card(name).write(tmp_path / "card.json")
    shipped = json.loads((find_weights(name) / "card.json").read_text())
    assert json.loads((tmp_path / "card.json").read_text()) == shipped


def test_entries_without_a_field_are_kept():
    card = Card.from_dict({**CARD, "machine": "2 cores", "note": None}, "net")
    assert card.more == {"machine": "2 cores"}
    assert card.note is None
    assert card.to_dict() == {**CARD, "machine": "2 cores"}
    assert Card.from_dict(card.to_dict(), "other") == card


def test_segmentation_by_a_card():
    def of(**more):
        return Card.from_dict({**CARD, **more}, "net").segmentation(2)

    assert of() == {"classes": ["class 0", "class 1"]}
    given = {"mode": "instance", "long_side": 64, "classes": ["a", "b"]}
    assert of(**given, input={"order": "BGR"}) == given
    assert of(input={"mean": [1, 2, 3]})["mean"] == (1, 2, 3)
    with pytest.raises(WeightsError, match="got mode classify in the card of net; wanted whole or"):
        of(mode="classify")


def test_a_crf_on_a_card():
    def crf_of(**crf):
        return Card.from_dict({**CARD, "crf": crf}, "net").segmentation(2)["crf"]

    assert crf_of(kernels=[[3, 2]]) == DenseCRF((Kernel(3, 2),))
    known = crf_of(kernels=[[3, 1, None], [20, 2, 5]])  # null: no color
    assert known == DenseCRF((Kernel(3, 1), Kernel(20, 2, 5)))
    given = {"kernels": [[3, 3], [20, 5, 3]], "iterations": 10, "normalization": "none"}
    assert crf_of(**given) == CRF_PRESETS["edeconvnet"]
    given = {"kernels": [[3, 3], [50, 5, 3]], "normalization": "after", "clip": None}
    assert crf_of(**given) == CRF_PRESETS["deeplab1"]


def test_classes_that_share_a_name_cannot_be_told_apart():
    """In fractions by name, for one; a classifier may have them, as ImageNet has two cranes."""
    card = Card.from_dict({**CARD, "classes": ["a", "b", "a"]}, "net")
    with pytest.raises(WeightsError, match=r"got classes \['a', 'b', 'a'\].*3 different names"):
        card.segmentation(3)


def test_azimuths_that_were_held_out():
    def of(recipe):
        return Card.from_dict({**CARD, "recipe": recipe}, "net").held_out

    assert of({"held_out": [3, 5]}) == [3, 5]
    assert of({}) == of({"held_out": "all"}) == of({"held_out": [3, "5"]}) == []


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"classes": ["a"]}, "got classes .*'a'.* wanted 2 names"),
        ({"styles": ["a", "a"]}, "wanted a list of different names"),
        ({"elevations": []}, r"wanted degrees, such as \[20, 30\]"),
        ({"aggregate": "median"}, "got aggregate median .*; wanted max or mean"),
        ({"ready": "yes"}, "wanted true or false"),
        ({"partner": 3}, "got partner 3 in the card of net; wanted text: correct card.json"),
        ({"recipe": "chairs"}, "got recipe chairs .*; wanted an object"),
        ({"input": {"enlarged": -1}}, "got enlarged -1 .*; wanted pixels"),
        ({"temperature": {"whole": 0}}, "got temperature .*; wanted numbers above 0 by mode"),
        ({"temperature": 2}, "got temperature 2 .*; wanted numbers above 0 by mode"),
        *(
            ({"crf": crf}, 'got crf .*; wanted an object with "kernels"')
            for crf in (
                "deeplab",
                {},
                {"kernels": []},
                {"kernels": [[3]]},
                {"kernels": [[3, 3, 0]]},
                {"kernels": [[3, None, 5]]},
                {"kernels": [[3, 3]], "iterations": 1000},
                {"kernels": [[3, 3]], "iterations": 5.0},
                {"kernels": [[3, 3]], "normalization": "all"},
                {"kernels": [[3, 3]], "prune": 1},
                {"kernels": [[3, 3]], "clip": 2},
                {"kernels": [[3, 3]], "clip": "no"},
                {"kernels": [[3, 3]], "clip": 0},
                {"kernels": [[3, 3]], "more": 1},
            )
        ),
    ],
)
def test_entries_that_cannot_be_used(entries, message):
    card = {**CARD, "arguments": {"classes": 2}, **entries}
    with pytest.raises(WeightsError, match=message):
        Card.from_dict(card, "net")


def test_values_that_json_does_not_have(tmp_path):
    card = Card.from_dict({**CARD, "figures": {"miou": float("nan")}}, "net")
    card.write(tmp_path / "card.json")
    assert read_card(tmp_path / "card.json").figures == {"miou": None}
    with pytest.raises(WeightsError, match="got a card with a value that JSON cannot hold"):
        Card.from_dict({**CARD, "classes_seen": {1, 2}}, "net").write(tmp_path / "card.json")


def test_the_digest_of_weights_is_that_of_cards(tmp_path):
    """Of their partner's, too; the cards have those of the tensors."""
    entries = {"format": 1, "architecture": "DeconvNet", "arguments": {}, "sha256": "0" * 64}

    def write(name, **more):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "card.json").write_text(json.dumps(entries | more))
        return weights_digest(tmp_path / "net")

    digests = [
        write("net"),
        write("net", sha256="1" * 64),
        write("net", long_side=64),
        write("net", partner="../fcn"),  # which is missing
        write("fcn"),
        write("fcn", sha256="2" * 64),
    ]
    assert len(set(digests)) == len(digests)
    assert write("fcn") == digests[4]
    (tmp_path / "net").rename(tmp_path / "moved")
    assert weights_digest(tmp_path / "moved") == digests[4]
