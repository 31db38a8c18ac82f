import json
import warnings

import pytest

from unpool.cli import console
from unpool.cli.console import in_percent, print_card, print_facts, print_segmented


@pytest.fixture
def lines(capsys, monkeypatch):
    """The lines that were printed, on a terminal of 60 columns."""
    monkeypatch.setenv("COLUMNS", "60")
    return lambda: capsys.readouterr().out.splitlines()


def test_long_values_are_wrapped_and_indented(lines):
    protocol = "whole images, long side 384; " * 8
    print_facts({"val": {"protocol": protocol, "path": "x" * 90}})
    first, *others = lines()[1:]
    assert first.startswith("  protocol: whole")
    assert others[-1] == f"{'':6}{'x' * 90}"  # in one piece, to be copied
    text = [first, *others[:-2]]
    assert all(len(line) <= 60 for line in text)
    assert all(line.startswith(" " * 6) for line in text[1:])
    assert " ".join(" ".join(text).split()) == f"protocol: {protocol}".strip()


def test_no_python_shows_through(lines):
    print_facts(
        {
            **{"share": 0.123456, "rate": 2e-05, "yes": True, "nothing": None, "few": [], "no": {}},
            "data": [{"part": "coco", "terms": ["a", "b"]}, {"part": "voc", "more": {"n": 3}}],
            "arguments": {"code": None, "trunk": [[2, 64], [3, 128]]},
        }
    )
    assert lines() == [
        "share: 0.1235",
        "rate: 2e-05",
        "yes: yes",
        "few: none",
        "no: none",
        "data:",
        "  part: coco; terms: a, b",
        "  part: voc; more: n: 3",
        "arguments:",
        "  trunk: 2, 64, 3, 128",
    ]


def test_a_card_has_percentages_and_no_palette(lines):
    figures = {"miou": 0.44221, "miou_interval": [0.36, 0.479], "boundary_f1": None, "images": 80}
    card = {"palette": [[0, 0, 0]], "figures": {"val, whole": figures}, "long_side": 384}
    print_card(card)
    assert lines() == [
        "figures:",
        "  val, whole:",
        "    miou: 44.2 %",
        "    miou_interval: 36.0 to 47.9 %",
        "    images: 80",
        "long_side: 384",
    ]
    assert card["palette"]  # as it was
    assert in_percent(None) is None


def record(**labels: float) -> dict[str, object]:
    return {"source": "cat.jpg", "mask": "cat.png", "labels": labels, "seconds": 0.123}


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        ({"cat": 0.75, "dog": 0.25}, "cat 75.0 %, dog 25.0 %"),
        ({"cat": 0.988, "dog": 0.005, "cow": 0.004, "sofa": 0.003},
         "cat 98.8 %, dog 0.5 %, others 0.7 %"),
        ({"cat": 0.9997, "dog": 0.0003}, "cat 100.0 %"),
    ],
)  # fmt: skip
def test_specks_are_summed_up_for_people_only(lines, labels, shown):
    print_segmented(record(**labels), as_json=False, quiet=False)
    assert lines() == [f"cat.jpg: {shown} (0.12 s)"]
    print_segmented(record(**labels), as_json=True, quiet=False)
    assert json.loads(lines()[0])["labels"] == labels


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ("got 3 pixels; wanted more", "cat.jpg: got 3 pixels; wanted more"),
        ("cannot read cat.jpg: it is cut off", "cannot read cat.jpg: it is cut off"),
    ],
)
def test_errors_name_their_image_once(capsys, error, shown):
    print_segmented({"source": "cat.jpg", "error": error}, as_json=False, quiet=False)
    assert capsys.readouterr().err == f"unpool: {shown}\n"


def test_specks_are_those_of_the_overlay():
    from unpool.vision import drawing

    assert console._SPECK == drawing._SPECK


def test_warnings_are_lines_of_the_program(capsys):
    shown = warnings.showwarning
    with warnings.catch_warnings(action="always"), console.plain_warnings():
        warnings.warn("no mask shows the class owl", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "unpool: warning: no mask shows the class owl\n"
    assert warnings.showwarning is shown
