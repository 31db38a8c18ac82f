import random
import struct
import tracemalloc
import zlib

import numpy as np
import pytest

from unpool import limits
from unpool.data.mat import read_mat
from unpool.errors import ImageError

io = pytest.importorskip("scipy.io")
sparse = pytest.importorskip("scipy.sparse")

LABELS = np.arange(35, dtype=np.uint8).reshape(5, 7) * 7  # to 238


def annotation(labels: object, name: str = "GTcls") -> dict[str, object]:
    """The content of an SBD file: a struct with a cell array of sparse outlines before the ids."""
    cells = np.empty((20, 1), object)
    cells[:, 0] = [sparse.csc_matrix(np.eye(5, 7, dtype=bool))] * 20
    return {name: {"Boundaries": cells, "Segmentation": labels, "CategoriesPresent": [[3], [15]]}}


def element(kind: int, data: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def array(kind: int, shape: tuple[int, ...], name: bytes, *parts: bytes, order: str = "<") -> bytes:
    """A matrix element, by the description of the format."""
    flags = element(6, struct.pack(f"{order}II", kind, 0), order)
    sizes = element(5, struct.pack(f"{order}{len(shape)}i", *shape), order)
    return element(14, b"".join([flags, sizes, element(1, name, order), *parts]), order)


def struct_of(numbers: bytes, names: bytes = b"Segmentation\0\0\0\0", order: str = "<") -> bytes:
    """The variable GTcls with the field Segmentation."""
    length = struct.pack(f"{order}Ii", 4 << 16 | 5, 16)  # within its tag, as MATLAB has it
    return array(2, (1, 1), b"GTcls", length, element(1, names, order), numbers, order=order)


def mat(*variables: bytes, order: str = "<") -> bytes:
    end = struct.pack(f"{order}H", 0x100) + (b"IM" if order == "<" else b"MI")
    return b"MATLAB 5.0 MAT-file".ljust(124) + end + b"".join(variables)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["?", *"BbHhIiQqfd"])
def test_all_types_as_scipy_reads_them(tmp_path, kind, compressed):
    labels = (LABELS // 2).astype(kind)
    path = tmp_path / "a.mat"
    io.savemat(path, annotation(labels), do_compression=compressed)
    found = read_mat(path, "GTcls")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, labels)
    np.testing.assert_array_equal(found, io.loadmat(path)["GTcls"]["Segmentation"][0, 0])


@pytest.mark.parametrize("compressed", [False, True])
def test_one_variable_of_several(tmp_path, compressed):
    content = {"note": "GTinst", **annotation(LABELS), **annotation(LABELS[::-1], "GTinst")}
    io.savemat(tmp_path / "a.mat", content, do_compression=compressed)
    np.testing.assert_array_equal(read_mat(tmp_path / "a.mat", "GTinst"), LABELS[::-1])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "letter"), [(2, "B"), (4, "H"), (9, "d")])
def test_both_byte_orders_and_doubles_in_smaller_types(tmp_path, order, kind, letter):
    columns = struct.pack(f"{order}35{letter}", *LABELS.T.ravel().tolist())
    numbers = array(6, (5, 7), b"", element(kind, columns, order), order=order)
    path = tmp_path / "a.mat"
    path.write_bytes(mat(struct_of(numbers, order=order), order=order))
    np.testing.assert_array_equal(read_mat(path, "GTcls"), LABELS)
    np.testing.assert_array_equal(io.loadmat(path)["GTcls"]["Segmentation"][0, 0], LABELS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"GTinst": {"Segmentation": LABELS}}, "cannot be read .* wanted .*GTcls.Segmentation"),
        ({"GTcls": {"Boundaries": LABELS}}, r"cannot be read \(it has no field Segmentation\)"),
        ({"GTcls": LABELS}, r"cannot be read \(it is no struct\)"),
        ({"GTcls": {"Segmentation": "text"}}, r"cannot be read \(its class 4"),
        ({"GTcls": {"Segmentation": np.zeros((2, 2, 2))}}, "cannot be read"),
        ({"GTcls": {"Segmentation": LABELS / 2}}, r"holds float64 of shape \(5, 7\) as GTcls"),
        ({"GTcls": {"Segmentation": LABELS * 256.0}}, "holds float64"),
        ({"GTcls": {"Segmentation": LABELS * np.nan}}, "holds float64"),
        ({"GTcls": {"Segmentation": LABELS + np.inf}}, "holds float64"),
        (
            {"GTcls": {"Segmentation": LABELS.astype(int) - 1}},
            r"holds int64 .* wanted ids from 0 to 255",
        ),
        ({"GTcls": {"Segmentation": []}}, "holds"),
    ],
)
def test_other_content(tmp_path, content, message):
    io.savemat(tmp_path / "a.mat", content)
    with pytest.raises(ImageError, match=rf"a\.mat: {message}"):
        read_mat(tmp_path / "a.mat", "GTcls")


NUMBERS = element(2, bytes(16))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no MATLAB file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(200), "save it with -v7"),
        (mat(), "no variable GTcls"),
        (mat(struct_of(array(9, (2**30, 2**30), b"", NUMBERS))), "1073741824 x 1073741824"),
        (mat(struct_of(array(9, (-4, -4), b"", NUMBERS))), "-4 x -4"),
        (mat(struct_of(array(9, (4, 4), b"", element(130, bytes(16))))), "type 130"),
        (mat(struct_of(array(9, (4, 4), b"", struct.pack("<II", 2, 2**31)))), "cut short"),
        (mat(struct_of(array(9, (4, 4), b"", struct.pack("<HHI", 2, 16, 0)))), "cut short"),
        (mat(struct_of(array(9, (1,) * 10**6, b"", NUMBERS))), "unpack"),
        (mat(struct_of(b"", b"a" * 2**17)), "names of 131072 bytes, 16 each"),
        (mat(*[array(9, (4, 4), b"x", NUMBERS)] * 101), "more than 100 variables"),
        (mat(struct.pack("<II", 15, 16) + bytes(16)), "decompressing"),
        (mat(struct.pack("<II", 15, 2**31)), "cut short"),
    ],
)
def test_sizes_and_types_that_contradict_the_format(tmp_path, content, message):
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(ImageError, match=rf"a\.mat: cannot be read \(.*{message}.*\), wanted an"):
        read_mat(tmp_path / "a.mat", "GTcls")


def test_a_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr("unpool.data.mat.MAX_MAT", 10**6)
    head = struct_of(array(9, (10**4, 10**4), b"", struct.pack("<II", 2, 10**8)))
    packed = zlib.compress(head + bytes(10**8))
    (tmp_path / "a.mat").write_bytes(mat(struct.pack("<II", 15, len(packed)) + packed))
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="more than 1000000 bytes"):
            read_mat(tmp_path / "a.mat", "GTcls")
        assert tracemalloc.get_traced_memory()[1] < 10 * 10**6
    finally:
        tracemalloc.stop()


def test_any_damage_is_an_image_error(tmp_path):
    path = tmp_path / "a.mat"
    chance = random.Random(0)
    for compressed in (False, True):
        io.savemat(path, annotation(LABELS), do_compression=compressed)
        whole = path.read_bytes()
        refused = 0
        for _ in range(1000):
            damaged = bytearray(whole[: chance.choice([len(whole), chance.randrange(len(whole))])])
            for _ in range(chance.randrange(1, 4)):
                if damaged:
                    damaged[chance.randrange(len(damaged))] = chance.choice([0, 1, 14, 127, 255])
            path.write_bytes(damaged)
            try:
                assert read_mat(path, "GTcls").dtype == np.uint8
            except ImageError:
                refused += 1
        assert refused > 200


def test_files_that_are_missing_or_too_large(tmp_path):
    with pytest.raises(ImageError, match=r"a\.mat, which does not exist"):
        read_mat(tmp_path / "a.mat", "GTinst")
    with (tmp_path / "a.mat").open("wb") as file:
        file.truncate(limits.MAX_MAT + 1)
    with pytest.raises(ImageError, match=r"a\.mat of more than"):
        read_mat(tmp_path / "a.mat", "GTinst")
