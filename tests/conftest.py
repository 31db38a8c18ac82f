"""Small networks that behave like trained ones."""

import math

import pytest
import torch
from torch import nn

from unpool.models import DeconvNet


def _filled(net: DeconvNet, phase: float = 1.0) -> DeconvNet:
    """In evaluation mode, with weights and statistics by a formula: the same on every machine."""
    for number, tensor in enumerate(net.state_dict().values()):
        if not tensor.is_floating_point():
            continue
        wave = torch.sin(phase + number + 0.7 * torch.arange(tensor.numel(), dtype=torch.float64))
        tensor.copy_(wave.view(tensor.shape) * (0.3 if tensor.dim() == 1 else 1))
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            fan = layer.weight.numel() / layer.out_channels
            layer.weight.data *= 2 / math.sqrt(fan)
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.data += 1
            layer.running_var += 1
    return net.eval()


@pytest.fixture(scope="session")
def filled():
    """Fill a network with weights and statistics of some variety."""
    return torch.no_grad()(_filled)
