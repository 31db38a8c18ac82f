"""Tiles cover an image evenly, and add up to what the whole gives where they see enough."""

import numpy as np
import pytest

from unpool.errors import OptionError
from unpool.limits import GIB
from unpool.restore.tiles import plan_tiles, run_tiles

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(700, 500), (300, 1111), (2, 333, 421)])
@pytest.mark.parametrize("side", [150, 256, 300])
def test_what_changes_nothing_gives_the_image(shape, side):
    plane = RNG.random(shape, dtype=np.float32)
    plan = plan_tiles(shape, (1,) * (len(shape) - 2) + (21, 21), 40, side)
    done = []
    found = run_tiles(lambda part: part.copy(), plane, plan, done.append)
    np.testing.assert_allclose(found, plane, atol=1e-6)
    assert done == list(range(plan.parts + 1))


def test_seams_are_far_from_the_ends_of_tiles():
    """What is wrong within a quarter of the overlap of a tile's inner ends is not seen."""
    plane = RNG.random((400, 500), dtype=np.float32)
    plan = plan_tiles(plane.shape, (21, 21), 40, 200)
    assert plan.overlap == 64
    starts = iter([(y, x) for y in (0, 112, 208) for x in (0, 112, 208, 304)])

    def spoil(part):
        (y, x), part = next(starts), part.copy()
        margin = plan.overlap // 4
        part[:margin] *= y == 0
        part[-margin:] *= y == 208
        part[:, :margin] *= x == 0
        part[:, -margin:] *= x == 304
        return part

    np.testing.assert_allclose(run_tiles(spoil, plane, plan, lambda _: None), plane, atol=1e-6)


def test_plans():
    whole = plan_tiles((1000, 1000), (21, 21), 80)
    assert (whole.side, whole.parts) == (0, 1)
    assert whole.text == "restoring, 94 MiB"
    large = plan_tiles((8000, 8000), (21, 21), 80)
    assert (large.side, large.overlap) == (512, 64)
    assert large.memory < 8000 * 8000 * 24 < 2 * GIB
    assert f"in {large.parts} tiles, 1.2 GiB" in large.text
    assert plan_tiles((100, 100), (21, 21), 80, 512).parts == 1
    assert plan_tiles((8000, 8000), (21, 21), 80, 0).parts == 1
    with pytest.raises(OptionError, match=r"tile=80 for a PSF of 21 pixels; .* set tile=128"):
        plan_tiles((1000, 1000), (21, 21), 80, 80)


def test_memory_counts_the_channels():
    gray, color = (plan_tiles((8000, 8000), (21, 21), 40, channels=n).memory for n in (1, 3))
    assert color - gray == 2 * 16 * 8000**2
