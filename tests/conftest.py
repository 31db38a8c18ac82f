"""Small networks that behave like trained ones."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from unpool.models import DeconvNet

torch.set_num_threads(1)  # such small maps are not worth sharing, least of all on a busy machine


def _filled(net: DeconvNet, seed: int = 0) -> DeconvNet:
    """In evaluation mode, every layer and its statistics filled; the same on every machine."""
    random = np.random.RandomState(seed)  # this stream of numbers is frozen
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(random.standard_normal(tensor.shape) / 4))
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            fan = layer.weight.numel() / layer.out_channels
            layer.weight.mul_(6 / math.sqrt(fan))
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.add_(1)
            layer.running_var.abs_().add_(0.5)
    return net.eval()


@pytest.fixture(scope="session")
def filled():
    """Fill a network with weights and statistics of some variety."""
    return torch.no_grad()(_filled)
