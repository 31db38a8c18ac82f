"""DeepLab v1: VGG with dilated filters in place of its last strides (Chen et al. 2015).

Two poolings keep the size of their maps, and the filters after them have zeros between their taps
("holes"), so that there is a score at every eighth pixel. Scores are upsampled bilinearly, and a
dense CRF sharpens the result (the preset `deeplab1`).
"""

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpool.errors import OptionError, ShapeError, require_int, require_type
from unpool.limits import MAX_PAD
from unpool.models.vgg import Table, Trunk, code_layers, initialize, recompute, trunk_argument


class DeepLab(nn.Module):
    """DeepLab v1; the defaults are the published DeepLab-LargeFOV for 21 classes.

    20,505,429 parameters. The arguments of the other published networks:

    - DeepLab ("vgg128_noup", 4 x 4), 65,140,565 parameters:
      `code=4096, window=4, dilation=4, kernel=2, average=False`
    - DeepLab-7x7, 134,346,581: the same with `window=7`
    - DeepLab-MSc, 66,346,686: as 4 x 4, but `kernel=3, fine=True`
    - DeepLab-MSc-LargeFOV, 21,711,550: `fine=True`

    Layers carry the authors' names: the state dict's keys end in `conv1_1.weight`, `fc6.weight`,
    `fc7.weight`, `fc8.weight`, and with `fine` in `data_conv.weight`, `data_fc.weight`,
    `data_ms.weight`, `pool1_conv.weight` ... `pool4_ms.weight`.

    The last two poolings of the trunk have stride 1, and the filters of its last stage are dilated
    by two. As in the released networks, the windows of the last pooling are not dilated, so the
    network does not exactly equal VGG evaluated at every shift of the image.

    Args:
        classes: number of score maps, background included.
        trunk: a VGG name ("vgg11" to "vgg19") or a table of (layers, channels) rows.
        code: width of fc6 and fc7.
        window: side of fc6's window.
        dilation: of fc6, the distance between its taps on the map.
        kernel: side of the windows of all poolings but the last, 2 or 3. With 2, the second-last
            pooling is padded in `forward` only, as in the authors' network ("noup").
        average: add an average pooling before fc6 ("pool5a").
        fine: add scores from the image and from all pooled maps but the last ("MSc", multi-scale).
        fine_width: number of maps in the two layers before each of these scores.
        dropout: probability for fc6, fc7 and the layers of `fine` in training, from 0 to below 1.
        norm: "deconv" for network deconvolution in the trunk, see `Trunk`.

    Chen, Papandreou, Kokkinos, Murphy, Yuille 2015 (arXiv 1412.7062), sections 3 and 4; layers from
    the released prototxts.

    >>> net = DeepLab(3, trunk=((1, 4), (1, 8), (1, 8), (1, 8), (1, 8)), code=16).eval()
    >>> net(torch.zeros(2, 3, 40, 50)).shape, net.coarse(torch.zeros(2, 3, 41, 57)).shape
    (torch.Size([2, 3, 40, 50]), torch.Size([2, 3, 6, 8]))
    """

    size: int | None = None
    """There is no design size; the network takes images of any size."""

    def __init__(
        self,
        classes: int = 21,
        trunk: str | Table = "vgg16",
        code: int = 1024,
        window: int = 3,
        dilation: int = 12,
        kernel: int = 3,
        average: bool = True,
        fine: bool = False,
        fine_width: int = 128,
        dropout: float = 0.5,
        norm: str | None = None,
    ) -> None:
        super().__init__()
        self.trunk, self.norm = Trunk(trunk, None, norm=norm), norm
        self.trunk.least = 1  # smaller images are padded
        self.classes, self.code_width, self.window = classes, code, window
        self.dilation, self.kernel, self.average = dilation, kernel, average
        self.fine_width, self.dropout = fine_width, dropout
        table = self.trunk.table
        self.stride = 2 ** (len(table) - 2)  #: distance of the scores in pixels, 8 with five stages
        self._require_arguments(fine)
        for layer in self.trunk.stages[-1].children():
            if isinstance(layer, nn.Conv2d):
                # holes make up for the stride that the pooling before has lost
                layer.dilation = layer.padding = (2, 2)
        pad = (window - 1) * dilation // 2
        fc6 = nn.Conv2d(table[-1][1], code, window, padding=pad, dilation=dilation)
        self.fc = code_layers(fc6, dropout)
        self.score = nn.ModuleDict({"fc8": nn.Conv2d(code, classes, 1)})
        self.fine, self.drop = nn.ModuleDict(), nn.Dropout(dropout)
        maps = {"data": 3} | {f"pool{i}": width for i, (_, width) in enumerate(table[:-1], 1)}
        self.branches = list(maps) if fine else []  #: the maps with separate score layers
        for name in self.branches:
            self.fine[f"{name}_conv"] = nn.Conv2d(maps[name], fine_width, 3, padding=1)
            self.fine[f"{name}_fc"] = nn.Conv2d(fine_width, fine_width, 1)
            self.score[f"{name}_ms"] = nn.Conv2d(fine_width, classes, 1)
        self._initialize()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes, H, W) for images (N, 3, H, W) made by `prepare`.

        Images are padded with the mean at the right and at the bottom, to a size that `coarse`
        accepts. Scores are upsampled from the grid; the branches of `fine` are computed at all
        positions of their maps.
        """
        self.trunk.require_size(x)
        height, width = x.shape[-2:]
        right, bottom = (-(side - 1 - self.first) % self.stride for side in (width, height))
        # zeros are the mean color
        x = F.pad(x, (0, right, 0, bottom))
        maps = self._maps(x, padded=True)
        y = _enlarge(self._encode(maps[-1]), self.stride)
        start = (self.stride - 1) * self.first  # the padding has a cell before the image
        y = y[..., start : start + x.shape[-2], start : start + x.shape[-1]]
        for i, name in enumerate(self.branches):
            y = y + _enlarge(self._branch(name, maps[i]), min(2**i, self.stride))
        return y[..., :height, :width]

    def coarse(self, x: Tensor, padded: bool = False) -> Tensor:
        """The scores (N, classes, h, w) for training, at every eighth pixel of images (N, 3, H, W).

        Score (i, j) belongs to pixel (8i, 8j), or to pixel (8i + 1, 8j + 1) in a network with
        `kernel=2`. So H is 8h - 7, or 8h - 6.

        Args:
            x: images made by `prepare`. Other sizes raise a `ShapeError`, since their labels would
                not lie on the grid.
            padded: pad the second-last pooling of a network with `kernel=2`, as `forward` does,
                which gives one more score on every side.
        """
        self.trunk.require_size(x)
        if not all(self.fits(side) for side in x.shape[-2:]):
            first = self.first + 1
            raise ShapeError(
                f"got images of {x.shape[-2]} x {x.shape[-1]} pixels; the scores of this network "
                f"lie on a grid of {self.stride}n + {first} pixels: crop or pad the images to such "
                "a size, or use forward, which takes any"
            )
        maps = self._maps(x, padded)
        y = self._encode(maps[-1])
        for i, name in enumerate(self.branches):
            y = y + self._branch(name, maps[i], step=max(self.stride >> i, 1))
        return y

    @property
    def first(self) -> int:
        """The row and column of a training crop to which the first score belongs."""
        return 3 - self.kernel

    def fits(self, side: int) -> bool:
        """Whether `coarse` accepts square images of this side for training.

        >>> net = DeepLab(2, ((1, 4),) * 5, 8)
        >>> net.fits(321), net.fits(320)
        (True, False)
        """
        return side > self.first and (side - 1 - self.first) % self.stride == 0

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments, as plain values, to rebuild this network."""
        names = ("window", "dilation", "kernel", "average")
        values = {
            "classes": self.classes,
            "trunk": trunk_argument(self.trunk.table),
            "code": self.code_width,
            **{name: getattr(self, name) for name in names},
            "fine": bool(self.branches),
            "fine_width": self.fine_width,
            "dropout": self.dropout,
        }
        return {**values, "norm": self.norm} if self.norm is not None else values

    def _maps(self, x: Tensor, padded: bool) -> list[Tensor]:
        """The images, and the pooled maps of all stages."""
        maps, last = [x], len(self.trunk.stages)
        for number, stage in enumerate(self.trunk.stages, start=1):
            kernel = 3 if number == last else self.kernel
            pad = int(padded or kernel == 3 or number < last - 1)
            pool = partial(_max_pool, kernel, 2 if number < last - 1 else 1, pad)
            again = self.trunk.recomputes
            maps.append(recompute(stage, pool, maps[-1]) if again else pool(stage, maps[-1]))
        if self.average:
            maps[-1] = F.avg_pool2d(maps[-1], 3, 1, 1)  # divide by 9 at the border, too
        return maps

    def _encode(self, maps: Tensor) -> Tensor:
        """The scores of fc8 (N, classes, h, w)."""
        again = self.trunk.recomputes
        y = recompute(self.fc, nn.Module.__call__, maps) if again else self.fc(maps)
        return self._score("fc8", y)

    def _branch(self, name: str, maps: Tensor, step: int = 1) -> Tensor:
        """The scores of a branch at every `step`-th position."""
        conv, fc = self.fine[f"{name}_conv"], self.fine[f"{name}_fc"]
        if step == 1:
            y = conv(maps)
        else:
            parameters = conv.get_parameter("weight"), conv.get_parameter("bias")
            # only at the positions that the loss sees
            y = F.conv2d(maps, *parameters, stride=step, padding=1)
        y = self.drop(fc(self.drop(y.relu())).relu())
        return self._score(f"{name}_ms", y)

    def _score(self, name: str, y: Tensor) -> Tensor:
        layer = self.score[name]
        scores: Tensor = layer(y.to(layer.get_parameter("weight").dtype))  # may stay float32
        return scores

    def _require_arguments(self, fine: bool) -> None:
        names = ("classes", "code", "window", "dilation", "fine_width")
        values = (self.classes, self.code_width, self.window, self.dilation, self.fine_width)
        for name, value in zip(names, values, strict=True):
            require_int(name, value, 2 if name == "classes" else 1)
        if len(self.trunk.table) < 3:
            raise OptionError(
                f"got a trunk of {len(self.trunk.table)} stages; wanted three or more, of which "
                "the last two keep the size of their maps"
            )
        pad = (self.window - 1) * self.dilation
        if pad % 2 or pad > 2 * MAX_PAD:
            raise OptionError(
                f"got window={self.window} with dilation={self.dilation}, which reach "
                f"{pad} cells; wanted an even number up to {2 * MAX_PAD}: choose an odd window, or "
                "an even dilation"
            )
        if self.kernel not in (2, 3) or (fine and self.kernel == 2):
            raise OptionError(
                f"got kernel={self.kernel}{' with fine' * fine}; wanted 3, or without fine also 2"
            )
        require_type("dropout", self.dropout, int | float, "a number from 0 to below 1")
        if not 0 <= self.dropout < 1:
            raise OptionError(f"got dropout={self.dropout}; wanted a number from 0 to below 1")

    def _initialize(self) -> None:
        """Initialize score layers and branches as the authors do, Gaussian; trunk, fc6 and fc7 by
        He initialization, to be replaced by VGG weights."""
        initialize(self.trunk)
        initialize(self.fc)
        initialize(self.score, partial(nn.init.normal_, std=0.01))
        initialize(self.fine, partial(nn.init.normal_, std=0.001))
        if "pool4" in self.branches:  # as released
            initialize(self.fine["pool4_fc"], partial(nn.init.normal_, std=0.005))
            initialize(self.score["pool3_ms"], nn.init.zeros_)


def decimate(weight: Tensor, bias: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Subsample fc6 or fc7 of VGG: keep every k-th filter and every k-th tap, from the first.

    The authors initialized LargeFOV like this, but did not say which filters and taps they kept;
    this choice is ours. Three of seven taps are 0, 3 and 6; four are 0, 2, 4 and 6.

    Args:
        weight: (O, I * k * k), the weight of the fully connected layer.
        bias: (O,), its bias.
        shape: (o, i, j, j), the shape of the target convolution; dimensions that do not fit are
            kept.

    Returns:
        Weight (o, i * j * j) and bias (o,).

    Chen et al. 2015, section 3.1 ("spatially subsampling").

    >>> weight, bias = decimate(torch.arange(49.0)[None], torch.zeros(1), torch.Size((1, 1, 3, 3)))
    >>> weight
    tensor([[ 0.,  3.,  6., 21., 24., 27., 42., 45., 48.]])
    """
    inputs = shape[1] if shape[-1] > 1 else weight.shape[1]  # fc7 has all of fc6
    side = math.isqrt(weight.shape[1] // inputs)
    if inputs * side**2 != weight.shape[1]:
        return weight, bias
    filters = weight.view(-1, inputs, side, side)
    every = [slice(None, None, -(-n // m)) for n, m in zip(filters.shape, shape, strict=True)]
    return filters[*every].flatten(1), bias[every[0]]


def _max_pool(kernel: int, stride: int, pad: int, stage: nn.Module, x: Tensor) -> Tensor:
    return F.max_pool2d(stage(x), kernel, stride, pad, ceil_mode=True)  # Caffe rounds up


def _enlarge(y: Tensor, factor: int) -> Tensor:
    """Upsample maps (N, C, h, w) bilinearly to (h - 1) * factor + 1, with the corners aligned."""
    size = [factor * (side - 1) + 1 for side in y.shape[-2:]]
    # as Caffe's layer Interp
    return F.interpolate(y, size, mode="bilinear", align_corners=True)
