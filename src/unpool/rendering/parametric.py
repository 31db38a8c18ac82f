"""Procedural chairs: meshes from a few numbers, without a download."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unpool.rendering.triangles import Mesh, face_normals

Color = tuple[float, float, float]


class ChairShape(NamedTuple):
    """The parameters of a chair. Lengths are in meters, colors are RGB, 0 to 1."""

    width: float = 0.45
    depth: float = 0.45
    seat: float = 0.45  #: height of the seat
    cushion: float = 0.05  #: thickness of the seat
    back: float = 0.45  #: height of the back above the seat; 0 makes a stool
    lean: float = 0.08  #: distance of the top of the back behind the seat
    slats: int = 0  #: of the back; 0 is a full panel
    legs: int = 4  #: 4, or 1 for a column on a plate
    leg: float = 0.04  #: thickness of a leg
    splay: float = 0.03  #: distance of the feet outside the seat
    arms: bool = False
    color: Color = (0.62, 0.13, 0.12)  #: of seat and back
    wood: Color = (0.45, 0.30, 0.17)  #: of all the rest


def random_shape(seed: int, number: int = 0) -> ChairShape:
    """A random chair; the same seed and number give the same one.

    >>> random_shape(0, 3) == random_shape(0, 3) != random_shape(0, 4)
    True
    """
    rng = np.random.default_rng([seed, number])

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    seat = between(0.3, 0.7)
    brown = between(0.15, 0.8)
    return ChairShape(
        width=between(0.36, 0.65),
        depth=between(0.36, 0.6),
        seat=seat,
        cushion=between(0.03, 0.12),
        back=0.0 if rng.random() < 0.1 else between(0.2, 0.75),
        lean=between(0, 0.2),
        slats=int(rng.choice([0, 0, 3, 4, 5])),
        legs=1 if rng.random() < 0.25 else 4,
        leg=between(0.025, 0.07),
        splay=between(0, 0.08),
        arms=bool(rng.random() < 0.4),
        color=(between(0.05, 0.95), between(0.05, 0.95), between(0.05, 0.95)),
        wood=(brown, brown * between(0.6, 0.8), brown * between(0.3, 0.6)),
    )


def build_chair(shape: ChairShape) -> Mesh:
    """The mesh of a chair, made of prisms.

    >>> mesh = build_chair(ChairShape())
    >>> bool(mesh.corners[..., 1].min() == 0)  # it stands on the floor
    True
    """
    low, high = (0, shape.seat - shape.cushion, 0), (0, shape.seat, 0)
    pieces = [(_prism(low, high, (shape.width, shape.depth)), shape.color), *_legs(shape)]
    if shape.back > 0:
        pieces += _back(shape)
    if shape.arms:
        pieces += _arms(shape)
    corners = np.concatenate([corners for corners, _ in pieces])
    colors = np.concatenate([np.broadcast_to(color, (12, 3, 3)) for _, color in pieces])
    normals = np.repeat(face_normals(corners), 3, axis=1).astype(np.float32)
    uv, texture = np.zeros((len(corners), 3, 2), np.float32), np.full(len(corners), -1)
    return Mesh(corners, normals, colors.astype(np.float32), uv, texture)


Piece = tuple[NDArray[np.float64], Color]


def _legs(s: ChairShape) -> list[Piece]:
    top = s.seat - s.cushion
    if s.legs == 1:
        plate = 0.7 * min(s.width, s.depth)
        parts = [
            _prism((0, 0, 0), (0, 0.03, 0), (plate, plate)),
            _prism((0, 0.03, 0), (0, top, 0), (1.5 * s.leg, 1.5 * s.leg)),
        ]
    else:
        x, z = (s.width - s.leg) / 2, (s.depth - s.leg) / 2
        foot, size = (0.7 * s.leg, 0.7 * s.leg), (s.leg, s.leg)
        parts = [
            _prism((i * (x + s.splay), 0, j * (z + s.splay)), (i * x, top, j * z), foot, size)
            for i, j in ((-1, -1), (-1, 1), (1, -1), (1, 1))
        ]
    return [(part, s.wood) for part in parts]


def _back(s: ChairShape) -> list[Piece]:
    thick, top = 0.03, s.seat + s.back

    def beam(x: float, low: float, high: float, width: float) -> NDArray[np.float64]:
        below, above = (
            (x, y, -(s.depth - thick) / 2 - s.lean * (y - s.seat) / s.back) for y in (low, high)
        )
        return _prism(below, above, (width, thick))

    if not s.slats:
        return [(beam(0, s.seat, top, s.width), s.color)]
    rail = min(0.07, s.back / 4)
    pieces = [(beam(0, top - rail, top, s.width), s.color)]
    side = (s.width - s.leg) / 2
    pieces += [(beam(x, s.seat, top - rail, s.leg), s.wood) for x in (-side, side)]
    inner = np.linspace(-side, side, s.slats + 2)[1:-1]
    thin = 0.4 * (inner[1] - inner[0])
    return pieces + [(beam(float(x), s.seat, top - rail, thin), s.color) for x in inner]


def _arms(s: ChairShape) -> list[Piece]:
    thick, height = 0.04, s.seat + 0.22
    pieces = []
    for x in (-(s.width + thick) / 2, (s.width + thick) / 2):
        rest = _prism((x, height, 0), (x, height + thick, 0), (1.5 * thick, s.depth))
        front = (s.depth - thick) / 2
        low = s.seat - s.cushion
        posts = [_prism((x, low, z), (x, height, z), (thick, thick)) for z in (-front, front)]
        pieces += [(part, s.wood) for part in (rest, *posts)]
    return pieces


def _prism(
    low: ArrayLike,
    high: ArrayLike,
    low_size: tuple[float, float],
    high_size: tuple[float, float] | None = None,
) -> NDArray[np.float64]:
    """12 triangles, (12, 3, 3), between two level rectangles of given centers and sizes (x, z)."""
    ring = np.array([[-0.5, 0, -0.5], [0.5, 0, -0.5], [0.5, 0, 0.5], [-0.5, 0, 0.5]])
    ends = (low, low_size), (high, high_size or low_size)
    points = np.concatenate([np.asarray(at) + ring * [size[0], 1, size[1]] for at, size in ends])
    # facing outwards: counterclockwise seen from outside
    quads = [(0, 1, 2, 3), (7, 6, 5, 4), (4, 5, 1, 0), (5, 6, 2, 1), (6, 7, 3, 2), (7, 4, 0, 3)]
    faces = [face for a, b, c, d in quads for face in ((a, b, c), (a, c, d))]
    return points[np.array(faces)]
