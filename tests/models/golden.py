"""Weights and images by formulas, with which golden values of networks were made."""

import numpy as np
import torch


def by_formula(layer, seed):
    """Set the weights and biases of a layer."""
    n = np.arange(layer.weight.numel(), dtype=np.uint64)
    h = (n * 2654435761 + seed * 40503) % 2**32
    for shift, factor in ((15, 2246822519), (13, 3266489917), (16, 1)):
        h ^= h >> np.uint64(shift)
        h = h * factor % 2**32
    weight = (h / 2**32 - 0.5) * np.sqrt(24 / layer.weight[0].numel())
    layer.weight.copy_(torch.from_numpy(weight.reshape(layer.weight.shape)))
    layer.bias.copy_(0.1 * torch.arange(len(layer.bias), dtype=torch.float64).sin())


def by_formula_image(height, width):
    """An image (3, H, W), 0 to 255, float64."""
    c, y, x = np.ogrid[:3, :height, :width]
    image = (7 * x + 13 * y + 29 * c + 40 * (x // 8) + 25 * (y // 6)) % 256
    return torch.from_numpy(image.astype(np.float64))


def wave(*shape):
    """Values by another formula."""
    i = np.arange(np.prod(shape))
    return torch.from_numpy(np.sin(0.7 * i + 0.3 * (i % 7) ** 2)).float().view(shape)


def wavy_image(channels, height, width):
    """An image (1, C, H, W), around 0."""
    c, y, x = np.ogrid[:channels, :height, :width]
    smooth = np.cos(0.21 * y + 0.5 * c) * np.sin(0.17 * x) + 0.4 * c / channels
    return torch.from_numpy(smooth[None]).float() + 0.3 * wave(1, channels, height, width)


@torch.no_grad()
def fill_with_waves(net):
    """Set all filters and biases of a network; slopes stay as they are."""
    for name, parameter in net.named_parameters():
        if parameter.numel() > 1:
            scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1
            parameter.copy_(scale * wave(*parameter.shape))
        elif name.endswith("bias"):
            parameter.fill_(0.05)
    return net
