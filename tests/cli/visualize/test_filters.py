"""`unpool visualize filters`, on small networks."""

import json
from pathlib import Path

import pytest

from tests.cli.visualize.files import names


def test_filters(run):
    code, out, err = run("filters MODEL -o out")
    assert (code, err) == (0, [])
    assert out[0].split()[:2] == ["layer", "filters"]
    assert [line.split()[0] for line in out[1:3]] == ["0", "3"]
    assert out[-1].startswith("frequencies of 0: low ")
    assert names("out") == {"filters.png", "filters.json"}
    Path("in/1.png").write_bytes(b"")
    code, out, err = run("filters in nowhere.png MODEL --layer 3 --dead-below 0.5 --json")
    assert (code, err) == (3, [])
    result = json.loads(out[0])
    assert (result["shown"], set(result["failed"])) == ("3", {"in/1.png", "nowhere.png"})
    assert all(isinstance(layer["silent"], list) for layer in result["layers"])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("filters MODEL --layer 1", "which is no two-dimensional convolution"),
        ("filters MODEL --layer 0 broken.png", "none of 1 images can be used"),
    ],
)
def test_unusable_options(refused, args, message):
    Path("broken.png").write_bytes(b"")
    assert message in refused(args)
