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
from collections.abc import Iterable


class UnpoolError(Exception):
    """The base of every error that a user can cause."""


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


def suggest(name: object, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the most similar known one, and all of them.

    Args:
        name: the unknown name.
        known: all known names, in the order to list them.

    >>> suggest("edgeboxs", ["edgeboxes", "grid"])
    "did you mean 'edgeboxes'? The choices are edgeboxes, grid"
    """
    names = list(known)
    near = difflib.get_close_matches(str(name), names, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}{'The' if near else 'the'} choices are {', '.join(names) or 'none'}"
