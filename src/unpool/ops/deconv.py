"""Deconvolution: the transpose of convolution, with the papers' crop rule and shared filters.

Letters: N batch, I channels in, O channels out, H W before, k kernel.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from unpool.errors import ShapeError
from unpool.ops.switches import fixed_unpool


def deconv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Transposed convolution: spread each value with the filter, add overlaps, crop the border.

    This is the transpose of `conv2d` with the same stride, padding and *weight tensor*: the
    filters of a convolution from O to I channels serve here from I to O. Sharing the tensor ties
    a deconvolution to its convolution; no filter is flipped by hand.

    "We crop the boundary of the enlarged activation map to keep the size of the output map
    identical to the one from the preceding unpooling layer": `padding` cells are cut from each
    side of the enlarged map, whose side is (H - 1) * stride + k. If a strided convolution left out
    cells at the right and lower border, `size` gives the size to restore.

    Args:
        x: maps, (N, I, H, W).
        weight: filters, (I, O, k, k): the layout of `ConvTranspose2d`, of Caffe's deconvolution,
            and of the convolution from O to I channels whose transpose this is.
        bias: (O,), or None.
        stride: distance between windows in the output.
        padding: cells cut from each side of the enlarged map.
        size: (H, W) of the output; by default the smallest possible.

    Returns:
        Maps of (N, O, *size).

    Raises:
        ShapeError: maps and filters do not fit, or no such convolution leads from `size` to x.

    Noh, Hong, Han 2015, section 3.2.2; Zeiler, Fergus 2014, section 2.1.

    >>> spread = deconv(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 3, 3), padding=1)
    >>> spread.shape, spread[0, 0, 0]
    (torch.Size([1, 1, 2, 2]), tensor([4., 4.]))
    """
    if x.dim() != 4 or weight.dim() != 4 or x.shape[1] != weight.shape[0]:
        raise ShapeError(
            f"got maps of {tuple(x.shape)} and filters of {tuple(weight.shape)}; wanted "
            "(N, I, H, W) and (I, O, k, k): pass the filters of the convolution that led here"
        )
    extra = (0, 0)
    if size is not None:
        kernel = tuple(weight.shape[-2:])
        least = tuple((x.shape[i] - 1) * stride + kernel[i] - 2 * padding for i in (-2, -1))
        # with a stride, images of several sizes have maps of one size: this says which is meant
        extra = (size[0] - least[0], size[1] - least[1])
        if not all(0 <= e < stride for e in extra):
            raise ShapeError(
                f"got size {tuple(size)} for maps of {tuple(x.shape[-2:])}; a deconvolution with "
                f"kernel {kernel}, stride {stride}, padding {padding} gives {least} to "
                f"{tuple(n + stride - 1 for n in least)}: pass the size of the convolution's input"
            )
    return F.conv_transpose2d(x, weight, bias, stride, padding, extra)


def as_convolution(weight: Tensor) -> Tensor:
    """The filters of the plain convolution that equals a deconvolution of stride 1.

    Deconvolution filters (I, O, k, k) become (O, I, k, k): channels exchanged and each filter
    rotated by 180 degrees; use them with padding k - 1 - padding.

    >>> x, w = torch.randn(1, 2, 5, 5), torch.randn(2, 3, 3, 3)
    >>> y = F.conv2d(x, as_convolution(w), padding=1)
    >>> torch.allclose(deconv(x, w, padding=1), y, atol=1e-5)
    True
    """
    return weight.transpose(0, 1).flip(-2, -1)


def uconv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Unpooling and convolution in one, which doubles the side of the maps.

    Each value goes to the top-left cell of a 2 x 2 block, and the sparse map is convolved with
    5 x 5 filters. Three of four products are with zeros; the equivalent
    `deconv(x, weight, bias, stride=2, padding=2, size=(2 * H, 2 * W))` avoids them, and so does the
    layer of the networks, `nn.ConvTranspose2d(I, O, 5, stride=2, padding=2, output_padding=1)`.

    Args:
        x: maps, (N, I, H, W).
        weight: filters as of `deconv`, (I, O, 5, 5).
        bias: (O,), or None.

    Returns:
        Maps of (N, O, 2 * H, 2 * W).

    Dosovitskiy, Springenberg, Brox 2015, section 3.2.

    >>> x, w = torch.randn(1, 2, 4, 4), torch.randn(2, 3, 5, 5)
    >>> torch.allclose(uconv(x, w), deconv(x, w, None, 2, 2, (8, 8)), atol=1e-5)
    True
    """
    if x.dim() != 4 or (x.shape[1], 5, 5) != (weight.shape[0], *weight.shape[2:]):
        raise ShapeError(
            f"got maps of {tuple(x.shape)} and filters of {tuple(weight.shape)}; wanted "
            "(N, I, H, W) and (I, O, 5, 5)"
        )
    return F.conv2d(fixed_unpool(x), as_convolution(weight), bias, padding=2)


def bilinear_kernel(channels: int, kernel: int) -> Tensor:
    """Deconvolution filters that interpolate each channel bilinearly.

    Args:
        channels: number of channels, which are not mixed.
        kernel: side of the filter; 2 * stride to upsample by an even stride.

    Returns:
        Dense filters (channels, channels, kernel, kernel), zero off the diagonal.

    Long, Shelhamer, Darrell 2015, section 3.3.

    >>> bilinear_kernel(1, 4)[0, 0, 1]
    tensor([0.1875, 0.5625, 0.5625, 0.1875])
    """
    half = (kernel + 1) // 2
    # as Caffe's filler, so that released networks start from the same filters
    center = half - 1 if kernel % 2 else half - 0.5
    line = 1 - (torch.arange(kernel) - center).abs() / half
    weight = torch.zeros(channels, channels, kernel, kernel)
    weight[range(channels), range(channels)] = torch.outer(line, line)
    return weight
