import numpy as np
import pytest

from unpool.ops.crf import find_crf
from unpool.recipes.presets import (
    CRF_PRESETS,
    ENSEMBLES,
    METHODS,
    PRESETS,
    DenseCRF,
    Kernel,
    Preset,
)
from unpool.segment.ensemble import combine
from unpool.vision.proposals import propose


def test_crops_of_proposals():
    assert PRESETS["paper"] == Preset(enlarge=1.2, least_side=1, candidates=2000)
    assert PRESETS["reference"] == Preset(1.2, least_side=112, candidates=2000, aggregate="max")


@pytest.mark.parametrize(
    ("name", "xy", "rgb", "weight", "rounds", "normalization"),
    [
        ("edeconvnet", 20, 3, 5, 10, "none"),
        ("deeplab", 49, 5, 4, 10, "after"),
        ("crfrnn", 160, 3, 5, 10, "after"),
        ("densecrf", 80, 13, 10, 5, "symmetric"),
        ("deeplab1", 50, 3, 5, 10, "after"),
    ],
)
def test_published_crfs(name, xy, rgb, weight, rounds, normalization):
    kernels = (Kernel(xy=3, weight=3), Kernel(xy=xy, weight=weight, rgb=rgb))
    clip = None if name == "deeplab1" else 1e-5
    assert CRF_PRESETS[name] == DenseCRF(kernels, rounds, normalization, clip=clip)


def test_every_name_is_known_where_it_is_used():
    image = np.zeros((20, 30, 3), np.uint8)
    for method in METHODS:
        assert len(propose(image, method, count=2).boxes) <= 2
    for crf in CRF_PRESETS:
        assert find_crf(crf) is CRF_PRESETS[crf]
    scores = np.log(np.full((2, 4, 4), 0.5, np.float32))
    for ensemble in ENSEMBLES:
        assert combine(scores, scores, ensemble).shape == (2, 4, 4)
