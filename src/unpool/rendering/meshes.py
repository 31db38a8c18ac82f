"""Read 3-D models from files."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unpool.errors import DataError, OptionError

ENDINGS = (".obj", ".glb", ".ply")
"""Suffixes of model files."""

_MOST_FACES = 5_000_000
_GRAY = (0.7, 0.7, 0.7)  # of parts without a color
_CREASE = 0.7  # cosine of about 45 degrees, beyond which an edge is sharp

Floats = NDArray[np.float32]


class Mesh(NamedTuple):
    """F triangles in right-handed axes with y up; the front looks along +z.

    Corners are not shared between faces, so that edges and texture seams need no special care.
    """

    corners: NDArray[np.float64]  #: (F, 3, 3): x, y, z of three corners, in any unit
    normals: Floats  #: (F, 3, 3): unit vectors at the corners
    colors: Floats  #: (F, 3, 3): RGB at the corners, 0 to 1; multiplies the texture
    uv: Floats  #: (F, 3, 2): texture coordinates, (0, 0) at the lower left; wrapped outside 0 to 1
    texture: NDArray[np.int64]  #: (F,): index of the texture, -1 for none
    textures: tuple[NDArray[np.uint8], ...] = ()  #: each (H, W, 3) uint8, RGB
    missing: tuple[str, ...] = ()  #: textures named in the file that are missing or broken


def read_mesh(path: str | os.PathLike[str]) -> Mesh:
    """Read a model from an OBJ, GLB or PLY file, with its textures and colors.

    A texture replaces the material's color in OBJ, and is multiplied with it in GLB. The color of
    the material is used alone where there are no texture coordinates, and where the texture is
    missing, which is then listed in `missing`. Faces without area are dropped; edges of more than
    45 degrees are sharp, others smooth.

    Args:
        path: the file; materials and textures must lie in its folder or below it.

    Raises:
        DataError: the file is missing, broken or empty, has points that are not finite, or names
            missing materials, or a missing texture for a material without a color.
        OptionError: trimesh is not installed.
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise DataError(f"got {path.name}; wanted a model: a file ending in {' '.join(ENDINGS)}")
    if not path.is_file():
        raise DataError(f"{path.name} is missing; put the file into its folder")
    parts, missing = _load(path)
    if not parts:
        raise DataError(f"{path.name} has no faces; export the model with its triangles")
    if sum(len(part.faces) for part in parts) > _MOST_FACES:
        raise DataError(f"{path.name} has more than {_MOST_FACES:,} faces; simplify the model")
    materials = any(name.lower().endswith(".mtl") for name in missing)
    if materials or (missing and any(_colorless(part) for part in parts)):
        cure = "put it into the folder of the model, or give its materials colors (Kd)"
        raise DataError(f"{path.name} names {missing[0]}, which is missing or broken; {cure}")
    meshes = [_convert(path.name, part) for part in parts]
    return _join(path.name, meshes)._replace(missing=missing)


def rotate_mesh(mesh: Mesh, rotation: NDArray[np.float64]) -> Mesh:
    """Rotate a mesh by a (3, 3) matrix that multiplies points from the left."""
    normals = (mesh.normals @ rotation.T).astype(np.float32)
    return mesh._replace(corners=mesh.corners @ rotation.T, normals=normals)


def face_normals(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit normals of faces (F, 3, 3), (F, 1, 3); zero for faces without area."""
    return _unit(_cross(corners)[:, None])


def _load(path: Path) -> tuple[list[Any], tuple[str, ...]]:
    """The parts of a file with faces, as trimesh objects, and its missing textures."""
    try:
        import trimesh
        from trimesh.resolvers import FilePathResolver
    except ImportError:
        cure = 'install it with pip install "unpool[render]"'
        raise OptionError(f"reading models needs trimesh; {cure}") from None

    missed: list[str] = []

    class Watched(FilePathResolver):
        """Records missing files, which trimesh ignores silently."""

        def get(self, name: str) -> bytes:
            try:
                data = bytes(super().get(name))
                if not name.strip().lower().endswith(".mtl"):
                    Image.open(io.BytesIO(data)).load()
                return data
            except Exception:
                missed.append(name.strip())
                raise

    try:
        with path.open("rb") as file:
            scene = trimesh.load_scene(
                file, file_type=path.suffix[1:].lower(), resolver=Watched(str(path)), process=False
            )
        parts = [part for part in scene.dump() if len(getattr(part, "faces", ()))]
    except MemoryError:
        raise
    except Exception as error:  # a parser meets a broken file with whatever fails first
        message = f"{path.name} cannot be read as a model; export it again (trimesh says: {error})"
        raise DataError(message) from None
    return parts, tuple(dict.fromkeys(missed))


def _colorless(part: Any) -> bool:
    """Whether the material of a part has neither a texture nor a color of its own."""
    material = getattr(part.visual, "material", None)
    textured = material is None or getattr(material, "image", None) is not None
    return not textured and "kd" not in getattr(material, "kwargs", {})


def _convert(name: str, part: Any) -> Mesh:
    """Convert a trimesh object."""
    points, faces = np.asarray(part.vertices, np.float64), np.asarray(part.faces, np.int64)
    if faces.min() < 0 or faces.max() >= len(points):
        raise DataError(f"{name} has faces of points that do not exist; export it again")
    corners = points[faces]
    if not np.isfinite(corners).all():
        raise DataError(f"{name} has points that are not finite; repair the model")
    color, image = _surface(part, faces)
    uv = getattr(part.visual, "uv", None)
    coordinates = np.zeros((*faces.shape, 2), np.float32)
    if image is not None and uv is not None and len(uv) == len(points):
        coordinates = np.nan_to_num(np.asarray(uv, np.float32)[faces])
        if part.visual.material.__class__.__name__ == "SimpleMaterial":
            color = np.ones_like(color)
    else:
        image = None
    return Mesh(
        corners,
        _corner_normals(corners, np.asarray(part.vertex_normals, np.float64)[faces]),
        color,
        coordinates,
        np.full(len(faces), -1 if image is None else 0),
        () if image is None else (image,),
    )


def _surface(part: Any, faces: NDArray[np.int64]) -> tuple[Floats, NDArray[np.uint8] | None]:
    """The colors of the corners, and the texture."""
    visual, image = part.visual, None
    if visual.kind == "texture":
        material = visual.material
        photo = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
        image = None if photo is None else np.asarray(photo.convert("RGB"))
        rgb = np.asarray(material.main_color, np.float32)[:3] / 255
    elif visual.kind == "vertex":
        colors = np.asarray(visual.vertex_colors, np.float32) / 255
        return colors[faces][..., :3].astype(np.float32), None
    elif visual.kind == "face":
        rgb = np.asarray(visual.face_colors, np.float32)[:, None, :3] / 255
    else:
        rgb = np.array(_GRAY, np.float32)
    return np.broadcast_to(rgb, (*faces.shape, 3)).astype(np.float32), image


def _corner_normals(corners: NDArray[np.float64], smooth: NDArray[np.float64]) -> Floats:
    """The smooth normals, or those of the faces at sharp edges."""
    flat, smooth = face_normals(corners), _unit(np.nan_to_num(smooth))
    cosine = (smooth * flat).sum(-1, keepdims=True)
    smooth = smooth * np.where(cosine < 0, -1, 1)
    return np.where(np.abs(cosine) > _CREASE, smooth, flat).astype(np.float32)


def _cross(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normals (F, 3) whose length is twice the area of the face."""
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-300)


def _join(name: str, parts: Sequence[Mesh]) -> Mesh:
    """Join meshes, without the faces that have no area."""
    textures: list[NDArray[np.uint8]] = []
    indices = []
    for part in parts:
        indices.append(np.where(part.texture < 0, -1, part.texture + len(textures)))
        textures += part.textures
    columns = [np.concatenate(column) for column in (*list(zip(*parts, strict=True))[:4], indices)]
    extent = np.ptp(columns[0].reshape(-1, 3), axis=0).max()
    good = np.linalg.norm(_cross(columns[0]), axis=-1) > 1e-14 * extent**2
    if not good.any():
        raise DataError(f"{name} has no face with an area; export the model with its triangles")
    corners, normals, colors, uv, texture = (column[good] for column in columns)
    return Mesh(corners, normals, colors, uv, texture, tuple(textures))
