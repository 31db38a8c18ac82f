"""The command line: a file per command, which parses options, calls an application and prints.

Exit codes: 0 success; 2 wrong usage or another user error, as one line on stderr, also output that
could not be written; 3 some inputs failed and the others succeeded; 130 interrupted, or the reader
of the output has gone. Only a bug shows a traceback.

Applications are imported inside the commands, so that `unpool --help` loads neither torch nor
OpenCV. Defaults live in the applications: options that were not given are not passed on.
"""

import shlex
import sys
from collections.abc import Sequence

import click

import unpool
from unpool.cli import console
from unpool.cli.lazy import LazyCommands
from unpool.cli.messages import error_message
from unpool.cli.streams import lost_output, streams

__all__ = ["commands", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments after the name of the program; those of the process by default.

    Returns:
        The exit code.

    >>> main(["segment", "nowhere.jpg"])
    2
    """
    args = list(sys.argv[1:] if argv is None else argv)
    with streams():
        code, message = _run(args)
        if (lost := lost_output()) and code != 130:
            # a reader that has gone, such as head, wants no more
            gone = isinstance(lost, BrokenPipeError)
            code, message = (130, "") if gone else (2, f"standard output: {lost.strerror}")
        if message:
            console.print_error(message)
        return code


def _run(args: list[str]) -> tuple[int, str]:
    """The exit code of a command, and what to print on standard error."""
    if any("\0" in arg for arg in args):
        return 2, "got an argument with a NUL byte, which no path can have; correct it"
    command = shlex.join(["unpool", *args])
    try:
        with (
            console.terminable(),
            console.plain_warnings(),
            commands.make_context("unpool", args or ["--help"], obj=command) as context,
        ):
            return int(commands.invoke(context) or 0), ""
    except click.exceptions.Exit as done:  # after --help and --version
        return done.exit_code, ""
    except KeyboardInterrupt as interrupt:
        return 130, str(interrupt) or "interrupted"
    except BrokenPipeError:
        return 130, ""
    except Exception as error:
        if not (message := error_message(error, _called(args))):
            raise
        return 2, message


def _called(args: Sequence[str]) -> click.Command:
    """The innermost command that the arguments name."""
    command: click.Command = commands
    for arg in args:
        if not isinstance(command, click.Group) or arg not in command.commands:
            break
        command = command.commands[arg]
    return command


NAMES = (
    *("bench", "check", "convert", "crf", "evaluate", "export", "generate", "info", "quantize"),
    *("render", "restore", "segment", "serve", "status", "studio", "train", "visualize"),
)

MODULES = {"studio": "serve"}
"""Of commands that share the module of another."""


@click.group(
    commands=LazyCommands("unpool.cli", {name: MODULES.get(name, name) for name in NAMES}),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(unpool.__version__, message="%(prog)s %(version)s")
def commands() -> None:
    """Deconvolution networks: segmentation, generation and visualization of images."""
