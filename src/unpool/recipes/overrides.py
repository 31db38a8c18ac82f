"""Frozen dataclasses of plain values, such as recipes: read from JSON, and changed by name."""

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from unpool.errors import OptionError

T = TypeVar("T")

_MISFIT = object()  #: a value that is not of the wanted kind


def to_json(part: Any) -> dict[str, Any]:
    """A dataclass as plain values."""
    return json.loads(json.dumps(dataclasses.asdict(part)))


def from_json(kind: type[T], values: dict[str, Any]) -> T:
    """A dataclass as `to_json` wrote it.

    Raises:
        OptionError: a field that it does not have, or that is missing.
    """
    kinds = get_type_hints(kind)
    if not isinstance(values, dict):
        raise OptionError(f"got {values!r} in a recipe; wanted {', '.join(kinds)} by name")
    for name in values:
        if name not in kinds:
            raise OptionError(f"got a recipe with {name!r}; {_no_such(name, kinds)}")
    values = {name: _tuples(value) for name, value in values.items()}
    try:
        for name in values:
            if part := _parts(kinds[name]):
                values[name] = tuple(from_json(part, value) for value in values[name])
        return kind(**values)
    except TypeError as error:
        raise OptionError(f"got an incomplete recipe: {error}") from None


def replaced(part: T, setting: str) -> T:
    """A dataclass with one value replaced.

    Args:
        part: to begin from; it stays as it is.
        setting: `name=value`; what is in a tuple by number, `phases.0.steps=100`. Values are
            written as in JSON, strings also without quotes.

    Raises:
        OptionError: no such name (the nearest known one is told), or a value of another type.
    """
    name, equals, value = setting.partition("=")
    if not equals:
        raise OptionError(f"got --set {setting}; write name=value, for example batch=8")
    return _replace(part, name.strip().split("."), value.strip(), setting)


def require_between(part: Any, bounds: Mapping[str, tuple[float, float]], prefix: str = "") -> None:
    """Refuse numbers too small or too large.

    Args:
        part: a dataclass. None, and what is no number, is passed over; of tuples, each item counts.
        bounds: smallest and largest value, by name.
        prefix: of the names, in messages.

    Raises:
        OptionError: a value out of bounds.
    """
    for name, (low, high) in bounds.items():
        value = getattr(part, name)
        values = value if isinstance(value, tuple) else (value,)
        if any(v is not None and not low <= v <= high for v in values):
            wanted = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"
            raise OptionError(f"got {prefix}{name}={value} in a recipe; wanted {wanted}")


def _replace(part: Any, path: list[str], text: str, setting: str) -> Any:
    """`part` with the value at `path` replaced; dataclasses by field, tuples by number."""
    head, *rest = path
    if isinstance(part, tuple):
        if not head.isdecimal() or int(head) >= len(part):
            raise OptionError(
                f"got --set {setting}; {head!r} is not a number from 0 to {len(part) - 1}"
            )
        place, old = int(head), part[int(head)]
        value = _replace(old, rest, text, setting) if rest else _parse(text, type(old), setting)
        return (*part[:place], value, *part[place + 1 :])
    kinds = get_type_hints(type(part)) if dataclasses.is_dataclass(part) else {}
    if head not in kinds:
        raise OptionError(f"got --set {setting}; {_no_such(head, kinds)}")
    if rest:
        value = _replace(getattr(part, head), rest, text, setting)
    else:
        value = _parse(text, kinds[head], setting)
    return dataclasses.replace(part, **{head: value})


def _no_such(name: str, kinds: Mapping[str, Any]) -> str:
    for field, kind in kinds.items():
        if (part := _parts(kind)) and name in get_type_hints(part):
            return f"there is no {name!r}, but {field} have it: {field}.0.{name}"
    near = difflib.get_close_matches(name, kinds, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"there is no {name!r}: {hint}the names are {', '.join(kinds) or 'none'}"


def _parts(kind: Any) -> Any:
    """The dataclass of which a field of this kind holds a tuple, if it does."""
    part = next(iter(get_args(kind)), None) if get_origin(kind) is tuple else None
    return part if dataclasses.is_dataclass(part) else None


def _parse(text: str, kind: Any, setting: str) -> Any:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    value = _fit(_tuples(value), kind)
    if value is _MISFIT:
        if _parts(kind) or dataclasses.is_dataclass(kind):
            raise OptionError(f"got --set {setting}; set single values, as phases.0.steps=100")
        name = str(kind) if get_args(kind) else kind.__name__
        if kind == tuple[str, ...]:
            name += f""", written as '["{text}"]'"""
        raise OptionError(f"got --set {setting}; wanted a value of type {name}")
    return value


def _fit(value: Any, kind: Any) -> Any:
    """The value as one of this kind; `_MISFIT` if it is none."""
    if isinstance(kind, UnionType):
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
    if kind is float and type(value) is int:
        return float(value)
    if kind is float and type(value) is float and not math.isfinite(value):
        return _MISFIT
    return value if type(value) is kind else _MISFIT


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
