"""Three-dimensional models, between files and arrays."""

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
"""The kinds of model files that are read."""

_MOST_FACES = 5_000_000
_GRAY = (0.7, 0.7, 0.7)  # of what has no color
_CREASE = 0.7  # cosine of the angle beyond which an edge is sharp, some 45 degrees

Floats = NDArray[np.float32]


class Mesh(NamedTuple):
    """A body of F triangles, in right-handed axes with y up; its front looks along +z.

    Every corner carries its own values, so that neither edges nor seams need care.
    """

    corners: NDArray[np.float64]
    """(F, 3, 3): three points of x, y, z, in any unit."""
    normals: Floats
    """(F, 3, 3): unit vectors at the corners, for the light."""
    colors: Floats
    """(F, 3, 3): RGB in [0, 1] at the corners, which multiplies the texture."""
    places: Floats
    """(F, 3, 2): where the corners lie in the texture; (0, 0) is its lower left, (1, 1) its
    upper right corner, and what lies outside wraps around."""
    texture: NDArray[np.int64]
    """(F,): the number of the texture, -1 for none."""
    textures: tuple[NDArray[np.uint8], ...] = ()
    """(H, W, 3) uint8, RGB, each."""
    missing: tuple[str, ...] = ()
    """Textures that the file names and that are not there or no images."""


def read_mesh(path: str | os.PathLike[str]) -> Mesh:
    """Read a model from an OBJ, GLB or PLY file, with its textures and colors.

    A texture takes the place of the material's color in OBJ, and is multiplied with it in GLB.
    The color of the material stands alone where a part has no places in its texture, and where the
    texture is missing: then it is named in `missing`. Faces without area are left out; edges of
    more than 45 degrees stay sharp, others are smooth.

    Args:
        path: the file; materials and textures must lie in its folder or below it.

    Raises:
        DataError: the file is missing, broken or empty, has points that are not finite, or names
            materials that are not there, or a texture for a material without a color.
        OptionError: trimesh is not installed.
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise DataError(f"got {path.name}; wanted a model: a file ending in {' '.join(ENDINGS)}")
    if not path.is_file():
        raise DataError(f"{path.name} is not there; put the file into its folder")
    parts, missing = _load(path)
    if not parts:
        raise DataError(f"{path.name} has no faces; export the model with its triangles")
    if sum(len(part.faces) for part in parts) > _MOST_FACES:
        raise DataError(f"{path.name} has more than {_MOST_FACES:,} faces; simplify the model")
    materials = any(name.lower().endswith(".mtl") for name in missing)
    if materials or (missing and any(_colorless(part) for part in parts)):
        raise DataError(
            f"{path.name} names {missing[0]}, which is missing or broken; put it into the folder "
            "of the model, or give its materials colors (Kd)"
        )
    meshes = [_convert(path.name, part) for part in parts]
    return _join(path.name, meshes)._replace(missing=missing)


def turn_mesh(mesh: Mesh, rotation: NDArray[np.float64]) -> Mesh:
    """The mesh, turned by a (3, 3) rotation matrix that multiplies points from the left."""
    turned = (mesh.normals @ rotation.T).astype(np.float32)
    return mesh._replace(corners=mesh.corners @ rotation.T, normals=turned)


def _load(path: Path) -> tuple[list[Any], tuple[str, ...]]:
    """The parts of a file that have faces, as trimesh gives them, and the textures it misses."""
    try:
        import trimesh
        from trimesh.resolvers import FilePathResolver
    except ImportError:
        raise OptionError(
            'reading models needs trimesh; install it with pip install "unpool[render]"'
        ) from None

    missed: list[str] = []

    class Watched(FilePathResolver):
        """Notes what was asked for and not found, which trimesh passes over in silence."""

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
        raise DataError(
            f"{path.name} cannot be read as a model; export it again (the reader says: {error})"
        ) from None
    return parts, tuple(dict.fromkeys(missed))


def _colorless(part: Any) -> bool:
    """Whether the material of a part has neither a texture nor a color of its own."""
    material = getattr(part.visual, "material", None)
    if material is None or getattr(material, "image", None) is not None:
        return False
    return "kd" not in getattr(material, "kwargs", {})


def _convert(name: str, part: Any) -> Mesh:
    """A part of trimesh's as ours."""
    points = np.asarray(part.vertices, np.float64)
    faces = np.asarray(part.faces, np.int64)
    if faces.min() < 0 or faces.max() >= len(points):
        raise DataError(f"{name} has faces of points that it does not have; export it again")
    corners = points[faces]
    if not np.isfinite(corners).all():
        raise DataError(f"{name} has points that are not finite; repair the model")
    color, image = _surface(part, faces)
    uv = getattr(part.visual, "uv", None)
    places = np.zeros((*faces.shape, 2), np.float32)
    if image is not None and uv is not None and len(uv) == len(points):
        places = np.nan_to_num(np.asarray(uv, np.float32)[faces])
        if part.visual.material.__class__.__name__ == "SimpleMaterial":
            color = np.ones_like(color)
    else:
        image = None
    return Mesh(
        corners,
        _corner_normals(corners, np.asarray(part.vertex_normals, np.float64)[faces]),
        color,
        places,
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
    """Smooth normals where the surface is smooth, those of the faces at sharp edges."""
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, None]
    flat = flat / np.maximum(np.linalg.norm(flat, axis=-1, keepdims=True), 1e-300)
    smooth = np.nan_to_num(smooth)
    smooth = smooth / np.maximum(np.linalg.norm(smooth, axis=-1, keepdims=True), 1e-300)
    cosine = (smooth * flat).sum(-1, keepdims=True)
    smooth = smooth * np.where(cosine < 0, -1, 1)
    return np.where(np.abs(cosine) > _CREASE, smooth, flat).astype(np.float32)


def _join(name: str, parts: Sequence[Mesh]) -> Mesh:
    """One mesh of several, without faces that have no area."""
    textures: list[NDArray[np.uint8]] = []
    numbers = []
    for part in parts:
        numbers.append(np.where(part.texture < 0, -1, part.texture + len(textures)))
        textures += part.textures
    corners, normals, colors, places = (
        np.concatenate(column) for column in list(zip(*parts, strict=True))[:4]
    )
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    extent = np.ptp(corners.reshape(-1, 3), axis=0).max()
    good = np.linalg.norm(cross, axis=-1) > 1e-14 * extent**2
    if not good.any():
        raise DataError(f"{name} has no face with an area; export the model with its triangles")
    texture = np.concatenate(numbers)
    return Mesh(
        corners[good], normals[good], colors[good], places[good], texture[good], tuple(textures)
    )
