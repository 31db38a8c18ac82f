"""Models in files: what is wrong with broken ones, whatever their format."""

import contextlib
import os
import random

import numpy as np
import pytest

from unpool.errors import DataError
from unpool.rendering import meshes
from unpool.rendering.meshes import read_mesh

trimesh = pytest.importorskip("trimesh")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty.obj"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\n", "has no faces"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "empty.obj"),
        ("v 0 0 0\nv nan 0 0\nv 0 1 0\nf 1 2 3\n", "not finite"),
        ("v 0 0 0\nv 1e999 0 0\nv 0 1 0\nf 1 2 3\n", "not finite"),
        ("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", "no face with an area"),
        ("v a b c\nf x y z\n", "empty.obj"),
    ],
)
def test_broken_models_are_refused(tmp_path, text, words):
    path = tmp_path / "empty.obj"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_mesh(path)


@pytest.mark.parametrize("ending", ["obj", "glb", "ply"])
def test_noise_is_refused(tmp_path, ending):
    path = tmp_path / f"noise.{ending}"
    path.write_bytes(np.random.default_rng(0).bytes(3000))
    with pytest.raises(DataError, match="noise"):
        read_mesh(path)


def test_other_files_and_missing_ones_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"got chair.fbx; wanted a model: a file ending in .obj"):
        read_mesh(tmp_path / "chair.fbx")
    with pytest.raises(DataError, match=r"chair.obj is missing"):
        read_mesh(tmp_path / "chair.obj")


@pytest.mark.parametrize("ending", ["obj", "glb", "ply"])
def test_files_that_are_none_or_too_large(tmp_path, monkeypatch, ending):
    os.mkfifo(tmp_path / f"pipe.{ending}")
    with pytest.raises(DataError, match="is a pipe, device or socket"):
        read_mesh(tmp_path / f"pipe.{ending}")
    monkeypatch.setattr(meshes, "MAX_MODEL", 10)
    (tmp_path / f"large.{ending}").write_bytes(bytes(11))
    with pytest.raises(DataError, match="more than 10 bytes"):
        read_mesh(tmp_path / f"large.{ending}")


@pytest.mark.parametrize("ending", ["obj", "glb", "ply"])
def test_damaged_files_raise_no_other_error(tmp_path, ending):
    made = trimesh.creation.box((1, 2, 3))
    made.visual.vertex_colors = [[200, 100, 50, 255]] * len(made.vertices)
    data, rng = made.export(file_type=ending), random.Random(0)
    data = data.encode() if isinstance(data, str) else data
    path, read = tmp_path / f"a.{ending}", 0
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 2, 8])):
            at = rng.randrange(len(damaged))
            end = at + rng.choice([1, 4, 40])
            piece = rng.choice([b"", b"9" * 400, b"\0\xff", b"-1", b"nan", damaged[at:end] * 2])
            damaged[at:end] = piece
        path.write_bytes(damaged)
        with contextlib.suppress(DataError):
            read += len(read_mesh(path).corners) > 0
    assert 0 < read < 300


@pytest.mark.parametrize("ending", ["glb", "ply"])
def test_colors_of_points(tmp_path, ending):
    made = trimesh.creation.box((1, 2, 3))
    made.visual.vertex_colors = [[200, 100, 50, 255]] * len(made.vertices)
    made.export(tmp_path / f"box.{ending}")
    mesh = read_mesh(tmp_path / f"box.{ending}")
    assert np.allclose(np.ptp(mesh.corners.reshape(-1, 3), axis=0), [1, 2, 3])
    assert np.allclose(mesh.colors, np.array([200, 100, 50]) / 255, atol=1 / 255)


def test_edges_of_a_box_are_sharp_and_a_ball_is_smooth(tmp_path):
    trimesh.creation.box().export(tmp_path / "box.ply")
    normals = read_mesh(tmp_path / "box.ply").normals
    assert np.allclose(np.abs(normals).max(axis=-1), 1)
    trimesh.creation.icosphere(subdivisions=3).export(tmp_path / "ball.ply")
    ball = read_mesh(tmp_path / "ball.ply")
    assert (ball.normals * ball.corners).sum(-1).min() > 0.999
