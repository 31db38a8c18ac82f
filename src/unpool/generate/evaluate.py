"""How like the true views what a network draws is, in numbers and side by side."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unpool import distributed
from unpool.devices import autocast
from unpool.generate.batches import Views, as_targets, codes
from unpool.models import GenerativeNet

_AT_ONCE = 32  # images that are drawn together
_SHOWN = 12  # columns of the sheet


class Measured(NamedTuple):
    """How like the true views drawn ones are; a mask is where its value is a half or more."""

    mse: float  #: squared error of colors 0 to 1, over all pixels inside the true masks
    iou: float  #: of drawn and true masks, the pixels of all views together
    iou_mean: float  #: the mean over the views, where thin chairs count as much as stout ones


@torch.no_grad()
def measure(net: GenerativeNet, views: Views, bf16: bool = False) -> Measured:
    """How like the true ones drawn images are.

    Args:
        net: in whatever mode; it is left in evaluation mode.
        views: the true ones. The processes share them.
        bf16: bfloat16 arithmetic where the hardware has it.
    """
    net.eval()
    device = next(net.parameters()).device
    found = []
    numbers = np.arange(len(views.styles))
    for chosen in distributed.shard([numbers[i : i + _AT_ONCE] for i in numbers[::_AT_ONCE]]):
        some = views.take(chosen)
        targets = as_targets(some.images, device)
        rgb, mask = draw(net, some, bf16)
        true, drawn = targets[:, 3] >= 0.5, mask[:, 0] >= 0.5
        errors = (rgb - targets[:, :3]).square().mean(1)[true].double().sum()
        both, either = (true & drawn).sum((1, 2)), (true | drawn).sum((1, 2))
        means = (both / either.clamp_min(1)).double().sum()
        found.append([float(x.sum()) for x in (errors, true, both, either, means)])
    errors, inside, both, either, means = np.array(distributed.gather(found)).sum(0)
    return Measured(
        float(errors / max(inside, 1)),
        float(both / max(either, 1)),
        float(means / len(views.styles)),
    )


@torch.no_grad()
def draw(net: GenerativeNet, views: Views, bf16: bool = False) -> tuple[Tensor, Tensor]:
    """RGB (N, 3, S, S) and mask (N, 1, S, S) of views, both cut to 0 to 1."""
    device = next(net.parameters()).device
    with autocast(device, bf16):
        none = torch.zeros(len(views.styles), net.numbers, device=device)
        rgb, mask = net(*codes(views, net.styles, device), none)
    return rgb.float().clamp(0, 1), mask.float().mean(1, keepdim=True).clamp(0, 1)


def compare(net: GenerativeNet, views: Views, bf16: bool = False) -> NDArray[np.uint8]:
    """A sheet of true images, evenly chosen, and below each what the network draws.

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
    true = as_targets(some.images, rgb.device)
    rows = [x[:, :3] + 1 - x[:, 3:] for x in (true, torch.cat([rgb * mask, mask], 1))]
    tiles = torch.stack(rows).permute(0, 3, 1, 4, 2)  # 2 rows, height, N, width, channels
    sheet = (tiles.flatten(2, 3).flatten(0, 1).clamp(0, 1) * 255).round().byte()
    return np.asarray(sheet.cpu().numpy())
