"""Read arrays of `.npy` files: the header first, so that sizes are checked before anything else."""

import math
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpool.limits import MIB


class Header(NamedTuple):
    """What a `.npy` file says of its array."""

    shape: tuple[int, ...]
    fortran: bool  #: whether the first index varies fastest
    dtype: np.dtype[Any]


def read_header(file: IO[bytes]) -> Header:
    """The header of an array of version 1.0, whose length is bounded.

    Raises many kinds of errors for a file that is damaged, another version, or holds objects.
    """
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("another version")
    header = Header(*np.lib.format.read_array_header_1_0(file))
    if header.dtype.hasobject:
        raise ValueError("objects")
    return header


def read_values(file: IO[bytes], header: Header, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The array after its header, converted to a type piece by piece; too large is infinite."""
    count = math.prod(header.shape)
    flat, done = np.empty(count, dtype), 0
    with np.errstate(over="ignore", invalid="ignore"):
        while done < count:
            more = min(count - done, MIB)
            content = file.read(more * header.dtype.itemsize)
            flat[done : done + more] = np.frombuffer(content, header.dtype, more)
            done += more
    shape = header.shape
    return flat.reshape(shape[::-1]).T if header.fortran else flat.reshape(shape)
