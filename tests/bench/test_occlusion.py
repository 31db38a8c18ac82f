import pytest
import torch

from unpool.bench import occlusion
from unpool.errors import OptionError

SMALL = {"size": 32, "window": 8, "stride": 4, "trunk": ((1, 4), (1, 4)), "code": 8}


def test_all_variants_give_the_same_values():
    found = occlusion.measure(2, **SMALL)
    assert found["positions"] == {"incremental": 49, "others": 16, "all": 49}
    assert found["different"] < 1e-5
    seconds = found["seconds_per_position"]
    assert min(found["ratio_plain"], *(s["low"] for s in seconds.values())) > 0
    if found["ratio_captum"] is not None:
        assert list(seconds) == ["incremental", "plain", "captum 1", "captum 8"]
        assert found["captum"] in seconds


def test_all_positions_and_no_captum(monkeypatch):
    monkeypatch.setattr(occlusion, "find_spec", lambda name: None)
    found = occlusion.measure(1, full=True, **SMALL)
    assert (found["captum"], found["ratio_captum"]) == ("not installed: skipped", None)
    assert found["positions"]["others"] == 49
    assert torch.get_default_dtype() == torch.float32


def test_no_rounds_are_refused():
    with pytest.raises(OptionError, match="got rounds=0"):
        occlusion.measure(0)
