"""The options of requests: names as on the command line, texts converted, values within bounds.

Which values exist (modes, methods ...) the applications know and say.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from unpool.errors import OptionError, require_known

Convert = Callable[[str, str], Any]
"""Makes a value of the name of an option and its text, or raises an `OptionError`."""


class Option(NamedTuple):
    """An option of requests."""

    name: str  #: as on the command line, without the dashes
    convert: Convert
    keyword: str = ""  #: of the application, if it has another name
    repeatable: bool = False


def parse(given: Mapping[str, list[str]], options: tuple[Option, ...]) -> dict[str, Any]:
    """The options of a request by keyword; those that were not given are left out.

    Args:
        given: texts by name; names may have underscores in place of hyphens.
        options: that the request may have.

    Raises:
        OptionError: an unknown name, a value that does not fit, or one option twice.

    >>> parse({"proposals": ["20"]}, SEGMENT)
    {'proposals': 20}
    """
    known = {option.name: option for option in options}
    named = dict[str, list[str]]()
    for name, texts in given.items():
        named.setdefault(name.replace("_", "-"), []).extend(texts)
    require_known(named, known)
    found = dict[str, Any]()
    for name, texts in named.items():
        option = known[name]
        if len(texts) > 1 and not option.repeatable:
            raise OptionError(f"got {name} {len(texts)} times; give it once")
        values = [option.convert(name, text.strip()) for text in texts]
        keyword = option.keyword or name.replace("-", "_")
        found[keyword] = values if option.repeatable else values[0]
    return found


def text(name: str, given: str) -> str:
    """The text itself."""
    return given


def number(least: float = -math.inf, most: float = math.inf) -> Convert:
    """A number within bounds, which both count as within."""

    def convert(name: str, given: str) -> float:
        try:
            value = float(given)
        except ValueError:
            value = math.nan
        if not (least <= value <= most and math.isfinite(value)):
            wanted = _range(least, most)
            raise OptionError(f"got {name} {given!r}; wanted a number{wanted}")
        return value

    return convert


def whole(least: int, most: int) -> Convert:
    """A whole number within bounds."""

    def convert(name: str, given: str) -> int:
        try:
            value = int(given) if len(given) < 20 else most + 1
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            wanted = _range(least, most)
            raise OptionError(f"got {name} {given[:40]!r}; wanted a whole number{wanted}")
        return value

    return convert


def _range(least: float, most: float) -> str:
    return f" from {least:g} to {most:g}" if math.isfinite(most) else f" of {least:g} or more"


def flag(name: str, given: str) -> bool:
    """True for an option without a value, or with yes, true, on or 1."""
    if given.casefold() in ("", "yes", "true", "on", "1"):
        return True
    if given.casefold() in ("no", "false", "off", "0"):
        return False
    raise OptionError(f"got {name} {given!r}; wanted true or false")


def opposite(name: str, given: str) -> bool:
    """False for an option without a value: what --gray is to --color."""
    return not flag(name, given)


def place(name: str, given: str) -> str | tuple[int, int]:
    """ROW,COLUMN, or max, or all."""
    if given in ("max", "all"):
        return given
    row, _, column = given.partition(",")
    return whole(0, 10**6)(name, row), whole(0, 10**6)(name, column)


def change(name: str, given: str) -> tuple[str, float]:
    """NAME=AMOUNT of a transformation."""
    what, _, amount = given.partition("=")
    return what.strip(), number(-100, 100)(f"{name} {what.strip()}", amount.strip())


SEGMENT = (
    Option("mode", text),
    Option("preset", text),
    Option("ensemble", text),
    Option("crf", text),
    Option("presence-threshold", number(0, 1)),
    Option("void-below", number(0, 1)),
    Option("method", text),
    Option("proposals", whole(1, 2000)),
    Option("aggregate", text),
    Option("tile", whole(1, 1024)),
    Option("overlap", whole(0, 1023)),
    Option("scale", number(0.01, 4)),
    Option("samples", whole(0, 100)),
    Option("format", text),
)
"""Of `unpool segment`. The bounds keep each pass through the network short and its memory small."""

RESTORE = (
    Option("psf", text),
    Option("method", text),
    Option("noise", number(0)),
    Option("balance", number(0)),
    Option("lam", number(0)),
    Option("steps", whole(1, 1000)),
    Option("edges", text),
    Option("gamma", text),
    Option("luma", flag),
    Option("float", flag, "as_float"),
    Option("format", text),
)
"""Of `unpool restore`; a PSF is a formula or is estimated, and never a file of the server."""

PROJECT = (
    Option("layer", text),
    Option("unit", whole(0, 10**6)),
    Option("place", place),
    Option("class", text, "class_name"),
    Option("rule", text),
    Option("overlap", text),
    Option("from", text, "start"),
    Option("activations", text),
    Option("color", flag),
    Option("gray", opposite, "color"),
    Option("format", text),
)
"""Of `unpool visualize project`."""

GENERATE = (
    Option("style", text),
    Option("azimuth", number(-1e6, 1e6)),
    Option("elevation", number(-1e6, 1e6)),
    Option("change", change, "changes", repeatable=True),
    Option("background", text),
    Option("scale", whole(1, 8)),
    Option("format", text),
)
"""Of `unpool generate view`."""
