"""Damage to files: bytes, and the structures of formats, with lengths and checksums made right.

A mutator takes bytes and a `random.Random`, and returns bytes. One that knows a format raises for
content that it cannot take apart, which is then damaged as bytes.
"""

import io
import json
import re
import struct
import zipfile
import zlib
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


def mutate(content: bytes, suffix: str, random: Random) -> bytes:
    """Damage a file one to four times, about half of it with knowledge of its format."""
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        structured = FORMATS.get(suffix)
        if structured is not None and random.random() < 0.65:
            try:
                content = structured(content, random)
                continue
            except Exception:  # what is damaged already cannot always be taken apart
                pass
        content = damage(content, random)
    return content


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


def _number(content: bytes, random: Random) -> bytes:
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
    *(_flip, _flip, _cut, _remove, _insert, _repeat, _move, _number, _number, _number, _floating),
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
            owner[:] = owner * random.choice((2, 3, 50))
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


# Containers ---------------------------------------------------------------------------------------


def change_lines(content: bytes, random: Random) -> bytes:
    """Damage a line of a JSON lines file, or the lines as text."""
    lines = content.splitlines()
    i = random.randrange(len(lines))
    lines[i] = random.choice((change_json, damage))(lines[i], random)
    return b"\n".join(lines) + b"\n"


def change_zip(content: bytes, random: Random) -> bytes:
    """Damage a member, its name or the list of members; the checksums are those of the result."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(info.file_size for info in archive.infolist()) > 2**24:
            raise ValueError("a bomb, which is not unpacked here")
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    i = random.randrange(len(members))
    name, inner = members[i]
    suffix = name[name.rfind(".") :]
    match random.randrange(8):
        case 0:
            del members[i]
        case 1:
            members.append((name, damage(inner, random)))
        case 2:
            members[i] = (random.choice(WORDS).encode(errors="replace").decode()[:100], inner)
        case 3:
            members[i] = (name, members[random.randrange(len(members))][1])
        case _:
            members[i] = (name, mutate(inner, suffix, random))
    kind = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, inner in members:
            archive.writestr(zipfile.ZipInfo(name), inner, kind)
    return file.getvalue()


def change_npy(content: bytes, random: Random) -> bytes:
    """Change the header of an array, whose length is then right."""
    start = content.index(b"{")
    stop = content.index(b"\n") + 1
    header = content[start:stop].decode("latin-1").strip()
    shapes = ("()", "(0,)", "(1,)", "(-1,)", "(3, 0, 5)", "(2**40,)", "(1099511627776,)", "(1, 1)")
    shapes += ("(50000, 50000, 2)", "(3, 99999, 99999)", "(65536, 65536, 65536)", "(2, 3.5)", "3")
    shapes += ("(" + "1," * 100 + ")", "(9223372036854775807, 2)", "(True, 2, 3)", "('a',)", "{}")
    kinds = ("|O", "<f8", ">f4", "|b1", "<c16", "<U5", "|S3", "<M8[s]", "|V8", "<f2", "<i8", "|u1")
    kinds += ("", "x", "<U99999999", "|V0", "<f16", "[('a', '<f4')]", "<m8", "<i3")
    match random.randrange(4):
        case 0:
            header = re.sub(r"\([^)]*\)", random.choice(shapes), header)
        case 1:
            header = re.sub(r"'descr': '[^']*'", f"'descr': '{random.choice(kinds)}'", header)
        case 2:
            header = header.replace("False", random.choice(("True", "None", "1", "'x'", "[" * 300)))
        case _:
            header = change_text(header.encode("latin-1"), random).decode("latin-1")
    body = content[stop:] if random.random() < 0.8 else content[stop : stop + 7]
    new = header.encode("latin-1", "replace") + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(new)) + new + body


def change_png(content: bytes, random: Random) -> bytes:
    """Damage, drop, repeat, rename or swap chunks; the checksums are right."""
    chunks, at = [], 8
    while at < len(content):
        (length,), kind = struct.unpack(">I", content[at : at + 4]), content[at + 4 : at + 8]
        chunks.append((kind, content[at + 8 : at + 8 + length]))
        at += 12 + length
    i, j = random.randrange(len(chunks)), random.randrange(len(chunks))
    kind, data = chunks[i]
    names = (b"IDAT", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"iCCP", b"zTXt", b"iTXt")
    match random.randrange(8):
        case 0:
            del chunks[i]
        case 1:
            chunks.insert(j, chunks[i])
        case 2:
            chunks[i], chunks[j] = chunks[j], chunks[i]
        case 3:
            chunks[i] = (random.choice((*names, b"eXIf", b"gAMA", b"sBIT", b"IEND")), data)
        case 4:
            chunks.insert(
                j, (random.choice(names), zlib.compress(b"\0" * random.randint(1, 10**6)))
            )
        case 5 if kind == b"IDAT":
            chunks[i] = (kind, zlib.compress(damage(zlib.decompress(data), random)))
        case 6:  # the size and the kind of pixels
            i = next(n for n, chunk in enumerate(chunks) if chunk[0] == b"IHDR")
            chunks[i] = (b"IHDR", _number(chunks[i][1], random))
        case _:
            chunks[i] = (kind, damage(data, random))
    return content[:8] + b"".join(png_chunk(*chunk) for chunk in chunks)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def change_tiff(content: bytes, random: Random) -> bytes:
    """Change an entry of the first directory of a TIFF, or the offset of the next one."""
    order = "<" if content[:2] == b"II" else ">"
    (first,) = struct.unpack(order + "I", content[4:8])
    (count,) = struct.unpack(order + "H", content[first : first + 2])
    changed, entry = bytearray(content), first + 2 + 12 * random.randrange(count)
    small, large = integer(random) % 65536, integer(random) % 2**32
    match random.randrange(6):
        case 0:
            tags = (254, 256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 322, 324, 339, 700)
            changed[entry : entry + 2] = struct.pack(order + "H", random.choice(tags))
        case 1:
            changed[entry + 2 : entry + 4] = struct.pack(order + "H", random.randrange(19))
        case 2:
            changed[entry + 4 : entry + 8] = struct.pack(order + "I", large)
        case 3:
            changed[entry + 8 : entry + 12] = struct.pack(order + "I", large)
        case 4:
            changed[entry + 8 : entry + 10] = struct.pack(order + "H", small)
        case _:
            after = first + 2 + 12 * count
            target = random.choice((first, large, len(content)))
            changed[after : after + 4] = struct.pack(order + "I", target)
    return bytes(changed)


def change_protobuf(content: bytes, random: Random, depth: int = 0) -> bytes:
    """Damage, drop, repeat or renumber a field of a message, at any depth; lengths are right."""
    fields, at = [], 0
    while at < len(content):
        start = at
        tag, at = _varint(content, at)
        match tag & 7:
            case 0:
                _, at = _varint(content, at)
                fields.append((tag, None, content[start:at]))
            case 2:
                length, at = _varint(content, at)
                if at + length > len(content):
                    raise ValueError("a field that is too long")
                fields.append((tag, content[at : at + length], b""))
                at += length
            case 1 | 5:
                at += 8 if tag & 7 == 1 else 4
                fields.append((tag, None, content[start:at]))
            case _:
                raise ValueError("no message")
    i = random.randrange(len(fields))
    tag, inner, whole = fields[i]
    match random.randrange(8):
        case 0:
            del fields[i]
        case 1:
            fields[i : i + 1] = [fields[i]] * random.choice((2, 3, 100, 3000))
        case 2:
            fields[i] = (random.randrange(128) << 3 | tag & 7, inner, whole)
        case 3:
            fields[i] = (tag & ~7, None, varint(tag & ~7) + varint(integer(random) % 2**64))
        case 4 if inner is not None:  # a length that is wrong
            wrong = varint(tag) + varint(integer(random) % 2**64) + inner
            fields[i] = (tag, None, wrong)
        case _:
            deeper = inner is not None and depth < 6 and random.random() < 0.8
            if inner is None:
                fields[i] = (tag, None, damage(whole, random))
            elif deeper:
                try:
                    fields[i] = (tag, change_protobuf(inner, random, depth + 1), b"")
                except (ValueError, IndexError):
                    fields[i] = (tag, damage(inner, random), b"")
            else:
                fields[i] = (tag, damage(inner, random), b"")
    return b"".join(
        whole if inner is None else varint(tag) + varint(len(inner)) + inner
        for tag, inner, whole in fields
    )


def varint(value: int) -> bytes:
    """A number with seven bits a byte, lowest first."""
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (content[at] & 0x7F) << shift
        shift += 7
        at += 1
        if content[at - 1] < 0x80:
            return value, at


def change_glb(content: bytes, random: Random) -> bytes:
    """Damage the JSON or the binary chunk of a GLB; the lengths are right."""
    (length,) = struct.unpack("<I", content[12:16])
    text, binary = content[20 : 20 + length], content[28 + length :]
    if random.random() < 0.8:
        text = change_json(text, random)
    else:
        binary = damage(binary, random)
    return glb(text, binary)


def glb(text: bytes, binary: bytes) -> bytes:
    """A GLB file of its two chunks."""
    text, binary = text + b" " * (-len(text) % 4), binary + b"\0" * (-len(binary) % 4)
    body = struct.pack("<I", len(text)) + b"JSON" + text
    body += struct.pack("<I", len(binary)) + b"BIN\0" + binary
    return b"glTF" + struct.pack("<II", 2, 12 + len(body)) + body


def change_safetensors(content: bytes, random: Random) -> bytes:
    """Change the header of a safetensors file, whose length is then right."""
    (length,) = struct.unpack("<Q", content[:8])
    header = change_json(content[8 : 8 + length], random)
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def change_mat(content: bytes, random: Random) -> bytes:
    """Damage the elements of a MATLAB file, inside its compressed ones, too."""
    kind, length = struct.unpack("<II", content[128:136])
    if kind == 15:
        inner = zlib.compress(_number(zlib.decompress(content[136 : 136 + length]), random))
        return content[:128] + struct.pack("<II", 15, len(inner)) + inner
    at = 128 + 4 * random.randrange((len(content) - 128) // 4)
    value = random.choice((random.randrange(20), integer(random) % 2**32, len(content)))
    return content[:at] + struct.pack("<I", value) + content[at + 4 :]


FORMATS: dict[str, Mutator] = {
    ".json": change_json,
    ".jsonl": change_lines,
    ".npz": change_zip,
    ".pt": change_zip,
    ".pth": change_zip,
    ".npy": change_npy,
    ".png": change_png,
    ".tif": change_tiff,
    ".caffemodel": change_protobuf,
    ".onnx": change_protobuf,
    ".glb": change_glb,
    ".safetensors": change_safetensors,
    ".mat": change_mat,
    **dict.fromkeys((".txt", ".obj", ".mtl", ".ply", ".xml", ".yaml", ".ppm", ".pgm"), change_text),
}
"""The mutators that know a format, by the suffix of its files."""
