"""Valid models in three dimensions."""

import json
import struct

import numpy as np
from PIL import Image

from tests.fuzz.containers import glb
from tests.fuzz.seeds.common import PHOTO, Files, as_json, saved

_TEXTURE = saved(Image.fromarray(PHOTO[:8, :8]), "PNG")
_MTL = b"newmtl m\nKd 0.2 0.4 0.6\nmap_Kd t.png\nnewmtl n\nKd 1 0 0\nd 0.5\n"


def objs() -> list[Files]:
    """OBJ models: textured, concave, with all forms of faces, and a cube."""
    points = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nv .5 .1 0 1 0 0\n"
    rest = b"vt 0 0\nvt 1 0\nvt 0 1\nvn 0 0 1\n"
    head = b"# a model\nmtllib m.mtl\no thing\nusemtl m\n" + points + rest
    faces = (
        *(b"f 1/1/1 2/2/1 3/3/1\ng x\nf 1//1 2//1 4//1\nusemtl n\nf 1 3 4\nf 1 2 3 4\n",),
        *(b"f 1 2 5 3\nf -1 -2 -3\ns 1\nf 1/1 2/2 3/3\n", b"f 1 2 3\nl 1 2\np 1\ns off\n"),
    )
    common = {"m.mtl": _MTL, "t.png": _TEXTURE}
    found = [{"a.obj": head + face, **common} for face in faces]
    cube = "".join(f"v {x} {y} {z}\n" for x in (0, 1) for y in (0, 1) for z in (0, 1))
    cube += "f 1 2 4 3\nf 5 7 8 6\nf 1 5 6 2\nf 3 4 8 7\nf 1 3 7 5\nf 2 6 8 4\n"
    return [
        *found,
        {"a.obj": cube.encode()},
        {"a.obj": b"mtllib m.mtl \\\n n.mtl\n" + head, **common},
    ]


def glbs() -> list[Files]:
    """GLB models: one of two nodes with a texture, one of an indexed, sparse accessor."""
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], "<f4")
    uv, faces = points[:, :2].copy(), np.array([0, 1, 2, 0, 2, 3], "<u2")
    parts = [points.tobytes(), uv.tobytes(), faces.tobytes(), _TEXTURE]
    offsets = [sum(len(p) + -len(p) % 4 for p in parts[:i]) for i in range(4)]
    views = [
        {"buffer": 0, "byteOffset": offset, "byteLength": len(part)}
        for offset, part in zip(offsets, parts, strict=True)
    ]
    binary = b"".join(part + b"\0" * (-len(part) % 4) for part in parts)
    kinds = ((5126, "VEC3", 4), (5126, "VEC2", 4), (5123, "SCALAR", 6))
    document = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0, 1]}],
        "nodes": [
            {"mesh": 0, "translation": [1, 0, 0], "children": [2]},
            {"mesh": 0, "rotation": [0, 0, 0, 1], "scale": [2, 1, 1]},
            {"mesh": 0, "matrix": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]},
        ],
        "meshes": [
            {
                "primitives": [
                    {
                        "attributes": {"POSITION": 0, "TEXCOORD_0": 1},
                        **{"indices": 2, "material": 0, "mode": 4},
                    }
                ]
            }
        ],
        "materials": [
            {
                "pbrMetallicRoughness": {
                    "baseColorFactor": [1, 0.5, 0.5, 1],
                    "baseColorTexture": {"index": 0},
                }
            }
        ],
        **{"textures": [{"source": 0, "sampler": 0}], "samplers": [{}]},
        "images": [{"bufferView": 3, "mimeType": "image/png"}],
        "accessors": [
            {"bufferView": i, "componentType": kind, "type": name, "count": count}
            for i, (kind, name, count) in enumerate(kinds)
        ],
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    plain = json.loads(json.dumps(document))
    plain["accessors"][0]["sparse"] = {
        "count": 1,
        "indices": {"bufferView": 2, "componentType": 5123},
        "values": {"bufferView": 0},
    }
    del plain["meshes"][0]["primitives"][0]["indices"], plain["materials"]
    del plain["meshes"][0]["primitives"][0]["material"]
    return [{"a.glb": glb(as_json(one), binary)} for one in (document, plain)]


def plys() -> list[Files]:
    """PLY models: text and both binary orders, with colors and normals, faces of four points."""
    corners = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 1)]
    faces = [(0, 1, 2, 3), (0, 1, 4)]
    found = []
    for kind in ("ascii", "binary_little_endian", "binary_big_endian"):
        head = f"ply\nformat {kind} 1.0\ncomment made here\nelement vertex 5\n"
        head += "".join(f"property float {n}\n" for n in ("x", "y", "z"))
        head += "".join(f"property uchar {n}\n" for n in ("red", "green", "blue"))
        head += "element face 2\nproperty list uchar int vertex_indices\nend_header\n"
        order = ">" if "big" in kind else "<"
        if kind == "ascii":
            lines = [f"{x} {y} {z} 255 128 0" for x, y, z in corners]
            lines += [" ".join(map(str, (len(face), *face))) for face in faces]
            body = "\n".join(lines).encode() + b"\n"
        else:
            body = b"".join(struct.pack(f"{order}3f3B", *c, 255, 128, 0) for c in corners)
            body += b"".join(
                struct.pack(f"{order}B{len(face)}i", len(face), *face) for face in faces
            )
        found.append({"a.ply": head.encode() + body})
    return found
