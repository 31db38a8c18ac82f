"""Layers of the generative network written out by hand, for comparison."""

import torch
from torch.nn import functional as F

from unpool.models import encode_view


def dense(x, layer):
    return (x @ layer.weight.T + layer.bias).clamp_min(0)


def stream(code, part, maps=None, skip=0):
    """A stream of the network, written out; from `maps` on, after `skip` stages, if given."""
    x = maps
    if x is None:
        x = dense(code, part.fc5).view(len(code), -1, 8, 8)
    weights = [stage.uconv.weight for stage in part.stages]
    for i, weight in enumerate(weights[skip:], skip):
        x = F.conv_transpose2d(x, weight, stride=2, padding=2, output_padding=1)
        x = x.clamp_min(0) if i < len(weights) - 1 else x
    return x


def code_of(net, style, azimuth, elevation):
    """FC-4, written out."""
    view = encode_view(torch.tensor([azimuth]), torch.tensor([elevation]))
    parts = []
    for branch, x in ((net.style, style), (net.view, view), (net.transformation, None)):
        x = torch.zeros(1, 28) if x is None else x
        parts.append(dense(dense(x, branch.fc1), branch.fc2))
    return dense(dense(torch.cat(parts, 1), net.shared.fc3), net.shared.fc4)
