"""Read PLY files."""

import itertools
import re
import struct
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpool.errors import DataError
from unpool.limits import MAX_CORNERS, MAX_FACES, MAX_PLY_HEADER
from unpool.rendering.materials import decode_name
from unpool.rendering.polygons import triangulate
from unpool.rendering.textures import Folder, Textures
from unpool.rendering.triangles import (
    GRAY,
    Doubles,
    Floats,
    Indices,
    Mesh,
    require_faces,
    smooth_normals,
)

_MOST_VALUES = 2 * MAX_CORNERS  # of an element: coordinates, colors and indices
_END = re.compile(rb"(?<=[\r\n])end_header[ \t]*(\r\n|\n|\r)")
_SHORT = "ends before its last face; copy or export it again"
_CODES = {  # of `struct` and NumPy
    "char": "b", "int8": "b", "uchar": "B", "uint8": "B", "short": "h", "int16": "h",
    "ushort": "H", "uint16": "H", "int": "i", "int32": "i", "uint": "I", "uint32": "I",
    "float": "f", "float32": "f", "double": "d", "float64": "d",
}  # fmt: skip
_LISTS = ("vertex_indices", "vertex_index")
_PLACES = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"))
_TONES = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"))


class _Property(NamedTuple):
    name: str
    code: str
    length: str = ""  # the code of the length of a list


class _Element(NamedTuple):
    rows: int
    properties: list[_Property]


class _Header(NamedTuple):
    order: str  # of the bytes, as in `struct`; empty for text
    elements: dict[str, _Element]
    textures: list[str]


class _List(NamedTuple):
    values: Doubles
    lengths: Indices  # (N,)


class _Rows(NamedTuple):
    """The values of an element with N rows."""

    numbers: dict[str, NDArray[Any]]  # (N,)
    lists: dict[str, _List]


def read_ply(path: Path, content: bytes) -> Mesh:
    """Read a PLY file, of text or bytes, with textures in its folder.

    Normals are those of the file, or smooth; see `unpool.rendering.triangles.finish`.

    Raises:
        DataError: it is damaged. The message lacks the file name.
    """
    header, start = _parse_header(content)
    source = _Bytes(content, start, header.order) if header.order else _Text(content, start)
    rows: dict[str, _Rows] = {}
    for name, element in header.elements.items():
        rows[name] = source.read(element)
        if {"vertex", "face"} <= rows.keys():
            break
    none = _Rows({}, {})
    return _build(rows.get("vertex", none), rows.get("face", none), header, path)


def _parse_header(content: bytes) -> tuple[_Header, int]:
    """The header, and where it ends."""
    end = _END.search(content, 0, MAX_PLY_HEADER)
    if not content.startswith(b"ply") or not end:
        raise DataError("is not a PLY file; export it again")
    order, elements, textures = None, {}, []
    last = _Element(0, [])
    for line in re.split(rb"[\r\n]+", content[: end.start()]):
        words = line.split(None, 2)
        match [word.decode("latin-1") for word in words]:
            case ["format", form, _]:
                order = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}[form]
            case ["comment", "TextureFile", _]:
                textures.append(decode_name(words[2]))
            case ["element", name, count]:
                last = elements[name] = _Element(int(count), [])
                most = MAX_FACES if name == "face" else MAX_CORNERS
                if not 0 <= last.rows <= most:
                    raise DataError(f"has {count[:30]} of {name}; wanted at most {most:,}")
            case ["property", "list", rest]:
                length, code, name = rest.split()
                last.properties.append(_Property(name, _CODES[code], _CODES[length]))
            case ["property", code, name]:
                last.properties.append(_Property(name, _CODES[code]))
    if order is None:
        raise DataError("has no format in its header; export it again")
    return _Header(order, elements, textures), end.end()


class _Source:
    """The values behind a header, one after the other."""

    def read(self, element: _Element) -> _Rows:
        """The rows of an element."""
        if element.rows * len(element.properties) > _MOST_VALUES:
            raise DataError(f"has more than {_MOST_VALUES:,} values; simplify the model")
        if not any(p.length for p in element.properties):
            return _Rows(self.columns(element), {})
        return self.even_rows(element) or self.uneven_rows(element)

    def uneven_rows(self, element: _Element) -> _Rows:
        """Rows with lists of any lengths."""
        numbers = {p.name: array("d") for p in element.properties if not p.length}
        lists = {p.name: (array("d"), array("q")) for p in element.properties if p.length}
        total = 0
        for _ in range(element.rows):
            for name, code, counter in element.properties:
                if counter:
                    [length] = self.take(counter, 1)
                    total += int(length)
                    if total > _MOST_VALUES:
                        raise DataError(f"has more than {_MOST_VALUES:,} values; simplify it")
                    lists[name][0].extend(self.take(code, int(length)))
                    lists[name][1].append(int(length))
                else:
                    numbers[name].extend(self.take(code, 1))
        return _Rows(
            {name: np.array(values) for name, values in numbers.items()},
            {name: _List(np.array(v), np.array(n, np.int64)) for name, (v, n) in lists.items()},
        )

    def even_rows(self, element: _Element) -> _Rows | None:
        """Rows whose lists are all as long as those of the first one, or None."""
        return None

    def columns(self, element: _Element) -> dict[str, NDArray[Any]]:
        """The columns of an element without lists."""
        raise NotImplementedError

    def take(self, code: str, count: int) -> Sequence[float]:
        """The next numbers of one type."""
        raise NotImplementedError


class _Text(_Source):
    def __init__(self, content: bytes, start: int) -> None:
        self.words = (word.group() for word in re.compile(rb"\S+").finditer(content, start))

    def columns(self, element: _Element) -> dict[str, NDArray[Any]]:
        names = [p.name for p in element.properties]
        values = np.array(array("d", self.take("d", element.rows * len(names))))
        return dict(zip(names, values.reshape(element.rows, len(names)).T, strict=True))

    def take(self, code: str, count: int) -> Sequence[float]:
        values = array("d", map(float, itertools.islice(self.words, count)))
        if len(values) < count:
            raise DataError(_SHORT)
        return values


class _Bytes(_Source):
    def __init__(self, content: bytes, start: int, order: str) -> None:
        self.content, self.at, self.order = content, start, order

    def columns(self, element: _Element) -> dict[str, NDArray[Any]]:
        kind = np.dtype([(p.name, self.order + p.code) for p in element.properties])
        values = self._records(kind, element.rows)
        if values is None:
            raise DataError(_SHORT)
        self.at += values.nbytes
        return {p.name: values[p.name] for p in element.properties}

    def even_rows(self, element: _Element) -> _Rows | None:
        start = self.at
        fields: list[Any] = []
        for name, code, counter in element.properties if element.rows else []:
            length = int(self.take(counter, 1)[0]) if counter else 1
            self.take(code, length)
            if counter:
                fields += [(f"length of {name}", self.order + counter)]
            fields += [(name, self.order + code, (length,))]
        self.at = start
        values = self._records(np.dtype(fields), element.rows)
        if values is None:
            return None
        numbers, lists = {}, {}
        for name, _, counter in element.properties:
            if counter:
                lengths = values[f"length of {name}"].astype(np.int64)
                if (lengths != values[name].shape[1]).any():
                    return None
                lists[name] = _List(values[name].astype(np.float64).ravel(), lengths)
            else:
                numbers[name] = values[name][:, 0]
        self.at += values.nbytes
        return _Rows(numbers, lists)

    def take(self, code: str, count: int) -> Sequence[float]:
        pattern = f"{self.order}{count}{code}"
        try:
            values = struct.unpack_from(pattern, self.content, self.at)
        except struct.error:  # also for negative counts
            raise DataError(_SHORT) from None
        self.at += struct.calcsize(pattern)
        return values

    def _records(self, kind: np.dtype[Any], count: int) -> NDArray[Any] | None:
        """Records without a copy; None if the file ends before."""
        if count * kind.itemsize > len(self.content) - self.at:
            return None
        return np.ndarray((count,), kind, self.content, self.at)


def _build(vertex: _Rows, face: _Rows, header: _Header, path: Path) -> Mesh:
    if not {"x", "y", "z"} <= vertex.numbers.keys():
        raise DataError("has no points with x, y and z; export it again")
    points = _stack(vertex.numbers, ("x", "y", "z"))
    name = next((name for name in _LISTS if name in face.lists), None)
    if name is None or not face.lists[name].lengths.max(initial=0) >= 3:
        raise DataError("has no faces; export the model with its triangles")
    values, sizes = face.lists[name]
    index, whole = _indices(values, len(points)), sizes >= 3
    index = index[whole.repeat(sizes)]
    cut, polygon, crossed = triangulate(points[index], sizes[whole])
    require_faces(len(cut))
    faces, polygon = index[cut], np.flatnonzero(whole)[polygon]
    corners, shape = points[faces], (*faces.shape, 3)
    colors = np.full(shape, GRAY, np.float32)
    if (own := _colors(vertex.numbers)) is not None:
        colors = own[faces]
    elif (own := _colors(face.numbers)) is not None:
        colors = np.repeat(own[polygon][:, None], 3, axis=1)
    normals = smooth_normals(corners, faces)
    if {"nx", "ny", "nz"} <= vertex.numbers.keys():
        normals = _stack(vertex.numbers, ("nx", "ny", "nz")).astype(np.float32)[faces]
    mesh = Mesh(
        corners, normals, colors, np.zeros((*faces.shape, 2), np.float32), np.full(len(faces), -1)
    )
    if crossed:
        mesh = mesh._replace(notes=(f"{crossed:,} faces are not plane or cross themselves",))
    corner = np.flatnonzero(whole.repeat(sizes))[cut]
    uv = _places(vertex, face, faces, corner, sizes)
    return mesh if uv is None else _texture(mesh, uv, face, polygon, header.textures, path)


def _texture(
    mesh: Mesh, uv: Floats, face: _Rows, polygon: Indices, names: list[str], path: Path
) -> Mesh:
    """A mesh with the textures that the header names."""
    textures = Textures(Folder(path.parent))
    table = np.array([textures.read(name) for name in names] + [-1])
    number = np.zeros(len(polygon), np.int64)
    if "texnumber" in face.numbers:
        number = np.clip(face.numbers["texnumber"][polygon], -1, len(names)).astype(np.int64)
    texture = table[np.minimum(number, len(names))]
    if textures.missing and (mesh.colors == np.array(GRAY, np.float32)).all():
        cure = "put it into the folder of the model, or give its points colors"
        raise DataError(f"names {textures.missing[0]}, which is missing or broken; {cure}")
    colors = np.where(texture[:, None, None] >= 0, np.float32(1), mesh.colors)
    return mesh._replace(
        colors=colors,
        uv=uv,
        texture=texture,
        textures=tuple(textures.images),
        missing=tuple(textures.missing),
    )


def _places(
    vertex: _Rows, face: _Rows, faces: Indices, corner: Indices, sizes: Indices
) -> Floats | None:
    """Texture coordinates of the corners, from the points or from lists of the faces."""
    own = face.lists.get("texcoord")
    if own is not None and np.array_equal(own.lengths, 2 * sizes):
        return own.values.reshape(-1, 2)[corner].astype(np.float32)
    for names in _PLACES:
        if set(names) <= vertex.numbers.keys():
            return _stack(vertex.numbers, names).astype(np.float32)[faces]
    return None


def _colors(numbers: dict[str, NDArray[Any]]) -> Floats | None:
    for names in _TONES:
        if set(names) <= numbers.keys():
            values = _stack(numbers, names)
            kind = numbers[names[0]].dtype
            most = float(np.iinfo(kind).max) if kind.kind == "u" else 255.0
            if kind.kind != "u" and values.max(initial=0) <= 1:
                most = 1.0
            return (values / most).astype(np.float32)
    return None


def _stack(numbers: dict[str, NDArray[Any]], names: Sequence[str]) -> Doubles:
    return np.stack([numbers[name].astype(np.float64) for name in names], axis=-1)


def _indices(values: Doubles, count: int) -> Indices:
    """Indices of points that exist."""
    good = (values >= 0) & (values < count) & (values % 1 == 0)
    if not good.all():
        wrong = values[~good][0]
        raise DataError(f"has a face of point {wrong:g}, which does not exist; export it again")
    return values.astype(np.int64)
