"""Run-length codes of masks: COCO's compressed string, and the brush code of Label Studio.

A mask is given as a box of an image, so that many small objects of a large image cost little.

Lin et al., *Microsoft COCO: common objects in context*, ECCV 2014, and its reference `maskApi.c`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unpool.errors import DataError, ShapeError

Mask = NDArray[np.bool_]

_LONGEST = 7  # characters of a number, which then has 35 bits; an image has at most 28
_BRUSH_SIZES = (3, 4, 8, 16)  # bits of the length of a run, of which each run chooses one
_BRUSH_HEADER = 32 + 5 + 4 * len(_BRUSH_SIZES)  # bits before the first run


def encode(
    mask: Mask, size: tuple[int, int] | None = None, corner: tuple[int, int] = (0, 0)
) -> str:
    """COCO's compressed run-length code of a mask, equal to that of pycocotools.

    Args:
        mask: (h, w) bool, the whole image or a part of it.
        size: (H, W) of the image; that of the mask when not given.
        corner: row and column of the upper left pixel of the mask in the image.

    >>> encode(np.array([[0, 1, 1], [0, 1, 0]], bool))
    '231'
    """
    starts, ends, total = _runs(mask.T, size and size[::-1], corner[::-1])
    edges = np.column_stack([starts, ends]).ravel()
    runs = np.diff(edges, prepend=0, append=total)
    if ends.size and ends[-1] == total:
        runs = runs[:-1]
    runs[3:] = runs[3:] - runs[1:-2]
    return _characters(runs)


def decode_runs(code: str) -> NDArray[np.int64]:
    """The lengths of the alternating runs of 0 and 1 in COCO's compressed code; not yet checked.

    Raises:
        DataError: it has other characters, ends within a number, or has a number over 35 bits.

    >>> decode_runs("231").tolist()
    [2, 3, 1]
    """
    codes = np.frombuffer(code.encode("utf-8", "replace"), np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(codes & 32 == 0)  # the last character of each number
    first = np.concatenate([[0], last + 1])
    lengths = np.diff(first)
    whole = first[-1] == len(codes) and (lengths <= _LONGEST).all()
    if not whole or (codes < 0).any() or (codes > 63).any():
        raise DataError("has a run-length code that is damaged; export it again")
    shifts = 5 * (np.arange(len(codes)) - np.repeat(first[:-1], lengths))
    parts = (codes & 31) << shifts
    runs = np.add.reduceat(parts, first[:-1]) if last.size else np.zeros(0, np.int64)
    runs -= np.where(codes[last] & 16, np.int64(1) << 5 * lengths, 0)  # the sign
    runs[1::2] = np.cumsum(runs[1::2])  # differences from the run before the last,
    runs[2::2] = np.cumsum(runs[2::2])  # except for the first three
    return runs


def encode_brush(
    mask: Mask, size: tuple[int, int] | None = None, corner: tuple[int, int] = (0, 0)
) -> list[int]:
    """The brush code of Label Studio: the bytes of its `rle`, for all four channels of an image.

    The bits, the most significant first: 32 for the number of values, 4 H W; 5 for the bits of a
    value, less 1; four times 4 for the bits of lengths, less 1. Each run then has a 1, 2 bits that
    choose the bits of its length, the length less 1, and a value of 8 bits, 0 or 255.

    Args:
        mask, size, corner: see `encode`.

    >>> encode_brush(np.array([[False, True, True]]))
    [0, 0, 0, 12, 57, 27, 252, 96, 19, 255, 128]
    """
    starts, ends, total = _runs(mask, size, corner)
    edges = np.column_stack([starts, ends]).ravel()
    lengths = 4 * np.diff(edges, prepend=0, append=total)
    values = np.arange(len(lengths)) % 2 * 255
    lengths, values = lengths[lengths > 0], values[lengths > 0]
    pieces = -(-lengths // 2**16)  # a longer run is cut
    rest = lengths - (pieces - 1) * 2**16 - 1
    run = np.full(int(pieces.sum()), 2**16 - 1)
    run[np.cumsum(pieces) - 1] = rest
    choice = np.searchsorted([8, 16, 256], run, side="right")
    bits = np.array(_BRUSH_SIZES)[choice]
    words = (4 | choice) << bits + 8 | run << 8 | np.repeat(values, pieces)
    head = [4 * total, 7, *(bits - 1 for bits in _BRUSH_SIZES)]
    return _packed(
        np.concatenate([head, words]), np.concatenate([[32, 5, 4, 4, 4, 4], bits + 11])
    ).tolist()


def decode_brush(code: Sequence[int], height: int, width: int) -> Mask:
    """The mask (H, W) of a brush code of Label Studio: the pixels whose alpha is not 0.

    Raises:
        DataError: the code is damaged, or has another size.

    >>> decode_brush([0, 0, 0, 12, 57, 27, 252, 96, 19, 255, 128], 1, 3).tolist()
    [[False, True, True]]
    """
    total = 4 * height * width
    damaged = DataError(
        f"has a brush code that does not fill {width} x {height} pixels; export it again"
    )
    try:
        data = bytes(code)
    except (TypeError, ValueError):  # no integers, or no bytes
        raise damaged from None

    def read(at: int, count: int) -> int:
        end = at + count + 7 >> 3
        return int.from_bytes(data[at >> 3 : end]) >> 8 * end - at - count & (1 << count) - 1

    if 8 * len(data) < _BRUSH_HEADER or read(0, 32) != total:
        raise damaged
    word = read(32, 5) + 1
    sizes = [read(37 + 4 * i, 4) + 1 for i in range(4)]
    values = np.zeros(total, np.bool_)
    done, at, available = 0, _BRUSH_HEADER, 8 * len(data)
    while done < total and at + 3 <= available:
        same, bits = read(at, 1), sizes[read(at + 1, 2)]
        length = read(at + 3, bits) + 1
        at += 3 + bits
        end = at + (word if same else word * length)
        if end > available or done + length > total:
            raise damaged
        if same:
            values[done : done + length] = read(at, word) > 0
        else:
            piece = np.unpackbits(np.frombuffer(data[at >> 3 : end + 7 >> 3], np.uint8))
            piece = piece[at % 8 : at % 8 + word * length]
            values[done : done + length] = piece.reshape(length, word).any(axis=1)
        done, at = done + length, end
    if done < total:
        raise damaged
    return values.reshape(height, width, 4)[:, :, 3]


def _runs(
    mask: Mask, size: tuple[int, int] | None, corner: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Where the runs of 1 start and end in row order in the whole image, and its number of pixels.

    A run may extend over the end of a row.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ShapeError(f"got a mask of {mask.shape} and type {mask.dtype}; wanted (H, W) bool")
    (height, width), (y, x) = size or mask.shape, corner
    if y < 0 or x < 0 or y + mask.shape[0] > height or x + mask.shape[1] > width:
        raise ShapeError(
            f"got a mask of {mask.shape} at {corner}; wanted it within {(height, width)} (H, W)"
        )
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), np.int8)
    padded[:, 1:-1] = mask
    steps = np.diff(padded, axis=1)
    (rows, first), (_, after) = np.nonzero(steps == 1), np.nonzero(steps == -1)
    starts, ends = (rows + y) * width + x + first, (rows + y) * width + x + after
    apart = starts[1:] != ends[:-1]
    kept_starts, kept_ends = np.append(True, apart), np.append(apart, True)
    if not len(starts):
        return starts, ends, height * width
    return starts[kept_starts], ends[kept_ends], height * width


def _characters(numbers: NDArray[np.int64]) -> str:
    """Numbers as COCO writes them: 5 bits a character, the lowest first, and a 6th if more follow.

    The last character has the sign in its 5th bit.
    """
    characters = np.zeros((len(numbers), _LONGEST), np.uint8)
    used = np.zeros(characters.shape, np.bool_)
    rest, more = numbers.copy(), np.ones(len(numbers), np.bool_)
    for i in range(_LONGEST):
        used[:, i] = more
        five = rest & 31
        rest >>= 5
        more = more & (rest != np.where(five & 16, -1, 0))
        characters[:, i] = five + 48 + 32 * more
        if not more.any():
            break
    return characters[used].tobytes().decode("ascii")


def _packed(words: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Numbers of so many bits each, the most significant first, as bytes; zeros fill the last."""
    ends = np.cumsum(widths)
    bits = np.zeros(int(ends[-1]), np.uint8)
    for bit in range(int(widths.max())):
        long = widths > bit
        bits[ends[long] - 1 - bit] = words[long] >> bit & 1
    return np.packbits(bits)
