"""Ids and texts in files of annotations, which tools write in different ways."""

from typing import TypeAlias

Key: TypeAlias = int | str  #: an id


def as_key(value: object) -> Key | None:
    """A number or a text that identifies something; whole numbers in any notation are equal.

    >>> as_key(7), as_key(7.0), as_key("7"), as_key("cat"), as_key(True), as_key(7.5)
    (7, 7, 7, 'cat', None, None)
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        digits = value.isascii() and value.isdigit() and len(value) <= 18
        return int(value) if digits else printable(value)
    return value if type(value) is int else None


def printable(value: object) -> str:
    """A text on one line; characters that cannot be printed become question marks.

    >>> printable("a\\nb\\ud800")
    'a?b?'
    """
    text = str(value) if type(value) is not int or abs(value) < 10**18 else brief(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def brief(value: object) -> str:
    """A value of a file as shown in messages: cut, and on one line.

    >>> brief(10**400)
    '1000000000000000000000000000000000000000...'
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of over 4,300 digits, or deep nesting
        return f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:40]}..."
