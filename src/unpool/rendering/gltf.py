"""Read binary glTF files (GLB), version 2."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unpool.errors import DataError
from unpool.limits import MAX_NODES, MAX_PARTS
from unpool.rendering.accessors import Document
from unpool.rendering.textures import Folder, Textures
from unpool.rendering.triangles import (
    Doubles,
    Floats,
    Indices,
    Mesh,
    join_meshes,
    require_faces,
    smooth_normals,
)

_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_REPEAT = 10497  # of OpenGL


class _Material(NamedTuple):
    color: Floats  # (3,)
    texture: int = -1
    coordinates: str = "TEXCOORD_0"
    transform: tuple[Doubles, Doubles] = (np.eye(2), np.zeros(2))  # uv @ matrix.T + offset
    repeats: bool = True
    visible: bool = True


def read_glb(path: Path, content: bytes) -> Mesh:
    """Read a GLB file: the default scene as it stands without animation.

    Normals are those of the file, or smooth; see `unpool.rendering.triangles.finish`.

    Raises:
        DataError: it is damaged, or needs an extension that is not read. The message lacks the
            file name.
    """
    return _Scene(Document(content, Folder(path.parent))).build()


class _Scene:
    """A scene that is read. Meshes and materials are read once, and placed by each node."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.textures = Textures(document.folder)
        self.notes: dict[str, None] = {}
        self.faces = self.read = 0  # with and without repeated meshes
        self._materials: dict[int, _Material] = {}
        self._meshes: dict[int, list[Mesh]] = {}

    def build(self) -> Mesh:
        """All meshes of the scene in their places."""
        parts: list[Mesh] = []
        for index, world in self.placed():
            for part in self.mesh(index):
                self.faces += len(part.corners)
                require_faces(self.faces)
                if len(parts) >= MAX_PARTS:
                    raise DataError(f"has more than {MAX_PARTS:,} parts; simplify the model")
                parts.append(_move(part, world))
        if not self.faces:
            raise DataError("has no visible faces; export the model with its triangles")
        return join_meshes(parts)._replace(
            textures=tuple(self.textures.images),
            missing=tuple(self.textures.missing),
            notes=tuple(self.notes),
        )

    def placed(self) -> list[tuple[int, Doubles]]:
        """The meshes of the scene's nodes, and the matrices that place them."""
        document = self.document
        nodes = document.json.get("nodes", [])
        if document.json.get("scenes"):
            roots = document.item("scenes", document.json.get("scene", 0)).get("nodes", [])
        else:
            inner = {child for node in nodes for child in node.get("children", [])}
            roots = [index for index in range(len(nodes)) if index not in inner]
        stack, seen, placed = [(root, np.eye(4)) for root in roots[: MAX_NODES + 1]], set(), []
        while stack:
            index, above = stack.pop()
            if index in seen:
                raise DataError(f"has node {index} at two places of its tree; export it again")
            node = document.item("nodes", index)
            seen.add(index)
            children = node.get("children", [])
            if len(seen) + len(stack) + len(children) > MAX_NODES:
                raise DataError(f"has more than {MAX_NODES:,} nodes; simplify the model")
            world = above @ _local(node)
            if "mesh" in node:
                self._check(node)
                placed.append((node["mesh"], world))
            stack += [(child, world) for child in reversed(children)]
        return placed

    def _check(self, node: dict[str, Any]) -> None:
        if "EXT_mesh_gpu_instancing" in node.get("extensions", {}):
            raise DataError("has GPU instances, which are not read; export it without them")
        if "skin" in node:
            self.notes["a skeleton is not used: the mesh is rendered as it was modeled"] = None
        if any(node.get("weights", ())) or any(
            self.document.item("meshes", node["mesh"]).get("weights", ())
        ):
            self.notes["morph targets are not used"] = None

    def mesh(self, index: int) -> list[Mesh]:
        """The visible parts of a mesh, where they were modeled."""
        if index not in self._meshes:
            primitives = self.document.item("meshes", index)["primitives"]
            if len(primitives) > MAX_PARTS:
                raise DataError(f"has more than {MAX_PARTS:,} parts; simplify the model")
            parts = [self.primitive(primitive) for primitive in primitives]
            self._meshes[index] = [part for part in parts if part is not None]
        return self._meshes[index]

    def primitive(self, primitive: dict[str, Any]) -> Mesh | None:
        """Triangles of one material; None for points, lines, and what is invisible."""
        attributes, document = primitive["attributes"], self.document
        mode = primitive.get("mode", _TRIANGLES)
        if mode not in (_TRIANGLES, _STRIP, _FAN) or "POSITION" not in attributes:
            return None
        filled = "bufferView" in document.item("accessors", attributes["POSITION"])
        if not filled and "KHR_draco_mesh_compression" in primitive.get("extensions", {}):
            raise DataError("is compressed with Draco; export it without compression")
        material = self.material(primitive.get("material"))
        faces = self.indices(primitive, mode)
        self.read += len(faces)
        require_faces(self.read)
        if not (material.visible and len(faces)):
            return None
        corners = self.gather(attributes["POSITION"], faces, 3)
        colors = np.broadcast_to(material.color, corners.shape)
        if "COLOR_0" in attributes:
            tones = self.gather(attributes["COLOR_0"], faces, 3, 4, fractions=True)[..., :3]
            colors = (colors * tones).astype(np.float32)
        if "NORMAL" in attributes:
            normals = self.gather(attributes["NORMAL"], faces, 3).astype(np.float32)
        else:
            normals = smooth_normals(corners, faces)
        uv, texture = np.zeros((*faces.shape, 2)), -1
        if material.texture >= 0 and material.coordinates in attributes:
            matrix, offset = material.transform
            uv = self.gather(attributes[material.coordinates], faces, 2) @ matrix.T + offset
            texture = material.texture
            if not material.repeats and ((uv < 0) | (uv > 1)).any():
                self.notes["textures that end at their borders are repeated"] = None
            uv[..., 1] = 1 - uv[..., 1]
        return Mesh(corners, normals, colors, uv.astype(np.float32), np.full(len(faces), texture))

    def indices(self, primitive: dict[str, Any], mode: int) -> Indices:
        """The points of the triangles, (F, 3)."""
        count = len(self.document.accessor(primitive["attributes"]["POSITION"], (3,)))
        if "indices" in primitive:
            index = self.document.accessor(primitive["indices"], (1,))[:, 0]
            if index.dtype.kind != "u":
                raise DataError("has indices that are no whole numbers; export it again")
        else:
            index = np.arange(count)
        require_faces(len(index) // 3)
        index = index.astype(np.int64)
        if index.max(initial=-1) >= count:
            raise DataError(
                f"has a face of point {index.max()}, which does not exist; export it again"
            )
        if mode == _TRIANGLES:
            if len(index) % 3:
                raise DataError(f"has {len(index)} corners of triangles; wanted 3 for each")
            return index.reshape(-1, 3)
        first = index[:-2].copy()
        second, third = index[1:-1].copy(), index[2:]
        if mode == _FAN:
            first[:] = index[:1]
        else:
            first[1::2], second[1::2] = index[1:-1][1::2], index[:-2][1::2]
        return np.stack([first, second, third], axis=-1)

    def gather(self, index: Any, faces: Indices, *widths: int, fractions: bool = False) -> Doubles:
        """Values of an attribute at the corners, (F, 3, width); `fractions` if they must be."""
        values = self.document.accessor(index, widths)
        if faces.max(initial=-1) >= len(values):
            raise DataError("has attributes of different lengths; export it again")
        taken = values[faces].astype(np.float64)
        if values.dtype.kind != "f" and (fractions or self.document.normalized(index)):
            taken = np.maximum(taken / np.iinfo(values.dtype).max, -1)
        return taken

    def material(self, index: Any) -> _Material:
        """A material; without one, the default of glTF, which is white."""
        if index is None:
            return _Material(np.ones(3, np.float32))
        if index not in self._materials:
            self._materials[index] = self._read_material(index)
        return self._materials[index]

    def _read_material(self, index: Any) -> _Material:
        material = self.document.item("materials", index)
        name = f"the material {str(material.get('name', index))[:60]}"
        surface = material.get("pbrMetallicRoughness", {})
        factor, info = surface.get("baseColorFactor"), surface.get("baseColorTexture")
        old = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness")
        if old is not None:
            factor, info = old.get("diffuseFactor"), old.get("diffuseTexture")
        color = np.array([1, 1, 1, 1] if factor is None else factor, np.float64)
        if color.shape != (4,):
            raise DataError(f"has {name} of {color.size} numbers; wanted 4: export it again")
        if not np.isfinite(color).all():
            raise DataError(f"has {name} whose color is not finite; export it again")
        mode = material.get("alphaMode", "OPAQUE")
        least = {"MASK": float(material.get("alphaCutoff", 0.5)), "BLEND": 1e-9}.get(mode, 0)
        if mode == "BLEND" and least <= color[3] < 1:
            self.notes[f"{name} has opacity {color[3]:g}, and is rendered opaque"] = None
        if color[3] < least:
            self.notes[f"{name} is invisible (opacity {color[3]:g})"] = None
        result = _Material(color[:3].astype(np.float32), visible=bool(color[3] >= least))
        return result if info is None else self._add_texture(result, info, name, mode, factor)

    def _add_texture(
        self, material: _Material, info: dict[str, Any], name: str, mode: str, factor: object
    ) -> _Material:
        """A material with its texture; without it, where it is missing and there is a color."""
        document = self.document
        texture = document.item("textures", info["index"])
        webp = texture.get("extensions", {}).get("EXT_texture_webp", {})
        source = webp.get("source", texture.get("source"))
        image = {} if source is None else document.item("images", source)
        uri = str(image.get("uri", "data:"))
        shown = f"image {source}" if uri.startswith("data:") else f"image {source} ({uri})"
        number = self.textures.read(shown, lambda: self._image(image))
        if number < 0:
            if factor is None:
                raise DataError(f"has {shown}, which is missing or broken; export it again")
            return material
        if mode != "OPAQUE" and shown in self.textures.transparent:
            self.notes[f"{name} is rendered opaque, without the alpha of its texture"] = None
        sampler: dict[str, Any] = {}
        if "sampler" in texture:
            sampler = document.item("samplers", texture["sampler"])
        changed = info.get("extensions", {}).get("KHR_texture_transform", {})
        angle = float(changed.get("rotation", 0))
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        return material._replace(
            texture=number,
            coordinates=f"TEXCOORD_{changed.get('texCoord', info.get('texCoord', 0))}",
            transform=(turn * _vector(changed, "scale", 1, 2), _vector(changed, "offset", 0, 2)),
            repeats=all(sampler.get(key, _REPEAT) == _REPEAT for key in ("wrapS", "wrapT")),
        )

    def _image(self, image: dict[str, Any]) -> bytes | Path | None:
        try:
            if "bufferView" in image:
                return bytes(self.document.view(image["bufferView"])[0])
            return self.document.resolve(image["uri"])
        except (DataError, KeyError, ValueError):  # then it counts as missing
            return None


def _local(node: dict[str, Any]) -> Doubles:
    """The matrix that places a node in its parent."""
    if "matrix" in node:
        return _vector(node, "matrix", 0, 16).reshape(4, 4).T
    matrix = np.eye(4)
    if "rotation" in node:
        x, y, z, w = _vector(node, "rotation", 0, 4) / np.linalg.norm(node["rotation"])
        matrix[:3, :3] = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    if "scale" in node:
        matrix[:3, :3] *= _vector(node, "scale", 1, 3)
    if "translation" in node:
        matrix[:3, 3] = _vector(node, "translation", 0, 3)
    return matrix


def _vector(values: dict[str, Any], key: str, default: float, size: int) -> Doubles:
    vector = np.array(values.get(key, [default] * size), np.float64)
    if vector.shape != (size,):
        raise DataError(f"has {key} of {vector.size} numbers; wanted {size}: export it again")
    return vector


def _move(mesh: Mesh, world: Doubles) -> Mesh:
    """A mesh in its place. Cofactors keep normals upright also where a matrix has no inverse."""
    linear = world[:3, :3]
    cofactors = np.stack([np.cross(linear[i - 2], linear[i - 1]) for i in range(3)])
    normals = mesh.normals @ cofactors.T
    return mesh._replace(
        corners=mesh.corners @ linear.T + world[:3, 3], normals=normals.astype(np.float32)
    )
