"""Damage to bytes, JSON and text. A mutator takes bytes and a `random.Random`, and gives bytes."""

import json
import re
import struct
from collections.abc import Callable
from random import Random
from typing import Any

Mutator = Callable[[bytes, Random], bytes]

INTEGERS = (
    *(0, 1, 2, 3, 7, 8, 16, 17, 31, 32, 33, 64, 100, 127, 128, 129, 255, 256, 257, 1000, 1024),
    *(4095, 4096, 8191, 16384, 32767, 32768, 65500, 65535, 65536, 99999, 10**6, 10**7, 10**9),
    *(2**20, 2**24, 2**27, 2**28, 2**30, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**62),
    *(2**63 - 1, 2**63, 2**64 - 1, 2**65, 10**19, 10**30, 10**400),
)
WORDS = (
    *("", " ", "nan", "inf", "-inf", "-1", "-0", "0.5", "1e308", "-1e308", "1e309", "1e-320"),
    *("true", "null", "/", "//", "1//", "/1/1", "1/", "\\", "..", "../../x", "/dev/zero", "/etc"),
    *("C:\\x\\y.png", "\0", "a\0b", "\ud800", "\u202e", "\u2028", "\x1b[31m", "é" * 300, "%s%n"),
    *("x" * 5000, "1" * 5000, "x/" * 2500, "a\nb", "\r", "\ufeff", "0x10", "١٢", "1_000", "--help"),
)
_FLOATS = (0.0, -0.0, 0.5, -0.5, 1.5, 1e-320, 1e30, -1e30, 1e38, 1e39, 1e308, -1e308)
_ODD = (True, False, None, float("nan"), float("inf"), float("-inf"))
_RAW = {  # values that `json.dumps` does not write
    "@raw0@": "1" + "0" * 5000,
    "@raw1@": "[" * 3000 + "]" * 3000,
    "@raw2@": '{"a":' * 500 + "1" + "}" * 500,
    "@raw3@": "[" * 200_000,
    "@raw4@": "1e999",
    "@raw5@": "[" + "0," * 100_000 + "0]",
    "@raw6@": "-" + "9" * 400,
    "@raw7@": "[" + '{"a":[]},' * 20_000 + "0]",
}


def integer(random: Random) -> int:
    """An integer at which something may overflow, or one beside it."""
    return (random.choice(INTEGERS) + random.choice((0, 0, 0, 1, -1))) * random.choice(
        (1, 1, 1, -1)
    )


# Bytes --------------------------------------------------------------------------------------------


def damage(content: bytes, random: Random) -> bytes:
    """Change bytes at a random place, without knowledge of any format."""
    return random.choice(_BYTES)(content, random)


def _span(content: bytes, random: Random) -> tuple[int, int]:
    start = random.randint(0, len(content))
    length = random.choice((1, 2, 4, 8, 16, random.randint(0, max(1, len(content) // 2))))
    return start, min(len(content), start + length)


def _flip(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 4, 16)) if changed else 0):
        changed[random.randrange(len(changed))] ^= random.choice((1 << random.randrange(8), 255))
    return bytes(changed)


def _cut(content: bytes, random: Random) -> bytes:
    return content[: random.randint(0, len(content))]


def _remove(content: bytes, random: Random) -> bytes:
    start, stop = _span(content, random)
    return content[:start] + content[stop:]


def _insert(content: bytes, random: Random) -> bytes:
    at = random.randint(0, len(content))
    new = random.choice((random.randbytes(random.randint(1, 64)), b"\0" * 64, b"\xff" * 16))
    return content[:at] + new + content[at:]


def _repeat(content: bytes, random: Random) -> bytes:
    start, stop = _span(content, random)
    times = random.choice((2, 3, 10, 100, 1000))
    times = min(times, 1 + 1_000_000 // max(1, stop - start))
    return content[:start] + content[start:stop] * times + content[stop:]


def _move(content: bytes, random: Random) -> bytes:
    start, stop = _span(content, random)
    rest = content[:start] + content[stop:]
    at = random.randint(0, len(rest))
    return rest[:at] + content[start:stop] + rest[at:]


def number(content: bytes, random: Random) -> bytes:
    """Write an integer of any width, in both byte orders."""
    width = random.choice((1, 2, 4, 4, 8))
    if len(content) < width:
        return content
    at = random.randint(0, len(content) - width)
    if random.random() < 0.5:
        at -= at % width
    value = integer(random) % 256**width
    order = random.choice(("little", "big"))
    return content[:at] + value.to_bytes(width, order) + content[at + width :]


def _floating(content: bytes, random: Random) -> bytes:
    """Write a floating-point number."""
    kind = random.choice(("<f", ">f", "<d", "<e"))
    width = struct.calcsize(kind)
    if len(content) < width:
        return content
    value = random.choice((float("nan"), float("inf"), float("-inf"), 0.0, -1.0, 6e4))
    at = random.randint(0, len(content) - width)
    return content[:at] + struct.pack(kind, value) + content[at + width :]


_BYTES: tuple[Mutator, ...] = (
    *(_flip, _flip, _cut, _remove, _insert, _repeat, _move, number, number, number, _floating),
)


# JSON and text ------------------------------------------------------------------------------------


def absurd(random: Random) -> Any:
    """A plain value that nobody expects."""
    kinds: tuple[Callable[[], Any], ...] = (
        lambda: integer(random),
        lambda: integer(random),
        lambda: random.choice(_FLOATS),
        lambda: random.choice(_ODD),
        lambda: random.choice(WORDS),
        lambda: random.choice(tuple(_RAW)),
        lambda: random.choice(([], {}, [[]], [None], {"a": 1}, [{}], "0", [0] * 6, [[0, 0]])),
    )
    return random.choice(kinds)()


def change_json(content: bytes, random: Random) -> bytes:
    """Replace, drop, repeat or swap values of a JSON document."""
    return _dump(change_value(json.loads(content), random), random)


def change_value(value: Any, random: Random) -> Any:
    """A plain value with one of its parts replaced, dropped, repeated, nested or swapped."""
    holder = {"": value}
    places = list(_places(holder))
    owner, key = random.choice(places)
    match random.randrange(8):
        case 0 if len(places) > 1 and owner is not holder:
            del owner[key]
        case 1 if isinstance(owner, list):
            owner[:] = owner * (random.choice((2, 3, 50)) if len(json.dumps(owner)) < 10_000 else 1)
        case 2:
            other, name = random.choice(places)
            owner[key] = json.loads(json.dumps(other[name]))  # a copy, so that there is no cycle
        case 3:
            owner[key] = random.choice(([owner[key]], {"a": owner[key]}, [owner[key]] * 3))
        case 4 if isinstance(owner, dict) and owner is not holder:
            owner[random.choice(WORDS)] = owner.pop(key)
        case 5 if isinstance(owner[key], str):
            text = owner[key].encode("utf-8", "surrogatepass")
            owner[key] = damage(text, random).decode("utf-8", "surrogateescape")
        case 6 if type(owner[key]) in (int, float):
            scaled = (owner[key] + 1, -owner[key], owner[key] * 1000, float(owner[key]))
            owner[key] = random.choice((*scaled, str(owner[key])))
        case _:
            owner[key] = absurd(random)
    return holder.get("")


def _places(holder: Any) -> Any:
    """Each place of a value: the list or object, and the index or name in it."""
    waiting = [holder]
    while waiting:
        owner = waiting.pop()
        for key in list(owner) if isinstance(owner, dict) else range(len(owner)):
            yield owner, key
            if isinstance(owner[key], dict | list):
                waiting.append(owner[key])


def _dump(value: Any, random: Random) -> bytes:
    text = json.dumps(value, ensure_ascii=random.random() < 0.7)
    for name, raw in _RAW.items():
        text = text.replace(f'"{name}"', raw)
    return text.encode("utf-8", "surrogatepass")


def change_text(content: bytes, random: Random) -> bytes:
    """Replace, drop, repeat or swap words and lines."""
    text = content.decode("latin-1")
    pattern = random.choice((r"[^\s/,=:]+", r"\S+", r"[^\n]*\n", r"-?\d+"))
    found = list(re.finditer(pattern, text))
    one, other = random.choice(found), random.choice(found)
    new = random.choice(
        (
            *(random.choice(WORDS), str(integer(random)), "", other[0]),
            *(one[0] * random.choice((2, 3, 10, 3000)), f"{one[0]} {other[0]}"),
        )
    )
    start, stop = one.span()
    return b"".join(
        (content[:start], new.encode("utf-8", "surrogatepass"), content[stop:])  # one byte a letter
    )
