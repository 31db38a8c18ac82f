"""Networks that draw: from a style, a view and a transformation to an image and its mask.

A classifier read backwards: codes of high level go in, and unpooling with convolution enlarges maps
until they are an image (Dosovitskiy, Springenberg, Brox 2015; the deep variant 2017).
"""

import itertools
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unpool.errors import OptionError, ShapeError

_SIDE = 8  #: of the maps that fc5 gives
_WIDTHS = {2: (256, 256, 92, 92, 92), 1: (256, 256, 92, 48, 48)}  #: by the number of streams
_MASK_WIDTHS = (128, 92, 32, 32, 32)


class GenerativeNet(nn.Module):
    """The generative network; the defaults are the published one of two streams for 128 pixels.

    Three branches of two layers (`style`, `view`, `transformation`) meet in `shared`, and what it
    gives becomes maps of 8 x 8, which each stage makes twice as large. 31,893,092 parameters.

    With two streams, `rgb` and `mask` have an `fc5` and `stages` of their own; a stage is a uconv
    (see `unpool.ops.uconv`) without biases, which the authors' layers leave at zero, and ReLU but
    for the last. With one, `stream` has `fc5` and `stages`, each a transposed convolution of 4 x 4
    and a convolution of 3 x 3, both with biases and ReLU; its heads `rgb` and `mask` are transposed
    convolutions. That deep variant has 22,815,660 parameters for 809 styles and 12 numbers of a
    transformation.

    Args:
        styles: K, how many objects it knows.
        size: S, side of the image in pixels: 16, 32, 64, 128, 256 ..., a stage for each doubling.
        streams: 2, or 1 for the deep variant.
        transformation: T, how many numbers describe a transformation; 28, or 12 for one stream.
        code: width of the three branches.
        shared: width of the two layers after them.
        widths: maps that fc5 gives, and maps after each stage but the last, of the RGB stream or
            the only one; what goes beyond the stages is left out.
        mask_widths: the same of the mask's stream.
        mask_maps: channels of the mask; 3 alike ones as published, or 1 for one stream.

    Raises:
        OptionError: an argument that cannot be built.

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
        self.arguments: dict[str, Any] = {
            "styles": styles,
            "size": size,
            "streams": streams,
            "transformation": self.numbers,
            "code": code,
            "shared": shared,
            "widths": _fitting(widths or _WIDTHS[streams], size),
            "mask_widths": _fitting(mask_widths or _MASK_WIDTHS, size) if streams == 2 else None,
            "mask_maps": maps,
        }
        if min(styles, self.numbers, code, shared, maps) < 1:
            raise OptionError(f"got {self.arguments}; wanted 1 or more of each")
        self.style = _branch(styles, code, "fc1", "fc2")
        self.view = _branch(4, code, "fc1", "fc2")
        self.transformation = _branch(self.numbers, code, "fc1", "fc2")
        self.shared = _branch(3 * code, shared, "fc3", "fc4")
        wide: list[int] = self.arguments["widths"]
        if streams == 2:
            self.rgb: nn.Module = _Stream(shared, [*wide, 3])
            self.mask: nn.Module = _Stream(shared, [*self.arguments["mask_widths"], maps])
        else:
            self.stream = _DeepStream(shared, wide)
            self.rgb, self.mask = (nn.ConvTranspose2d(wide[-1], n, 4, 2, 1) for n in (3, maps))
        initialize(self)

    def forward(self, style: Tensor, view: Tensor, transformation: Tensor) -> tuple[Tensor, Tensor]:
        """Draw.

        Args:
            style: (N, K), one at the style's place and zero elsewhere; or a mixture of styles.
            view: (N, 4), as `encode_view` makes it.
            transformation: (N, T); zero is none. See `unpool.generate.transformations`.

        Returns:
            RGB inside the mask, (N, 3, S, S), and the mask, (N, 3 or 1, S, S); both raw, and meant
            to be within 0 and 1.

        Raises:
            ShapeError: codes of another length.
        """
        found = style.shape[1:], view.shape[1:], transformation.shape[1:]
        if found != ((self.styles,), (4,), (self.numbers,)):
            raise ShapeError(
                f"got codes of {tuple(style.shape)}, {tuple(view.shape)} and "
                f"{tuple(transformation.shape)}; wanted (N, {self.styles}) for the style, (N, 4) "
                f"for the view and (N, {self.numbers}) for the transformation"
            )
        branches = self.style(style), self.view(view), self.transformation(transformation)
        code = self.shared(torch.cat(branches, 1))
        if self.streams == 1:
            code = self.stream(code)
        return self.rgb(code), self.mask(code)


class _Stream(nn.Module):
    """A code becomes maps, and these grow to an image by uconv."""

    def __init__(self, code: int, widths: list[int]) -> None:
        super().__init__()
        self.fc5 = _Maps(code, widths[0])
        stages: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            layers["uconv"] = nn.ConvTranspose2d(before, after, 5, 2, 2, 1, bias=False)
            if len(stages) < len(widths) - 2:
                layers["relu"] = nn.ReLU()
            stages.append(nn.Sequential(layers))
        self.stages = nn.Sequential(*stages)

    def forward(self, code: Tensor) -> Tensor:
        found: Tensor = self.stages(self.fc5(code))
        return found


class _DeepStream(nn.Module):
    """The same with two layers a stage, up to half the image's side."""

    def __init__(self, code: int, widths: list[int]) -> None:
        super().__init__()
        self.fc5 = _Maps(code, widths[0])
        stages = [
            nn.Sequential(
                OrderedDict(
                    up=nn.ConvTranspose2d(before, after, 4, 2, 1),
                    relu1=nn.ReLU(),
                    conv=nn.Conv2d(after, after, 3, padding=1),
                    relu2=nn.ReLU(),
                )
            )
            for before, after in itertools.pairwise(widths)
        ]
        self.stages = nn.Sequential(*stages)

    def forward(self, code: Tensor) -> Tensor:
        found: Tensor = self.stages(self.fc5(code))
        return found


class _Maps(nn.Linear):
    """fc5 and its ReLU: a code becomes maps of 8 x 8."""

    def __init__(self, code: int, maps: int) -> None:
        super().__init__(code, maps * _SIDE**2)

    def forward(self, code: Tensor) -> Tensor:
        maps = super().forward(code).relu().unflatten(1, (-1, _SIDE, _SIDE))
        return maps.contiguous(memory_format=torch.channels_last)  # in which uconv is quicker


def _branch(inputs: int, width: int, first: str, second: str) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers[first], layers["relu1"] = nn.Linear(inputs, width), nn.ReLU()
    layers[second], layers["relu2"] = nn.Linear(width, width), nn.ReLU()
    return nn.Sequential(layers)


def _fitting(widths: Sequence[int], size: int) -> list[int]:
    """As many widths as an image of this size has stages."""
    stages = round(math.log2(size / _SIDE)) if size > 0 else 0
    if stages < 1 or _SIDE * 2**stages != size:
        raise OptionError(f"got size {size}; wanted 16, 32, 64, 128, 256 or a further doubling")
    if len(widths) < stages or min(widths) < 1:
        raise OptionError(
            f"got widths {list(widths)} for {size} pixels; wanted {stages} of them, 1 or more "
            f"each: of the maps of {_SIDE} x {_SIDE}, and after each doubling but the last"
        )
    return list(widths[:stages])


def encode_view(azimuth: Tensor, elevation: Tensor) -> Tensor:
    """A view as the network takes it: sines and cosines, so that 360 degrees are 0 again.

    Args:
        azimuth: degrees, (N,).
        elevation: degrees, (N,).

    Returns:
        (N, 4) fp32: sine and cosine of the elevation, sine and cosine of the azimuth.

    >>> encode_view(torch.tensor([0.0]), torch.tensor([30.0]))
    tensor([[0.5000, 0.8660, 0.0000, 1.0000]])
    """
    angles = (torch.deg2rad(a.double()) for a in (elevation, azimuth))
    return torch.stack([f(a) for a in angles for f in (torch.sin, torch.cos)], 1).float()


@torch.no_grad()
def initialize(net: nn.Module, kind: str = "xavier") -> None:
    """Give a network its first weights.

    Args:
        net: a `GenerativeNet`, or a part of one; changed in place.
        kind: "orthogonal" as in the paper's training, `orthogonalize` of a small normal draw and
            biases of 0.1; "xavier" as in the authors' later one, which begins at full size; "he" as
            in the deep variant's.

    Raises:
        OptionError: another kind.
    """
    draws = {"orthogonal": _orthogonal, "xavier": _xavier, "he": _he}
    if kind not in draws:
        raise OptionError(f"got initialization {kind!r}; it is one of {', '.join(draws)}")
    for name, layer in net.named_modules():
        kinds = nn.Linear | nn.ConvTranspose2d | nn.Conv2d
        if isinstance(layer, kinds) and not layer.weight.is_meta:  # which is loaded afterwards
            draws[kind](name, layer)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, 0.1 * (kind == "orthogonal"))


def _orthogonal(name: str, layer: nn.Linear | nn.ConvTranspose2d | nn.Conv2d) -> None:
    nn.init.normal_(layer.weight, std=1e-3)
    layer.weight.copy_(orthogonalize(layer.weight.flatten(1)).view_as(layer.weight))


def _xavier(name: str, layer: nn.Linear | nn.ConvTranspose2d | nn.Conv2d) -> None:
    """Deviation sqrt(c / inputs): a value of a uconv's map is made of a quarter of its inputs."""
    inputs, c = layer.weight[0].numel(), 2.0
    if isinstance(layer, nn.ConvTranspose2d):
        inputs = layer.weight[:, 0].numel()
        c = 8.0 if layer.out_channels > 3 else 0.1  # a small beginning of what is drawn
    elif name in ("style.fc1", "transformation.fc1"):
        inputs, c = 1, 1.0
    nn.init.normal_(layer.weight, std=math.sqrt(c / inputs))


def _he(name: str, layer: nn.Linear | nn.ConvTranspose2d | nn.Conv2d) -> None:
    nn.init.kaiming_normal_(layer.weight, mode="fan_out")


@torch.no_grad()
def orthogonalize(weight: Tensor, eps: float = 1e-3, most: int = 30) -> Tensor:
    """The orthogonal matrix near a small one, by Kovarik's iteration as Esmaeili quickened it.

    W becomes (2 I - 1.55 G + 0.55 G^2) W with G = W W^T, again and again, until G is I up to `eps`.

    Args:
        weight: W, (N, K); no singular value above 1.34, from which on the iteration runs away.
        eps: the norm of what is left of G - I.
        most: iterations.

    Returns:
        (N, K) whose rows are orthonormal; or its columns, where there are fewer of them.

    Raises:
        OptionError: W is too large, or its rows depend on each other.

    Esmaeili, Kovarik's method; the authors' Caffe does so before the training's first steps.

    >>> w = orthogonalize(torch.randn(4, 9) * 0.01)
    >>> torch.allclose(w @ w.T, torch.eye(4), atol=1e-3)
    True
    """
    if weight.shape[0] > weight.shape[1]:  # the same iteration on the smaller of the two products
        return orthogonalize(weight.T, eps, most).T
    w, one = weight, torch.eye(weight.shape[0], dtype=weight.dtype, device=weight.device)
    for _ in range(most):
        g = w @ w.T
        if float((g - one).norm()) < eps:
            return w
        w = torch.linalg.multi_dot([2 * one - 1.55 * g + 0.55 * g @ g, w])
    raise OptionError(
        f"got a matrix of {tuple(weight.shape)} that is not orthogonal after {most} iterations; "
        "wanted small values that do not depend on each other, such as a normal draw times 0.001"
    )
