"""A small generator whose random weights give visible images."""

import pytest
import torch

from unpool.generate import Generator
from unpool.models import GenerativeNet

NAMES = ["armchair", "bar_stool", "folding_chair", "stool"]


def made(streams: int = 2) -> GenerativeNet:
    """Weights large enough for codes to matter, with outputs in the middle of the range."""
    torch.manual_seed(streams)
    sizes = {"code": 8, "shared": 12, "widths": (6, 5), "mask_widths": (4, 3)}
    net = GenerativeNet(len(NAMES), 32, streams, 28, **sizes)
    for name, values in net.named_parameters():
        spread = 0.5 if "fc" in name else 0.1
        torch.nn.init.normal_(values, 0.02, spread)
    return net.eval()


@pytest.fixture(params=[2, 1], ids=["two streams", "deep"])
def any_generator(request) -> Generator:
    return Generator(made(request.param), NAMES, device="cpu")


@pytest.fixture
def generator() -> Generator:
    return Generator(made(), NAMES, device="cpu")
