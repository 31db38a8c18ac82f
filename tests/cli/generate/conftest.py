"""A small generator, and the commands of `unpool generate` with it."""

import json
from pathlib import Path

import pytest
import torch

from unpool.cli import main
from unpool.models import GenerativeNet, save_pretrained

NAMES = ["armchair", "bar_stool", "stool"]


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> str:
    torch.manual_seed(0)
    net = GenerativeNet(3, 32, 2, 28, code=8, shared=12, widths=(6, 5), mask_widths=(4, 3))
    for name, values in net.named_parameters():
        torch.nn.init.normal_(values, 0.02, 0.5 if "fc" in name else 0.1)
    torch.nn.init.constant_(net.mask.fc5.bias, 2.0)  # so that there is an object
    folder = tmp_path_factory.mktemp("generated") / "tiny"
    return str(save_pretrained(net, folder, {"styles": NAMES}))


@pytest.fixture
def run(capsys, tmp_path, monkeypatch, weights):
    """Run a command in an empty folder; returns the code and both streams."""
    monkeypatch.chdir(tmp_path)

    def run(command, *args):
        capsys.readouterr()
        code = main(["generate", command, "--weights", weights, *map(str, args)])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


@pytest.fixture
def printed(run):
    """Run a command with --json successfully; returns the object that it prints."""

    def printed(*args):
        code, out, err = run(*args, "--json")
        assert (code, err, len(out)) == (0, [], 1), (out, err)
        return json.loads(out[0])

    return printed


@pytest.fixture
def refused(run):
    """Run a command that is refused, and writes nothing; returns the message."""

    def refused(text):
        before = set(Path().iterdir())
        code, out, err = run(*text.split())
        assert (code, out, len(err)) == (2, [], 1), (out, err)
        assert set(Path().iterdir()) == before
        return err[0]

    return refused
