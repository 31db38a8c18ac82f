"""Chairs made by code."""

import numpy as np
import pytest

from unpool.rendering.parametric import ChairShape, build_chair, random_shape


def volumes(mesh):
    """Of each straight piece, by the divergence theorem; positive where faces look outwards."""
    a, b, c = (mesh.corners[:, i] for i in range(3))
    return np.einsum("fk,fk->f", a, np.cross(b, c)).reshape(-1, 12).sum(axis=1) / 6


@pytest.mark.parametrize("number", range(12))
def test_pieces_are_closed_and_face_outwards(number):
    mesh = build_chair(random_shape(1, number))
    assert (volumes(mesh) > 0).all()
    edges = mesh.corners[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 36, 2, 3).round(9)
    for piece in edges:  # each edge is there once in each direction
        forward = {tuple(edge.ravel()) for edge in piece}
        assert len(forward) == 36
        assert forward == {tuple(edge[::-1].ravel()) for edge in piece}


def test_parameters_are_the_sizes():
    shape = ChairShape(width=0.5, depth=0.4, seat=0.5, back=0.6, lean=0.1, splay=0.0)
    low, high = (f(build_chair(shape).corners.reshape(-1, 3), axis=0) for f in (np.min, np.max))
    assert np.allclose(low, [-0.25, 0, -0.3])
    assert np.allclose(high, [0.25, 1.1, 0.2])


@pytest.mark.parametrize("part", ["seat", "panel", "slats", "column", "arms"])
def test_parts(part):
    base = ChairShape(back=0, legs=4)
    changed = {
        "seat": (base, 1 + 4),
        "panel": (base._replace(back=0.4), 5 + 1),
        "slats": (base._replace(back=0.4, slats=3), 5 + 1 + 2 + 3),
        "column": (base._replace(legs=1), 1 + 2),
        "arms": (base._replace(arms=True), 5 + 6),
    }
    shape, pieces = changed[part]
    assert len(build_chair(shape).corners) == 12 * pieces


def test_the_same_seed_makes_the_same_chairs():
    shapes = [random_shape(5, i) for i in range(40)]
    assert shapes[7] == random_shape(5, 7)
    assert len(set(shapes)) == 40
    assert random_shape(6, 7) != shapes[7]
    assert {shape.legs for shape in shapes} == {1, 4}
    assert {shape.arms for shape in shapes} == {True, False}
    assert min(shape.back for shape in shapes) == 0
