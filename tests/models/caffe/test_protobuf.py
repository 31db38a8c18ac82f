"""The layers of Caffe files, against files that protobuf itself has written, and hostile ones."""

import gzip
import os
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.models.caffe.files import Net, UnpackedNet, attempt, field, same, save, small, varint
from unpool.errors import WeightsError
from unpool.models.caffe.protobuf import read_caffemodel


@pytest.fixture(scope="session")
def read(tmp_path_factory):
    """Read a .caffemodel given as bytes."""
    path = tmp_path_factory.mktemp("read") / "net.caffemodel"

    def read(data: bytes):
        path.write_bytes(data)
        return list(read_caffemodel(path))

    return read


# ---- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("diff", [False, True])
@pytest.mark.parametrize("message", [Net, UnpackedNet])
def test_reads_what_protobuf_writes(read, version, diff, message):
    assert same(read(save(small(), version, message(), diff)), small())


@pytest.mark.parametrize("message", [Net, UnpackedNet])
def test_reads_doubles(read, message):
    assert same(read(save(small(), 2, message(), double=True)), small())


def test_too_large_a_double_is_infinite(read):
    assert read(save([("a", "BN", [np.array([1e300])])], 2, double=True))[0].blobs[0] == np.inf


def test_reads_a_scalar_and_many_dimensions(read):
    layers = [("a", "BN", [np.float32(3).reshape(()), np.ones((1, 2, 1, 3, 1, 2), np.float32)])]
    assert same(read(save(layers, 2)), layers)


def test_reads_both_layouts_in_one_file(read):
    assert same(read(save(small(), 1) + save(small(), 2)), small() + small())


def test_names_unknown_kinds_by_number(read):
    net = Net()
    net.layers.add(name="a", type=99).blobs.add(num=1, channels=1, height=1, width=1, data=[1.0])
    assert read(net.SerializeToString())[0].type == "type 99"


def test_order_and_pieces_of_fields_do_not_matter(read):
    """Protobuf allows any order and lists in pieces; of single fields the last one counts."""
    pieces = field(5, 2, floats(1, 2)) + field(5, 5, floats(3)) + field(5, 2, floats(4, 5, 6))
    shape = field(7, 2, field(1, 0, varint(2))) + field(7, 2, field(1, 2, varint(3)))
    layer = field(7, 2, pieces + shape) + field(1, 2, b"old") + field(2, 2, b"BN")
    got = read(field(100, 2, layer + field(1, 2, b"new")))
    assert same(got, [("new", "BN", [np.arange(1, 7, dtype=np.float32).reshape(2, 3)])])


def test_gives_layers_before_the_file_is_read_through(tmp_path):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(save(small()) + b"\x07")
    layers = read_caffemodel(path)
    assert next(layers).name == "one"
    assert next(layers).name == "two"
    with pytest.raises(WeightsError, match="wire type 7"):
        next(layers)


# ---- damaged and hostile files -------------------------------------------------------------------


def floats(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


def blob(shape, data=b"", number=5, **options) -> bytes:
    """A layer of one blob of the old layout."""
    dims = b"".join(field(i, 0, varint(n)) for i, n in enumerate(shape, start=1))
    return field(2, 2, field(6, 2, dims + field(number, 2, data, **options)))


def new_blob(shape: bytes) -> bytes:
    """A layer of one number of the new layout."""
    return field(100, 2, field(7, 2, field(7, 2, shape) + field(5, 2, floats(1))))


HOSTILE = {
    "empty": (b"", "byte 0: the end, without a layer"),
    "no layers": (field(1, 2, b"name"), "byte 6: the end, without a layer"),
    "no blobs": (field(2, 2, field(4, 2, b"relu1")), "without a layer that has weights"),
    "prototxt": (b'name: "VGG"\nlayers { }', "number 13 and wire type 6.*not a .prototxt"),
    "gzip": (gzip.compress(save(small()), mtime=0), "number 3 and wire type 7"),
    "pickle": (pickle.dumps({"state_dict": [1, 2]}, protocol=4), "byte"),
    "zip, as torch saves": (b"PK\x03\x04" + bytes(64), "number 0"),
    "zeros": (bytes(64), "byte 0: a field of number 0"),
    "group": (field(2, 3, b"") + field(2, 4, b""), "number 2 and wire type 3"),
    "group in a layer": (field(2, 2, field(9, 3, b"")), "byte 2: .* number 9 and wire type 3"),
    "endless tag": (b"\xff" * 64, "byte 0: a number without end"),
    "endless length": (b"\x12" + b"\x80" * 64, "byte 1: a number without end"),
    "length beyond the file": (field(2, 2, b"", 2**62), f"{2**62} bytes where 0 remain"),
    "length of 70 bits": (b"\x12" + b"\xff" * 9 + b"\x7f", "bytes where 0 remain"),
    "length beyond the layer": (
        field(2, 2, field(6, 2, b"", 9)) + bytes(9),
        "byte 2: a field of 9 bytes where 0 remain",
    ),
    "length beyond the blob": (blob((1, 1, 1, 1), b"", length=2**40) + bytes(99), "where 0 remain"),
    "fixed beyond the blob": (field(2, 2, field(6, 2, field(5, 5, b"\0"))), "4 bytes where 1"),
    "layer is a number": (field(2, 0, b"\1"), "field 2 is of wire type 0"),
    "name is a number": (field(2, 2, field(4, 0, b"\1")), "field 4 is of wire type 0"),
    "blob is a number": (field(2, 2, field(6, 0, b"\1")), "field 6 is of wire type 0"),
    "data is a varint": (field(2, 2, field(6, 2, field(5, 0, b"\1"))), "field 5 is of wire type 0"),
    "data is a double": (field(2, 2, field(6, 2, field(5, 1, bytes(8)))), "field 5 is of wire t"),
    "dimension is bytes": (field(2, 2, field(6, 2, field(1, 2, b"\1"))), "field 1 is of wire typ"),
    "shape is a number": (
        field(100, 2, field(7, 2, field(7, 0, b"\1"))),
        "field 7 is of wire type 0",
    ),
    "half a number": (
        blob((1, 1, 1, 1), bytes(5)),
        r"shape \(1, 1, 1, 1\) with 5 bytes of float32",
    ),
    "too few numbers": (blob((2, 1, 1, 1), bytes(4)), r"shape \(2, 1, 1, 1\) with 4 bytes"),
    "too many numbers": (blob((1, 1, 1, 1), bytes(8)), r"shape \(1, 1, 1, 1\) with 8 bytes"),
    "three dimensions": (blob((1, 1, 1), bytes(4)), r"shape \(1, 1, 1, 0\) with 4 bytes"),
    "no numbers": (blob((0, 1, 1, 1)), r"shape \(0, 1, 1, 1\) with 0 bytes"),
    "gradients only": (blob((1, 1, 1, 1), bytes(4), number=6), "with 0 bytes"),
    "negative": (blob((2**64 - 1, 2**64 - 1, 1, 1), bytes(4)), "with 4 bytes"),
    "product of 2**64": (blob((2**32, 2**32, 1, 1), bytes(4)), "with 4 bytes"),
    "product of 2**64 + 1": (blob((274177, 67280421310721, 1, 1), bytes(4)), "with 4 bytes"),
    "many dimensions": (new_blob(field(1, 2, b"\1" * 10**6)), "more than 32 dimensions"),
    "many shapes": (new_blob(b"\x08\x01" * 10**5), "more than 32 dimensions"),
    "many blobs": (field(2, 2, blob((1, 1, 1, 1), bytes(4))[2:] * 65), "more than 64 blobs"),
    "long name": (field(2, 2, field(4, 2, b"a" * 1025)), "a name of 1025 bytes"),
}


@pytest.mark.parametrize(("data", "message"), HOSTILE.values(), ids=HOSTILE)
def test_refuses_what_is_no_caffemodel(read, data, message):
    with pytest.raises(WeightsError, match=message) as error:
        read(data)
    assert "net.caffemodel, byte" in str(error.value)
    assert "copy or download the file again" in str(error.value)


def test_shows_names_that_are_no_text(read):
    layer = field(4, 2, b"\xff\xfe") + blob((1, 1, 1, 1), floats(1))[2:]
    assert read(field(2, 2, layer))[0].name == r"\xff\xfe"


def test_allocates_no_more_than_the_file_holds(read):
    hostile = [
        blob((2**20, 2**20, 1, 1), bytes(10**5)),
        blob((2**20, 2**20, 1, 1), bytes(10**5), length=2**42),
        field(2, 2, b"", 2**42) + bytes(10**5),
        new_blob(field(1, 2, b"\1" * 10**5)),
    ]
    for data in hostile:
        tracemalloc.start()
        with pytest.raises(WeightsError):
            read(data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10**5


@pytest.mark.parametrize("version", [1, 2])
def test_every_truncation_is_noticed_or_leaves_whole_layers(read, version):
    """A cut between two fields leaves a file that is in order; `load_caffemodel` sees those."""
    data, unharmed = save(small(), version), 0
    for length in range(len(data)):
        layers = attempt(read, data[:length])
        if layers is not None:
            assert same(layers, small()[: 1 if len(layers) == 1 else 3])
            unharmed += 1
    assert unharmed == (4 if version == 1 else 2)  # after each layer, and V1's list of inputs


@given(st.binary(max_size=200))
@settings(deadline=None)
@example(b"\x12\x00")
def test_random_bytes_raise_nothing_else(read, data):
    with pytest.raises(WeightsError):
        read(data)


@given(
    version=st.sampled_from([1, 2]),
    edits=st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=3)), max_size=4),
    length=st.integers(0, 600),
)
@settings(deadline=None, max_examples=400)
def test_random_changes_raise_nothing_else(read, version, edits, length):
    data = bytearray(save(small(), version, diff=True))
    for place, new in edits:
        data[place : place + len(new)] = new
    layers = attempt(read, bytes(data[:length])) or []
    assert sum(array.nbytes for layer in layers for array in layer.blobs) <= len(data)


def test_refuses_fields_without_end(read):
    with pytest.raises(WeightsError, match="the end of 262144 fields"):
        read(b"\x18\x01" * 300_000)


def test_refuses_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "pipe"):
        with pytest.raises(WeightsError, match="is not a file; give the path"):
            next(read_caffemodel(path))


def test_refuses_what_cannot_be_opened(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "net.caffemodel"
    path.write_bytes(save(small()))
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(WeightsError, match="cannot be read: Permission denied"):
        next(read_caffemodel(path))


def test_notices_a_file_that_shrinks(tmp_path):
    path = tmp_path / "net.caffemodel"
    large = ("large", "BN", [np.ones((1, 10**5, 1, 1), np.float32)])
    path.write_bytes(save([*small(), large]))
    layers = read_caffemodel(path)
    next(layers)
    os.truncate(path, 1000)
    with pytest.raises(WeightsError, match=r"shorter while it was read|without end"):
        list(layers)
