"""The options that the commands of `unpool visualize` share."""

import json

import pytest

from unpool.cli.visualize import visualize


def test_layers_are_listed(run, tiny):
    code, out, err = run("top", "--list-layers", "--torch-model", "NETS:build", "--size", 24)
    assert (code, err) == (0, [])
    assert [line.split()[0] for line in out] == ["layer", "stem", "act", "pool", "deep", "head"]
    code, out, _ = run("project", "--list-layers", "--weights", tiny, "--json")
    assert code == 0
    result = [json.loads(line) for line in out]
    assert result[0] == {"name": "trunk.stages.0.conv1_1", "kind": "Conv2d", "shape": [4, 32, 32]}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("top in --weights TINY --torch-model a:b", "got --weights and --torch-model"),
        ("top in --weights TINY --preprocess caffe", "got --preprocess caffe for weights"),
        ("top in --torch-model NETS:build --preprocess own", "is not one of"),
        ("top in --torch-model NETS:bild", "has no 'bild': did you mean 'build'"),
        ("top in --torch-model nothing:build", "there is no module 'nothing'"),
        ("top in --torch-model NETS:build --size 4", "the model cannot be run on (1, 3, 4, 4)"),
        ("top in --torch-model NETS:build --rule guide", "got rule 'guide'; the rules are"),
        ("project in/0.png --weights TINY --size 20000", "20000 is not in the range 1<=x<=4096"),
        ("top in --weights nowhere", "got weights 'nowhere'; wanted"),
    ],
)
def test_unusable_options(refused, tiny, args, message):
    assert message in refused(args.replace("TINY", tiny))


@pytest.mark.parametrize("command", ["", *visualize.commands])
def test_help(run, command):
    code, out, err = run(f"{command} --help")
    assert (code, err) == (0, [])
    assert f"Example: unpool visualize {command}" in " ".join(out)
