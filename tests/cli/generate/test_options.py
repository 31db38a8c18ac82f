"""The options that the commands of `unpool generate` share."""

import re
import shlex

import pytest

from unpool.cli import main
from unpool.cli.generate import generate


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("view --style 0 -o a.gif", "a.gif does not end in .png, .jpg, .jpeg"),
        ("view --style 0 -o /dev/null/x.png", "/dev/null is not writable"),
        ("view --style 0 --background paper", "got the color 'paper'"),
        ("morph --from 0 --to 1 -o m.avi", "m.avi does not end in"),
    ],
)
def test_unusable_options(refused, args, message):
    assert message in refused(args)


@pytest.mark.parametrize("command", ["", *generate.commands])
def test_help(capsys, command):
    assert main(["generate", *command.split(), "--help"]) == 0
    assert f"Example: unpool generate {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", generate.commands)
def test_examples_parse(command):
    examples = re.findall(rf"unpool generate {command} (.*)", generate.commands[command].help)
    assert examples
    for example in examples:
        generate.commands[command].make_context(command, shlex.split(example))
