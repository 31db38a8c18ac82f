"""Which devices there are, and whether bfloat16 pays on them."""

import pytest
import torch

from unpool.devices import bf16_pays, find_device
from unpool.errors import OptionError


def test_auto_is_the_gpu_where_there_is_one():
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["cuda:99", "meta", "gpu", ""])
def test_others_are_refused(name):
    with pytest.raises(OptionError, match=f"got device {name!r}; this machine has cpu"):
        find_device(name)


@pytest.mark.parametrize("instructions", ["amx_bf16", "avx512_bf16"])
def test_bfloat16_pays_where_the_processor_multiplies_it(monkeypatch, instructions):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instructions: True})
    assert bf16_pays(torch.device("cpu"))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instructions: False, "avx2": True})
    assert not bf16_pays(torch.device("cpu"))
