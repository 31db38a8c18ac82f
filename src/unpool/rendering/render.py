"""Render views of a mesh from all sides, as in the public set of rendered chairs."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from unpool.errors import OptionError

if TYPE_CHECKING:
    from unpool.rendering.triangles import Floats, Mesh

DISTANCE = 4.0
"""From the camera to the center of the mesh, in radii of the sphere around its bounding box."""

_MARGIN = 1 / 32  # of the image, on each side
_SAMPLES = 3  # rays per pixel, in each direction
_LIGHT = np.array([-0.45, 0.65, 0.61])  # direction: to the right, up, and towards the camera
_AMBIENT, _WRAP = 0.35, 0.3  # wrap: light reaches beyond 90 degrees, which softens the shade
_GLOSS = 0.08  # reflected even by black, which would show no shape otherwise

Doubles = NDArray[np.float64]


class Frame(NamedTuple):
    """The square of the image plane, at distance 1 from the camera, that all views show."""

    center: Doubles  #: (3,): where the camera looks, the center of the bounding box
    radius: float  #: of the sphere around the box; the camera is `DISTANCE` radii away
    height: float  #: of the center of the square; its x is 0, on the rotation axis
    half: float  #: half the side of the square


def frame_views(mesh: "Mesh", views: Sequence[tuple[float, float]]) -> Frame:
    """The frame that holds a mesh in all views, with a margin of 1/32 on each side.

    One frame for all views, which are azimuths and elevations in degrees, keeps the size and the
    rotation axis in place as the object turns.
    """
    points = mesh.corners.reshape(-1, 3)
    low, high = points.min(axis=0), points.max(axis=0)
    center, radius = (low + high) / 2, float(np.linalg.norm(high - low) / 2)
    points = np.unique((points - center) / radius, axis=0)
    side, bottom, top = 0.0, np.inf, -np.inf
    for view in views:
        right, up, back = _axes(*view)
        depth = DISTANCE - points @ back
        side = max(side, float(np.abs(points @ right / depth).max()))
        heights = points @ up / depth
        bottom, top = min(bottom, float(heights.min())), max(top, float(heights.max()))
    half = max(side, (top - bottom) / 2) / (1 - 2 * _MARGIN)
    return Frame(center, radius, (top + bottom) / 2, half)


def render_views(
    mesh: "Mesh", views: Sequence[tuple[float, float]], size: int
) -> Iterator[NDArray[np.uint8]]:
    """Render a mesh, one image per view, in the frame of all views.

    The camera is a pinhole at a fixed distance. At azimuth 0 it faces the front, which is the +z
    side; increasing azimuths move it towards +x, counterclockwise seen from above, so that the
    front moves to the left. The light moves with the camera, above its left shoulder, and falls on
    both sides of a face; there are no shadows. Nine rays per pixel give smooth edges. The same mesh
    gives the same bytes every time.

    Args:
        views: azimuth and elevation of each, in degrees.
        size: side of the images in pixels.

    Yields:
        (size, size, 4) uint8, RGBA: straight color, and as alpha the fraction of the pixel that the
        object covers. Where alpha is 0, so is the color.

    Raises:
        OptionError: embreex is not installed.
    """
    frame = frame_views(mesh, views)
    corners = ((mesh.corners - frame.center) / frame.radius).astype(np.float32)
    scene = _scene(corners)
    surface = _Surface(mesh, corners, 2 * frame.half * DISTANCE / (size * _SAMPLES))
    steps = (np.arange(size * _SAMPLES) + 0.5) / (size * _SAMPLES) * 2 - 1
    across, down = np.meshgrid(steps * frame.half, frame.height - steps * frame.half)
    for view in views:
        right, up, back = _axes(*view)
        plane = across[..., None] * right + down[..., None] * up - back
        rays = np.asarray(plane.reshape(-1, 3), np.float32)
        hits = scene.run(np.tile(np.float32(DISTANCE * back), (len(rays), 1)), rays, output=1)
        seen = np.flatnonzero(hits["primID"] >= 0)
        faces, u, v = hits["primID"][seen], hits["u"][seen], hits["v"][seen]
        weights = np.asarray(np.stack([1 - u - v, u, v], axis=-1), np.float32)
        light = _LIGHT @ np.stack([right, up, back])
        shade = surface.shade(faces, weights, rays[seen], light)
        yield _downsample(surface.color(faces, weights) * shade, seen, size)


def _axes(azimuth: float, elevation: float) -> tuple[Doubles, Doubles, Doubles]:
    """The unit vectors of a camera: to its right, up, and back, away from the object."""
    a, e = np.deg2rad(azimuth), np.deg2rad(elevation)
    right = np.array([np.cos(a), 0.0, -np.sin(a)])
    back = np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])
    return right, np.cross(back, right), back


def _scene(corners: "Floats") -> Any:
    try:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene
    except ImportError:
        cure = 'install it with pip install "unpool[render]"'
        raise OptionError(f"rendering needs embreex; {cure}") from None
    scene = EmbreeScene(robust=True)
    TriangleMesh(scene, corners)
    return scene


class _Surface:
    """Colors, normals and textures of the faces.

    `step` is the distance between rays at the object. Textures finer than this are halved until
    they are not, or they would flicker from view to view.
    """

    def __init__(self, mesh: "Mesh", corners: "Floats", step: float) -> None:
        self.normals, self.colors, self.uv = mesh.normals, mesh.colors, mesh.uv
        edges = corners[:, 1:] - corners[:, :1]
        self.flat = np.cross(edges[:, 0], edges[:, 1])
        area = np.linalg.norm(self.flat, axis=-1) / step**2
        edges = mesh.uv[:, 1:] - mesh.uv[:, :1]
        fraction = np.abs(edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0])
        sizes = np.array([t.shape[0] * t.shape[1] for t in mesh.textures] + [1])
        texels = fraction * sizes[mesh.texture] / np.maximum(area, 1e-30)
        # a level halves both sides, which quarters the texels of a face
        level = np.round(np.log2(np.maximum(texels, 1)) / 2).astype(np.int64)
        self.textures: list[Floats] = []
        self.texture = np.full(len(corners), -1)
        for number, texture in enumerate(mesh.textures):
            own = mesh.texture == number
            levels = _halved(texture)
            self.texture[own] = len(self.textures) + np.minimum(level[own], len(levels) - 1)
            self.textures += levels

    def color(self, faces: NDArray[Any], weights: "Floats") -> "Floats":
        """Unlit RGB of R hits, (R, 3), 0 to 1."""
        color = _blend(self.colors[faces], weights)
        numbers = self.texture[faces]
        for number in np.unique(numbers[numbers >= 0]):
            own = numbers == number
            color[own] *= _look_up(self.textures[number], _blend(self.uv[faces[own]], weights[own]))
        return _GLOSS + (1 - _GLOSS) * color

    def shade(
        self, faces: NDArray[Any], weights: "Floats", rays: "Floats", light: Doubles
    ) -> "Floats":
        """Brightness of the visible side at R hits, (R, 1), 0 to 1."""
        normals = _blend(self.normals[faces], weights)
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
        side = np.where((self.flat[faces] * rays).sum(-1) > 0, -1, 1)
        lit = side * (normals @ light.astype(np.float32))
        lit = np.maximum((lit + _WRAP) / (1 + _WRAP), 0)
        return np.asarray(_AMBIENT + (1 - _AMBIENT) * lit, np.float32)[:, None]


def _halved(texture: NDArray[np.uint8]) -> list["Floats"]:
    """A texture, 0 to 1, and its halves down to one pixel."""
    levels = [np.asarray(texture / 255, np.float32)]
    while max(levels[-1].shape[:2]) > 1:
        height, width = (max(1, side // 2) for side in levels[-1].shape[:2])
        half = cv2.resize(levels[-1], (width, height), interpolation=cv2.INTER_AREA)
        levels.append(np.asarray(half, np.float32))
    return levels


def _look_up(texture: "Floats", uv: "Floats") -> "Floats":
    """Bilinear interpolation, wrapped around."""
    height, width = texture.shape[:2]
    x = (uv[:, 0] % 1) * width - 0.5
    y = ((1 - uv[:, 1]) % 1) * height - 0.5
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    fx, fy = (x - left)[:, None], (y - top)[:, None]
    rows, columns = (top % height, (top + 1) % height), (left % width, (left + 1) % width)
    upper = texture[rows[0], columns[0]] * (1 - fx) + texture[rows[0], columns[1]] * fx
    lower = texture[rows[1], columns[0]] * (1 - fx) + texture[rows[1], columns[1]] * fx
    return np.asarray(upper * (1 - fy) + lower * fy, np.float32)


def _blend(values: "Floats", weights: "Floats") -> "Floats":
    """The weighted sum (R, C) of values at three corners, (R, 3, C)."""
    return (values * weights[..., None]).sum(axis=1)


def _downsample(color: "Floats", seen: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
    """The image of the rays; those that hit have indices `seen` and a color."""
    fine = np.zeros(((size * _SAMPLES) ** 2, 4))
    fine[seen, :3], fine[seen, 3] = color, 1
    blocks = fine.reshape(size, _SAMPLES, size, _SAMPLES, 4)
    total = blocks.sum(axis=(1, 3))
    total[..., :3] /= np.maximum(total[..., 3:], 1)  # the mean over hits: straight color
    total[..., 3] /= _SAMPLES**2
    return np.round(np.clip(total, 0, 1) * 255).astype(np.uint8)
