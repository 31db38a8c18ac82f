"""Run-length codes against pycocotools, and against a plain reading of Label Studio's format."""

import itertools

import numpy as np
import pytest
from pycocotools import mask as coco

from unpool.data.shapes import Runs
from unpool.errors import DataError, ShapeError
from unpool.formats.rle import decode_brush, decode_runs, encode, encode_brush

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RANDOM = np.random.default_rng(0)
Y, X = np.mgrid[:375, :500]
DISK = (X - 250) ** 2 + (Y - 180) ** 2 < 120**2
MASKS = {
    "noise": RANDOM.random((17, 23)) > 0.5,
    "sparse": RANDOM.random((40, 31)) > 0.97,
    "empty": np.zeros((5, 7), bool),
    "full": np.ones((5, 7), bool),
    "large": np.ones((600, 800), bool),
    "one pixel": np.ones((1, 1), bool),
    "column": np.eye(1, 9, 4, dtype=bool).T,
    "last pixel": np.arange(12).reshape(3, 4) == 11,
    "first pixel": np.arange(12).reshape(3, 4) == 0,
    "disk": DISK,
    "ring": DISK & ((X - 250) ** 2 + (Y - 180) ** 2 > 50**2),
}


def cases(test):
    return pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())(test)


@cases
def test_coco_is_that_of_pycocotools(mask):
    wanted = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    code = encode(mask)
    assert code == wanted["counts"].decode()
    box, part = Runs(code, [*mask.shape]).draw(mask.shape)
    found = np.zeros(mask.shape, bool)
    found[box.slices] = part
    assert (found == mask).all()
    assert (coco.decode({"size": [*mask.shape], "counts": code.encode()}) == mask).all()


@pytest.mark.parametrize("seed", range(20))
def test_a_part_of_an_image_is_encoded_as_the_whole(seed):
    random = np.random.default_rng(seed)
    height, width = random.integers(3, 40, 2)
    y0, x0 = random.integers(0, height), random.integers(0, width)
    y1, x1 = random.integers(y0, height) + 1, random.integers(x0, width) + 1
    whole = np.zeros((height, width), bool)
    whole[y0:y1, x0:x1] = random.random((y1 - y0, x1 - x0)) > random.random() * 0.5
    part = whole[y0:y1, x0:x1]
    assert encode(part, (height, width), (y0, x0)) == encode(whole)
    assert encode_brush(part, (height, width), (y0, x0)) == encode_brush(whole)


@pytest.mark.parametrize(
    "code", ["2", "2210", "9", "22é", "22\x00", "R", "oooooo>oooooo>oooooo>2", "n11"]
)
def test_damaged_codes_of_coco(code):
    with pytest.raises(DataError, match="export it again"):
        Runs(code, [2, 3]).draw((2, 3))


def test_runs_are_read_before_their_size_is_known():
    assert decode_runs("").tolist() == []
    wanted = coco.frPyObjects({"size": [50, 50], "counts": [1087, 1, 1412]}, 50, 50)
    assert decode_runs(wanted["counts"].decode()).tolist() == [1087, 1, 1412]
    with pytest.raises(DataError):
        decode_runs("ooooooo1")


def test_a_mask_beside_the_image_is_refused():
    with pytest.raises(ShapeError, match="wanted it within"):
        encode(np.ones((2, 2), bool), (3, 3), (2, 0))
    with pytest.raises(ShapeError, match=r"wanted \(H, W\) bool"):
        encode(np.ones((2, 2)))


# Label Studio -------------------------------------------------------------------------------------


def plain_brush(mask):
    """The code as the reference encoder of Label Studio writes it, run by run, as text of bits."""
    values = np.repeat(mask.ravel().astype(int) * 255, 4)
    text = f"{len(values):032b}{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1), len(values)]
    for start, end in itertools.pairwise(edges):
        length = end - start
        while length > 2**16:
            text += f"111{2**16 - 1:016b}{values[start]:08b}"
            length -= 2**16
        which = sum(length > limit for limit in (8, 16, 256))
        text += f"1{which:02b}{length - 1:0{(3, 4, 8, 16)[which]}b}{values[start]:08b}"
    text += "0" * (-len(text) % 8)
    return [int(text[i : i + 8], 2) for i in range(0, len(text), 8)]


@cases
def test_brush_is_that_of_label_studio(mask):
    code = encode_brush(mask)
    assert code == plain_brush(mask)
    assert (decode_brush(code, *mask.shape) == mask).all()
    padded = [*code, 0]  # the reference adds a byte where none is needed
    assert (decode_brush(padded, *mask.shape) == mask).all()


def test_a_brush_code_of_the_editor_has_single_values():
    """The editor writes values that differ one by one, and soft edges."""
    alpha = [0, 30, 255, 0]
    bits = f"{16:032b}{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    bits += f"001{15:04b}"
    bits += "".join(f"{v:08b}" for a in alpha for v in (200, 10, 0, a))
    bits += "0" * (-len(bits) % 8)
    code = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    assert decode_brush(code, 2, 2).tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize(
    "code",
    [
        [],
        [0, 0, 0, 12],
        [0, 0, 0, 12, 57, 27, 252, 96, 19],
        [255, 255, 255, 255, 57, 27, 252, 96, 19, 255, 128],
        [0, 0, 0, 12, 57, 27, 252, 255, 255, 255, 255, 255],
        ["0"],
        [300],
        [-1],
        [0.5],
        "text",
        7,
    ],
    ids=str,
)
def test_damaged_codes_of_label_studio(code):
    with pytest.raises(DataError, match="has a brush code that does not fill 3 x 1 pixels"):
        decode_brush(code, 1, 3)


def test_a_large_number_of_values_is_refused():
    huge = [255, 255, 255, 255, *encode_brush(MASKS["full"])[4:]]
    with pytest.raises(DataError):
        decode_brush(huge, 5, 7)
