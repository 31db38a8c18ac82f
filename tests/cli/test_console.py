import sys
import warnings

import pytest

from unpool.cli import console
from unpool.cli.console import (
    in_percent,
    print_card,
    print_error,
    print_facts,
    progress,
    segmentation_text,
)


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
            "crf": {"kernels": [[3, 3.5], [10, 60, 20]]},
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
        "  trunk: 2 x 64, 3 x 128",
        "crf:",
        "  kernels: (3, 3.5), (10, 60, 20)",
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
def test_small_classes_are_summed_up(labels, shown):
    assert segmentation_text(record(**labels)) == f"cat.jpg: {shown} (0.12 s)"


def test_timings_are_a_line_of_their_own():
    seconds = {"reading": 0.011, "other": 0.004}
    text = segmentation_text({**record(cat=1.0), "timings": seconds})
    assert text.splitlines()[1:] == ["  reading 0.01 s, other 0.00 s"]


def test_warnings_are_lines_of_the_program(capsys):
    shown = warnings.showwarning
    with warnings.catch_warnings(action="always"), console.plain_warnings():
        for _ in range(2):  # each once
            warnings.warn("no mask shows the class owl", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "unpool: warning: no mask shows the class owl\n"
    assert warnings.showwarning is shown


def test_an_error_is_one_line_that_a_terminal_can_show(capsys):
    print_error("bad\n  name\x1b[31m\ud800: wanted another")
    assert capsys.readouterr().err == "unpool: bad name\\x1b[31m\\ud800: wanted another\n"


# ---- progress ------------------------------------------------------------------------------------


def test_quiet_is_silent(clock, capsys):
    with progress("segmenting", quiet=True) as update:
        clock(100)
        update(1, 2, "segmenting")
    assert capsys.readouterr() == ("", "")


def test_no_terminal_no_bar(clock, capsys):
    with progress("segmenting") as update:
        clock(11)
        update(1, 2, "")
    assert capsys.readouterr() == ("", "unpool: segmenting: 1 of 2 (50 %)\n")


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with progress("segmenting") as update:
        update(1, 2, "loading the weights")
    out, err = capsys.readouterr()
    assert out == ""
    assert "loading the weights" in err
