"""Frozen dataclasses of plain values, such as recipes: reading JSON, replacing values by name."""

import dataclasses
import json
import math
from collections.abc import Mapping
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from unpool.errors import OptionError, suggest

T = TypeVar("T")

_MISFIT = object()  #: a value that is not of the wanted type


def from_json(kind: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass from plain values, the inverse of `dataclasses.asdict` and JSON."""
    hints = _hints(kind)
    if not isinstance(values, Mapping):
        raise OptionError(
            f"got {repr(values)[:200]} in a recipe; wanted {', '.join(hints)} by name"
        )
    for name in values:
        if name not in hints:
            raise OptionError(f"got a recipe with {name!r}; {suggest(name, hints)}")
    given: dict[str, Any] = {}
    try:
        for name, value in values.items():
            part = _parts(hints[name])
            if part and isinstance(value, list | tuple):
                given[name] = tuple(from_json(part, item) for item in value)
            else:
                given[name] = _checked(_tuples(value), hints[name], f"{name}={value!s}")
        return kind(**given)
    except TypeError as error:
        raise OptionError(f"got an incomplete recipe: {error}") from None
    except RecursionError:
        raise OptionError("got a recipe with lists in hundreds of lists; correct it") from None


def replaced(part: T, name: str, value: object) -> T:
    """A copy of a dataclass with one value replaced.

    Args:
        part: not changed.
        name: of a field; items of tuples by number, `phases.0.steps`. If a tuple has a single
            item, `steps` is enough.
        value: the new value; lists become tuples, integers floats where a float is wanted, and
            text with commas a tuple where one is wanted.
    """
    name = name.strip()
    try:
        return _replace(part, name.split("."), _tuples(value), f"{name}={value}")
    except RecursionError:
        raise OptionError(f"got {name} with lists in hundreds of lists; correct it") from None


def parse_setting(setting: str) -> tuple[str, Any]:
    """Split `name=value`; values are JSON, strings also without quotes.

    >>> parse_setting("phases.0.lr=1e-3"), parse_setting("optimizer=sgd")
    (('phases.0.lr', 0.001), ('optimizer', 'sgd'))
    """
    name, equals, text = setting.partition("=")
    if not equals:
        raise OptionError(f"got the setting {setting!r}; write name=value, for example batch=8")
    try:
        return name.strip(), json.loads(text)
    except json.JSONDecodeError:
        return name.strip(), text.strip()
    except (ValueError, RecursionError):  # a number of thousands of digits, or nested lists
        raise OptionError(f"got {setting[:60]}..., which is too long; correct it") from None


def differences(ours: Any, theirs: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Names and both values of the differences between two nested plain values.

    >>> differences({"batch": 8, "phases": [{"lr": 1}]}, {"batch": 8, "phases": [{"lr": 2}]})
    [('phases.0.lr', 1, 2)]
    """
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = [*ours, *(key for key in theirs if key not in ours)]
        pairs = [(key, ours.get(key), theirs.get(key)) for key in keys]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = [(str(i), *pair) for i, pair in enumerate(zip(ours, theirs, strict=True))]
    else:
        return [] if ours == theirs else [(prefix.removesuffix("."), ours, theirs)]
    return [found for key, a, b in pairs for found in differences(a, b, f"{prefix}{key}.")]


def _replace(part: Any, path: list[str], value: Any, setting: str) -> Any:
    """`part` with the value at `path` replaced; dataclasses by field, tuples by number."""
    head, *rest = path
    if isinstance(part, tuple):
        if not head.isdecimal() or int(head) >= len(part):
            items = ", ".join(map(str, range(len(part))))
            raise OptionError(f"got {setting}; there is no item {head!r}: the items are {items}")
        place, old = int(head), part[int(head)]
        new = _replace(old, rest, value, setting) if rest else _checked(value, type(old), setting)
        return (*part[:place], new, *part[place + 1 :])
    hints = _hints(type(part)) if dataclasses.is_dataclass(part) else {}
    if head not in hints:
        owners = [name for name, kind in hints.items() if head in _hints(_parts(kind))]
        if owners and len(getattr(part, owners[0])) == 1:
            return _replace(part, [owners[0], "0", *path], value, setting)
        if owners:
            name = f"{owners[0]}.0.{head}"
            raise OptionError(
                f"got {setting}; there is no {head!r}, but {owners[0]} have it: {name}"
            )
        known = dict(hints)
        for kind in hints.values():
            known |= _hints(_parts(kind))
        raise OptionError(f"got {setting}; there is no {head!r}: {suggest(head, known)}")
    if rest:
        new = _replace(getattr(part, head), rest, value, setting)
    else:
        new = _checked(_listed(value, hints[head]), hints[head], setting)
    return dataclasses.replace(part, **{head: new})


def _hints(kind: Any) -> dict[str, Any]:
    """The types of a dataclass' fields by name; empty for other types."""
    if not dataclasses.is_dataclass(kind):
        return {}
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _parts(kind: Any) -> Any:
    """The dataclass in `tuple[dataclass, ...]`; None for other types."""
    part = next(iter(get_args(kind)), None) if get_origin(kind) is tuple else None
    return part if dataclasses.is_dataclass(part) else None


def _checked(value: Any, kind: Any, setting: str) -> Any:
    fitted = _fit(value, kind)
    if fitted is not _MISFIT:
        return fitted
    if _parts(kind) or dataclasses.is_dataclass(kind):
        raise OptionError(f"got {setting}; set single values, as phases.0.steps=100")
    if get_origin(kind) is tuple:
        none = ", [] for none" if value is None and ... in get_args(kind) else ""
        raise OptionError(f"got {setting}; wanted a list {_name(kind)}{none}")
    raise OptionError(f"got {setting}; wanted a value of type {_name(kind)}")


def _name(kind: Any) -> str:
    """The name of a type, such as `int | None`; that of a list as it is written, `[float, ...]`."""
    if kind in (None, type(None), ...):
        return "..." if kind is ... else "None"
    names = [_name(one) for one in get_args(kind)]
    if get_origin(kind) is tuple:
        return f"[{', '.join(names)}]"
    return " | ".join(names) or str(kind.__name__)


def _listed(value: Any, kind: Any) -> Any:
    """Text with commas as a tuple, if one is wanted; its items are JSON, or text."""
    if not isinstance(value, str) or get_origin(kind) is not tuple or _parts(kind):
        return value
    items = value.split(",") if value else []
    return tuple(parse_setting(f"item={item}")[1] for item in items)


def _fit(value: Any, kind: Any) -> Any:
    """The value converted to a type; `_MISFIT` if it does not fit."""
    if get_origin(kind) in (Union, UnionType):
        found = [_fit(value, one) for one in get_args(kind)]
        return next((v for v in found if v is not _MISFIT), _MISFIT)
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        if isinstance(value, tuple) and parts[1:] == (...,) and not _parts(kind):
            parts = parts[:1] * len(value)
        if not isinstance(value, tuple) or len(value) != len(parts):
            return _MISFIT
        fitted = tuple(_fit(v, one) for v, one in zip(value, parts, strict=True))
        return _MISFIT if _MISFIT in fitted else fitted
    if kind is float and type(value) is int and abs(value) < 2**63:
        return float(value)
    if kind is float and type(value) is float and not math.isfinite(value):
        return _MISFIT
    return value if type(value) is kind else _MISFIT


def _tuples(value: Any) -> Any:
    is_sequence = isinstance(value, list | tuple)
    return tuple(_tuples(item) for item in value) if is_sequence else value
