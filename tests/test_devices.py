"""Which devices there are, and whether bfloat16 pays on them."""

import pytest
import torch

from unpool.devices import bf16_pays, find_device, require_bf16
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


@pytest.mark.parametrize(
    ("has", "able"),
    [
        ({"avx512_bw": True, "avx512_vl": True, "avx512_dq": True}, True),
        ({"avx_ne_convert": True}, True),
        ({"avx512_bw": True, "avx2": True}, False),
        ({"avx2": True}, False),
    ],
)
def test_bfloat16_is_refused_where_it_cannot_be_computed(monkeypatch, has, able):
    capabilities = {"architecture": "x86_64", **has}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    if able:
        require_bf16(torch.device("cpu"))
    else:
        with pytest.raises(OptionError, match="got precision bf16, which the cpu of this machine"):
            require_bf16(torch.device("cpu"))
