"""Bounds of a recipe's fields, written where the fields are: `batch: Annotated[int, Range(1)]`."""

import math
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

from unpool.errors import OptionError, suggest


class Range(NamedTuple):
    """The smallest and the largest value of a number."""

    low: float
    high: float = math.inf


class OneOf(tuple[str, ...]):
    """The words that a field may be."""

    def __new__(cls, *words: str) -> "OneOf":
        """The words, as a tuple."""
        return super().__new__(cls, words)


Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]
Weight = Annotated[float, Range(0)]  #: of a loss, or a decay
Fraction = Annotated[float, Range(0, 1)]
Dropout = Annotated[float, Range(0, 0.999)]
LearningRate = Annotated[float, Range(0, 10)]
Positive = Annotated[float, Range(1e-9)]


def check_fields(part: Any, prefix: str = "") -> None:
    """Check every field of a dataclass against its bounds.

    None always passes; of a tuple, each item is checked, dataclasses in it field by field.

    Args:
        part: a dataclass whose annotations carry a `Range` or `OneOf`.
        prefix: of the names in messages.

    Raises:
        OptionError: a value out of bounds.
    """
    hints = get_type_hints(type(part), include_extras=True)
    for name in (field.name for field in fields(part)):
        value, bounds = getattr(part, name), _bounds(hints[name])
        items = value if isinstance(value, tuple) else (value,)
        for i, item in enumerate(items):
            if is_dataclass(item):
                check_fields(item, f"{prefix}{name}.{i}.")
            elif isinstance(bounds, Range) and item is not None:
                if not bounds.low <= item <= bounds.high:
                    wanted = f"{bounds.low:g} " + (
                        "or more" if bounds.high == math.inf else f"to {bounds.high:g}"
                    )
                    raise OptionError(f"got {prefix}{name}={value} in a recipe; wanted {wanted}")
            elif isinstance(bounds, OneOf) and item not in bounds:
                raise OptionError(f"got {prefix}{name}={item} in a recipe; {suggest(item, bounds)}")


def _bounds(hint: Any) -> Range | OneOf | None:
    """The bounds in an annotation, also inside `tuple[...]` and `| None`."""
    for item in (*getattr(hint, "__metadata__", ()), *get_args(hint)):
        found = item if isinstance(item, Range | OneOf) else _bounds(item)
        if found is not None:
            return found
    return None
