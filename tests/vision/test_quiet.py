import os
import threading

import numpy as np
import pytest

from tests.vision.tiffs import tiff
from unpool.errors import ImageError
from unpool.vision import quiet
from unpool.vision.images import read_image, read_mask

NOISE = np.random.default_rng(0).integers(0, 2**16, (20, 36, 3)).astype(np.uint16)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_libtiff_prints_nothing(dtype, capfd):
    good = tiff(NOISE.astype(dtype), compression="deflate")
    damaged = good[:200] + bytes(50) + good[250:]
    for read in (read_image, read_mask):
        with pytest.raises(ImageError, match=r"broken or cut short|color-coded"):
            read(damaged)
    assert capfd.readouterr().err == ""
    os.write(2, b"heard again")
    assert capfd.readouterr().err == "heard again"


def test_threads_that_decode_leave_standard_error_as_it_was(capfd):
    data = tiff(NOISE, compression="deflate")
    threads = [threading.Thread(target=read_image, args=(data,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"
    assert quiet._stderr is None
