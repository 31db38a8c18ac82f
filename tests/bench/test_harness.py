import statistics

import cv2
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from unpool.bench import harness
from unpool.errors import OptionError


def test_images_are_photos_or_made_up(monkeypatch):
    pytest.importorskip("skimage")
    assert list(harness.photos((20, 30))) == ["astronaut", "chelsea", "coffee"]
    large = harness.photos((600, 800))["coffee"]
    assert (large.shape, large.dtype) == ((600, 800, 3), np.uint8)
    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    found = harness.photos((20, 30))
    assert len(found) == 3
    for image in found.values():
        assert (image.shape, image.dtype) == ((20, 30, 3), np.uint8)
        assert image.std() > 20
    np.testing.assert_array_equal(found["made up 1"], harness.made_up((20, 30), 1))


def test_works_take_turns_and_the_first_round_does_not_count():
    seen, said = [], []

    def work(name, seconds):
        return lambda: seen.append(name) or seconds[seen.count(name) - 1]

    works = {"a": work("a", [9, 1, 2]), "b": work("b", [9, 3, 4])}
    found = harness.in_turn(works, 2, progress=lambda *update: said.append(update))
    assert (found, seen) == ({"a": [1, 2], "b": [3, 4]}, list("ababab"))
    assert said == [(i, 6, name) for i, name in enumerate("ababab")]
    seen.clear()
    assert harness.in_turn({"a": work("a", [5])}, 1, warm=False) == {"a": [5]}


def test_spread_and_pairs():
    values = list(np.random.default_rng(0).uniform(1, 9, 11))
    found = harness.spread(values)
    wanted = [statistics.median(values), min(values), max(values)]
    assert list(found.values()) == pytest.approx(wanted, rel=1e-3)
    # a machine that slows down for a while, for all that take turns, changes no ratio
    slowed = np.array([1, 1, 5, 5, 1.0])
    assert set(harness.paired(list(3 * slowed), list(slowed)).values()) == {3.0}


def test_a_call_among_several_takes_its_share():
    calls = []
    assert harness.timed(lambda: calls.append(1), calls=4)() < 10
    assert len(calls) == 4


def test_numbers_below_one_are_refused():
    with pytest.raises(OptionError, match="got rounds=0; wanted 1 or more"):
        harness.in_turn({}, 0)
    with pytest.raises(OptionError, match="got crops=-1; wanted 1 or more"):
        harness.require_positive(batch=2, crops=-1)


def test_threads_are_set_inside_and_restored():
    before = torch.get_num_threads(), cv2.getNumThreads()
    with harness.threads(2) as count:
        assert (count, torch.get_num_threads(), cv2.getNumThreads()) == (2, 2, 2)
        assert harness.describe()["threads"] == 2
    with harness.threads(None) as count:
        assert count == before[0]
    assert (torch.get_num_threads(), cv2.getNumThreads()) == before


def test_yardsticks_know_how_much_they_compute(monkeypatch):
    monkeypatch.setattr(harness, "_FLOP", 0)  # one call each
    sticks = harness.yardsticks(harness.DTYPES, shrink=32)
    for name, stick in sticks.items():
        with FlopCounterMode(display=False) as counter:
            assert stick.work() > 0
        if "int8" in name:  # which the counter does not know
            assert stick.amount == sticks[name.replace("int8", "bf16")].amount
        elif name == "copy":
            assert stick.amount == 2 * harness._COPIED // 32
        else:
            assert stick.amount == counter.get_total_flops() > 0, name


def test_the_peak_is_the_best_shape_by_the_median_of_its_times():
    sticks = {
        "convolution fp32 a b": harness.Yardstick(8_000_000_000, float),
        "convolution fp32 c d": harness.Yardstick(6_000_000_000, float),
        "copy": harness.Yardstick(3_000_000_000, float),
    }
    times = {
        "convolution fp32 a b": [2, 0.001, 2],  # one lucky time does not count
        "convolution fp32 c d": [1, 1, 50],
        "copy": [0.5],
    }
    assert harness.peaks(sticks, times) == {
        "convolution fp32": {"rate": 6.0, "shape": "c d"},
        "copy": {"rate": 6.0, "shape": ""},
    }


def test_fewer_than_one_thread_is_refused():
    with pytest.raises(OptionError, match="got threads=0"), harness.threads(0):
        pass
