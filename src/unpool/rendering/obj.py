"""Read OBJ files."""

import re
from array import array
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpool.errors import DataError
from unpool.files import read_bytes
from unpool.limits import MAX_CORNERS, MAX_FACES, MAX_LINE, MAX_MATERIALS, MAX_TEXT
from unpool.rendering.materials import Material, decode_name, parse_materials, recode
from unpool.rendering.polygons import triangulate
from unpool.rendering.textures import Folder, Textures
from unpool.rendering.triangles import (
    GRAY,
    Doubles,
    Floats,
    Indices,
    Mesh,
    mask_mesh,
    require_faces,
    smooth_normals,
)

_LINE = re.compile(
    rb"^[ \t]*(v|vt|vn|f|fo|usemtl|mtllib)(?:[ \t]+([^\n]*))?$", re.MULTILINE | re.IGNORECASE
)


class _Elements:
    """The contents of a file: coordinates, and faces as indices into them, from 0; -1 for none."""

    def __init__(self) -> None:
        self.points, self.colors = array("d"), array("d")
        self.uv, self.normals = array("d"), array("d")
        self.corners, self.corner_uv, self.corner_normals = array("i"), array("i"), array("i")
        self.sizes, self.materials = array("i"), array("i")
        self.names = {"": 0}  # of materials; the first is for faces without
        self.libraries: dict[str, None] = {}
        self.triangles = 0


def read_obj(path: Path, content: bytes) -> Mesh:
    """Read an OBJ file with the materials and textures in its folder.

    Normals are those of the file, or smooth; see `unpool.rendering.triangles.finish`.

    Raises:
        DataError: it is damaged, or names missing materials, or a missing texture for a material
            without a color. The message lacks the file name.
    """
    elements, folder = _parse(content), Folder(path.parent)
    if not elements.sizes:
        raise DataError("has no faces; export the model with its triangles")
    materials, missing = _read_materials(elements, folder)
    return _build(elements, materials, Textures(folder), missing)


def _parse(content: bytes) -> _Elements:
    content = recode(content).replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\\\n", b" ")
    while b"\n\n" in content:  # millions of empty lines would take seconds
        content = content.replace(b"\n\n", b"\n")
    elements, material, switches = _Elements(), 0, 0
    for line in _LINE.finditer(content):
        key, text = line.group(1), line.group(2) or b""
        if len(text) > MAX_LINE:
            raise DataError(f"has a line of {len(text):,} bytes; wanted at most {MAX_LINE:,}")
        if len(key) > 2:  # usemtl or mtllib
            switches += 1
            if switches > MAX_FACES or len(elements.names) > MAX_MATERIALS:
                raise DataError(f"has more than {MAX_MATERIALS:,} materials; join some")
            name = decode_name(text)
            if key.lower() == b"mtllib":
                elements.libraries[name] = None
            else:
                material = elements.names.setdefault(name, len(elements.names))
            continue
        try:
            _add(elements, key.lower(), text.partition(b"#")[0].split(), material)
        except (ValueError, OverflowError) as error:
            if isinstance(error, DataError):
                raise
            shown = line.group()[:40].decode("ascii", "replace").strip()
            raise DataError(f"has a damaged line, {shown!r}; export it again") from None
    return elements


def _add(elements: _Elements, key: bytes, words: list[bytes], material: int) -> None:
    """Add a line of coordinates or a face; a ValueError if it is damaged."""
    if key in (b"f", b"fo"):
        elements.triangles += max(1, len(words) - 2)
        require_faces(elements.triangles)
        if len(words) > 2:  # fewer have no area
            _add_face(elements, words)
            elements.materials.append(material)
        return
    values = [float(word) for word in words]
    if key == b"v":
        target, count = elements.points, 3
        if len(values) >= 6:  # colors, which other points of the file may lack
            gap = len(target) - len(elements.colors)
            elements.colors.extend([*(GRAY * (gap // 3)), *values[3:6]])
    elif key == b"vn":
        target, count = elements.normals, 3
    else:
        target, count = elements.uv, 2
        values = [*values, 0.0] if len(values) == 1 else values
    if len(values) < count:
        raise ValueError
    target.extend(values[:count])
    numbers = len(elements.points) + len(elements.uv) + len(elements.normals)
    if numbers > 4 * MAX_CORNERS:
        raise DataError(f"has more than {4 * MAX_CORNERS:,} coordinates; simplify the model")


def _add_face(elements: _Elements, words: list[bytes]) -> None:
    points, places = len(elements.points) // 3, len(elements.uv) // 2
    normals = len(elements.normals) // 3
    for word in words:
        point, _, rest = word.partition(b"/")
        place, _, normal = rest.partition(b"/")
        elements.corners.append(_index(point, points))
        elements.corner_uv.append(_index(place, places) if place else -1)
        elements.corner_normals.append(_index(normal, normals) if normal else -1)
    elements.sizes.append(len(words))


def _index(word: bytes, count: int) -> int:
    """An index from 0. Those of a file start at 1; negative ones count back from the last."""
    number = int(word)
    index = number - 1 if number > 0 else count + number
    if number == 0 or index < 0:
        raise DataError(f"has a face of point {number}, which does not exist; export it again")
    return index


def _read_materials(elements: _Elements, folder: Folder) -> tuple[dict[str, Material], list[str]]:
    """The materials that faces use, and the names of those that no file has."""
    materials: dict[str, Material] = {}
    for library in elements.libraries:
        path = folder.find(library)
        paths = [path] if path else [folder.find(name) for name in library.split()]
        if not paths or None in paths:
            raise DataError(f"names {library}, which is missing; put it into its folder")
        for path in paths:
            if path:
                content = read_bytes(path, DataError, MAX_TEXT)
                materials |= parse_materials(content, elements.names)
    used = {*np.unique(np.frombuffer(elements.materials, np.int32)).tolist()} - {0}
    names = [name for name, number in elements.names.items() if number in used]
    return materials, [f"the material {name}" for name in names if name not in materials]


def _build(
    elements: _Elements, materials: dict[str, Material], textures: Textures, missing: list[str]
) -> Mesh:
    points = _table(elements.points, 3)
    index = _checked(elements.corners, len(points))
    places = _checked(elements.corner_uv, len(elements.uv) // 2)
    cut, polygon, crossed = triangulate(points[index], np.array(elements.sizes, np.int64))
    faces, places = index[cut], places[cut]
    corners, number = points[faces], np.array(elements.materials, np.int64)[polygon]
    _, seam = np.unique(faces * (places.max() + 2) + places, return_inverse=True)
    normals = smooth_normals(
        corners, seam.reshape(faces.shape) + number[:, None] * (seam.max() + 1)
    )
    if elements.normals:
        given = _checked(elements.corner_normals, len(elements.normals) // 3)[cut]
        own_normals = _table(elements.normals, 3)[given].astype(np.float32)
        normals = np.where((given >= 0)[..., None], own_normals, normals)
    colors = np.full(corners.shape, GRAY, np.float32)
    if elements.colors:
        gap = len(elements.points) - len(elements.colors)
        elements.colors.extend(GRAY * (gap // 3))
        tones = _table(elements.colors, 3)
        colors = (tones / (255 if tones.max() > 1 else 1))[faces].astype(np.float32)
    uv = np.zeros((*faces.shape, 2), np.float32)
    if elements.uv:
        uv = _table(elements.uv, 2)[places].astype(np.float32)  # unused where there are none
    surfaces, notes = _surfaces(elements.names, materials, {*np.unique(number)}, textures)
    colors = np.where(surfaces.known[number][:, None, None], surfaces.colors[number], colors)
    texture = np.where((places >= 0).all(axis=1), surfaces.texture[number], -1)
    colors[texture >= 0] = 1
    uv = uv * surfaces.scale[number] + surfaces.offset[number]
    if (surfaces.clamp[number] & (texture >= 0) & ((uv < 0) | (uv > 1)).any(axis=(1, 2))).any():
        notes.append("textures with the option -clamp are repeated")
    if crossed:
        notes.append(f"{crossed:,} faces are not plane or cross themselves")
    visible = surfaces.visible[number]
    if not visible.any():
        raise DataError("has only invisible materials (d 0); give them another d")
    mesh = Mesh(corners, normals, colors, uv.astype(np.float32), texture, tuple(textures.images))
    mesh = mesh if visible.all() else mask_mesh(mesh, visible)
    missing = [*textures.missing, *missing]
    return mesh._replace(missing=tuple(missing), notes=tuple(dict.fromkeys(notes)))


class _Surfaces(NamedTuple):
    """What the faces of each material look like; of those with an entry in no MTL file, nothing."""

    known: NDArray[np.bool_]
    colors: Floats  # (M, 1, 3)
    texture: Indices
    scale: Floats  # (M, 1, 2)
    offset: Floats
    clamp: NDArray[np.bool_]
    visible: NDArray[np.bool_]


def _surfaces(
    names: dict[str, int], materials: dict[str, Material], used: set[int], textures: Textures
) -> tuple[_Surfaces, list[str]]:
    """The surfaces of all materials, and notes on them."""
    count = len(names)
    table = _Surfaces(
        known=np.zeros(count, bool),
        colors=np.full((count, 1, 3), GRAY, np.float32),
        texture=np.full(count, -1),
        scale=np.ones((count, 1, 2), np.float32),
        offset=np.zeros((count, 1, 2), np.float32),
        clamp=np.zeros(count, bool),
        visible=np.ones(count, bool),
    )
    notes: list[str] = []
    for name, number in names.items():
        material = materials.get(name)
        if number not in used or material is None:
            continue
        table.known[number], table.visible[number] = True, material.opacity > 0
        notes += material.notes
        if material.opacity < 1:
            seen = "is rendered opaque" if material.opacity > 0 else "is invisible"
            notes.append(f"the material {name} has opacity {material.opacity:g}, and {seen}")
        if material.color:
            table.colors[number] = material.color
        if material.texture:
            texture, table.scale[number], table.offset[number], clamp = material.texture
            table.clamp[number], table.texture[number] = clamp, textures.read(texture)
            if table.texture[number] < 0 and not material.color:
                cure = "put it into the folder of the model, or give its materials colors (Kd)"
                raise DataError(f"names {texture}, which is missing or broken; {cure}")
    notes += [
        f"the texture {name} is rendered opaque, without its alpha" for name in textures.transparent
    ]
    return table, notes


def _table(values: "array[float]", columns: int) -> Doubles:
    return np.array(values, np.float64).reshape(-1, columns)


def _checked(values: "array[int]", count: int) -> Indices:
    """Indices, none of them beyond the last."""
    index = np.array(values, np.int64)
    if index.max(initial=-1) >= count:
        beyond = f"which does not exist (there are {count:,})"
        raise DataError(f"has a face of point {index.max() + 1}, {beyond}; export it again")
    return index
