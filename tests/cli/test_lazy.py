"""Commands are imported when they are used."""

import subprocess
import sys

import click
import pytest

from unpool.cli import commands
from unpool.cli.generate import generate
from unpool.cli.visualize import visualize


@pytest.mark.parametrize("group", [commands, generate, visualize], ids=lambda group: group.name)
def test_every_name_gives_its_command(group):
    assert len(group.commands) == len(list(group.commands)) > 5
    for name, command in group.commands.items():
        assert isinstance(command, click.Command)
        assert command.name == name
    with pytest.raises(KeyError):
        group.commands["nothing"]
    with pytest.raises(TypeError, match="fixed"):
        group.commands["segment"] = commands


def test_a_command_does_not_import_the_others():
    code = (
        "import sys; from unpool.cli import main; main(['info', '--help']); "
        "print([m for m in sys.modules if m.startswith('unpool.cli.') "
        "and m.split('.')[2] in ('segment', 'train', 'visualize', 'generate')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
