"""PLY files, as other programs write them."""

import struct

import numpy as np
import pytest
from PIL import Image

from tests.rendering.test_obj import area
from unpool.errors import DataError
from unpool.rendering.meshes import read_mesh

trimesh = pytest.importorskip("trimesh")

SQUARE = [(0, 0, 0), (4, 0, 0), (4, 4, 0), (0, 4, 0)]
NOTCHED = [(0, 0, 0), (4, 0, 0), (4, 4, 0), (2, 1, 0), (0, 4, 0)]
FORMATS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


def header(form, points, faces, extra="", more="", comment=""):
    return (
        f"ply\nformat {form} 1.0\n{comment}element vertex {points}\nproperty float x\n"
        f"property float y\nproperty float z\n{extra}element face {faces}\n"
        f"property list uchar int vertex_indices\n{more}end_header\n"
    ).encode()


def body(form, points, faces):
    order = FORMATS[form]
    if not order:
        rows = [*points, *((len(face), *face) for face in faces)]
        return "".join(" ".join(map(str, row)) + "\n" for row in rows).encode()
    lists = [struct.pack(f"{order}B{len(face)}i", len(face), *face) for face in faces]
    return b"".join([*(struct.pack(f"{order}3f", *point) for point in points), *lists])


@pytest.fixture
def read(tmp_path):
    def write(content):
        (tmp_path / "a.ply").write_bytes(content)
        return read_mesh(tmp_path / "a.ply")

    return write


@pytest.mark.parametrize("encoding", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_the_same_as_another_reader(tmp_path, encoding):
    ball = trimesh.creation.icosphere(subdivisions=2)
    form = "ascii" if encoding == "ascii" else "binary"
    (tmp_path / "a.ply").write_bytes(ball.export(file_type="ply", encoding=form))
    assert np.allclose(read_mesh(tmp_path / "a.ply").corners, ball.triangles, atol=1e-6)


@pytest.mark.parametrize("form", FORMATS)
def test_polygons_of_all_sizes(read, form):
    faces = [(0, 1, 2, 3, 4), (0, 1, 2), (0, 1), (0, 1, 3, 4)]
    mesh = read(header(form, 5, 4) + body(form, NOTCHED, faces))
    assert area(mesh) == pytest.approx(10 + 8 + 6)
    mesh = read(header(form, 4, 2) + body(form, SQUARE, [(0, 1, 2), (0, 2, 3)]))
    assert mesh.corners[:, :, :2].tolist() == [[[0, 0], [4, 0], [4, 4]], [[0, 0], [4, 4], [0, 4]]]


@pytest.mark.parametrize(
    ("kind", "values"),
    [("uchar", (255, 51, 0)), ("ushort", (65535, 13107, 0)), ("float", (1, 0.2, 0))],
)
def test_colors_of_any_type(read, kind, values):
    names = "".join(f"property {kind} {name}\n" for name in ("red", "green", "blue"))
    code = {"uchar": "B", "ushort": "H", "float": "f"}[kind]
    points = b"".join(struct.pack(f"<3f3{code}", *point, *values) for point in SQUARE)
    face = struct.pack("<B4i", 4, 0, 1, 2, 3)
    mesh = read(header("binary_little_endian", 4, 1, names) + points + face)
    assert np.allclose(mesh.colors, [1, 0.2, 0])
    points = b"".join(struct.pack("<3f", *point) for point in SQUARE)
    face = struct.pack(f"<B4i3{code}", 4, 0, 1, 2, 3, *values)
    mesh = read(header("binary_little_endian", 4, 1, more=names) + points + face)
    assert np.allclose(mesh.colors, [1, 0.2, 0])


def test_textures_of_faces_and_points(read, tmp_path):
    Image.new("RGB", (2, 2), (9, 8, 7)).save(tmp_path / "my wood.png")
    comment = "comment TextureFile my wood.png\n"
    places = [(x / 4, y / 4) for x, y, _ in SQUARE]
    rows = "".join(f"{x} {y} {z}\n" for x, y, z in SQUARE)
    flat = " ".join(f"{u} {v}" for u, v in places)
    more = "property list uchar float texcoord\n"
    faces = read(
        header("ascii", 4, 1, more=more, comment=comment) + f"{rows}4 0 1 2 3 8 {flat}\n".encode()
    )
    rows = "".join(f"{x} {y} {z} {x / 4} {y / 4}\n" for x, y, z in SQUARE)
    extra = "property float s\nproperty float t\n"
    points = read(header("ascii", 4, 1, extra, comment=comment) + f"{rows}4 0 1 2 3\n".encode())
    for mesh in (faces, points):
        assert mesh.textures[0][0, 0].tolist() == [9, 8, 7]
        assert mesh.texture.tolist() == [0, 0]
        assert np.allclose(mesh.uv * 4, mesh.corners[..., :2])
    (tmp_path / "my wood.png").unlink()
    with pytest.raises(DataError, match=r"names my wood.png, which is missing or broken"):
        read(header("ascii", 4, 1, extra, comment=comment) + f"{rows}4 0 1 2 3\n".encode())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (header("ascii", 10**12, 1), "has 1000000000000 of vertex; wanted at most"),
        (header("binary_little_endian", 3, 10**12), "has 1000000000000 of face; wanted at most"),
        (header("ascii", "9" * 5000, 1), "is damaged"),
        (header("ascii", -1, 1), "has -1 of vertex"),
        (header("ascii", 3, 1) + b"0 0 0 1 0 0 0 1 0 3 0 1", "ends before its last face"),
        (header("binary_little_endian", 10**6, 1) + bytes(99), "ends before its last face"),
        (header("ascii", 3, 1) + b"0 0 0 1 0 0 0 1 0 3 0 1 3", "point 3, which does not exist"),
        (header("ascii", 3, 1) + b"0 0 0 1 0 0 0 1 0 3 0 1 -1", "point -1, which does not exist"),
        (header("ascii", 3, 1) + b"0 0 0 1 0 0 0 1 0 3 0 1 nan", "which does not exist"),
        (header("ascii", 3, 1) + b"0 0 0 1 0 0 0 nan 0 3 0 1 2", "not finite"),
        (header("ascii", 3, 1) + b"0 0 0 1 0 0 0 1 0 1e99 0 1 2", "more than"),
        (header("ascii", 3, 0) + b"0 0 0 1 0 0 0 1 0", "has no faces"),
        (header("ascii", 3, 1, "property list uchar int x\n") + b"0 0 0 0", "ends before"),
        (b"ply\nelement vertex 3\nend_header\n", "has no format"),
        (b"plyplyply", "is not a PLY file"),
    ],
)
def test_damaged_files(read, content, words):
    with pytest.raises(DataError, match=words):
        read(content)
