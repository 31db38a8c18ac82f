"""Arrays of .npy files are read as NumPy reads them, after their header alone."""

import io

import numpy as np
import pytest

from unpool.vision.arrays import read_header, read_values


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "u1", "<i8", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 700, 900)])
def test_as_numpy_reads_them(dtype, order, shape):
    values = np.asarray(np.random.default_rng(0).uniform(0, 2, shape) * 3)
    file = io.BytesIO()
    np.save(file, np.asarray(values, dtype, order=order))
    file.seek(0)
    header = read_header(file)
    found = read_values(file, header, np.dtype(np.float32))
    file.seek(0)
    expected = np.load(file)
    assert (header.shape, header.dtype) == (shape, expected.dtype)
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_what_is_too_large_for_the_type_is_infinite():
    file = io.BytesIO()
    np.save(file, np.array([1e300, -1e300, 1.0]))
    file.seek(0)
    found = read_values(file, read_header(file), np.dtype(np.float32))
    assert found.tolist() == [np.inf, -np.inf, 1.0]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY\x02\x00" + bytes(99)])
def test_other_files_are_refused(content):
    with pytest.raises(ValueError, match=r"magic|version|EOF|reading"):
        read_header(io.BytesIO(content))


def test_objects_and_missing_values_are_refused():
    file = io.BytesIO()
    np.save(file, np.array([{}], object), allow_pickle=True)
    file.seek(0)
    with pytest.raises(ValueError, match="objects"):
        read_header(file)
    file = io.BytesIO()
    np.save(file, np.zeros(9))
    cut = io.BytesIO(file.getvalue()[:-8])
    with pytest.raises(ValueError, match="buffer"):
        read_values(cut, read_header(cut), np.dtype(np.float32))
