"""GLB files: colors by the formula of glTF, and hostile sizes."""

import io
import json
import struct

import numpy as np
import pytest
from PIL import Image

from unpool.errors import DataError
from unpool.rendering import triangles
from unpool.rendering.meshes import read_mesh

trimesh = pytest.importorskip("trimesh")

POINTS = np.float32([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
KINDS = {"u1": 5121, "i1": 5120, "u2": 5123, "i2": 5122, "u4": 5125, "f4": 5126}
TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}


class Scene:
    """A square in a GLB file, whose JSON a test changes."""

    def __init__(self, path):
        self.path, self.binary = path, b""
        self.json = {"accessors": [], "bufferViews": [], "buffers": [{}]}
        self.json |= {"scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}]}
        self.primitive = {"attributes": {"POSITION": self.add(POINTS)}}
        self.primitive["indices"] = self.add(np.uint16([0, 1, 2, 0, 2, 3]))
        self.json["meshes"] = [{"primitives": [self.primitive]}]

    def view(self, data):
        start = len(self.binary)
        self.binary += data + bytes(-len(data) % 4)
        self.json["bufferViews"].append({"buffer": 0, "byteOffset": start, "byteLength": len(data)})
        return len(self.json["bufferViews"]) - 1

    def add(self, values, **more):
        width = values.shape[1] if values.ndim > 1 else 1
        accessor = {"bufferView": self.view(values.tobytes()), "count": len(values)}
        accessor |= {"componentType": KINDS[values.dtype.str[1:]], "type": TYPES[width]}
        self.json["accessors"].append(accessor | more)
        return len(self.json["accessors"]) - 1

    def attribute(self, name, values, **more):
        self.primitive["attributes"][name] = self.add(values, **more)

    def material(self, **values):
        self.json["materials"] = [{"name": "oak", **values}]
        self.primitive["material"] = 0

    def texture(self, mode="RGB", color=(255, 0, 51), **more):
        file = io.BytesIO()
        Image.new(mode, (2, 2), color).save(file, "PNG")
        self.json["images"] = [{"bufferView": self.view(file.getvalue())}]
        self.json["textures"] = [{"source": 0}]
        self.attribute("TEXCOORD_0", POINTS[:, :2])
        return {"index": 0, **more}

    def read(self):
        self.json["buffers"][0].setdefault("byteLength", len(self.binary))
        text = json.dumps(self.json).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        chunks += struct.pack("<I4s", len(self.binary), b"BIN\0") + self.binary
        self.path.write_bytes(b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks)
        return read_mesh(self.path)


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path / "a.glb")


def test_the_default_color_is_white(scene):
    mesh = scene.read()
    assert (mesh.colors == 1).all()
    assert np.array_equal(mesh.corners, POINTS[[[0, 1, 2], [0, 2, 3]]])
    scene.material()
    assert (scene.read().colors == 1).all()
    scene.material(pbrMetallicRoughness={"metallicFactor": 0})
    assert (scene.read().colors == 1).all()


@pytest.mark.parametrize("kind", ["f4", "u1", "u2"])
@pytest.mark.parametrize("width", [3, 4])
def test_the_color_is_the_factor_times_that_of_the_points_times_the_texture(scene, kind, width):
    most = 1 if kind == "f4" else np.iinfo(kind).max
    values = np.float32([[1, 0.5, 0.25, 0.1]] * 4)[:, :width]
    scene.attribute("COLOR_0", np.round(values * most, 9).astype(kind), normalized=kind != "f4")
    info = scene.texture()
    scene.material(
        pbrMetallicRoughness={"baseColorFactor": [0.5, 0.5, 1, 1], "baseColorTexture": info}
    )
    mesh = scene.read()
    assert np.allclose(mesh.colors, [0.5, 0.25, 0.25], atol=0.003)
    assert mesh.textures[0][0, 0].tolist() == [255, 0, 51]
    assert mesh.texture.tolist() == [0, 0]
    assert np.allclose(mesh.uv, [1, -1] * mesh.corners[..., :2] + [0, 1])  # v points down


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_color_that_is_not_finite(scene, value):
    scene.material(pbrMetallicRoughness={"baseColorFactor": [value, 0, 0, 1]})
    with pytest.raises(DataError, match="has the material oak whose color is not finite; export"):
        scene.read()


def test_specular_glossiness(scene):
    old = {"diffuseFactor": [0.2, 0.4, 0.6, 1], "diffuseTexture": scene.texture()}
    scene.material(extensions={"KHR_materials_pbrSpecularGlossiness": old})
    mesh = scene.read()
    assert np.allclose(mesh.colors, [0.2, 0.4, 0.6])
    assert len(mesh.textures) == 1


def test_texture_transforms(scene):
    change = {"offset": [0.5, 0.25], "rotation": np.pi / 2, "scale": [2, 3]}
    info = scene.texture(extensions={"KHR_texture_transform": change})
    scene.material(pbrMetallicRoughness={"baseColorTexture": info})
    u, v = np.moveaxis(POINTS[[[0, 1, 2], [0, 2, 3]]][..., :2], -1, 0)
    expected = np.stack([3 * v + 0.5, 1 - (-2 * u + 0.25)], axis=-1)
    assert np.allclose(scene.read().uv, expected, atol=1e-6)


def test_the_second_set_of_coordinates(scene):
    info = scene.texture(texCoord=1)
    scene.material(pbrMetallicRoughness={"baseColorTexture": info})
    assert scene.read().texture.tolist() == [-1, -1]
    scene.attribute("TEXCOORD_1", np.uint8(POINTS[:, :2] * 255), normalized=True)
    assert scene.read().texture.tolist() == [0, 0]


def test_transparency(scene):
    info = scene.texture("RGBA", (9, 8, 7, 0))
    surface = {"baseColorTexture": info, "baseColorFactor": [1, 1, 1, 0.5]}
    scene.material(pbrMetallicRoughness=surface)  # opaque: alpha has no meaning
    mesh = scene.read()
    assert mesh.textures[0][0, 0].tolist() == [9, 8, 7]
    assert not mesh.notes
    scene.material(pbrMetallicRoughness=surface, alphaMode="BLEND")
    assert scene.read().notes == (
        "the material oak has opacity 0.5, and is rendered opaque",
        "the material oak is rendered opaque, without the alpha of its texture",
    )
    scene.material(pbrMetallicRoughness=surface, alphaMode="MASK", alphaCutoff=0.6)
    with pytest.raises(DataError, match="has no visible faces"):
        scene.read()


def test_missing_and_broken_textures(scene, tmp_path):
    info = scene.texture()
    for image in (
        {"uri": "no.png"},
        {"uri": "../a.png"},
        {"bufferView": 99},
        {},
        {"uri": "data:,"},
    ):
        scene.json["images"] = [image]
        scene.material(pbrMetallicRoughness={"baseColorTexture": info})
        with pytest.raises(DataError, match=r"has image 0( \(.*\))?, which is missing or broken"):
            scene.read()
        surface = {"baseColorTexture": info, "baseColorFactor": [1, 0, 0, 1]}
        scene.material(pbrMetallicRoughness=surface)
        mesh = scene.read()
        assert mesh.missing[0].startswith("image 0")
        assert np.allclose(mesh.colors, [1, 0, 0])
    Image.new("RGB", (1, 1), (3, 4, 5)).save(tmp_path / "my oak.webp", lossless=True)
    scene.json["images"] = [{"uri": "my%20oak.webp"}]
    assert scene.read().textures[0].tolist() == [[[3, 4, 5]]]


@pytest.mark.parametrize("mode", [4, 5, 6])
def test_strips_and_fans(scene, mode):
    indices = {4: [0, 1, 2, 0, 2, 3], 5: [0, 1, 3, 2], 6: [0, 1, 2, 3]}[mode]
    scene.primitive["indices"] = scene.add(np.uint8(indices))
    scene.primitive["mode"] = mode
    corners = scene.read().corners
    sides = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert sides.tolist() == [[0, 0, 1]] * 2


def test_points_without_indices_lines_and_interleaved_values(scene):
    table = np.float32(np.hstack([POINTS[[0, 1, 2, 0, 2, 3]], np.full((6, 3), [0, 0.6, 0.8])]))
    view = scene.view(table.tobytes())
    scene.json["bufferViews"][view]["byteStride"] = 24
    element = {"bufferView": view, "componentType": 5126, "count": 6, "type": "VEC3"}
    scene.json["accessors"] += [element, element | {"byteOffset": 12}]
    scene.primitive["attributes"] = {"POSITION": 2, "NORMAL": 3}
    del scene.primitive["indices"]
    scene.json["meshes"][0]["primitives"].append({"attributes": {"POSITION": 0}, "mode": 1})
    mesh = scene.read()
    assert np.array_equal(mesh.corners.reshape(-1, 3), table[:, :3])
    assert np.allclose(mesh.normals, [0, 0.6, 0.8])


def test_sparse_accessors(scene):
    index, moved = scene.view(np.uint16([2]).tobytes()), scene.view(np.float32([5, 6, 7]).tobytes())
    scene.json["accessors"][0]["sparse"] = {
        "count": 1,
        "indices": {"bufferView": index, "componentType": 5123},
        "values": {"bufferView": moved},
    }
    assert scene.read().corners[0].tolist() == [[0, 0, 0], [1, 0, 0], [5, 6, 7]]
    scene.json["accessors"][0]["sparse"]["count"] = 5
    with pytest.raises(DataError, match="has count 5; wanted 0 to 4"):
        scene.read()


def test_the_same_scene_as_another_reader(tmp_path):
    scene = trimesh.Scene()
    turn = trimesh.transformations.rotation_matrix(0.7, [1, 2, 3], [4, 5, 6])
    scene.add_geometry(trimesh.creation.box((1, 2, 3)), transform=turn)
    scene.add_geometry(trimesh.creation.icosphere(1), transform=np.diag([1, -2, 0.5, 1]))
    scene.export(tmp_path / "two.glb")
    expected = np.concatenate([part.triangles for part in scene.dump()])
    assert np.allclose(
        *map(middles, (read_mesh(tmp_path / "two.glb").corners, expected)), atol=1e-5
    )


def middles(corners):
    """The middles of faces, sorted."""
    values = corners.mean(axis=1)
    return values[np.lexsort(values.round(3).T)]


def test_nodes_are_placed_by_their_parents(scene):
    half = np.sqrt(0.5)
    scene.json["nodes"] = [
        {"children": [1], "translation": [10, 0, 0], "scale": [2, 2, 2]},
        {"children": [2], "rotation": [0, 0, half, half]},  # a quarter, from x to y
        {"mesh": 0, "matrix": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 3, 1]},
    ]
    assert np.allclose(scene.read().corners[0], [[10, 0, 6], [10, 2, 6], [8, 2, 6]])


def test_what_is_not_used_is_noted(scene):
    scene.json["nodes"] = [{"mesh": 0, "skin": 0, "weights": [0.5]}]
    assert [note[:10] for note in scene.read().notes] == ["a skeleton", "morph targ"]


def test_extensions_that_are_not_read(scene):
    for name in ("KHR_draco_mesh_compression", "EXT_meshopt_compression"):
        scene.json["extensionsRequired"] = [name]
        with pytest.raises(DataError, match=f"needs the glTF extension {name}, which is not read"):
            scene.read()
    scene.json["extensionsRequired"] = ["KHR_materials_unlit", "KHR_mesh_quantization"]
    assert len(scene.read().corners) == 2
    del scene.json["accessors"][0]["bufferView"]
    scene.primitive["extensions"] = {"KHR_draco_mesh_compression": {}}
    with pytest.raises(DataError, match="is compressed with Draco"):
        scene.read()


def chain(length):
    return [*({"children": [i + 1]} for i in range(length)), {"mesh": 0}]


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("nodes", [{"mesh": 0, "children": [0]}], "node 0 at two places"),
        ("nodes", [{"children": [1]}, {"children": [0]}], "node 0 at two places"),
        ("nodes", [{"children": [1, 1]}, {"mesh": 0}], "node 1 at two places"),
        ("nodes", chain(100_000), "has more than 100,000 nodes"),
        ("nodes", [{"children": [5]}], "refers to nodes 5, which does not exist"),
        ("nodes", [{"mesh": -1}], "refers to meshes -1, which does not exist"),
        ("nodes", [{"mesh": 0, "matrix": [1, 2]}], "has matrix of 2 numbers"),
        ("nodes", [{"mesh": 0, "scale": [float("nan")] * 3}], "not finite"),
        ("nodes", {"mesh": 0}, "is damaged"),
        ("meshes", [{"primitives": [{"attributes": {"POSITION": 0}}] * 20_000}], "10,000 parts"),
        ("scenes", [{"nodes": [0] * 200_000}], "at two places|100,000 nodes"),
        ("buffers", [{"byteLength": 4, "uri": "/dev/zero"}], "names /dev/zero, which is missing"),
        ("bufferViews", [{"buffer": 0, "byteLength": 10**9}], "has byteLength 1000000000"),
    ],
    ids=str,
)
def test_hostile_scenes(scene, part, value, words):
    scene.json[part] = value
    with pytest.raises(DataError, match=words):
        scene.read()


def test_a_long_chain_is_read(scene):
    scene.json["nodes"] = chain(50_000)
    assert len(scene.read().corners) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"count": 10**12}, "has count 1000000000000"),
        ({"count": 5}, "has an accessor beyond its buffer view"),
        ({"count": -1}, "has count -1"),
        ({"count": 1.5}, "has count 1.5"),
        ({"count": True}, "has count True"),
        ({"count": 10**400}, "has count 1000"),
        ({"byteOffset": -4}, "has byteOffset -4"),
        ({"byteOffset": 4}, "has an accessor beyond its buffer view"),
        ({"componentType": 99}, "is damaged"),
        ({"type": "MAT4"}, "type MAT4 in the wrong place"),
        ({"count": 2}, "has a face of point 3"),
    ],
    ids=str,
)
def test_hostile_accessors(scene, change, words):
    scene.json["accessors"][0] |= change
    with pytest.raises(DataError, match=words):
        scene.read()


def test_elements_do_not_overlap(scene):
    scene.json["bufferViews"][0]["byteStride"] = 4
    with pytest.raises(DataError, match="has an accessor beyond its buffer view"):
        scene.read()


def test_repeated_meshes_are_counted(scene, monkeypatch):
    monkeypatch.setattr(triangles, "MAX_FACES", 20)
    scene.json["nodes"] = [{"mesh": 0}] * 10
    scene.json["scenes"] = [{"nodes": list(range(10))}]
    assert len(scene.read().corners) == 20
    scene.json["nodes"] = [{"mesh": 0}] * 11
    scene.json["scenes"] = [{"nodes": list(range(11))}]
    with pytest.raises(DataError, match="has more than 20 triangles"):
        scene.read()


def test_damaged_containers(scene):
    scene.read()
    data = scene.path.read_bytes()
    for content in (data[:-8], b"glTF" + struct.pack("<II", 1, 20) + data[12:], data[:19], b"glTF"):
        scene.path.write_bytes(content)
        with pytest.raises(DataError, match=r"cut short|version 1, wanted 2|is not a GLB file"):
            read_mesh(scene.path)
    text = b"[" * 100_000
    head = struct.pack("<II", 2, 20 + len(text)) + struct.pack("<I4s", len(text), b"JSON")
    scene.path.write_bytes(b"glTF" + head + text)
    with pytest.raises(DataError, match="has damaged JSON"):
        read_mesh(scene.path)
