import inspect
import os
import re

import pytest

from tests.cli.files import save
from unpool.cli import commands
from unpool.segment.ensemble import EDeconvNet
from unpool.segment.evaluate import evaluate
from unpool.segment.segmenter import Segmenter
from unpool.segment.tiles import plan_tiles
from unpool.segment.train import SegmentationTask
from unpool.training.task import train


def test_a_folder_that_is_read_only(refused, weights, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    save("cat.jpg")
    message = refused("segment", "cat.jpg", "--weights", weights)
    assert "got segmented, which may not be written to; choose another with -o" in message


@pytest.mark.parametrize("output", ["cat.jpg", "/dev/null"])
@pytest.mark.parametrize(
    "command",
    [
        ["segment", "cat.jpg"],
        ["evaluate", "--data", "data"],
        ["train", "objects", "--data", "data"],
    ],
)
def test_an_output_that_is_not_a_folder(refused, command, output):
    save("cat.jpg")
    message = refused(*command, "-o", output)
    assert f"{output} is not a folder; give the name of a folder, old or new." in message
    assert message.endswith(f"See unpool {command[0]} --help")


def test_an_output_without_a_name(refused):
    save("cat.jpg")
    assert "got an empty name; name a folder" in refused("segment", "cat.jpg", "-o", "")


def test_a_folder_that_cannot_be_made(refused, weights):
    save("cat.jpg")
    message = refused("segment", "cat.jpg", "--weights", weights, "-o", "cat.jpg/new")
    assert re.search("got cat.jpg/new, which cannot be made .*; choose another with -o", message)


def test_documented_defaults_are_those_of_the_applications():
    segmenter = [
        Segmenter.predict,
        Segmenter._instances,
        Segmenter.__init__,
        Segmenter.from_pretrained,
        plan_tiles,
    ]
    homes = {
        "segment": segmenter,
        "evaluate": [*segmenter, evaluate],
        "train": [SegmentationTask, train],
    }
    # these depend on the weights, the machine or the masks
    left = ("mode", "aggregate", "presence_threshold", "batch", "by_color", "crowd", "crf")
    left += ("tile", "overlap")
    compared = 0
    for name, functions in homes.items():
        parameters = {}
        for function in functions:
            parameters |= inspect.signature(function).parameters
        parameters["weights"] = inspect.signature(Segmenter.from_pretrained).parameters["source"]
        for option in commands.commands[name].params:
            stated = re.search(r"\[default: (.*)\]", getattr(option, "help", None) or "")
            if stated and isinstance(option.default, str):
                assert stated[1] == option.default
            if stated and option.name in parameters and option.name not in left:
                compared += 1
                assert stated[1] == str(parameters[option.name].default), option.name
    assert compared == 19
    ensemble = inspect.signature(EDeconvNet.__init__).parameters["ensemble"].default
    for name in ("segment", "evaluate"):
        (option,) = (o for o in commands.commands[name].params if o.name == "ensemble")
        assert f"[default: {ensemble}]" in option.help
