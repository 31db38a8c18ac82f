"""Models in files: colors, textures, and what is wrong with broken ones."""

import sys

import numpy as np
import pytest
from PIL import Image

from unpool.errors import DataError, OptionError
from unpool.rendering.meshes import read_mesh, rotate_mesh

trimesh = pytest.importorskip("trimesh")

SQUARE = """mtllib square.mtl
v 0 0 0
v 2 0 0
v 2 2 0
v 0 2 0
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl paint
"""
FACES = "f 1/1 2/2 3/3 4/4\n"


@pytest.fixture
def square(tmp_path):
    """Write a square with a material; gives the path of the model."""

    def write(material="Kd 0.2 0.4 0.6", faces=FACES, head=SQUARE):
        (tmp_path / "square.obj").write_text(head + faces)
        (tmp_path / "square.mtl").write_text(f"newmtl paint\n{material}\n")
        Image.new("RGB", (4, 2), (10, 20, 30)).save(tmp_path / "paint.png")
        return tmp_path / "square.obj"

    return write


def test_a_material_colors_its_faces(square):
    mesh = read_mesh(square())
    assert mesh.corners.shape == (2, 3, 3)
    assert np.allclose(mesh.colors, [0.2, 0.4, 0.6], atol=1 / 255)
    assert np.allclose(mesh.normals, [0, 0, 1])
    assert mesh.texture.tolist() == [-1, -1]


def test_a_texture_replaces_the_color(square):
    mesh = read_mesh(square("Kd 0 0 0\nmap_Kd paint.png"))
    assert mesh.colors.min() == 1
    assert mesh.texture.tolist() == [0, 0]
    assert mesh.textures[0].shape == (2, 4, 3)
    assert mesh.textures[0][0, 0].tolist() == [10, 20, 30]
    points = mesh.corners[..., :2].reshape(-1, 2)
    assert np.allclose(points / 2, mesh.uv.reshape(-1, 2))


def test_the_color_is_used_without_texture_coordinates(square):
    mesh = read_mesh(square("Kd 1 0 0\nmap_Kd paint.png", "f 1 2 3 4\n"))
    assert mesh.texture.max() == -1
    assert not mesh.missing
    assert np.allclose(mesh.colors, [1, 0, 0])


def test_the_color_replaces_a_missing_texture(square):
    mesh = read_mesh(square("Kd 1 0 0\nmap_Kd nowhere.png"))
    assert mesh.missing == ("nowhere.png",)
    assert np.allclose(mesh.colors, [1, 0, 0])


def test_a_missing_texture_without_a_color_is_refused(square):
    path = square("map_Kd nowhere.png")
    with pytest.raises(DataError, match=r"square.obj names nowhere.png, which is missing or brok"):
        read_mesh(path)


def test_a_broken_texture_is_refused(square):
    path = square("map_Kd broken.png")
    (path.parent / "broken.png").write_bytes((path.parent / "paint.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"names broken.png, which is missing or broken"):
        read_mesh(path)


def test_textures_are_not_read_from_outside(square, tmp_path_factory):
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.png"
    Image.new("RGB", (2, 2)).save(secret)
    for name in (secret, f"../{secret.parent.name}/secret.png"):
        with pytest.raises(DataError, match=r"secret.png, which is missing"):
            read_mesh(square(f"map_Kd {name}"))


def test_missing_materials_are_refused(square):
    path = square()
    (path.parent / "square.mtl").unlink()
    with pytest.raises(DataError, match=r"square.obj names square.mtl, which is missing"):
        read_mesh(path)


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


@pytest.mark.parametrize("ending", ["glb", "ply"])
def test_colors_of_points(tmp_path, ending):
    made = trimesh.creation.box((1, 2, 3))
    made.visual.vertex_colors = [[200, 100, 50, 255]] * len(made.vertices)
    made.export(tmp_path / f"box.{ending}")
    mesh = read_mesh(tmp_path / f"box.{ending}")
    assert np.allclose(np.ptp(mesh.corners.reshape(-1, 3), axis=0), [1, 2, 3])
    assert np.allclose(mesh.colors, np.array([200, 100, 50]) / 255, atol=1 / 255)


def test_nodes_of_a_glb_file_are_placed(tmp_path):
    scene = trimesh.Scene()
    scene.add_geometry(trimesh.creation.box())
    up = trimesh.transformations.translation_matrix([0, 5, 0])
    scene.add_geometry(trimesh.creation.box(), transform=up)
    scene.export(tmp_path / "two.glb")
    mesh = read_mesh(tmp_path / "two.glb")
    assert np.allclose(np.ptp(mesh.corners.reshape(-1, 3), axis=0), [1, 6, 1])


def test_textures_of_a_glb_file_are_multiplied_with_their_color(tmp_path):
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=Image.new("RGB", (4, 4), (255, 0, 0)), baseColorFactor=[128, 128, 128, 255]
    )
    visual = trimesh.visual.TextureVisuals(uv=[[0, 0], [1, 0], [0, 1]], material=material)
    points = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    trimesh.Trimesh(points, [[0, 1, 2]], visual=visual).export(tmp_path / "one.glb")
    mesh = read_mesh(tmp_path / "one.glb")
    assert np.allclose(mesh.colors, 0.5, atol=0.01)
    assert mesh.textures[0][0, 0].tolist() == [255, 0, 0]
    assert np.allclose(mesh.uv, mesh.corners[..., :2])


def test_edges_of_a_box_are_sharp_and_a_ball_is_smooth(tmp_path):
    trimesh.creation.box().export(tmp_path / "box.ply")
    normals = read_mesh(tmp_path / "box.ply").normals
    assert np.allclose(np.abs(normals).max(axis=-1), 1)
    trimesh.creation.icosphere(subdivisions=3).export(tmp_path / "ball.ply")
    ball = read_mesh(tmp_path / "ball.ply")
    assert (ball.normals * ball.corners).sum(-1).min() > 0.999


def test_normals_rotate_with_the_mesh(square):
    mesh = rotate_mesh(read_mesh(square()), np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]))
    assert mesh.corners[..., 1].max() == 0
    assert np.allclose(mesh.normals, [0, 1, 0])


def test_missing_packages(square, monkeypatch):
    path = square()
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(OptionError, match=r'install it with pip install "unpool\[render\]"'):
        read_mesh(path)
