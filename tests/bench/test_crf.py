from functools import partial

import pytest
import torch

from unpool.bench import crf
from unpool.bench.harness import made_up
from unpool.errors import OptionError
from unpool.ops.meanfield import mean_field
from unpool.recipes.presets import CRF_PRESETS


def test_ratios_to_the_other_package(monkeypatch):
    rough = partial(crf._own, compiled=False)
    ways = {"torch": rough, "pydensecrf": lambda u, i, c: rough(u, i, c).roll(1, 0)}
    monkeypatch.setattr(crf, "_ways", lambda: ways)
    (result,) = crf.measure(2, presets=("deeplab",), size=(24, 32))["presets"].values()
    names = [f"{way}{kind}" for kind in ("", ", few labels") for way in ways]
    assert list(result["seconds"]) == names
    assert set(result["ratio"]) == {"torch", "torch, few labels"}
    assert result["different"] == {"torch": 1.0}


def test_the_other_dense_crf_finds_the_same():
    pytest.importorskip("pydensecrf")
    image = made_up((30, 40), 0)
    for preset in ("densecrf", "deeplab", "edeconvnet"):
        for active in (4, 21):
            options = CRF_PRESETS[preset]._replace(prune=0)
            unary = crf._unary(image, active)
            own = mean_field(unary, torch.from_numpy(image), options, compiled=False)
            torch.testing.assert_close(
                crf.pydensecrf(unary, image, options), own, atol=1e-3, rtol=0
            )


def test_few_labels_are_likely():
    unary = crf._unary(made_up((30, 40), 0), 4)
    share = unary.neg().exp().amax((1, 2))
    assert (share > 0.5).sum() == 4
    assert share[4:].max() < 1e-4


def test_no_rounds_are_refused():
    with pytest.raises(OptionError, match="got rounds=0"):
        crf.measure(0)
