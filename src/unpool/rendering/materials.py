"""Read the materials of OBJ files (MTL)."""

import codecs
import math
import re
from collections.abc import Container
from typing import NamedTuple

_BOMS = {  # the long ones first, of which the short ones are beginnings
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
    codecs.BOM_UTF8: "utf-8",
}
_OPTION = re.compile(r"-([a-z]+)[ \t]+", re.IGNORECASE)
_WORD = re.compile(r"\S+[ \t]*")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?(?=\s)[ \t]*", re.IGNORECASE)
_VALUES = {"mm": 2, "o": 3, "s": 3, "t": 3}  # of options with numbers; up to three of the last
_OTHERS = ("blendu", "blendv", "bm", "boost", "cc", "clamp", "imfchan", "texres", "type")
_KEYS = (b"newmtl", b"kd", b"d", b"tr", b"map_kd", b"map_d")


class Map(NamedTuple):
    """A texture, and how its coordinates change: `uv * scale + offset`."""

    name: str
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    clamp: bool = False


class Material(NamedTuple):
    """What the renderer uses of a material."""

    color: tuple[float, float, float] | None = None  #: Kd, 0 to 1
    texture: Map | None = None  #: map_Kd
    opacity: float = 1.0
    notes: tuple[str, ...] = ()  #: what is read in another way than it is written


def recode(content: bytes) -> bytes:
    """Text with a byte order mark, or in UTF-16 without one, as UTF-8; others as they are.

    >>> recode("v 1".encode("utf-16"))
    b'v 1'
    """
    for mark, encoding in _BOMS.items():
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, "replace").encode("utf-8", "replace")
    if b"\0" in content[:4]:
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
        return content.decode(encoding, "replace").encode("utf-8", "replace")
    return content


def decode_name(name: bytes) -> str:
    """A name of unknown encoding: UTF-8, else that of Windows in Europe and America.

    >>> decode_name("café".encode("utf-8")), decode_name("café".encode("cp1252"))
    ('café', 'café')
    """
    for encoding in ("utf-8", "cp1252"):
        try:
            return name.decode(encoding).strip()
        except UnicodeDecodeError:
            continue
    return name.decode("latin-1").strip()


def parse_materials(content: bytes, names: Container[str]) -> dict[str, Material]:
    """The materials of these names in an MTL file.

    Colors above 1 are read as those of 255 if they are whole numbers, and are cut otherwise. One
    number of `Kd` is a gray. Of `d` and `Tr`, which is 1 - d, the one that is more opaque counts,
    because some programs write one of them wrongly.

    >>> parse_materials(b"newmtl oak\\nKd 0.5 0.25 0", {"oak"})["oak"].color
    (0.5, 0.25, 0.0)
    """
    materials: dict[str, Material] = {}
    name, opacity = "", 0.0
    for line in re.finditer(rb"[^\r\n]+", recode(content)):
        key, rest = (*line.group().split(None, 1), b"", b"")[:2]
        key, text = key.lower(), ""
        if key in _KEYS:
            text = decode_name(rest)
        if key == b"newmtl":
            name, opacity = text, 0.0
            if name in names:
                materials[name] = Material()
        elif text and name in materials:
            material = materials[name]
            if key == b"kd":
                color, notes = _color(text, f"Kd of the material {name}")
                material = material._replace(color=color, notes=material.notes + notes)
            elif key in (b"d", b"tr"):
                value = _numbers(text.split()[-1:])
                if value:
                    opacity = max(opacity, value[0] if key == b"d" else 1 - value[0])
                    material = material._replace(opacity=min(max(opacity, 0.0), 1.0))
            elif key == b"map_kd":
                texture, notes = _map(text)
                material = material._replace(texture=texture, notes=material.notes + notes)
            else:
                note = f"map_d of the material {name} is not used"
                material = material._replace(notes=(*material.notes, note))
            materials[name] = material
    return materials


def _color(text: str, what: str) -> tuple[tuple[float, float, float] | None, tuple[str, ...]]:
    words = text.partition("#")[0].split()
    values = _numbers(words)
    if len(values) == 1 and len(words) == 1:
        values *= 3
    if len(values) < 3:
        return None, (f"{what} is not a color: {text[:40]}",)
    notes: tuple[str, ...] = ()
    if max(values[:3]) > 1 or min(values[:3]) < 0:
        of = 255 if max(values[:3]) >= 2 and all(v in range(256) for v in values[:3]) else 1
        notes = (f"{what} is beyond 1, and read as {text[:40]} of {of}",)
        values = [min(max(v / of, 0.0), 1.0) for v in values[:3]]
    return (values[0], values[1], values[2]), notes


def _map(text: str) -> tuple[Map, tuple[str, ...]]:
    """The name behind the options of a texture."""
    scale, offset, clamp, notes = (1.0, 1.0), (0.0, 0.0), False, []
    while option := _OPTION.match(text):
        key, rest = option.group(1).lower(), text[option.end() :]
        if key in _VALUES:
            values: list[float] = []
            while len(values) < _VALUES[key] and (number := _NUMBER.match(rest)):
                values.append(float(number.group()))
                rest = rest[number.end() :]
            u, v = (*values, *((1.0, 1.0) if key == "s" else (0.0, 0.0))[len(values[:2]) :])[:2]
            if key == "s":
                scale = (u, v)
            elif key == "o":
                offset = (u, v)
            elif (key, values) != ("mm", [0, 1]) and any(values):
                notes.append(f"the option -{key} of the texture {rest} is not used")
        elif key in _OTHERS and (word := _WORD.match(rest)):
            clamp = clamp or (key == "clamp" and word.group().strip().lower() == "on")
            rest = rest[word.end() :]
        else:
            break
        text = rest
    return Map(text.strip(), scale, offset, clamp), tuple(notes)


def _numbers(words: list[str]) -> list[float]:
    """The finite numbers at the start of a list."""
    numbers = []
    for word in words:
        try:
            number = float(word)
        except ValueError:
            break
        if not math.isfinite(number):
            break
        numbers.append(number)
    return numbers
