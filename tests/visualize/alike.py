"""The same network spelled otherwise, and whether results are alike."""

import torch.nn.functional as F
from torch import nn

from unpool.visualize import list_layers


def last(net, images):
    """The last layer with maps."""
    return [layer.name for layer in list_layers(net, images) if len(layer.shape) == 3][-1]


def close(a, b, tolerance=1e-6):
    """Equal, relative to the largest value."""
    assert a.shape == b.shape
    return (a - b).abs().max() <= tolerance * b.abs().max()


class Spelled(nn.Module):
    """The "vgg" network with its ReLUs spelled otherwise."""

    def __init__(self, net, relu):
        super().__init__()
        self.convs = nn.ModuleList(m for m in net if isinstance(m, nn.Conv2d))
        self.relu = [relu]  # not a submodule, even where it is a module

    def forward(self, x):
        for i, layer in enumerate(self.convs):
            x = layer(x)
            y = self.relu[0](x)
            x = F.max_pool2d(y, 2) if i in (1, 2) else y
        return x
