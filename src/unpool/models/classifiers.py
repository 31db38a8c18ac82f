"""Classification networks, for deconvnets to visualize: AlexNet, ZFNet, VGG and SqueezeNet.

Each has two `nn.Sequential` to slice, `features` and `classifier`. Layers are named as in the
papers: `features.conv1`, `features.pool5`, `classifier.fc6` ...
"""

import math
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unpool.errors import OptionError, ShapeError
from unpool.limits import MAX_LAYERS, MAX_SIDE, MAX_STAGES
from unpool.models.norms import add_norm
from unpool.models.vgg import MEAN_BGR, Table, trunk_argument, trunk_table
from unpool.ops.whitening import FastDeconv


class Classifier(nn.Module):
    """The base of networks that classify images.

    Args:
        arguments: of the constructor, plain values; among them `classes`, the number of scores,
            `size`, the side of images in pixels, and `norm`, see `add_norm`.
        features: convolutions and pooling.
        classifier: the layers from their maps to the scores.
        fixed: whether it takes only images of that size.
    """

    mean = MEAN_BGR
    """The mean to subtract from pixels, see `prepare`: blue, green, red, in 0..255."""

    def __init__(
        self,
        arguments: dict[str, Any],
        features: nn.Sequential,
        classifier: nn.Sequential,
        fixed: bool = True,
    ) -> None:
        super().__init__()
        self.features, self.classifier, self.fixed = features, classifier, fixed
        self.classes: int = arguments["classes"]
        self.size: int = arguments["size"]
        self.norm: str | None = arguments["norm"]
        add_norm(features, classifier, self.norm)
        self._arguments = arguments
        sides = range(1, 2 * MAX_SIDE)
        # by search, since strides that round up and down leave no simple formula
        self.least = 1 + bisect_left(sides, True, key=lambda n: _side(features, n) > 0)
        if self.size < self.least:
            raise OptionError(
                f"got size={self.size}, too small for the last pooling; wanted {self.least} or more"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) for images (N, 3, H, W), from `prepare` with the network's `mean`.

        Raises:
            ShapeError: the images have another size, or are too small.
        """
        least, most = (self.size, self.size) if self.fixed else (self.least, math.inf)
        fits = x.dim() == 4 and x.shape[1] == 3
        if not fits or any(not least <= side <= most for side in x.shape[2:]):
            sides = f"H = W = {self.size}" if self.fixed else f"H and W from {self.least} up"
            raise ShapeError(
                f"got images of shape {tuple(x.shape)}; this {type(self).__name__} takes "
                f"(N, 3, H, W) with {sides}: resize or crop them"
            )
        return self.classifier(self.features(x))  # (N, C, h, w) -> (N, classes)

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments that build this network again, as plain values."""
        own = {name: value for name, value in self._arguments.items() if name != "norm"}
        return {**own, "norm": self.norm} if self.norm is not None else own


_Table = tuple[tuple[int, int, int, int, tuple[str, ...]], ...]
"""A row per convolution: kernel, stride, padding, groups, and the layers after its ReLU."""

_ALEXNET: _Table = (
    (11, 4, 0, 1, ("norm", "pool")),
    (5, 1, 2, 2, ("norm", "pool")),
    (3, 1, 1, 1, ()),
    (3, 1, 1, 2, ()),
    (3, 1, 1, 2, ("pool",)),
)
_ZFNET: _Table = (
    (7, 2, 1, 1, ("pool", "norm")),
    (5, 2, 0, 1, ("pool", "norm")),
    (3, 1, 1, 1, ()),
    (3, 1, 1, 1, ()),
    (3, 1, 1, 1, ("pool",)),
)
_WIDTHS = (96, 256, 384, 384, 256)


class AlexNet(Classifier):
    """Krizhevsky's network; 60,965,224 parameters.

    The maps of a 227 x 227 image have sides of 55 (conv1), 27 (pool1, conv2), 13 (pool2, conv3 to
    conv5) and 6 (pool5). Response normalization runs across 5 neighboring maps, as in the paper:
    x / (2 + 1e-4 s) ** 0.75, where s is the sum of their squares.

    Args:
        classes: number of scores.
        widths: number of maps of conv1 to conv5, even: conv2, conv4 and conv5 have two groups.
        code: width of fc6 and fc7; None omits them.
        size: side of images in pixels. 227, as in the authors' code, gives the map sizes stated in
            the paper; its 224 would not.
        dropout: dropout of fc6 and fc7 in training.
        norm: "batch" for batch norm after each convolution, "deconv" for network deconvolution
            (`FastDeconv`, `Delinear`) in every layer; None, as published, for neither.

    Krizhevsky, Sutskever, Hinton 2012, section 3 and figure 2; initialized as in section 5.

    >>> net = AlexNet(10, widths=(8, 16, 24, 24, 16), code=32, size=67).eval()
    >>> net(torch.zeros(2, 3, 67, 67)).shape, net.features[:4](torch.zeros(1, 3, 67, 67)).shape
    (torch.Size([2, 10]), torch.Size([1, 8, 7, 7]))
    """

    def __init__(
        self,
        classes: int = 1000,
        widths: Sequence[int] = _WIDTHS,
        code: int | None = 4096,
        size: int = 227,
        dropout: float = 0.5,
        norm: str | None = None,
    ) -> None:
        sizes = {"classes": classes, "widths": [*widths], "code": code, "size": size}
        arguments = _check(**sizes, dropout=dropout, norm=norm)
        if any(width % 2 for width in widths):
            raise OptionError(f"got widths {list(widths)}; those of an AlexNet are even numbers")
        super().__init__(arguments, *_stages(_ALEXNET, arguments))
        initialize(self, 0.01)
        for name, layer in self.named_modules():  # positive inputs for the first ReLUs
            if name.rpartition(".")[2] in ("conv2", "conv4", "conv5", "fc6", "fc7"):
                nn.init.ones_(layer.get_parameter("bias"))


class ZFNet(Classifier):
    """Zeiler and Fergus' network, for which deconvnets were devised; 62,357,608 parameters.

    The maps of a 224 x 224 image have sides of 110 (conv1), 55 (pool1), 26 (conv2), 13 (pool2,
    conv3 to conv5) and 6 (pool5). Pooling windows overlap, and map sizes are rounded up. Contrast
    is normalized across maps as in `AlexNet`, but after pooling; the paper does not give the
    parameters, so these are Krizhevsky's.

    Args:
        classes, code, dropout, norm: as of `AlexNet`.
        widths: number of maps of conv1 to conv5; (96, 256, 512, 1024, 512) is the paper's larger
            network.
        size: side of images in pixels, from 47 up.

    Zeiler, Fergus 2014, figure 3; initialized as in section 3.

    >>> net = ZFNet(10, widths=(8, 16, 24, 24, 16), code=32, size=64).eval()
    >>> net(torch.zeros(2, 3, 64, 64)).shape, net.features[:4](torch.zeros(1, 3, 64, 64)).shape
    (torch.Size([2, 10]), torch.Size([1, 8, 15, 15]))
    """

    def __init__(
        self,
        classes: int = 1000,
        widths: Sequence[int] = _WIDTHS,
        code: int | None = 4096,
        size: int = 224,
        dropout: float = 0.5,
        norm: str | None = None,
    ) -> None:
        sizes = {"classes": classes, "widths": [*widths], "code": code, "size": size}
        arguments = _check(**sizes, dropout=dropout, norm=norm)
        super().__init__(arguments, *_stages(_ZFNET, arguments))
        initialize(self, 0.01)


class VGG(Classifier):
    """VGG with its fully connected layers; VGG-16 has 138,357,544 parameters.

    `load_vgg` loads trained weights.

    Args:
        classes, code, dropout, norm: as of `AlexNet`.
        trunk: "vgg11" to "vgg19", or a table of (layers, channels) rows.
        size: side of images in pixels.

    Simonyan, Zisserman 2015, table 1; initialized by He et al. 2015.

    >>> net = VGG(10, trunk=((1, 4), (2, 8)), code=16, size=32).eval()
    >>> net(torch.zeros(2, 3, 32, 32)).shape, list(dict(net.features.named_children()))[3:]
    (torch.Size([2, 10]), ['conv2_1', 'relu2_1', 'conv2_2', 'relu2_2', 'pool2'])
    """

    def __init__(
        self,
        classes: int = 1000,
        trunk: str | Table = "vgg16",
        code: int | None = 4096,
        size: int = 224,
        dropout: float = 0.5,
        norm: str | None = None,
    ) -> None:
        table = trunk_table(trunk)
        arguments = _check(classes=classes, code=code, size=size, dropout=dropout, norm=norm)
        arguments["trunk"] = trunk_argument(table)
        features, channels = OrderedDict[str, nn.Module](), 3
        for stage, (layers, width) in enumerate(table, 1):
            for layer in range(1, layers + 1):
                features[f"conv{stage}_{layer}"] = nn.Conv2d(channels, width, 3, padding=1)
                features[f"relu{stage}_{layer}"] = nn.ReLU()
                channels = width
            features[f"pool{stage}"] = nn.MaxPool2d(2, ceil_mode=True)  # as in `Trunk`
        maps = nn.Sequential(features)
        super().__init__(arguments, maps, _connected(maps, channels, arguments))
        initialize(self, None)


class Fire(nn.Module):
    """A 1 x 1 convolution to few maps, then 1 x 1 and 3 x 3 in parallel (section 3.2)."""

    def __init__(self, channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.squeeze_activation = nn.ReLU()
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand1x1_activation = nn.ReLU()
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)
        self.expand3x3_activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, 2 * expand, H, W) from (N, channels, H, W)."""
        x = self._rectified("squeeze", x)  # (N, squeeze, H, W)
        return torch.cat([self._rectified(name, x) for name in ("expand1x1", "expand3x3")], 1)

    def _rectified(self, name: str, x: Tensor) -> Tensor:
        """A convolution, the normalization of `add_norm` if there is one, and ReLU."""
        for part in (name, f"{name}_norm", f"{name}_activation"):
            if part in self._modules:
                x = self.get_submodule(part)(x)
        return x


class SqueezeNet(Classifier):
    """SqueezeNet 1.1, small and without fully connected layers; 1,235,496 parameters.

    Its state dict has torchvision's names; `load_tensors` loads trained weights.

    Args:
        classes: number of scores.
        width: number of maps of the first convolution.
        stages: a row per pooling: the (squeeze, expand) widths of the Fire modules after it.
        size: side of images in pixels; others are possible.
        dropout: dropout of the last maps in training.
        norm: as of `AlexNet`; not of the last convolution, which gives the scores.

    Iandola et al. 2016, and the authors' release 1.1.

    >>> net = SqueezeNet(10, width=8, stages=(((4, 8), (4, 8)), ((4, 8),)), size=64).eval()
    >>> net(torch.zeros(2, 3, 64, 80)).shape
    torch.Size([2, 10])
    """

    mean = (103.939, 116.779, 123.68)

    def __init__(
        self,
        classes: int = 1000,
        width: int = 64,
        stages: Sequence[Sequence[Sequence[int]]] = (
            ((16, 64), (16, 64)),
            ((32, 128), (32, 128)),
            ((48, 192), (48, 192), (64, 256), (64, 256)),
        ),
        size: int = 227,
        dropout: float = 0.5,
        norm: str | None = None,
    ) -> None:
        rows = [[[int(n) for n in fire] for fire in stage] for stage in stages]
        fires = [fire for stage in rows for fire in stage]
        deep = len(rows) > MAX_STAGES or len(fires) > MAX_LAYERS
        if deep or not all(rows) or any(len(fire) != 2 for fire in fires):
            raise OptionError(
                f"got the stages {str(rows)[:60]}; wanted at most {MAX_STAGES}, each one or more "
                f"(squeeze, expand) pairs of widths, at most {MAX_LAYERS} in all"
            )
        sizes = {"classes": classes, "width": width, "stages": rows, "size": size}
        arguments = _check(**sizes, dropout=dropout, norm=norm)
        features: list[nn.Module] = [nn.Conv2d(3, width, 3, stride=2), nn.ReLU()]
        channels = width
        for stage in rows:
            features.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            for squeeze, expand in stage:
                features.append(Fire(channels, squeeze, expand))
                channels = 2 * expand
        scores = nn.Dropout(dropout), nn.Conv2d(channels, classes, 1), nn.ReLU()
        classifier = nn.Sequential(*scores, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(arguments, nn.Sequential(*features), classifier, fixed=False)
        initialize(self, None)


@torch.no_grad()
def initialize(net: Classifier, deviation: float | None) -> None:
    """Initialize weights with Gaussian values and biases with zeros, in place.

    The deviation is 0.01 in the papers of AlexNet and ZFNet. None gives that of He et al. 2015,
    which narrow networks need, but 0.01 in the first and the last layer.
    """
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer in layers:
        if layer.weight.is_meta:  # nothing to fill, but PyTorch takes seconds
            continue
        # the inputs of the first layer are pixels, with values in the tens, unless whitened
        he = math.sqrt(2 / layer.weight[0].numel())
        ends = [*layers[isinstance(layers[0], FastDeconv) : 1], layers[-1]]
        own = 0.01 if layer in ends else he
        nn.init.normal_(layer.weight, std=own if deviation is None else deviation)
        nn.init.zeros_(layer.get_parameter("bias"))


@torch.no_grad()
def renormalize(filters: Tensor, rms: float = 0.1) -> None:
    """Scale filters (O, C, k, k) whose root mean square exceeds `rms` back to it, in place.

    It keeps a few filters of the first layer from dominating (Zeiler, Fergus 2014, section 3).

    >>> filters = torch.stack([torch.full((3, 5, 5), 0.4), torch.full((3, 5, 5), 0.05)])
    >>> renormalize(filters)
    >>> filters[:, 0, 0, 0]
    tensor([0.1000, 0.0500])
    """
    found = filters.square().mean((1, 2, 3), keepdim=True).sqrt()
    filters.mul_(torch.where(found > rms, rms / found, 1))  # others stay bit-equal


def _check(**arguments: Any) -> dict[str, Any]:
    """The arguments of a constructor; raises an `OptionError` for those out of range."""
    fields = [name for name in arguments if name not in ("dropout", "norm")]
    sizes = [arguments[name] for name in fields if arguments[name] is not None]
    if min(_numbers(sizes)) < 1 or not 0 <= arguments["dropout"] < 1:
        raise OptionError(
            f"got {', '.join(f'{name}={value}' for name, value in arguments.items())}; wanted "
            "numbers from 1 up (or code=None), and a dropout from 0 to below 1"
        )
    return arguments


def _numbers(value: Any) -> list[int]:
    return [n for v in value for n in _numbers(v)] if isinstance(value, list) else [value]


def _stages(table: _Table, arguments: dict[str, Any]) -> tuple[nn.Sequential, nn.Sequential]:
    """The features and classifier of AlexNet or ZFNet."""
    widths, features, channels = arguments["widths"], OrderedDict[str, nn.Module](), 3
    if len(widths) != len(table):
        raise OptionError(f"got widths {widths}; wanted {len(table)}, one per convolution")
    for n, (row, width) in enumerate(zip(table, widths, strict=True), 1):
        kernel, stride, pad, groups, then = row
        features[f"conv{n}"] = nn.Conv2d(channels, width, kernel, stride, pad, groups=groups)
        features[f"relu{n}"] = nn.ReLU()
        for name in then:
            # PyTorch divides alpha by the number of maps, the paper does not
            norm = nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2)
            pool = nn.MaxPool2d(3, 2, ceil_mode=True)
            features[f"{name}{n}"] = norm if name == "norm" else pool
        channels = width
    maps = nn.Sequential(features)
    return maps, _connected(maps, channels, arguments)


def _connected(maps: nn.Sequential, channels: int, arguments: dict[str, Any]) -> nn.Sequential:
    """fc6, fc7 and fc8 for maps of images of the design size."""
    code, size, dropout = arguments["code"], arguments["size"], arguments["dropout"]
    inputs = channels * max(1, _side(maps, size)) ** 2  # sizes without maps are refused later
    layers = OrderedDict[str, nn.Module](flatten=nn.Flatten())
    for n in (6, 7) if code is not None else ():
        layers[f"fc{n}"] = nn.Linear(inputs, code)
        layers[f"relu{n}"] = nn.ReLU()
        layers[f"drop{n}"] = nn.Dropout(dropout)
        inputs = code
    layers["fc8"] = nn.Linear(inputs, arguments["classes"])
    return nn.Sequential(layers)


def _side(maps: nn.Sequential, size: int) -> int:
    """The side of the last maps for images of a size; 0 if nothing is left."""
    for layer in maps:
        if isinstance(layer, nn.Conv2d):
            kernel, stride, pad = layer.kernel_size[0], layer.stride[0], int(layer.padding[0])
            size = (size + 2 * pad - kernel) // stride + 1
        elif isinstance(layer, nn.MaxPool2d):
            kernel, stride = int(layer.kernel_size), int(layer.stride)  # type: ignore[arg-type]
            size = -((kernel - size) // stride) + 1  # rounded up
        if size < 1:
            return 0
    return size
