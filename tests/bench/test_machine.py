import cv2
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from unpool.bench import machine
from unpool.errors import OptionError


def test_threads_are_set_inside_and_restored():
    before = torch.get_num_threads(), cv2.getNumThreads()
    with machine.threads(2) as count:
        assert (count, torch.get_num_threads(), cv2.getNumThreads()) == (2, 2, 2)
        assert machine.describe()["threads"] == 2
    with machine.threads(None) as count:
        assert count == before[0]
    assert (torch.get_num_threads(), cv2.getNumThreads()) == before


def test_yardsticks_know_how_much_they_compute(monkeypatch):
    monkeypatch.setattr(machine, "_FLOP", 0)  # one call each
    for name, stick in machine.yardsticks(machine.DTYPES, shrink=32).items():
        with FlopCounterMode(display=False) as counter:
            assert stick.work() > 0
        if name == "copy":
            assert stick.amount == 2 * machine._COPIED // 32
        else:
            assert stick.amount == counter.get_total_flops() > 0, name


def test_the_peak_is_the_best_shape_by_the_median_of_its_times():
    sticks = {
        "convolution fp32 a b": machine.Yardstick(8_000_000_000, float),
        "convolution fp32 c d": machine.Yardstick(6_000_000_000, float),
        "copy": machine.Yardstick(3_000_000_000, float),
    }
    times = {
        "convolution fp32 a b": [2, 0.001, 2],  # one lucky time does not count
        "convolution fp32 c d": [1, 1, 50],
        "copy": [0.5],
    }
    assert machine.peaks(sticks, times) == {
        "convolution fp32": {"rate": 6.0, "shape": "c d"},
        "copy": {"rate": 6.0, "shape": ""},
    }


def test_fewer_than_one_thread_is_refused():
    with pytest.raises(OptionError, match="got threads=0"), machine.threads(0):
        pass
