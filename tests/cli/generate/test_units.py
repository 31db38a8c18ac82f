"""`unpool generate mask`, `unit`, `zoom` and `filters`, with a small network."""

import json

import pytest

from tests.cli.generate.files import frames, size
from unpool.generate import PATTERNS


def test_masks_units_and_filters(printed, run):
    assert printed("mask", "--style", 0)["cells"] == list(PATTERNS)
    assert printed("mask", "--style", 0, "--cells", "border", "-o", "b.png")["cells"] == ["border"]
    assert printed("unit", "--value", 3)["units"] == list(range(12))
    record = printed(
        "unit", "--layer", "rgb.fc5", "--unit", 1, "--position", "2,2", "-o", "maps.png"
    )
    assert (record["layer"], record["units"]) == ("rgb.fc5", [1])
    record = printed("zoom", "--style", 1)
    assert 0 <= record["unit"] < 12
    assert record["explained"] <= 1
    printed("zoom", "--style", 1, "--unit", 3, "-o", "zoom.gif")
    assert frames("zoom.gif") == 8
    assert printed("filters", "-o", "f.png")["layer"] == "rgb.stages.1"
    for path in ("mask.png", "b.png", "unit.png", "maps.png", "zoom.png", "f.png"):
        assert min(size(path)) > 16
    code, out, err = run("unit", "--list-layers")
    assert (code, err) == (0, [])
    assert "shared.fc4" in out
    assert json.loads(run("filters", "--list-layers", "--json")[1][0]) == {"layer": "rgb.stages.0"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("mask --style 0 --cells ring", "got the pattern 'ring'; the choices are"),
        ("unit --layer fc1", "choices are style.fc1"),
        ("unit --unit 99", "got unit 99 of shared.fc4; wanted 0 to 11"),
        ("unit --layer rgb.fc5 --position 9", "got '9'; wanted ROW,COLUMN"),
        ("zoom --unit 50 --style 0", "got unit 50 of shared.fc4"),
        ("filters --layer fc1", "got layer 'fc1'; "),
    ],
)
def test_unusable_options(refused, args, message):
    assert message in refused(args)
