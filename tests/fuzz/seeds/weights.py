"""Valid weights, checkpoints, exports, recipes and scores."""

import io
import json
import struct
import tempfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.seeds.common import Files, as_json


def small_net() -> Any:
    """The network of the weights here."""
    import torch

    from unpool.models import DeconvNet

    torch.manual_seed(0)
    return DeconvNet(3, ((1, 2), (1, 2)), None, 32)


def weights() -> list[Files]:
    """Folders of weights: three networks, in float and in int8, with a full card."""
    import torch

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
    return [*found, {**found[0], "card.json": as_json(entries), **fcn}]


def tensors() -> list[Files]:
    """State dicts of `small_net` in safetensors and in torch's files."""
    import torch
    from safetensors.torch import save

    state = {k: v.contiguous() for k, v in small_net().state_dict().items()}
    file = io.BytesIO()
    torch.save(state, file)
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    many = save({f"{i}": torch.zeros(1) for i in range(3000)})
    kinds = [save(state, {"format": "pt"}), save(half), many]
    return [*({"m.safetensors": kind} for kind in kinds), {"m.pth": file.getvalue()}]


def caffemodels() -> list[Files]:
    """Narrow networks of each format, in both of Caffe's."""
    from tests.models.caffe.files import UnpackedNet, save
    from tests.models.caffe.nets import narrow, vgg
    from tests.models.caffe.test_crfrnn import crfrnn_layers
    from tests.models.caffe.test_fcn import fcn_layers
    from tests.models.caffe.test_segnet import basic_layers, segnet_layers

    files = [
        *(save(narrow()), save(vgg(True, 1)), save(vgg(False, 2), 2), save(fcn_layers())),
        *(save(crfrnn_layers()), save(segnet_layers(), 2), save(basic_layers(), 2)),
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
        found.append({"n.onnx": model.SerializeToString(), "n.card.json": as_json(card)})
    return found


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
        files["run/config.json"] = as_json(recipe.to_json())
        arguments = {"kind": recipe.kind, "data": "/data", "split": "train", "trunk_weights": None}
        found.append({**files, "run/arguments.json": as_json(arguments)})
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
