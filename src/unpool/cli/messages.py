"""Error messages of the command line: one line each, with flags instead of keyword arguments.

The library speaks Python ("pass resume=True"). Here its messages are rewritten in the options of
the command that was called ("pass --resume"), so that the library need not know about flags.
"""

import errno
import re
import shlex

import click

from unpool.errors import UnpoolError

_MEMORY = "out of memory; use smaller images or a smaller batch"
_QUOTES = "'\""
_ITEM = re.compile(r"'([^']*)': '([^']*)'")
_NUMBER = re.compile(r"is not a valid (integer|float)( range)?\b")  # click's
_ARGUMENT = re.compile(
    r"(?P<set>\bset )?(?<![\w./-])(?<!--set )(?P<name>[a-z][\w.]*)="
    r"(?P<value>'[^']*'|\"[^\"]*\"|\([^)]*\)|\[[^\]]*\]|\{[^}]*\}|[^\s,;:()]*[^\s,;:().])"
)


def error_message(error: BaseException, command: click.Command | None = None) -> str:
    """The message for the user, or "" for a bug, which should show its traceback.

    Args:
        error: the exception.
        command: the command that was called, whose options the message names.

    >>> error_message(FileNotFoundError(2, "No such file or directory", "cat.jpg"))
    'cat.jpg: No such file or directory'
    """
    match error:
        case click.UsageError(ctx=context):
            name = context.command_path if context else "unpool"
            text = re.sub(_NUMBER, _plain_number, " ".join(error.format_message().split()))
            return f"{text.removesuffix('.')}. See {name} --help"
        case UnpoolError():
            return with_flags(str(error), command)
        case OSError():
            parts = (error.filename, error.strerror or error)
            return ": ".join(str(part) for part in parts if part)
        case MemoryError():
            return _MEMORY
        case RuntimeError() if re.search("out of memory|allocate memory", str(error)):  # PyTorch's
            return _MEMORY
        case Exception() if "No space left on device" in str(error):  # safetensors'
            return str(error)
        case _:
            return ""


def _plain_number(match: re.Match[str]) -> str:
    return f"is not a {'whole ' * (match[1] == 'integer')}number"


def with_flags(message: str, command: click.Command | None) -> str:
    """A message of the library with the command's flags in place of keyword arguments.

    `name=value` becomes `--name value` if the command has such an option; in a command that has
    `--set`, all others are recipe fields and become `--set name=value`.

    >>> option = click.Option(["--preset"])
    >>> with_flags("pass preset='paper'", click.Command("segment", params=[option]))
    'pass --preset paper'
    >>> option = click.Option(["--activations"], multiple=True)
    >>> with_flags("pass activations={'silu': 'relu'}", click.Command("project", params=[option]))
    'pass --activations silu=relu'
    """
    options = {p.name: p for p in command.params if isinstance(p, click.Option)} if command else {}
    fields = any("--set" in option.opts for option in options.values())

    def flag(match: re.Match[str]) -> str:
        if option := options.get(match["name"]):
            return (match["set"] or "") + _flag(option, match["value"])
        setting = f"{match['name']}={match['value']}"
        if '"' in setting:
            setting = shlex.quote(setting)
        return f"--set {setting}" if fields else match[0]

    return re.sub(_ARGUMENT, flag, message)


def _flag(option: click.Option, value: str) -> str:
    """An option and its value as typed on the command line."""
    name = max(option.opts, key=len)
    if value in ("False", "None"):
        return option.secondary_opts[0] if option.secondary_opts else f"no {name}"
    if value == "True":  # also for options whose value is optional
        return name
    if value[0] in "([":  # numbers are separated by commas
        return f"{name} {value[1:-1].replace(', ', ',')}"
    if value[0] == "{":  # a mapping is typed as NAME=VALUE
        return f"{name} " + re.sub(_ITEM, r"\1=\2", value[1:-1])
    return f"{name} {shlex.quote(value.strip(_QUOTES))}"


def disk_is_full(error: BaseException) -> bool:
    """Whether the disk is full or read-only, so that all further writing would fail."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
