"""Options of requests: names and values as on the command line, within bounds."""

import pytest

from unpool.cli.generate.views import view
from unpool.cli.restore import restore
from unpool.cli.segment import segment
from unpool.cli.visualize.project import project
from unpool.errors import OptionError
from unpool.serve.options import GENERATE, PROJECT, RESTORE, SEGMENT, parse

OPERATOR = {"weights", "device", "precision", "exact", "torch-model", "size", "preprocess"}
LOCAL = {"output", "json", "quiet", "redo", "workers", "engine", "shard", "list-layers"}
ONLY_LOCAL = {
    "segment": {"batch", "overlay", "masks", "scores", "tolerance", "uncertainty", "timings"},
    "restore": {"background", "tile", "volume", "truth", "compare"},
    "project": set(),
    "view": set(),
}
"""What the service has not: options about files and memory, and results of several files."""


@pytest.mark.parametrize(
    ("options", "command"),
    [(SEGMENT, segment), (RESTORE, restore), (PROJECT, project), (GENERATE, view)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_names_are_those_of_the_command_line(options, command):
    flags = {f[2:] for p in command.params for f in (*p.opts, *p.secondary_opts) if f[:2] == "--"}
    flags = {flag for flag in flags if not flag.startswith("no-")}
    own = {option.name for option in options}
    assert own - {"format"} <= flags
    assert flags - own - OPERATOR - LOCAL == ONLY_LOCAL[command.name]


def test_values_are_converted():
    given = {"presence_threshold": ["0.5"], "tile": [" 512 "], "mode": ["tiles"]}
    assert parse(given, SEGMENT) == {"presence_threshold": 0.5, "tile": 512, "mode": "tiles"}
    given = {"float": [""], "luma": ["no"], "steps": ["7"]}
    assert parse(given, RESTORE) == {"as_float": True, "luma": False, "steps": 7}
    given = {"place": ["3,5"], "gray": [""], "from": ["one"], "class": ["cat"]}
    found = {"place": (3, 5), "color": False, "start": "one", "class_name": "cat"}
    assert parse(given, PROJECT) == found
    assert parse({"place": ["max"]}, PROJECT) == {"place": "max"}
    given = {"change": ["zoom=0.3", "angle = -1"]}
    assert parse(given, GENERATE) == {"changes": [("zoom", 0.3), ("angle", -1.0)]}


@pytest.mark.parametrize(
    ("options", "name", "value", "message"),
    [
        (SEGMENT, "proposals", "0", "whole number from 1 to 2000"),
        (SEGMENT, "proposals", "2001", "whole number from 1 to 2000"),
        (SEGMENT, "proposals", "1.5", "whole number"),
        (SEGMENT, "proposals", "9" * 5000, "whole number"),
        (SEGMENT, "tile", "1025", "from 1 to 1024"),
        (SEGMENT, "presence-threshold", "nan", "number from 0 to 1"),
        (SEGMENT, "void-below", "1.1", "number from 0 to 1"),
        (SEGMENT, "scale", "inf", "number from 0.01 to 4"),
        (SEGMENT, "batch", "4", "the choices are mode"),
        (RESTORE, "noise", "-1", "number of 0 or more"),
        (RESTORE, "luma", "maybe", "true or false"),
        (PROJECT, "place", "3", "whole number"),
        (PROJECT, "place", "a,b", "whole number"),
        (GENERATE, "change", "zoom", "number from -100 to 100"),
        (GENERATE, "scale", "9", "from 1 to 8"),
    ],
)
def test_others_are_refused(options, name, value, message):
    with pytest.raises(OptionError, match=message) as refused:
        parse({name: [value]}, options)
    assert len(str(refused.value)) < 400


def test_an_option_is_given_once_whatever_its_spelling():
    for given in ({"mode": ["a", "b"]}, {"void-below": ["0"], "void_below": ["0"]}):
        with pytest.raises(OptionError, match="2 times; give it once"):
            parse(given, SEGMENT)
