import base64
import io
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from unpool.data.shapes import (
    Bitmap,
    Disc,
    Polygons,
    Runs,
    Union,
    Unusable,
    corners,
    fill_polygon,
    rectangle,
)
from unpool.errors import DataError

coco = pytest.importorskip("pycocotools.mask")

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=9))
POINT = st.tuples(st.floats(-3, 12), st.floats(-3, 12))


def whole(shape, size):
    """The mask of a shape in the whole image."""
    mask = np.zeros(size, bool)
    box, part = shape.draw(size)
    mask[box.slices] = part
    return mask


# run-length codes


@given(MASKS)
def test_codes_decode_to_what_was_encoded(mask):
    height, width = mask.shape
    code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    np.testing.assert_array_equal(whole(Runs(code, [height, width]), mask.shape), mask)
    flat = [0, *mask.T.ravel().astype(int).tolist()]
    ends = [i for i in range(1, len(flat)) if flat[i] != flat[i - 1]]
    runs = np.diff([1, *ends, len(flat)])
    np.testing.assert_array_equal(whole(Runs(runs, [height, width]), mask.shape), mask)


def test_long_runs_and_differences_of_both_signs():
    mask = np.zeros((1000, 700), np.uint8)
    mask[3:900, 5] = mask[:, 100:400] = mask[990:, 500:505] = 1
    code = coco.encode(np.asfortranarray(mask))["counts"].decode()
    np.testing.assert_array_equal(whole(Runs(code, [1000, 700]), (1000, 700)), mask)


def test_a_code_of_few_columns_costs_little():
    mask = np.zeros((1000, 2000), np.uint8)
    mask[:, 50:52] = 1
    code = coco.encode(np.asfortranarray(mask))["counts"].decode()
    shape = Runs(code, [1000, 2000])
    assert shape.cost((1000, 2000)) < 2010
    assert shape.draw((1000, 2000))[1].shape == (1000, 2)


@pytest.mark.parametrize(
    "counts", [[], [5], [3, 4], [7, -1], [-(2**62), 6], "", "1", "o", "é", "o" * 99, "~~", "\x00"]
)
def test_codes_that_do_not_fill_the_image(counts):
    counts = counts if isinstance(counts, str) else np.array(counts, np.int64)
    with pytest.raises(DataError, match=r"has a run-length code that .*; export it again"):
        Runs(counts, [2, 3]).draw((2, 3))


# polygons


def inside(x: float, y: float, corners: list[tuple[float, float]]) -> bool:
    """Whether a ray to the left crosses the outline an odd number of times."""
    odd = False
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if (y0 <= y) != (y1 <= y) and x0 + (y - y0) / (y1 - y0) * (x1 - x0) <= x:
            odd = not odd
    return odd


@given(st.lists(POINT, min_size=3, max_size=7))
def test_a_polygon_covers_the_pixels_whose_centers_it_holds(corners):
    filled = fill_polygon(np.array(corners), 8, 9)
    expected = [[inside(j + 0.5, i + 0.5, corners) for j in range(9)] for i in range(8)]
    np.testing.assert_array_equal(filled, expected)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # theirs
@pytest.mark.parametrize("seed", range(5))
def test_polygons_are_those_of_pycocotools_but_for_some_pixels_of_the_border(seed):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 20))
    radius = rng.uniform(10, 38, 20)
    corners = 40 + np.stack([np.cos(angles) * radius, np.sin(angles) * radius], 1)
    ours = fill_polygon(corners, 80, 80)
    theirs = coco.decode(coco.frPyObjects([corners.ravel().tolist()], 80, 80))[:, :, 0] > 0
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.98


def test_neighbors_share_no_pixel():
    left = fill_polygon(np.array([[0, 0], [2.5, 0], [2.5, 4], [0, 4]]), 4, 6)
    right = fill_polygon(np.array([[2.5, 0], [6, 0], [6, 4], [2.5, 4]]), 4, 6)
    assert not (left & right).any()
    assert (left | right).all()


def old_formula(points, height, width):
    """All edges with all rows: simple, and of a memory that nobody has."""
    (x, y), (next_x, next_y) = points.T, np.roll(points, -1, axis=0).T
    rows = np.arange(height) + 0.5
    edge, row = np.nonzero((y[:, None] <= rows) != (next_y[:, None] <= rows))
    along = (rows[row] - y[edge]) / (next_y[edge] - y[edge])
    crossing = x[edge] + along * (next_x[edge] - x[edge])
    column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.intp)
    turns = np.zeros((height, width + 1), np.uint8)
    np.bitwise_xor.at(turns, (row, column), 1)
    return np.bitwise_xor.accumulate(turns[:, :width], axis=1).astype(bool)


WIDE = st.one_of(st.floats(-1e9, 1e9), st.floats(-3, 30), st.integers(-3, 30).map(lambda n: n / 2))


@given(arrays(np.float64, st.tuples(st.integers(3, 40), st.just(2)), elements=WIDE))
def test_row_by_row_is_the_same_as_all_edges_with_all_rows(points):
    np.testing.assert_array_equal(fill_polygon(points, 21, 17), old_formula(points, 21, 17))


def test_pieces_and_bands_make_no_difference(monkeypatch):
    monkeypatch.setattr("unpool.data.shapes._PIECE", 7)
    points = np.random.default_rng(0).uniform(-2, 40, (200, 2))
    np.testing.assert_array_equal(fill_polygon(points, 38, 35), old_formula(points, 38, 35))


def test_memory_is_that_of_the_mask():
    points = np.random.default_rng(0).uniform(0, 2000, (20_000, 2))  # 40 MB of edges and rows
    tracemalloc.start()
    fill_polygon(points, 2000, 2000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 130e6  # all edges with all rows are 20 million crossings, of 24 bytes and more


def test_the_cost_is_known_before():
    size = (10_000, 10_000)
    assert rectangle(0, 0, 1e9, 1e9).cost(size) == pytest.approx(1e8, rel=0.01)
    assert rectangle(5, 5, 9, 9).cost(size) < 300
    zigzag = np.array([[i % 2, (i % 2) * 1e4] for i in range(1000)], np.float32)
    assert Polygons((zigzag,)).cost(size) > 1e8


# other shapes


def test_a_disc_is_what_its_equation_says():
    y, x = np.mgrid[:20, :30] + 0.5
    expected = ((x - 12.3) / 7.5) ** 2 + ((y - 3) / 4) ** 2 <= 1
    np.testing.assert_array_equal(whole(Disc(12.3, 3, 7.5, 4), (20, 30)), expected)
    for away in (Disc(-50, 3, 7, 7), Disc(12, 99, 7, 7), Disc(5, 5, 0, 0)):
        assert not whole(away, (20, 30)).any()


@pytest.mark.parametrize(("x", "y"), [(2, 1), (-1, -2), (6, 4), (-9, 0), (99, 99)])
def test_a_bitmap_is_cut_at_the_border(x, y):
    part = np.random.default_rng(0).integers(0, 2, (4, 5)).astype(np.uint8)
    big = np.zeros((300, 300), bool)
    big[100 + y : 104 + y, 100 + x : 105 + x] = part
    found = whole(Bitmap(base64_png(part), x, y), (6, 8))
    np.testing.assert_array_equal(found, big[100:106, 100:108])


@pytest.mark.parametrize("code", ["", "!", "QUJD", "é", "\x00"])
def test_a_bitmap_that_is_none(code):
    with pytest.raises(DataError, match=r"has a mask that is no PNG \(.*\); draw it again"):
        Bitmap(code, 0, 0).draw((6, 8))


def test_a_bitmap_is_no_larger_than_the_image():
    with pytest.raises(DataError, match="a mask that is larger than the image; draw it again"):
        Bitmap(base64_png(np.zeros((7, 8), np.uint8)), 0, 0).draw((6, 8))


def test_a_union_has_the_pixels_of_all():
    found = whole(Union((rectangle(0, 0, 2, 2), rectangle(5, 3, 99, 99))), (6, 8))
    expected = np.zeros((6, 8), bool)
    expected[:2, :2] = expected[3:, 5:] = True
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(DataError, match="no usable outline"):
        Union((rectangle(0, 0, 2, 2), Unusable())).draw((6, 8))


@pytest.mark.parametrize(
    "values",
    [
        *(None, 7, "12", {}, [[1, 2], [3]], [[1, 2], 3], [1, 2, 3], [1, True], [1, "2"], []),
        *([1, 10**400], [1, 1e39], [1, float("nan")], [1, float("inf")], [[[1, 2]]]),
    ],
)
def test_what_is_no_corner(values):
    assert corners(values) is None


def base64_png(mask):
    file = io.BytesIO()
    Image.fromarray(mask * 255).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
