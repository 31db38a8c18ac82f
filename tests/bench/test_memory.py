import os
import signal

import numpy as np
import pytest
import torch

from unpool.bench import memory


def hog(size):
    """A part that needs memory, and one that does not."""
    held = np.ones(size // 8)
    assert held[-1]
    del held
    yield


def killed():
    os.kill(os.getpid(), signal.SIGKILL)
    yield


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="not Linux")
def test_memory_is_that_of_the_part_and_of_the_process_alone():
    size = 200_000_000
    here = np.ones(2 * size // 8)  # a child must not be charged with it
    first, second = memory.alone(hog, size)
    assert memory.peak_memory() > max(first, here.nbytes)
    assert first > size
    assert first - second > 0.9 * size


def test_a_killed_process_is_a_lack_of_memory():
    with pytest.raises(MemoryError):
        memory.alone(killed)


def test_a_trace_counts_storage_once_and_as_long_as_it_lives():
    x = torch.zeros(1000)

    def work():
        y = x + 1  # 4000 more
        z = y.view(10, 100).t()  # the same storage
        del y
        w = z * 2  # 4000 more
        del z  # 4000 less
        return w.neg_()

    totals = memory.trace(work, [x])
    assert totals == [8000, 8000, 8000, 12000, 8000]
    assert memory.trace(work, [x, x.view(10, 100)]) == totals
