import errno

import click
import pytest

from unpool.cli import commands
from unpool.cli.messages import disk_is_full, error_message, with_flags
from unpool.errors import OptionError


def command(name: str) -> click.Command:
    return commands.commands[name]


@pytest.mark.parametrize(
    ("name", "message", "shown"),
    [
        ("train", "pass resume=True, or name a new folder", "pass --resume, or name a new folder"),
        ("train", "not finite; set lr=1e-4", "not finite; --set lr=1e-4"),
        ("train", "set trunk=[[1,6],[2,8]]", "--set trunk=[[1,6],[2,8]]"),
        ("train", "set phases.0.steps=20 or batch=8.", "--set phases.0.steps=20 or --set batch=8."),
        ("train", """set teachers=["FOLDER"]""", """--set 'teachers=["FOLDER"]'"""),
        ("train", "got bach=2; there is no", "got --set bach=2; there is no"),
        ("train", "pass device='cuda:1'", "pass --device cuda:1"),
        (
            "segment",
            "got presence_threshold=2; wanted 0 to 1",
            "got --presence-threshold 2; wanted 0 to 1",
        ),
        ("segment", "(overlay=False, exact=True)", "(--no-overlay, --exact)"),
        ("segment", "pass exact=False", "pass no --exact"),
        ("segment", "pass preset='my own'", "pass --preset 'my own'"),
        ("segment", "got lr=3", "got lr=3"),
        ("segment", "got in/batch=3/cat.jpg", "got in/batch=3/cat.jpg"),
        ("segment", "got --batch=3", "got --batch=3"),
        ("convert", "pass batch_norm='folded'", "pass --batch-norm folded"),
    ],
)
def test_keyword_arguments_become_flags(name, message, shown):
    assert with_flags(message, command(name)) == shown
    assert error_message(OptionError(message), command(name)) == shown
    assert with_flags(message, None) == message


def test_a_tuple_becomes_numbers_with_commas():
    option = click.Option(["--crop"])
    message = with_flags("pass crop=(40, 30, 260, 250)", click.Command("x", params=[option]))
    assert message == "pass --crop 40,30,260,250"


def test_an_option_of_another_name_is_found_by_its_parameter():
    option = click.Option(["--class", "target"])
    assert with_flags("pass target=3", click.Command("x", params=[option])) == "pass --class 3"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError(2, "No such file or directory", "cat.jpg"),
         "cat.jpg: No such file or directory"),
        (OSError("the end"), "the end"),
        (MemoryError(), "out of memory; use smaller images or a smaller batch"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
         "out of memory; use smaller images or a smaller batch"),
        (ValueError("I/O error: No space left on device"), "I/O error: No space left on device"),
        (RuntimeError("shapes differ"), ""),
        (ZeroDivisionError(), ""),
        (click.UsageError("No such option."), "No such option. See unpool --help"),
        (click.UsageError("'a' is not a valid integer range."),
         "'a' is not a whole number. See unpool --help"),
        (click.UsageError("Missing option. Choose from:\n\ta,\n\tb"),
         "Missing option. Choose from: a, b. See unpool --help"),
    ],
)  # fmt: skip
def test_messages_of_errors(error, message):
    assert error_message(error) == message


def test_a_full_disk():
    assert disk_is_full(OSError(errno.ENOSPC, ""))
    assert not disk_is_full(OSError(errno.EACCES, ""))
    assert not disk_is_full(MemoryError())
