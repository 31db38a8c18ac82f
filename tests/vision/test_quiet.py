import os
import threading
import warnings

import numpy as np
import pytest

from tests.vision.encoded import ENCODED, PHOTO, png
from tests.vision.tiffs import tiff
from unpool.errors import ImageError
from unpool.limits import MAX_PIXELS
from unpool.vision import opening, quiet
from unpool.vision.images import image_size, read_image, read_mask

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


def test_threads_read_the_same():
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(read_image(ENCODED["PNG"])))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all((result == PHOTO).all() for result in results)


WARNED_OF = png(13_000, 13_000, 1, 0, b"\0")  # above half of Pillow's limit


def test_readers_that_overlap_ignore_warnings_to_the_end():
    """As those of two threads do; warnings are errors here."""
    before = list(warnings.filters)
    first, second = (opening.open_image(WARNED_OF, MAX_PIXELS) for _ in range(2))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    warnings.warn_explicit("odd", UserWarning, "file", 1, module="PIL.TiffImagePlugin")
    with pytest.raises(UserWarning, match="odd"):  # others are heard all the while
        warnings.warn_explicit("odd", UserWarning, "file", 1, module="PILOT")
    second.__exit__(None, None, None)
    assert warnings.filters == before
    with pytest.raises(UserWarning, match="odd"):
        warnings.warn_explicit("odd", UserWarning, "file", 1, module="PIL.TiffImagePlugin")


def test_filters_of_warnings_that_are_restored_meanwhile():
    before = list(warnings.filters)
    with warnings.catch_warnings():
        reading = opening.open_image(WARNED_OF, MAX_PIXELS)
        reading.__enter__()
    assert image_size(WARNED_OF) == (13_000, 13_000)
    reading.__exit__(None, None, None)
    assert warnings.filters == before


def test_threads_read_what_pillow_warns_of():
    sizes = []
    threads = [
        threading.Thread(target=lambda: sizes.extend(image_size(WARNED_OF) for _ in range(50)))
        for _ in range(4)
    ]
    before = list(warnings.filters)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == [(13_000, 13_000)] * 200
    assert warnings.filters == before
