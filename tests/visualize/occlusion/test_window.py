"""Where an occluder stops, against counting by hand and against Captum."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unpool.errors import OptionError
from unpool.visualize.occlusion.window import occluder_windows

SIDES = st.tuples(st.integers(1, 12), st.integers(1, 12))


@given(SIDES, st.data())
def test_every_pixel_is_covered_and_spread_is_the_mean(size, data):
    window = tuple(data.draw(st.integers(1, n)) for n in size)
    stride = tuple(data.draw(st.integers(1, w)) for w in window)
    windows = occluder_windows(size, window, stride)
    values = torch.rand(windows.shape, generator=torch.Generator().manual_seed(0))
    total, count = torch.zeros(size), torch.zeros(size)
    for value, (x0, y0, x1, y1) in zip(values.flatten(), windows.boxes(), strict=True):
        assert x0 < x1 <= size[1]
        assert y0 < y1 <= size[0]
        total[y0:y1, x0:x1] += value
        count[y0:y1, x0:x1] += 1
    assert count.min() > 0
    assert torch.allclose(windows.spread(values).float(), total / count, atol=1e-6)


def test_values_that_are_no_number_are_left_out():
    windows = occluder_windows((1, 4), (1, 2), (1, 1))
    found = windows.spread(torch.tensor([[1.0, torch.nan, 5.0]]))
    assert found.tolist() == [[1.0, 1.0, 5.0, 5.0]]
    assert windows.spread(torch.full((1, 3), torch.nan)).isnan().all()


def test_nearest():
    windows = occluder_windows((4, 10), (4, 4), (2, 3))
    assert windows.shape == (1, 3)
    assert windows.nearest(0).tolist() == [0, 0, 0, 0]
    assert windows.nearest(1).tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]  # ties to the first


@pytest.mark.parametrize(
    ("window", "stride", "message"),
    [
        (9, None, r"an occluder of 9 x 9 for an image of 8 x 12; wanted 1 pixel or more"),
        (0, None, "an occluder of 0 x 0"),
        ((2, 4), (3, 1), r"a stride of 3 x 1 with an occluder of 2 x 4; wanted 1 or more"),
        (4, 0, "a stride of 0 x 0"),
    ],
)
def test_invalid_arguments(window, stride, message):
    with pytest.raises(OptionError, match=message):
        occluder_windows((8, 12), window, stride)
