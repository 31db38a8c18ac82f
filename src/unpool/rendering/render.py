"""Images of three-dimensional models from around, as those of the rendered chairs."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from unpool.errors import OptionError
from unpool.rendering.meshes import Mesh

DISTANCE = 4.0
"""From the camera to the middle of a body, in radii of the sphere around its box."""

_MARGIN = 1 / 32  # of the image, on each side
_SAMPLES = 3  # rays a pixel, in each direction
_LIGHT = np.array([-0.45, 0.65, 0.61])  # to the right, up, and towards the camera
_AMBIENT, _WRAP = 0.35, 0.3
_GLOSS = 0.08  # what even black gives back, or it would show no shape

Doubles = NDArray[np.float64]


class Frame(NamedTuple):
    """What of the image plane, at distance 1 from the camera, all views of a body show."""

    center: Doubles
    """(3,): the point of the body that the camera looks at, the middle of its box."""
    radius: float
    """Of the sphere around the box; the camera stands `DISTANCE` radii from the center."""
    height: float
    """Of the middle of the image in the image plane; its x is 0, the axis of the turning."""
    half: float
    """Half the side of the image in the image plane."""


def frame_views(mesh: Mesh, views: Sequence[tuple[float, float]]) -> Frame:
    """The frame that holds a body in all of its views, with a margin of 1/32 on each side.

    One frame for all views keeps the size of the body and its axis in place when it turns.

    Args:
        mesh: the body.
        views: azimuth and elevation of each, in degrees.
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
    mesh: Mesh,
    views: Sequence[tuple[float, float]],
    size: int,
    frame: Frame | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """Draw a body from around, one image a view.

    The camera is a pinhole at a fixed distance. At azimuth 0 it looks at the front of the body,
    which is its +z side; a growing azimuth takes the camera towards +x, against the clock when
    seen from above, so that the front moves to the left. The light goes with the camera, from
    above its left shoulder, and falls on both sides of a face; there are no shadows. Nine rays
    a pixel give smooth edges. The same body gives the same bytes each time.

    Args:
        mesh: the body.
        views: azimuth and elevation of each, in degrees.
        size: of the images, in pixels.
        frame: what the images show; `frame_views` of these views when not given.

    Yields:
        (size, size, 4) uint8, RGBA: straight color, and as alpha the fraction of a pixel that the
        body covers. Where alpha is 0, the color is 0, too.

    Raises:
        OptionError: embreex is not installed.
    """
    frame = frame_views(mesh, views) if frame is None else frame
    corners = ((mesh.corners - frame.center) / frame.radius).astype(np.float32)
    scene = _scene(corners)
    skin = _Skin(mesh, corners, 2 * frame.half * DISTANCE / (size * _SAMPLES))
    steps = (np.arange(size * _SAMPLES) + 0.5) / (size * _SAMPLES) * 2 - 1
    across, down = np.meshgrid(steps * frame.half, frame.height - steps * frame.half)
    for view in views:
        right, up, back = _axes(*view)
        plane = across[..., None] * right + down[..., None] * up - back
        rays = np.asarray(plane.reshape(-1, 3), np.float32)
        origins = np.broadcast_to(np.float32(DISTANCE * back), rays.shape)
        hits = scene.run(np.ascontiguousarray(origins), rays, output=1)
        seen = np.flatnonzero(hits["primID"] >= 0)
        faces, u, v = hits["primID"][seen], hits["u"][seen], hits["v"][seen]
        weights = np.asarray(np.stack([1 - u - v, u, v], axis=-1), np.float32)
        light = _LIGHT @ np.stack([right, up, back])
        color = skin.color(faces, weights)
        color *= skin.shade(faces, weights, rays[seen], light)
        yield _gather(color, seen, size)


def _axes(azimuth: float, elevation: float) -> tuple[Doubles, Doubles, Doubles]:
    """The unit vectors of a camera: to its right, up, and back, away from the body."""
    a, e = np.deg2rad(azimuth), np.deg2rad(elevation)
    right = np.array([np.cos(a), 0.0, -np.sin(a)])
    back = np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])
    return right, np.cross(back, right), back


def _scene(corners: NDArray[np.float32]) -> Any:
    try:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene
    except ImportError:
        raise OptionError(
            'drawing models needs embreex; install it with pip install "unpool[render]"'
        ) from None
    scene = EmbreeScene(robust=True)
    TriangleMesh(scene, corners)
    return scene


class _Skin:
    """Colors and normals of the faces, and their textures at the sizes that are needed.

    `step` is the distance between rays where they meet the body. A texture that is finer than
    this is halved until it is not, for else it would flicker from view to view.
    """

    def __init__(self, mesh: Mesh, corners: NDArray[np.float32], step: float) -> None:
        self.normals, self.colors, self.places = mesh.normals, mesh.colors, mesh.places
        edges = corners[:, 1:] - corners[:, :1]
        self.flat = np.cross(edges[:, 0], edges[:, 1])
        area = np.linalg.norm(self.flat, axis=-1) / step**2
        edges = mesh.places[:, 1:] - mesh.places[:, :1]
        share = np.abs(edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0])
        sizes = np.array([t.shape[0] * t.shape[1] for t in mesh.textures] + [1])
        texels = share * sizes[mesh.texture] / np.maximum(area, 1e-30)
        level = np.round(np.log2(np.maximum(texels, 1)) / 2).astype(np.int64)
        self.textures: list[NDArray[np.float32]] = []
        self.texture = np.full(len(corners), -1)
        for number, texture in enumerate(mesh.textures):
            own = mesh.texture == number
            levels = _halved(texture)
            self.texture[own] = len(self.textures) + np.minimum(level[own], len(levels) - 1)
            self.textures += levels

    def color(self, faces: NDArray[Any], weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """(R, 3) RGB in [0, 1], before the light."""
        color = _blend(self.colors[faces], weights)
        numbers = self.texture[faces]
        for number in np.unique(numbers[numbers >= 0]):
            own = numbers == number
            place = _blend(self.places[faces[own]], weights[own])
            color[own] *= _look_up(self.textures[number], place)
        return _GLOSS + (1 - _GLOSS) * color

    def shade(
        self,
        faces: NDArray[Any],
        weights: NDArray[np.float32],
        rays: NDArray[np.float32],
        light: Doubles,
    ) -> NDArray[np.float32]:
        """(R, 1): how bright the faces are, in [0, 1]; it is the side seen that is lit."""
        normals = _blend(self.normals[faces], weights)
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
        side = np.where((self.flat[faces] * rays).sum(-1) > 0, -1, 1)
        lit = side * (normals @ light.astype(np.float32))
        lit = np.maximum((lit + _WRAP) / (1 + _WRAP), 0)
        return np.asarray(_AMBIENT + (1 - _AMBIENT) * lit, np.float32)[:, None]


def _halved(texture: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """A texture in [0, 1], and its halves down to one pixel."""
    levels = [np.asarray(texture / 255, np.float32)]
    while max(levels[-1].shape[:2]) > 1:
        height, width = (max(1, side // 2) for side in levels[-1].shape[:2])
        half = cv2.resize(levels[-1], (width, height), interpolation=cv2.INTER_AREA)
        levels.append(np.asarray(half, np.float32))
    return levels


def _look_up(texture: NDArray[np.float32], place: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bilinear interpolation, wrapped around."""
    height, width = texture.shape[:2]
    x = (place[:, 0] % 1) * width - 0.5
    y = ((1 - place[:, 1]) % 1) * height - 0.5
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    fx, fy = (x - left)[:, None], (y - top)[:, None]
    rows, columns = (top % height, (top + 1) % height), (left % width, (left + 1) % width)
    upper = texture[rows[0], columns[0]] * (1 - fx) + texture[rows[0], columns[1]] * fx
    lower = texture[rows[1], columns[0]] * (1 - fx) + texture[rows[1], columns[1]] * fx
    return np.asarray(upper * (1 - fy) + lower * fy, np.float32)


def _blend(values: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """The values at the corners, (R, 3, C), weighted."""
    return (values * weights[..., None]).sum(axis=1)


def _gather(color: NDArray[np.float32], seen: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
    """An image of the rays that met something."""
    fine = np.zeros(((size * _SAMPLES) ** 2, 4))
    fine[seen, :3], fine[seen, 3] = color, 1
    blocks = fine.reshape(size, _SAMPLES, size, _SAMPLES, 4)
    total = blocks.sum(axis=(1, 3))
    total[..., :3] /= np.maximum(total[..., 3:], 1)
    total[..., 3] /= _SAMPLES**2
    return np.round(np.clip(total, 0, 1) * 255).astype(np.uint8)
