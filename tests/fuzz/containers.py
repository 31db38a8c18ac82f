"""Damage to the structures of file formats, with lengths and checksums made right.

A mutator raises for content that it cannot take apart, which is then damaged as bytes.
"""

import io
import re
import struct
import zipfile
import zlib
from random import Random

from tests.fuzz.damage import WORDS, Mutator, change_json, change_text, damage, integer, number
from tests.models.caffe.files import varint


def mutate(content: bytes, suffix: str, random: Random) -> bytes:
    """Damage a file one to four times, about half of it with knowledge of its format."""
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        if len(content) > 2**22:  # enough
            break
        structured = FORMATS.get(suffix)
        if structured is not None and random.random() < 0.65:
            try:
                content = structured(content, random)
                continue
            except Exception:  # what is damaged already cannot always be taken apart
                pass
        content = damage(content, random)
    return content


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
            chunks[i] = (b"IHDR", number(chunks[i][1], random))
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
        inner = zlib.compress(number(zlib.decompress(content[136 : 136 + length]), random))
        return content[:128] + struct.pack("<II", 15, len(inner)) + inner
    at = 128 + 4 * random.randrange((len(content) - 128) // 4)
    value = random.choice((random.randrange(20), integer(random) % 2**32, len(content)))
    return content[:at] + struct.pack("<I", value) + content[at + 4 :]


FORMATS: dict[str, Mutator] = {
    ".json": change_json,
    ".jsonl": change_lines,
    ".npz": change_zip,
    ".zip": change_zip,
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
    **dict.fromkeys(
        (".txt", ".obj", ".mtl", ".ply", ".xml", ".yaml", ".ppm", ".pgm", ".pgw", ".jgw"),
        change_text,
    ),
}
"""The mutators that know a format, by the suffix of its files."""
