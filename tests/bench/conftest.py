"""A network small enough for benchmarks in tests, and its weights."""

import pytest
import torch

from unpool.models import DeconvNet, save_pretrained

TRUNK = ((1, 4), (1, 8))


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return DeconvNet(3, TRUNK, 16, 32).eval()


@pytest.fixture
def weights(tiny, tmp_path):
    return str(save_pretrained(tiny, tmp_path / "tiny", {"classes": ["a", "b", "c"]}))
