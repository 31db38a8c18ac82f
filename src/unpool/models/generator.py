"""The generative network: from style, view and transformation codes to an image and its mask.

It is a classifier read backwards: high-level codes go in, and unpooling with convolution upsamples
maps to an image (Dosovitskiy, Springenberg, Brox 2015; deep variant 2017).
"""

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unpool.errors import OptionError, ShapeError, require_choice

_SIDE = 8  #: of the maps of fc5
_WIDTHS = {2: (256, 256, 92, 92, 92), 1: (256, 256, 92, 48, 48)}  #: by the number of streams
_MASK_WIDTHS = (128, 92, 32, 32, 32)


class GenerativeNet(nn.Module):
    """The generative network; the defaults are the published two-stream network for 128 pixels.

    Three branches of two layers (`style`, `view`, `transformation`) are joined by `shared`, whose
    output becomes 8 x 8 maps; each stage doubles their side. 31,893,092 parameters.

    With two streams, `rgb` and `mask` have their own `fc5` and `stages`. A stage is a uconv (see
    `unpool.ops.uconv`) without bias (the authors' biases stay zero), and ReLU except after the
    last. With one stream, the deep variant, `stream` has `fc5` and `stages`, each a 4 x 4
    transposed convolution and a 3 x 3 convolution, both with bias and ReLU; the heads `rgb` and
    `mask` are transposed convolutions. It has 22,815,660 parameters for 809 styles and 12
    transformation parameters.

    Args:
        styles: K, the number of objects.
        size: S, side of the image in pixels: 16, 32, 64, 128, 256 ..., one stage per doubling.
        streams: 2, or 1 for the deep variant.
        transformation: T, the number of transformation parameters; by default 28, or 12 for one
            stream.
        code: width of the three branches.
        shared: width of the two layers after them.
        widths: number of maps after fc5 and after each stage but the last, of the RGB stream or
            the only one; entries beyond the number of stages are ignored.
        mask_widths: the same for the mask stream.
        mask_maps: channels of the mask; by default 3 equal ones as published, or 1 for one stream.

    Dosovitskiy, Springenberg, Brox 2015, section 3 and figure 2, widths from the released prototxt
    files; Dosovitskiy et al. 2017 for one stream.

    >>> net = GenerativeNet(5, 64, code=8, shared=16, widths=(8, 8, 4), mask_widths=(4, 4, 4))
    >>> view = encode_view(torch.tensor([0.0, 90.0]), torch.tensor([20.0, 30.0]))
    >>> rgb, mask = net(torch.eye(5)[:2], view, torch.zeros(2, 28))
    >>> rgb.shape, mask.shape
    (torch.Size([2, 3, 64, 64]), torch.Size([2, 3, 64, 64]))
    """

    def __init__(
        self,
        styles: int = 843,
        size: int = 128,
        streams: int = 2,
        transformation: int | None = None,
        code: int = 512,
        shared: int = 1024,
        widths: Sequence[int] | None = None,
        mask_widths: Sequence[int] | None = None,
        mask_maps: int | None = None,
    ) -> None:
        super().__init__()
        if streams not in _WIDTHS:
            raise OptionError(f"got streams={streams}; it is 2, or 1 for the deep variant")
        self.styles, self.size, self.streams = styles, size, streams
        self.numbers = (28 if streams == 2 else 12) if transformation is None else transformation
        maps = (3 if streams == 2 else 1) if mask_maps is None else mask_maps
        wide = _fitting(widths or _WIDTHS[streams], size)
        masks = _fitting(mask_widths or _MASK_WIDTHS, size) if streams == 2 else []
        self.arguments: dict[str, Any] = {
            "styles": styles,
            "size": size,
            "streams": streams,
            "transformation": self.numbers,
            "code": code,
            "shared": shared,
            "widths": wide,
            "mask_widths": masks or None,
            "mask_maps": maps,
        }
        if min(styles, self.numbers, code, shared, maps) < 1:
            raise OptionError(f"got {self.arguments}; wanted 1 or more of each")
        self.style = _branch(styles, code, "fc1", "fc2")
        self.view = _branch(4, code, "fc1", "fc2")
        self.transformation = _branch(self.numbers, code, "fc1", "fc2")
        self.shared = _branch(3 * code, shared, "fc3", "fc4")
        if streams == 2:
            self.rgb: nn.Module = _Stream(shared, [*wide, 3], _uconvs)
            self.mask: nn.Module = _Stream(shared, [*masks, maps], _uconvs)
        else:
            self.stream = _Stream(shared, wide, _deep_stages)
            self.rgb, self.mask = (nn.ConvTranspose2d(wide[-1], n, 4, 2, 1) for n in (3, maps))
        initialize(self)

    def forward(self, style: Tensor, view: Tensor, transformation: Tensor) -> tuple[Tensor, Tensor]:
        """Generate images and masks.

        Args:
            style: (N, K), one-hot, or a mixture of styles.
            view: (N, 4), from `encode_view`.
            transformation: (N, T); zeros for none. See `unpool.generate.transformations`.

        Returns:
            RGB inside the mask, (N, 3, S, S), and the mask, (N, 3 or 1, S, S). The targets are
            from 0 to 1; the values are not clipped.
        """
        found = style.shape[1:], view.shape[1:], transformation.shape[1:]
        if found != ((self.styles,), (4,), (self.numbers,)):
            raise ShapeError(
                f"got codes of {tuple(style.shape)}, {tuple(view.shape)} and "
                f"{tuple(transformation.shape)}; wanted (N, {self.styles}) for the style, (N, 4) "
                f"for the view and (N, {self.numbers}) for the transformation"
            )
        branches = self.style(style), self.view(view), self.transformation(transformation)
        code = self.shared(torch.cat(branches, 1))  # (N, 3 * code) -> (N, shared)
        if self.streams == 1:
            code = self.stream(code)  # (N, C, S / 2, S / 2): the heads double the side
        return self.rgb(code), self.mask(code)


class _Stream(nn.Module):
    """Maps from the code, and stages that double their side."""

    def __init__(
        self, code: int, widths: list[int], stages: Callable[[list[int]], list[nn.Module]]
    ) -> None:
        super().__init__()
        self.fc5 = _Maps(code, widths[0])
        self.stages = nn.Sequential(*stages(widths))

    def forward(self, code: Tensor) -> Tensor:
        found: Tensor = self.stages(self.fc5(code))
        return found


def _uconvs(widths: list[int]) -> list[nn.Module]:
    """The stages of the two-stream network: a uconv, and ReLU except after the last."""
    stages: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        uconv = nn.ConvTranspose2d(before, after, 5, 2, 2, 1, bias=False)
        layers = OrderedDict[str, nn.Module](uconv=uconv)
        if len(stages) < len(widths) - 2:
            layers["relu"] = nn.ReLU()
        stages.append(nn.Sequential(layers))
    return stages


def _deep_stages(widths: list[int]) -> list[nn.Module]:
    """The stages of the deep variant: two layers each, up to half the image's side."""
    stages: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers = OrderedDict[str, nn.Module](up=nn.ConvTranspose2d(before, after, 4, 2, 1))
        layers["relu1"] = nn.ReLU()
        layers["conv"], layers["relu2"] = nn.Conv2d(after, after, 3, padding=1), nn.ReLU()
        stages.append(nn.Sequential(layers))
    return stages


class _Maps(nn.Linear):
    """fc5 and its ReLU: 8 x 8 maps from the code."""

    def __init__(self, code: int, maps: int) -> None:
        super().__init__(code, maps * _SIDE**2)

    def forward(self, code: Tensor) -> Tensor:
        maps = super().forward(code).relu()
        maps = maps.view(len(code), self.out_features // _SIDE**2, _SIDE, _SIDE)
        return maps.contiguous(memory_format=torch.channels_last)  # uconv is faster so


def _branch(inputs: int, width: int, first: str, second: str) -> nn.Sequential:
    layers = OrderedDict[str, nn.Module]()
    layers[first], layers["relu1"] = nn.Linear(inputs, width), nn.ReLU()
    layers[second], layers["relu2"] = nn.Linear(width, width), nn.ReLU()
    return nn.Sequential(layers)


def _fitting(widths: Sequence[int], size: int) -> list[int]:
    """The first widths, one for each stage of an image of this size."""
    stages = round(math.log2(size / _SIDE)) if size > 0 else 0
    if stages < 1 or _SIDE * 2**stages != size:
        raise OptionError(f"got size {size}; wanted 16, 32, 64, 128, 256 or a further doubling")
    if len(widths) < stages or min(widths) < 1:
        raise OptionError(
            f"got widths {list(widths)} for {size} pixels; wanted {stages} of 1 or more: for the "
            f"maps of {_SIDE} x {_SIDE}, and after each doubling but the last"
        )
    return list(widths[:stages])


def encode_view(azimuth: Tensor, elevation: Tensor) -> Tensor:
    """Encode views by azimuth and elevation, both (N,) in degrees, so that 360 equals 0.

    Returns:
        (N, 4) float32: sine and cosine of the elevation, sine and cosine of the azimuth.

    >>> encode_view(torch.tensor([0.0]), torch.tensor([30.0]))
    tensor([[0.5000, 0.8660, 0.0000, 1.0000]])
    """
    # in single precision, 360 degrees would differ from 0
    angles = (torch.deg2rad(a.double()) for a in (elevation, azimuth))
    return torch.stack([f(a) for a in angles for f in (torch.sin, torch.cos)], 1).float()


@torch.no_grad()
def initialize(net: nn.Module, kind: str = "xavier") -> None:
    """Initialize the weights of a network or a part of it, in place.

    Args:
        kind: "orthogonal" as in the paper, `orthogonalize` of small normal values, with biases of
            0.1; "xavier" as in the authors' later code, which trains at full size from the start;
            or "he" as in the deep variant.
    """
    kinds = {"orthogonal": _orthogonal, "xavier": _xavier, "he": _he}
    require_choice("initialization", kind, kinds)
    for name, layer in net.named_modules():
        with_weights = isinstance(layer, nn.Linear | nn.ConvTranspose2d | nn.Conv2d)
        if with_weights and not layer.weight.is_meta:  # nothing to fill
            kinds[kind](name, layer)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, 0.1 * (kind == "orthogonal"))


def _orthogonal(name: str, layer: nn.Linear | nn.ConvTranspose2d | nn.Conv2d) -> None:
    nn.init.normal_(layer.weight, std=1e-3)
    layer.weight.copy_(orthogonalize(layer.weight.flatten(1)).view_as(layer.weight))


def _xavier(name: str, layer: nn.Linear | nn.ConvTranspose2d | nn.Conv2d) -> None:
    """Deviation sqrt(c / inputs); each output of a uconv depends on a quarter of its inputs."""
    inputs, c = layer.weight[0].numel(), 2.0
    if isinstance(layer, nn.ConvTranspose2d):
        inputs = layer.weight[:, 0].numel()
        c = 8.0 if layer.out_channels > 3 else 0.1  # the first images are faint
    elif name in ("style.fc1", "transformation.fc1"):
        inputs, c = 1, 1.0
    nn.init.normal_(layer.weight, std=math.sqrt(c / inputs))


def _he(name: str, layer: nn.Linear | nn.ConvTranspose2d | nn.Conv2d) -> None:
    nn.init.kaiming_normal_(layer.weight, mode="fan_out")


@torch.no_grad()
def orthogonalize(weight: Tensor, eps: float = 1e-3, most: int = 30) -> Tensor:
    """Orthogonalize a small matrix by Kovarik's iteration as accelerated by Esmaeili.

    W <- (2 I - 1.55 G + 0.55 G^2) W with G = W W^T is iterated until G equals I up to `eps`.

    Args:
        weight: W, (N, K), with singular values up to 1.34; beyond, the iteration diverges.
        eps: the norm of G - I at which to stop.
        most: the largest number of iterations.

    Returns:
        (N, K) with orthonormal rows; or orthonormal columns, if there are fewer of them.

    Raises:
        OptionError: it does not converge: W is too large, or its rows are linearly dependent.

    Esmaeili, Kovarik's method; the authors' Caffe does this before the first training step.

    >>> w = orthogonalize(torch.randn(4, 9) * 0.01)
    >>> torch.allclose(w @ w.T, torch.eye(4), atol=1e-3)
    True
    """
    if weight.shape[0] > weight.shape[1]:  # iterate on the smaller of the two products
        return orthogonalize(weight.T, eps, most).T
    w, one = weight, torch.eye(weight.shape[0], dtype=weight.dtype, device=weight.device)
    for _ in range(most):
        g = w @ w.T
        if float((g - one).norm()) < eps:
            return w
        w = torch.linalg.multi_dot([2 * one - 1.55 * g + 0.55 * g @ g, w])
    raise OptionError(
        f"got a matrix of {tuple(weight.shape)} that is not orthogonal after {most} iterations; "
        "wanted small, linearly independent rows, such as normal values times 0.001"
    )
