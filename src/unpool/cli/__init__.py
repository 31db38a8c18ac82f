"""The command line: a command reads what was typed, calls an application, and shows what it gives.

Exit codes: 0 done; 2 wrong usage or an error of the user, as one line on stderr; 3 some
inputs failed and the others were done; 130 interrupted. Only a bug shows a traceback.

Applications are imported inside the commands, so that `unpool --help` loads neither torch nor
OpenCV. Defaults stand in the applications: what was not typed is not passed on.
"""

import io
import shlex
import sys
from collections.abc import Sequence

import click

import unpool
from unpool.cli import (
    bench,
    check,
    console,
    convert,
    crf,
    evaluate,
    export,
    generate,
    info,
    render,
    segment,
    train,
    visualize,
)
from unpool.cli.messages import error_message

__all__ = ["commands", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: what follows the name of the program; that of the process when not given.

    Returns:
        The exit code.

    >>> main(["segment", "nowhere.jpg"])
    2
    """
    args = list(sys.argv[1:] if argv is None else argv)
    command = shlex.join(["unpool", *args])
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
    try:
        with (
            console.terminable(),
            commands.make_context("unpool", args or ["--help"], obj=command) as context,
        ):
            return int(commands.invoke(context) or 0)
    except click.exceptions.Exit as done:  # after --help and --version
        return done.exit_code
    except KeyboardInterrupt as interrupt:
        console.print_error(str(interrupt) or "interrupted")
        return 130
    except BrokenPipeError:  # who read the output has gone
        return 130
    except Exception as error:
        if not (message := error_message(error, _called(args))):
            raise
        console.print_error(message)
        return 2
    finally:
        console.drop_unwritten()


def _called(args: Sequence[str]) -> click.Command:
    """The command that the arguments name, as far as they name one."""
    command: click.Command = commands
    for arg in args:
        if not isinstance(command, click.Group) or arg not in command.commands:
            break
        command = command.commands[arg]
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(unpool.__version__, message="%(prog)s %(version)s")
def commands() -> None:
    """Deconvolution networks: segment images; train and measure what segments them."""


commands.add_command(bench.bench)
commands.add_command(check.check)
commands.add_command(convert.convert)
commands.add_command(crf.crf)
commands.add_command(evaluate.evaluate)
commands.add_command(export.export)
commands.add_command(generate.generate)
commands.add_command(info.info)
commands.add_command(render.render)
commands.add_command(segment.segment)
commands.add_command(train.train)
commands.add_command(visualize.visualize)
