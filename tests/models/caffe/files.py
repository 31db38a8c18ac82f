"""Write `.caffemodel` files with protobuf itself."""

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from unpool.errors import WeightsError

KINDS = {"Convolution": 4, "InnerProduct": 14, "ReLU": 18, "Deconvolution": 39, "BN": 43}
KINDS["MultiStageMeanfield"] = 99  # not in the public format

PROTO = {  # message: field: (number, type); those in brackets are repeated
    "BlobShape": {"dim": (1, "[int64]")},
    "BlobProto": {
        "num": (1, "int32"),
        "channels": (2, "int32"),
        "height": (3, "int32"),
        "width": (4, "int32"),
        "data": (5, "[float]"),
        "diff": (6, "[float]"),
        "shape": (7, "BlobShape"),
        "double_data": (8, "[double]"),
    },
    "V1LayerParameter": {
        "bottom": (2, "[string]"),
        "top": (3, "[string]"),
        "name": (4, "string"),
        "type": (5, "int32"),  # an enum, the same on the wire
        "blobs": (6, "[BlobProto]"),
        "blobs_lr": (7, "[float]"),
    },
    "LayerParameter": {
        "name": (1, "string"),
        "type": (2, "string"),
        "bottom": (3, "[string]"),
        "loss_weight": (5, "[float]"),
        "blobs": (7, "[BlobProto]"),
    },
    "NetParameter": {
        "name": (1, "string"),
        "layers": (2, "[V1LayerParameter]"),
        "input": (3, "[string]"),
        "input_dim": (4, "[int32]"),
        "layer": (100, "[LayerParameter]"),
    },
}


def net_parameter(packed: bool):
    """The class of Caffe's NetParameter, with its repeated numbers packed or one at a time."""
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    for message, fields in PROTO.items():
        proto = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            field = proto.field.add(name=name, number=number, label="LABEL_OPTIONAL")
            if kind.startswith("["):
                field.label, kind = field.LABEL_REPEATED, kind.strip("[]")
            if kind in PROTO:
                field.type, field.type_name = field.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                field.type = getattr(field, f"TYPE_{kind.upper()}")
                if field.label == field.LABEL_REPEATED and kind != "string":
                    field.options.packed = packed
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))


Net, UnpackedNet = net_parameter(True), net_parameter(False)


def save(layers, version=1, net=None, diff=False, double=False) -> bytes:
    """Layers (name, kind, blobs) as a .caffemodel of Caffe before (1) or since (2) 2015."""
    net = Net() if net is None else net
    net.name, head = "a net", net.layers if version == 1 else net.layer
    if version == 1:
        net.input.append("data")
        net.input_dim.extend([1, 3, 224, 224])
    for name, kind, blobs in layers:
        layer = head.add(name=name, type=KINDS[kind] if version == 1 else kind, bottom=["below"])
        for array in blobs:
            blob = layer.blobs.add()
            if version == 1:
                blob.num, blob.channels, blob.height, blob.width = array.shape
            else:
                blob.shape.dim.extend(array.shape)
            (blob.double_data if double else blob.data).extend(array.ravel().tolist())
            blob.diff.extend([0.5] * array.size * diff)
    return net.SerializeToString()


def save_large(layer, version=1) -> bytes:
    """A file of one layer (name, kind, blobs); files that follow each other are one of all layers.

    As `save`, but without a Python number for each of a blob's.
    """
    name, kind, arrays = layer
    net = Net()
    blobs = (
        (net.layers if version == 1 else net.layer)
        .add(name=name, type=KINDS[kind] if version == 1 else kind)
        .blobs
    )
    for array in arrays:
        blob = blobs.add()
        if version == 1:
            blob.num, blob.channels, blob.height, blob.width = array.shape
        else:
            blob.shape.dim.extend(array.shape)
        blob.MergeFromString(field(5, 2, np.ascontiguousarray(array, "<f4").tobytes()))
    return net.SerializeToString()


def small():
    """Three layers, the one in the middle without blobs."""
    numbers = np.arange(24, dtype=np.float32) / 8
    return [
        ("one", "Convolution", [numbers.reshape(2, 3, 2, 2), numbers[:2].reshape(1, 1, 1, 2)]),
        ("relu", "ReLU", []),
        ("two", "InnerProduct", [-numbers.reshape(1, 1, 4, 6)]),
    ]


def same(read, written) -> bool:
    written = [layer for layer in written if layer[2]]
    return len(read) == len(written) and all(
        layer.name == name
        and layer.type == kind
        and len(layer.blobs) == len(blobs)
        and all(
            a.dtype == np.float32 and a.shape == b.shape and (a == b).all()
            for a, b in zip(layer.blobs, blobs, strict=True)
        )
        for layer, (name, kind, blobs) in zip(read, written, strict=True)
    )


def attempt(function, *arguments):
    """What the function returns, or None if it refuses the file; any other error passes."""
    try:
        return function(*arguments)
    except WeightsError:
        return None


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, wire: int, value: bytes, length: int | None = None) -> bytes:
    size = varint(len(value) if length is None else length) if wire == 2 else b""
    return varint(number << 3 | wire) + size + value
