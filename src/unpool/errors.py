"""Errors whose messages say what to do.

Every error that a user can cause derives from `UnpoolError` and from a builtin exception, so that
both `except UnpoolError` and `except ValueError` work:

    UnpoolError
      ├─ ShapeError    (ValueError)  a tensor, array or box of the wrong shape, size or type
      ├─ ImageError    (ValueError)  an image or mask that cannot be used
      ├─ DataError     (ValueError)  a data set that cannot be used
      ├─ WeightsError  (ValueError)  weights, cards or checkpoints that cannot be used
      ├─ OptionError   (ValueError)  an option or recipe value that does not exist or does not fit
      └─ TrainingError (RuntimeError)  a training run that cannot continue

A message says what came, what was wanted, and what to do, in terms of Python: "pass resume=True".
The command line prints it as one line, with its own options, and exits with code 2. Tracebacks are
for bugs.
"""

import difflib
import os
import re
from collections.abc import Iterable
from numbers import Integral
from pathlib import Path
from typing import Any

from unpool.limits import MAX_MESSAGE

_LISTED = 30  # names in a message
_BREAKS = re.compile(r"\s*[\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")


class UnpoolError(Exception):
    """The base of every error that a user can cause.

    Its message is one line that a terminal can show, whatever a file put into it; see `one_line`.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(str(message)))


class ShapeError(UnpoolError, ValueError):
    """A tensor, array or box has the wrong shape, size or type."""


class ImageError(UnpoolError, ValueError):
    """An image or mask cannot be used."""


class DataError(UnpoolError, ValueError):
    """A data set cannot be used."""


class WeightsError(UnpoolError, ValueError):
    """Weights, their card, or a checkpoint cannot be used."""


class OptionError(UnpoolError, ValueError):
    """An option or a recipe value does not exist or does not fit."""


class TrainingError(UnpoolError, RuntimeError):
    """A training run cannot continue."""


class ImageWarning(UserWarning):
    """An image was read by a guess, which may be wrong."""


def one_line(text: str) -> str:
    r"""Text on one line, with control characters escaped, and shortened in the middle if need be.

    >>> one_line("cannot read\n  'a\x1bb'")
    "cannot read 'a\\x1bb'"
    """
    text = _shortened(text)
    if not text.isprintable():
        text = _BREAKS.sub(" ", text.strip())
        text = _shortened("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text))
    return text


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE // 2]} … {text[-500:]}"


def first_line(error: Exception) -> str:
    """The first line of the message of an error, or its type if it has none.

    >>> first_line(ValueError("no file\\nTraceback ...")), first_line(KeyError())
    ('no file', 'KeyError')
    """
    return next(iter(str(error).splitlines()), type(error).__name__)


def suggest(name: object, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the most similar known one, and all of them.

    Names that have the unknown one as a word between underscores are the most similar. Of long
    lists, such as the layers of a network, only the first names are given.

    >>> suggest("edgeboxs", ["edgeboxes", "grid"])
    "did you mean 'edgeboxes'? The choices are edgeboxes, grid"
    >>> suggest("conv9", [f"conv{i}" for i in range(1, 40)])[-36:]
    'conv1, conv2, conv3, ... (39 in all)'
    >>> suggest("steps", ["eps", "classify_steps", "segment_steps"])[:48]
    "did you mean 'classify_steps' or 'segment_steps'"
    """
    names = list(known)
    near = [word for word in names if str(name) in word.split("_")][:3]
    near = near or difflib.get_close_matches(str(name), names, 1)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    listed = names if len(names) <= _LISTED else [*names[:3], f"... ({len(names)} in all)"]
    return f"{hint}{'The' if near else 'the'} choices are {', '.join(listed) or 'none'}"


def few(items: Iterable[object]) -> str:
    """The first five items with commas between them, and the number of all if there are more.

    >>> few([3, 4]), few("abcdefg")
    ('3, 4', 'a, b, c, d, e … (7)')
    """
    texts = [str(item) for item in items]
    return ", ".join(texts[:5]) + (f" … ({len(texts)})" if len(texts) > 5 else "")


def require_known(given: Iterable[str], known: Iterable[str]) -> None:
    """Raise an `OptionError` for options that do not exist.

    >>> require_known(["mode"], ["mode", "preset"])
    """
    names = list(known)
    for name in given:
        require_choice("the option", name, names)


def require_choice(what: str, value: object, choices: Iterable[str]) -> None:
    """Raise an `OptionError` for a value that is not among the choices.

    >>> require_choice("mode", "whole", ("whole", "instance"))
    """
    names = list(choices)
    if value not in names:
        raise OptionError(f"got {what} {value!r}; {suggest(value, names)}")


def require_int(name: str, value: object, least: int = 1) -> None:
    """Raise an `OptionError` unless a value is an integer of at least `least`.

    >>> require_int("proposals", 50)
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < least:
        raise OptionError(f"got {name}={value!r}; wanted {least} or more, an integer")


def require_type(name: str, value: object, kind: Any, wanted: str) -> None:
    """Raise an `OptionError` unless a value is of a type, or of one of several.

    >>> require_type("exact", True, bool, "True or False")
    """
    if not isinstance(value, kind):
        raise OptionError(f"got {name}={value!r}; wanted {wanted}")


def require_path(name: str, value: object) -> Path:
    """The path; an `OptionError` for another type, or for a path below a file.

    >>> require_path("output", "runs/mine").name
    'mine'
    """
    if not isinstance(value, str | os.PathLike):
        raise OptionError(f"got {name} of type {type(value).__name__}; wanted a path")
    if "\0" in str(value):
        raise OptionError(f"got {name} {str(value)!r} with a NUL byte; correct the path")
    path = Path(value)
    if file := next((folder for folder in path.parents if folder.is_file()), None):
        raise OptionError(f"got {name} {path}, but {file} is a file; wanted a folder there")
    return path
