"""Compare generated with rendered views: MSE, mask IoU, a contact sheet."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unpool import distributed
from unpool.devices import autocast
from unpool.generate.batches import Views, as_targets, codes
from unpool.vision.figures import mosaic

if TYPE_CHECKING:
    from unpool.models.generator import GenerativeNet
    from unpool.vision.images import Pixels

_BATCH = 32  # images per forward pass, which bounds the memory
_COLUMNS = 12  # of the sheet


class Measured(NamedTuple):
    """Errors of generated views; a mask is where its value is 0.5 or more."""

    mse: float  #: of colors 0 to 1, over all pixels inside the rendered masks
    iou: float  #: of generated and rendered masks, over the pixels of all views together
    iou_mean: float  #: the mean IoU of the views, where thin objects count as much as large ones


@torch.no_grad()
def measure(net: "GenerativeNet", views: Views, bf16: bool = False) -> Measured:
    """Measure generated against rendered views; the processes of a run share the work.

    `net` is left in evaluation mode; `bf16` computes in bfloat16 where the hardware supports it.
    """
    net.eval()
    device = next(net.parameters()).device
    found = []
    indices = np.arange(len(views.styles))
    for chosen in distributed.shard([indices[i : i + _BATCH] for i in indices[::_BATCH]]):
        some = views.take(chosen)
        targets = as_targets(some.images, device)
        rgb, mask = generate(net, some, bf16)
        true, generated = targets[:, 3] >= 0.5, mask[:, 0] >= 0.5
        errors = (rgb - targets[:, :3]).square().mean(1)[true].double().sum()
        both, either = (true & generated).sum((1, 2)), (true | generated).sum((1, 2))
        means = (both / either.clamp_min(1)).double().sum()
        found.append([float(x.sum()) for x in (errors, true, both, either, means)])
    errors, inside, both, either, means = np.array(distributed.gather(found)).sum(0)
    ratios = errors / max(inside, 1), both / max(either, 1), means / len(views.styles)
    return Measured(*map(float, ratios))


@torch.no_grad()
def generate(net: "GenerativeNet", views: Views, bf16: bool = False) -> tuple[Tensor, Tensor]:
    """RGB (N, 3, S, S) and mask (N, 1, S, S) of views, both clipped to 0..1, fp32."""
    device = next(net.parameters()).device
    with autocast(device, bf16):
        none = torch.zeros(len(views.styles), net.numbers, device=device)
        rgb, mask = net(*codes(views, net.styles, device), none)
    return rgb.float().clamp(0, 1), mask.float().mean(1, keepdim=True).clamp(0, 1)


def compare(net: "GenerativeNet", views: Views, bf16: bool = False) -> "Pixels":
    """A sheet of rendered views, evenly sampled, each above the generated one.

    Returns:
        (2 * S, columns * S, 3) uint8, RGB on white.
    """
    indices = np.linspace(0, len(views.styles) - 1, min(_COLUMNS, len(views.styles)))
    some = views.take(indices.astype(np.int64))
    rgb, mask = generate(net.eval(), some, bf16)
    rows = torch.cat([as_targets(some.images, rgb.device), torch.cat([rgb * mask, mask], 1)])
    tiles = ((rows[:, :3] + 1 - rows[:, 3:]).clamp(0, 1) * 255).round().byte()
    return mosaic(tiles.permute(0, 2, 3, 1).cpu().numpy(), len(indices), gap=0)
