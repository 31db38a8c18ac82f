"""OBJ files: materials, textures, and what other programs write."""

import numpy as np
import pytest
from PIL import Image

from unpool.errors import DataError
from unpool.rendering import obj, triangles
from unpool.rendering.meshes import read_mesh
from unpool.rendering.triangles import rotate_mesh

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


def test_normals_rotate_with_the_mesh(square):
    mesh = rotate_mesh(read_mesh(square()), np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]))
    assert mesh.corners[..., 1].max() == 0
    assert np.allclose(mesh.normals, [0, 1, 0])


def area(mesh):
    edges = mesh.corners[:, 1:] - mesh.corners[:, :1]
    return np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=-1).sum() / 2


@pytest.fixture
def read(tmp_path):
    def write(text, encoding="utf-8"):
        content = text if isinstance(text, bytes) else text.encode(encoding)
        (tmp_path / "a.obj").write_bytes(content)
        return read_mesh(tmp_path / "a.obj")

    return write


TRIANGLE = "v 0 0 0\nv 2 0 0\nv 0 2 0\n"


def test_a_concave_face_and_a_face_with_a_hole_have_their_area(read):
    notched = "v 0 0 0\nv 4 0 0\nv 4 4 0\nv 2 1 0\nv 0 4 0\nf 1 2 3 4 5\n"
    assert area(read(notched)) == pytest.approx(10)
    square, hole = [(0, 0), (9, 0), (9, 9), (0, 9)], [(3, 3), (3, 6), (6, 6), (6, 3)]
    points = "".join(f"v {x} 1 {y}\n" for x, y in square + hole)
    assert area(read(points + "f 1 2 3 4 1 5 6 7 8 5\n")) == pytest.approx(81 - 9)


@pytest.mark.parametrize(
    "faces",
    [
        "f 1 2 3\n",
        "f -3 -2 -1\n",
        "f 1 2 \\\n3\n",
        "f 1/ 2/ 3/\n",
        "  f  1\t2 3 # c\n",
        "F 1 2 3\n",
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_ways_to_write_a_triangle(read, faces, end):
    mesh = read((TRIANGLE + faces).replace("\n", end))
    assert mesh.corners.tolist() == [[[0, 0, 0], [2, 0, 0], [0, 2, 0]]]
    assert np.allclose(mesh.colors, 0.7)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_encodings_of_models_and_materials(read, tmp_path, encoding):
    (tmp_path / "Möbel.mtl").write_text("newmtl Grün\nKd 0 1 0\n", encoding="utf-8")
    mesh = read(f"# é\nmtllib möbel.mtl\nusemtl Grün\n{TRIANGLE}f 1 2 3\n", encoding)
    assert np.allclose(mesh.colors, [0, 1, 0])
    (tmp_path / "Möbel.mtl").write_text("newmtl Grün\nKd 0 0 1\n", encoding=encoding)
    assert np.allclose(read_mesh(tmp_path / "a.obj").colors, [0, 0, 1])


def test_several_libraries_and_names_with_spaces(read, tmp_path):
    (tmp_path / "my mat.mtl").write_text("newmtl a\nKd 1 0 0\n")
    (tmp_path / "b.mtl").write_text("newmtl dark oak\nKd 0 1 0\n")
    faces = "usemtl a\nf 1 2 3\nusemtl dark oak\nf 1 2 3\n"
    expected = [[1, 0, 0]] * 3, [[0, 1, 0]] * 3
    for names in (
        "mtllib my mat.mtl\nmtllib .\\B.MTL\n",
        "mtllib b.mtl b.mtl\nmtllib my mat.mtl\n",
    ):
        assert np.allclose(read(names + TRIANGLE + faces).colors, expected)


def test_unknown_materials_are_gray_and_listed(square):
    mesh = read_mesh(square(faces="f 1 2 3\nusemtl other\nf 1 3 4\n"))
    assert mesh.missing == ("the material other",)
    assert np.allclose(mesh.colors[1], 0.7)


def test_colors_of_points_are_used_without_a_material(read, tmp_path):
    (tmp_path / "m.mtl").write_text("newmtl a\nKd 0 0 1\n")
    points = "v 0 0 0 1 0 0\nv 2 0 0 0 1 0\nv 0 2 0\n"
    mesh = read(f"mtllib m.mtl\n{points}f 1 2 3\nusemtl a\nf 1 2 3\n")
    assert np.allclose(mesh.colors[0], [[1, 0, 0], [0, 1, 0], [0.7, 0.7, 0.7]])
    assert np.allclose(mesh.colors[1], [0, 0, 1])


def test_options_of_a_texture_move_its_coordinates(square):
    plain = read_mesh(square("map_Kd paint.png")).uv
    mesh = read_mesh(square("map_Kd -s 2 3 1 -o 0.5 -1 0 -clamp on PAINT.PNG"))
    assert np.allclose(mesh.uv, plain * [2, 3] + [0.5, -1])
    assert mesh.notes == ("textures with the option -clamp are repeated",)


def test_transparent_materials(square):
    mesh = read_mesh(square("Kd 1 0 0\nd 0.5\nnewmtl gone\nd 0", "f 1 2 3\nusemtl gone\nf 1 3 4\n"))
    assert len(mesh.corners) == 1
    assert "the material paint has opacity 0.5, and is rendered opaque" in mesh.notes
    assert "the material gone has opacity 0, and is invisible" in mesh.notes
    with pytest.raises(DataError, match=r"has only invisible materials \(d 0\)"):
        read_mesh(square("Kd 1 0 0\nTr 1"))


def test_normals_of_the_file(square):
    head = SQUARE + "vn 0 0.6 0.8\n"
    mesh = read_mesh(square(head=head, faces="f 1//1 2//1 3//1\nf 1 3 4\n"))
    assert np.allclose(mesh.normals[0], [0, 0.6, 0.8])
    assert np.allclose(mesh.normals[1], [0, 0, 1])


@pytest.mark.parametrize(
    ("faces", "words"),
    [
        ("f 0 1 2", "face of point 0, which does not exist"),
        ("f 1 2 4", "face of point 4, which does not exist"),
        ("f 1 2 -4", "face of point -4, which does not exist"),
        ("f 1 2 1000000000", "face of point 1000000000, which does not exist"),
        ("f 1 2 99999999999", "has a damaged line, 'f 1 2 99999999999'"),
        ("f 1 2 " + "9" * 5000, "has a damaged line"),
        ("f 1/1 2/1 3/1", "which does not exist"),
        ("f 1 2 x", "has a damaged line, 'f 1 2 x'"),
        ("v 1 2\nf 1 2 3", "has a damaged line, 'v 1 2'"),
        ("f 1 2 3\0", "has a damaged line"),
        ("f " + "1 2 3 " * 200_000, "has a line of 1,200,000 bytes"),
        ("mtllib a\0b.mtl\nf 1 2 3", "which is missing"),
        ("v 1e200 0 0\nf 1 2 4", "has points beyond 1e"),
    ],
)
def test_damaged_lines(read, faces, words):
    with pytest.raises(DataError, match=words):
        read(TRIANGLE + faces + "\n")


def test_sizes_are_bounded(read, monkeypatch):
    monkeypatch.setattr(triangles, "MAX_FACES", 10)
    with pytest.raises(DataError, match="more than 10 triangles"):
        read(TRIANGLE + "f 1 2 3 1 2\n" * 4)
    with pytest.raises(DataError, match="more than 10 triangles"):
        read(TRIANGLE + "f 1\n" * 11)
    monkeypatch.setattr(obj, "MAX_CORNERS", 5)
    with pytest.raises(DataError, match="more than 20 coordinates"):
        read("v 0 0 0\nvn 0 0 1\nvt 0 0\n" * 3)


def test_the_same_as_another_reader(read):
    trimesh = pytest.importorskip("trimesh")
    ball = trimesh.creation.icosphere(subdivisions=2, radius=3)
    assert np.allclose(read(ball.export(file_type="obj")).corners, ball.triangles, atol=1e-6)


def test_long_names_are_cut_and_made_printable(read):
    mesh = read(f"{TRIANGLE}usemtl \x1b[31m{'x' * 9999}\nf 1 2 3\n")
    assert mesh.missing[0].startswith("the material \\x1b[31mxxx")
    assert len(mesh.missing[0]) < 2000
