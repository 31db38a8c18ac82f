import warnings

import numpy as np
import pytest

from unpool.vision.depths import significant_bits, to_bytes


@pytest.mark.parametrize(
    ("largest", "bits"),
    [(1, 8), (255, 8), (256, 10), (1023, 10), (1024, 12), (4095, 12), (4096, 16), (65535, 16)],
)
def test_the_largest_value_decides_and_it_is_said(largest, bits):
    if bits == 16:
        assert significant_bits(largest) == 16
        return
    with pytest.warns(UserWarning, match=f"without values above {2**bits - 1} are read as {bits}-"):
        assert significant_bits(largest) == bits


def test_black_is_not_warned_of():
    assert significant_bits(0) == 16


@pytest.mark.parametrize(
    ("largest", "stated", "bits"), [(5, 12, 12), (4096, 12, 13), (5, 16, 16), (3, 4, 8)]
)
def test_what_the_file_states_counts(largest, stated, bits):
    assert significant_bits(largest, stated) == bits


def test_opacity_may_have_other_bits():
    words = np.array([[[4095, 0, 2048, 4095]]], np.uint16)
    assert to_bytes(words.copy(), 3, 12).tolist() == [[[255, 0, 128, 255]]]
    words[..., 3] = 0x8000
    assert to_bytes(words, 3, 12).tolist() == [[[255, 0, 128, 128]]]


def test_a_warning_is_shown_once():
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        for _ in range(3):
            significant_bits(4000)
    assert len(shown) == 1
