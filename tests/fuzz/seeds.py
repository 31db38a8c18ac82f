"""Small valid files of every format, made here: what the fuzzer damages.

Each function returns folders, a mapping of relative paths to contents.
"""

import io
import json
import struct
import tempfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.fuzz.mutate import glb, png_chunk

Files = dict[str, bytes]

_PHOTO = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
_LABELS = np.kron([[0, 2], [2, 1]], np.ones((10, 15), np.uint8)).astype(np.uint8)  # 20 x 30


def photo() -> np.ndarray:
    """An image (20, 30, 3) of noise."""
    return _PHOTO.copy()


def _saved(im: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    im.save(file, format, **options)
    return file.getvalue()


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


_JPG = _saved(Image.fromarray(_PHOTO), "JPEG")


def _index_png(labels: np.ndarray, colors: list[int] | None = None) -> bytes:
    im = Image.fromarray(labels.astype(np.uint8))
    im.putpalette(colors or [i * 7 % 256 for i in range(768)])
    return _saved(im, "PNG")


# Images and masks ---------------------------------------------------------------------------------


def images() -> list[Files]:
    """Every format and many kinds of pixels."""
    rgb = Image.fromarray(_PHOTO)
    rgba, gray, index = rgb.convert("RGBA"), rgb.convert("L"), rgb.quantize(16)
    deep = Image.fromarray(_PHOTO[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[274], exif[305] = 6, "camera"
    found = {
        "png": [_saved(im, "PNG") for im in (rgb, rgba, gray, index, deep, gray.convert("1"))],
        "jpg": [
            _saved(rgb, "JPEG", exif=exif),
            _saved(gray, "JPEG", progressive=True),
            _saved(rgb.convert("CMYK"), "JPEG"),
        ],
        "gif": [_saved(index, "GIF"), _saved(index, "GIF", save_all=True, append_images=[index])],
        "bmp": [_saved(im, "BMP") for im in (rgb, gray, index, rgba)],
        "webp": [_saved(rgb, "WEBP", exif=exif), _saved(rgba, "WEBP", lossless=True)],
        "ppm": [_saved(rgb, "PPM"), b"P3\n# a\n2 2 255\n" + b"1 2 3 " * 4, b"P1 2 2 0 1 1 0"],
        "pgm": [b"P5 3 2 65535 " + bytes(12), b"P2 3 2 99 " + b"7 " * 6],
        "tif": [
            *(_saved(im, "TIFF") for im in (rgb, rgba, gray, index, deep)),
            *(_saved(rgb, "TIFF", compression=f"tiff_{c}") for c in ("lzw", "adobe_deflate")),
            _saved(rgb, "TIFF", compression="jpeg"),
            _saved(gray.convert("1"), "TIFF", compression="group4"),
            _saved(rgb, "TIFF", save_all=True, append_images=[rgb]),
            *(tiff(order, bits, planes) for order in "<>" for bits in (8, 16) for planes in (1, 2)),
            tiff("<", 16, 2, tiled=True),
            tiff("<", 16, 1, samples=1),
        ],
    }
    files = [{f"a.{kind}": content} for kind, contents in found.items() for content in contents]
    for kind, name in (("AVIF", "a.avif"), ("JPEG2000", "a.jp2")):
        if kind in Image.SAVE or (Image.init() and kind in Image.SAVE):
            files.append({name: _saved(rgb, kind)})
    return files


def tiff(order: str, bits: int, planes: int, samples: int = 3, tiled: bool = False) -> bytes:
    """An uncompressed TIFF of 16 x 16 pixels in either byte order, chunky (1) or planar (2)."""
    pixel = np.arange(256 * samples).reshape(16, 16, samples) * (2 ** (bits - 8)) % 2**bits
    values = pixel.astype(f"{order}u{bits // 8}")
    parts = (
        [values.tobytes()] if planes == 1 else [values[..., i].tobytes() for i in range(samples)]
    )
    head, data = 8, b"".join(parts)
    more = head + len(data)  # values that do not fit into an entry
    offsets = [head + sum(map(len, parts[:i])) for i in range(len(parts))]
    counts = [len(part) for part in parts]
    entries = [
        *((256, 4, [16]), (257, 4, [16]), (258, 3, [bits] * samples), (259, 3, [1])),
        *((262, 3, [2 if samples == 3 else 1]), (277, 3, [samples]), (284, 3, [planes])),
    ]
    if tiled:
        entries += [(322, 4, [16]), (323, 4, [16]), (324, 4, offsets), (325, 4, counts)]
    else:
        entries += [(273, 4, offsets), (278, 4, [16]), (279, 4, counts)]
    directory, extra = b"", b""
    for tag, kind, numbers in sorted(entries):
        content = struct.pack(f"{order}{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        if len(content) > 4:
            content, extra = struct.pack(f"{order}I", more + len(extra)), extra + content
        directory += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + content.ljust(4, b"\0")
    start = more + len(extra)
    magic = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, start)
    count = struct.pack(f"{order}H", len(entries))
    return magic + data + extra + count + directory + bytes(4)


def masks() -> list[Files]:
    """Masks of class ids in every mode and format."""
    gray = Image.fromarray(_LABELS)
    small = zlib.compress(b"".join(b"\0" + bytes([0x01, 0x23]) for _ in range(4)))
    nibbles = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 4, 0, 0, 0, 0))
    nibbles = b"\x89PNG\r\n\x1a\n" + nibbles + png_chunk(b"IDAT", small) + png_chunk(b"IEND", b"")
    found = [
        ("png", _index_png(_LABELS)),
        ("png", _saved(gray, "PNG")),
        ("png", _saved(Image.fromarray(_LABELS.astype(np.uint16)), "PNG")),
        ("png", _saved(Image.fromarray(_LABELS > 0), "PNG")),
        ("png", nibbles),
        ("bmp", _saved(gray, "BMP")),
        ("gif", _saved(gray, "GIF")),
        ("tif", _saved(gray, "TIFF", compression="tiff_lzw")),
        ("tif", _saved(Image.fromarray(_LABELS.astype(np.int32)), "TIFF")),
    ]
    return [{f"a.{kind}": content} for kind, content in found]


# Weights ------------------------------------------------------------------------------------------


def small_net() -> Any:
    """The network of the weights here."""
    from unpool.models import DeconvNet

    torch.manual_seed(0)
    return DeconvNet(3, ((1, 2), (1, 2)), None, 32)


def weights() -> list[Files]:
    """Folders of weights: three networks, in float and in int8, with a full card."""
    from unpool.models import FCN, DeconvNet, GenerativeNet, save_pretrained

    card = {
        "classes": ["background", "cat", "dog"],
        "palette": [[0, 0, 0], [1, 2, 3], [4, 5, 6]],
        "input": {"mean": [90.0, 100.0, 110.0], "size": 32},
        "long_side": 60,
        "mode": "whole",
        "aggregate": "mean",
        "presence_threshold": 0.01,
        "license": "none",
        "recipe": {"name": "x", "held_out": [1, 2]},
        "figures": {"val": {"miou": 0.5, "miou_interval": [0.4, 0.6]}},
    }
    torch.manual_seed(0)
    nets = [
        *((small_net(), card, False), (DeconvNet(3, ((1, 2), (1, 2)), 4, 8), card, True)),
        (FCN(3, ((1, 2),) * 3, 4, stride=8), card, False),
    ]
    chairs = GenerativeNet(2, 32, code=4, shared=4, widths=(4, 4, 4), mask_widths=(4, 4, 4))
    nets.append((chairs, {"styles": ["a", "b"], "elevations": [20, 30]}, False))
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for i, (net, entries, int8) in enumerate(nets):
            path = save_pretrained(net, Path(folder, str(i)), entries, int8=int8)
            found.append({file.name: file.read_bytes() for file in path.iterdir()})
    fcn = {f"fcn/{name}": content for name, content in found[2].items()}
    entries = {**json.loads(found[0]["card.json"]), "partner": "fcn"}
    return [*found, {**found[0], "card.json": _json(entries), **fcn}]


def tensors() -> list[Files]:
    """State dicts of `small_net` in safetensors and in torch's files."""
    from safetensors.torch import save

    state = {k: v.contiguous() for k, v in small_net().state_dict().items()}
    file = io.BytesIO()
    torch.save(state, file)
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    many = save({f"{i}": torch.zeros(1) for i in range(3000)})
    kinds = [save(state, {"format": "pt"}), save(half), many]
    return [*({"m.safetensors": kind} for kind in kinds), {"m.pth": file.getvalue()}]


def caffemodels() -> list[Files]:
    """A narrow DeconvNet, VGG-16 and FCN, in both of Caffe's formats."""
    from tests.models.caffe import UnpackedNet, save
    from tests.models.test_convert import fcn_layers, narrow, vgg

    files = [
        *(save(narrow()), save(vgg(True, 1)), save(vgg(False, 2), 2), save(fcn_layers())),
        save(vgg(True, 1), net=UnpackedNet(), diff=True, double=True),
    ]
    return [{"n.caffemodel": content} for content in files]


def checkpoints() -> list[Files]:
    """A run folder that was interrupted shortly before its end."""
    from tests.training.test_task import RECIPE, STEPS, Line
    from unpool.training.loop import Step
    from unpool.training.task import train

    class StopError(Exception):
        pass

    def stop(record: object) -> None:
        if isinstance(record, Step) and record.n == STEPS - 2:
            raise StopError

    with tempfile.TemporaryDirectory() as folder:
        with suppress(StopError):
            train(Line(RECIPE), Path(folder, "run"), report=stop)
        paths = [path for path in Path(folder).rglob("*") if path.is_file()]
        return [{path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}]


def exports() -> list[Files]:
    """ONNX networks with their card: right ones, and with other inputs, outputs and sizes."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    card = {
        **{"format": 1, "architecture": "DeconvNet", "sha256": "0" * 64},
        "arguments": {"classes": 3, "trunk": [[1, 2], [1, 2]], "code": None, "size": 32},
        "classes": ["background", "cat", "dog"],
        "input": {"mean": [90.0, 100.0, 110.0]},
        "exports": {"onnx": {"input": [1, 3, None, None], "sha256": {".onnx": ""}}},
    }
    found = []
    for inputs, outputs, classes, strides, scale, kind in (
        (["image"], ["scores"], 3, 1, 1.0, TensorProto.FLOAT),
        (["x"], ["scores"], 3, 1, 1.0, TensorProto.FLOAT),
        (["image"], ["y"], 3, 1, 1.0, TensorProto.FLOAT),
        (["image", "more"], ["scores"], 3, 1, 1.0, TensorProto.FLOAT),
        (["image"], ["scores"], 5, 1, 1.0, TensorProto.FLOAT),
        (["image"], ["scores"], 3, 2, 1.0, TensorProto.FLOAT),
        (["image"], ["scores"], 3, 1, float("nan"), TensorProto.FLOAT),
        (["image"], ["scores"], 3, 1, 1.0, TensorProto.DOUBLE),
    ):
        dtype = np.float32 if kind == TensorProto.FLOAT else np.float64
        filters = np.full((classes, 3, 1, 1), scale, dtype)
        nodes = [helper.make_node("Conv", [inputs[0], "w"], outputs, strides=[strides] * 2)]
        graph = helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info(n, kind, ["n", 3, "h", "w"]) for n in inputs],
            [helper.make_tensor_value_info(outputs[0], kind, ["n", classes, "i", "j"])],
            [numpy_helper.from_array(filters, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        onnx.checker.check_model(model)
        found.append({"n.onnx": model.SerializeToString(), "n.card.json": _json(card)})
    return found


# Recipes and scores -------------------------------------------------------------------------------


def recipes() -> list[Files]:
    """Settings as on the command line, and the files of a run folder."""
    from unpool.recipes import RECIPES

    settings = (
        *("batch=8", "phases.0.steps=5", "phases.0.lr=1e-3", "optimizer=sgd", "bf16=true"),
        *("seed=3", "clip=null", "patience=5", "name=x", "warmup=2", "momentum=0.5"),
    )
    found = []
    for name, recipe in RECIPES.items():
        files = {"name.txt": name.encode(), "settings.txt": "\n".join(settings).encode()}
        files["run/config.json"] = _json(recipe.to_json())
        arguments = {"kind": recipe.kind, "data": "/data", "split": "train", "trunk_weights": None}
        found.append({**files, "run/arguments.json": _json(arguments)})
    return found


def scores() -> list[Files]:
    """Scores in both formats, and one whose array is two gigabytes of zeros in two megabytes."""
    from unpool.segment.scores import Scores, write_scores

    values = np.random.default_rng(0).normal(size=(3, 8, 9)).astype(np.float32)
    found: list[Files] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "s.npz")
        for palette in (None, np.zeros((256, 3), np.uint8)):
            write_scores(path, Scores(values, ["background", "cat", "dog"], palette, 0.1))
            found.append({"s.npz": path.read_bytes()})
    chances = np.exp(values) / np.exp(values).sum(0)
    for array in (values, values.astype(np.float64), chances, values.astype(np.int16), values[:1]):
        file = io.BytesIO()
        np.save(file, array)
        found.append({"s.npy": file.getvalue()})
    return [*found, {"s.npz": bomb("scores.npy", (2, 16384, 16384))}]


def bomb(name: str, shape: tuple[int, ...]) -> bytes:
    """A zip file with an array of 4-byte zeros of this shape, deflated a thousandfold."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    head, block, count = file.getvalue(), bytes(2**20), int(np.prod(shape)) * 4 // 2**20
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    body += (packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)) * count + packer.flush()
    check = zlib.crc32(head)
    for _ in range(count):
        check = zlib.crc32(block, check)
    sizes = struct.pack("<III", check, len(body), len(head) + count * 2**20)
    common = struct.pack("<HHHHH", 20, 0, 8, 0, 33) + sizes + struct.pack("<HH", len(name), 0)
    local = b"PK\3\4" + common + name.encode() + body
    central = b"PK\1\2" + struct.pack("<H", 20) + common + bytes(14) + name.encode()
    end = struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)
    return local + central + b"PK\5\6" + end


# Labeled data -------------------------------------------------------------------------------------


def coco() -> list[Files]:
    """COCO folders: polygons, both run-length codes, crowds, and names as tools write them."""
    square = [2, 2, 14, 2, 14, 12, 2, 12]
    shapes = [
        [square],
        [square, [16.5, 3.5, 28, 4, 20, 18]],
        {"counts": [100, 50, 450], "size": [20, 30]},
        {"counts": "T3b1^>", "size": [20, 30]},
    ]
    found = []
    for folder, names, crowd, entries in (
        ("val/", ("0.jpg", "1.jpg"), 0, "annotations/instances_val2017.json"),
        ("images/", ("images/0.jpg", "images/1.jpg"), 1, "annotations/instances_val.json"),
        ("val/", ("0.jpg", "1.jpg"), 0, "val/_annotations.coco.json"),
    ):
        document = {
            "images": [
                {"id": i, "file_name": name, "width": 30, "height": 20}
                for i, name in enumerate(names)
            ],
            "annotations": [
                {
                    **{"id": 10 * i + j, "image_id": i, "category_id": 1 + j % 2, "area": 120.0},
                    **{"bbox": [2, 2, 12, 10], "iscrowd": int(crowd and j == 3)},
                    "segmentation": shape,
                }
                for i in range(2)
                for j, shape in enumerate(shapes)
            ],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        }
        photos = {folder + name.rpartition("/")[2]: _JPG for name in names}
        found.append({**photos, entries: _json(document)})
    return found


def sbd() -> list[Files]:
    """SBD folders with plain and with compressed annotations."""
    from scipy.io import savemat

    cells = np.empty((3, 1), object)
    cells[:, 0] = [np.zeros((20, 30))] * 3
    found = []
    for compressed in (False, True):
        files = {"train.txt": b"a\n", "val.txt": b"b\n"}
        for name in "ab":
            files[f"img/{name}.jpg"] = _JPG
            for folder, key, listed in (
                ("cls", "GTcls", "CategoriesPresent"),
                ("inst", "GTinst", "Categories"),
            ):
                parts = {"Boundaries": cells, "Segmentation": _LABELS, listed: [[1], [2]]}
                file = io.BytesIO()
                savemat(file, {key: parts}, do_compression=compressed)
                # the header has the date; text of the same length makes it the same every day
                content = b"MATLAB 5.0 MAT-file".ljust(116) + file.getvalue()[116:]
                files[f"{folder}/{name}.mat"] = content
        found.append(files)
    return found


def layouts() -> list[Files]:
    """The other layouts of labeled images, with all that is text in them."""
    mask, names = _index_png(_LABELS), b"background\ncat\ndog\n"
    voc = {"ImageSets/Segmentation/train.txt": b"a\n", "ImageSets/Segmentation/val.txt": b"b 1\n"}
    for name in "ab":
        voc |= {f"JPEGImages/{name}.jpg": _JPG, f"SegmentationClass/{name}.png": mask}
        voc[f"SegmentationObject/{name}.png"] = mask
    plain = {"classes.txt": names, "train.txt": b"a\n", "val.txt": b"b.jpg\n"}
    for name in "ab":
        plain |= {f"images/{name}.jpg": _JPG, f"masks/{name}.png": mask}
        plain[f"instances/{name}.png"] = mask
    camvid = {"classes.txt": names + b"void\n"}
    for split, name in (("train", "a"), ("val", "b")):
        camvid |= {f"{split}/{name}.jpg": _JPG, f"{split}annot/{name}.png": mask}
    return [voc, plain, camvid]


# Models in three dimensions -----------------------------------------------------------------------

_TEXTURE = _saved(Image.fromarray(_PHOTO[:8, :8]), "PNG")
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
    return [{"a.glb": glb(_json(one), binary)} for one in (document, plain)]


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
