"""How like the true views what a network draws is, in numbers and side by side."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unpool import parallel
from unpool.fitting import arithmetic
from unpool.generate.lessons import Views, as_targets, codes
from unpool.models import GenerativeNet

__all__ = ["compare", "draw", "measure"]

_AT_ONCE = 32  # pictures that are drawn together
_SHOWN = 12  # columns of the sheet


@torch.no_grad()
def measure(net: GenerativeNet, views: Views, bf16: bool = False) -> tuple[float, float]:
    """How like the true ones drawn pictures are.

    Args:
        net: in whatever mode; it is left in evaluation mode.
        views: the true ones. The processes share them.
        bf16: bfloat16 arithmetic where the hardware has it.

    Returns:
        The mean squared error of RGB, 0 to 1, over the channels of all pixels whose true mask is a
        half or more; and the mean over the views of the intersection over union of the two masks,
        each where it is a half or more.
    """
    net.eval()
    device = next(net.parameters()).device
    found = []
    numbers = np.arange(len(views.styles))
    for chosen in parallel.share([numbers[i : i + _AT_ONCE] for i in numbers[::_AT_ONCE]]):
        some = views.take(chosen)
        targets = as_targets(some.pictures, device)
        rgb, mask = draw(net, some, bf16)
        true, drawn = targets[:, 3] >= 0.5, mask[:, 0] >= 0.5
        errors = (rgb - targets[:, :3]).square().mean(1)[true].double().sum()
        union = (true | drawn).sum((1, 2)).clamp_min(1)
        ious = ((true & drawn).sum((1, 2)) / union).double().sum()
        found.append((float(errors), int(true.sum()), float(ious)))
    sums = np.array(parallel.gather(found)).sum(0)
    return float(sums[0] / max(sums[1], 1)), float(sums[2] / len(views.styles))


@torch.no_grad()
def draw(net: GenerativeNet, views: Views, bf16: bool = False) -> tuple[Tensor, Tensor]:
    """RGB (N, 3, S, S) and mask (N, 1, S, S) of views, both cut to 0 to 1."""
    device = next(net.parameters()).device
    with arithmetic(device, bf16):
        none = torch.zeros(len(views.styles), net.numbers, device=device)
        rgb, mask = net(*codes(views, net.styles, device), none)
    return rgb.float().clamp(0, 1), mask.float().mean(1, keepdim=True).clamp(0, 1)


def compare(net: GenerativeNet, views: Views, bf16: bool = False) -> NDArray[np.uint8]:
    """A sheet of true pictures, evenly chosen, and below each what the network draws.

    Args:
        net: in whatever mode; it is left in evaluation mode.
        views: the true ones.
        bf16: bfloat16 arithmetic where the hardware has it.

    Returns:
        (2 * S, width, 3) uint8, RGB on white.
    """
    numbers = np.linspace(0, len(views.styles) - 1, min(_SHOWN, len(views.styles)))
    some = views.take(numbers.astype(np.int64))
    rgb, mask = draw(net.eval(), some, bf16)
    true = as_targets(some.pictures, rgb.device)
    rows = [x[:, :3] + 1 - x[:, 3:] for x in (true, torch.cat([rgb * mask, mask], 1))]
    tiles = torch.stack(rows).permute(0, 3, 1, 4, 2)  # 2 rows, height, N, width, channels
    sheet = (tiles.flatten(2, 3).flatten(0, 1).clamp(0, 1) * 255).round().byte()
    return np.asarray(sheet.cpu().numpy())
