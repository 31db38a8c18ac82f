"""Meshes: triangles with colors, textures and normals at their corners."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpool.errors import DataError
from unpool.limits import MAX_FACES

GRAY = (0.7, 0.7, 0.7)
"""The color of faces without one."""

_CREASE = 0.7  # cosine of about 45 degrees, beyond which an edge is sharp
_LARGEST, _SMALLEST = 1e100, 1e-100  # extents whose squares and cubes are finite and not zero
_MOST_REPEATS = 1e4  # of a texture over the model; float32 has no fraction far beyond

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


class Mesh(NamedTuple):
    """F triangles in right-handed axes with y up; the front looks along +z.

    Corners are not shared between faces, so that edges and texture seams need no special care.
    """

    corners: Doubles  #: (F, 3, 3): x, y, z of three corners, in any unit
    normals: Floats  #: (F, 3, 3): unit vectors at the corners
    colors: Floats  #: (F, 3, 3): RGB at the corners, 0 to 1; multiplies the texture
    uv: Floats  #: (F, 3, 2): texture coordinates, (0, 0) at the lower left; wrapped outside 0 to 1
    texture: Indices  #: (F,): index of the texture, -1 for none
    textures: tuple[NDArray[np.uint8], ...] = ()  #: each (H, W, 3) uint8, RGB
    missing: tuple[str, ...] = ()  #: what the file names and is missing or broken
    notes: tuple[str, ...] = ()  #: what is rendered in another way than the file says


def rotate_mesh(mesh: Mesh, rotation: Doubles) -> Mesh:
    """Rotate a mesh by a (3, 3) matrix that multiplies points from the left."""
    normals = (mesh.normals @ rotation.T).astype(np.float32)
    return mesh._replace(corners=mesh.corners @ rotation.T, normals=normals)


def mask_mesh(mesh: Mesh, mask: NDArray[np.bool_]) -> Mesh:
    """Some of the faces of a mesh, by a mask (F,)."""
    return mesh._replace(
        corners=mesh.corners[mask],
        normals=mesh.normals[mask],
        colors=mesh.colors[mask],
        uv=mesh.uv[mask],
        texture=mesh.texture[mask],
    )


def join_meshes(meshes: Sequence[Mesh]) -> Mesh:
    """The faces of meshes without textures of their own."""
    return Mesh(
        np.concatenate([mesh.corners for mesh in meshes]),
        np.concatenate([mesh.normals for mesh in meshes]),
        np.concatenate([mesh.colors for mesh in meshes]),
        np.concatenate([mesh.uv for mesh in meshes]),
        np.concatenate([mesh.texture for mesh in meshes]),
    )


def face_normals(corners: Doubles) -> Doubles:
    """Unit normals of faces (F, 3, 3), (F, 1, 3); zero for faces without area."""
    return _unit(_cross(corners)[:, None])


def smooth_normals(corners: Doubles, faces: Indices) -> Floats:
    """Normals at the corners (F, 3, 3): means over the faces at a point, weighted by their angles.

    Args:
        corners: (F, 3, 3).
        faces: the points of the corners, (F, 3), as any whole numbers.
    """
    _, points = np.unique(faces, return_inverse=True)
    points = points.reshape(-1)
    edges = _unit(np.roll(corners, -1, axis=1) - corners)
    cosines = -(edges * np.roll(edges, 1, axis=1)).sum(-1)
    weighted = face_normals(corners) * np.arccos(np.clip(cosines, -1, 1))[..., None]
    sums = [np.bincount(points, weighted[..., axis].ravel()) for axis in range(3)]
    return _unit(np.stack(sums, axis=-1)).astype(np.float32)[points].reshape(corners.shape)


def require_finite(points: Doubles) -> None:
    """Raise a `DataError` if a coordinate is NaN or infinite; without the file name."""
    if not np.isfinite(points).all():
        raise DataError("has points that are not finite; repair the model")


def require_faces(count: int) -> None:
    """Raise a `DataError` for more triangles than are read; without the file name."""
    if count > MAX_FACES:
        raise DataError(f"has more than {MAX_FACES:,} triangles; simplify the model")


def finish(mesh: Mesh) -> Mesh:
    """Check a mesh as it was read, make its normals those of its edges, and drop empty faces.

    Raises:
        DataError: points are not finite, or no face has an area; without the file name.
    """
    require_finite(mesh.corners)
    points = mesh.corners.reshape(-1, 3)
    extent = float((points.max(axis=0) - points.min(axis=0)).max()) if len(points) else 0.0
    if max(extent, float(np.abs(points).max(initial=0))) > _LARGEST:
        raise DataError(f"has points beyond {_LARGEST:g}; repair or scale the model")
    good = np.zeros(0, bool)
    if extent > _SMALLEST:
        good = np.linalg.norm(_cross(mesh.corners), axis=-1) > 1e-14 * extent**2
    if not good.any():
        raise DataError("has no face with an area; export the model with its triangles")
    if not good.all():
        mesh = mask_mesh(mesh, good)
    uv = np.clip(np.nan_to_num(mesh.uv), -_MOST_REPEATS, _MOST_REPEATS)
    colors = np.clip(np.nan_to_num(mesh.colors), 0, 1)
    normals = _corner_normals(mesh.corners, mesh.normals)
    return mesh._replace(normals=normals, colors=colors, uv=uv)


def _corner_normals(corners: Doubles, smooth: Floats) -> Floats:
    """The smooth normals, or those of the faces at sharp edges."""
    flat, smooth = face_normals(corners), _unit(np.nan_to_num(smooth)).astype(np.float32)
    cosine = (smooth * flat).sum(-1, keepdims=True)
    smooth = smooth * np.where(cosine < 0, -1, 1).astype(np.float32)
    return np.where(np.abs(cosine) > _CREASE, smooth, flat).astype(np.float32)


def _cross(corners: Doubles) -> Doubles:
    """Normals (F, 3) whose length is twice the area of the face."""
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def _unit(vectors: NDArray[np.floating]) -> Doubles:
    vectors = vectors.astype(np.float64, copy=False)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-300)
