"""FCN: a classification network run as a convolution, scored at three depths (Long et al. 2015).

The trunk's last maps are scored at every position, and the scores are upsampled by bilinear
interpolation, itself a deconvolution. On the way up, the scores of finer pooled maps are added
("skips"). These maps have different strides and offsets relative to the image; how they align
follows from the layers' windows, as in the authors' Caffe.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unpool.errors import OptionError, ShapeError, WeightsError, require_int, require_type
from unpool.limits import MAX_PAD
from unpool.models.vgg import Table, Trunk, code_layers, initialize, recompute, trunk_argument
from unpool.ops.deconv import bilinear_kernel
from unpool.ops.whitening import Whitening


class FCN(nn.Module):
    """A fully convolutional network; the defaults are the published FCN-8s.

    134,489,759 parameters (FCN-16s: 134,815,994, FCN-32s: 136,152,917), including the
    fixed ones of the interpolation. Layers carry the authors' names: the state dict's keys end in
    `conv1_1.weight`, `fc6.weight`, `score_fr.weight`, `upscore2.weight`, `score_pool4.weight`,
    `upscore_pool4.weight`, `score_pool3.weight`, `upscore8.weight`; the last is `upscore16` in
    FCN-16s and `upscore` in FCN-32s.

    It takes images of any size and returns scores of that size. The published network pads images
    with 100 zeros, because fc6, a 7 x 7 window without padding, shrinks the maps. That is costly:
    an image of 160 pixels is processed as one of 358. With `pad=1`, fc6 is padded instead, and all
    maps keep their size; the scores are then those of the last map, upsampled bilinearly. Together
    with `code=512, window=3` or `code=None` it can be trained on a CPU.

    Args:
        classes: number of score maps, background included.
        trunk: a VGG name ("vgg11" to "vgg19") or a table of (layers, channels) rows.
        code: width of fc6 and fc7; None omits them and scores the last pooled maps.
        stride: of the finest map that is scored. With five stages 32 (no skips), 16 (pool4), or 8
            (pool4 and pool3); also 4, which was not published.
        pad: zero padding of the image, in conv1_1. 1: as in VGG, and fc6 is padded, too.
        window: side of fc6's window, odd.
        dropout: dropout of fc6 and fc7 in training, from 0 to below 1.
        at_once: scale pool4 by 0.01 and pool3 by 0.0001 before they are scored, so that all
            streams can be trained together from VGG weights ("FCN-8s-atonce").
        learned: also train the dense filters of the interpolation. The released networks keep them
            fixed; the paper fixes the last and learns the others (freeze it with
            `net.score["upscore8"].requires_grad_(False)`); the networks of 2014 learned all.
        norm: "deconv" for network deconvolution in the trunk, see `Trunk`.

    Long, Shelhamer, Darrell 2015, section 4 and figure 3; layers from the released prototxts.

    >>> net = FCN(3, ((1, 4), (1, 8), (1, 8)), code=16, stride=4, pad=1, window=3).eval()
    >>> net(torch.zeros(2, 3, 40, 50)).shape, net.offsets
    (torch.Size([2, 3, 40, 50]), {'score_pool2': -1, 'score': 2})
    """

    size: int | None = None
    """There is no design size; the network takes images of any size."""

    def __init__(
        self,
        classes: int = 21,
        trunk: str | Table = "vgg16",
        code: int | None = 4096,
        stride: int = 8,
        pad: int = 100,
        window: int = 7,
        dropout: float = 0.5,
        at_once: bool = False,
        learned: bool = False,
        norm: str | None = None,
    ) -> None:
        super().__init__()
        self.trunk, self.norm = Trunk(trunk, None, pad=pad, norm=norm), norm
        self.classes, self.code_width, self.stride = classes, code, stride
        self.pad, self.window, self.dropout = pad, window, dropout
        self.at_once, self.learned = at_once, learned
        self._require_arguments()
        table = self.trunk.table
        self.skips = list(range(len(table) - 1, stride.bit_length() - 2, -1))  #: [4, 3] in FCN-8s
        self.offsets = self._offsets()  #: of the crops; 5, 9 and 31 in FCN-8s
        if self.offsets["score"] < 0:
            raise OptionError(
                f"got pad={pad} with window={window}: the scores would not reach the image's "
                f"border; pass pad={pad - self.offsets['score']} or more, or pad=1, which pads fc6"
            )
        width = table[-1][1] if code is None else code
        self.fc = None if code is None else _code(table[-1][1], code, window, pad, dropout)
        self.score = nn.ModuleDict({"score_fr": nn.Conv2d(width, classes, 1)})
        for i, (enlarge, factor) in enumerate(self.factors.items()):
            self.score[enlarge] = Interpolation(classes, factor, learned)
            for skip in self.skips[i : i + 1]:
                self.score[f"score_pool{skip}"] = nn.Conv2d(table[skip - 1][1], classes, 1)
        self._initialize()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes, H, W) for images (N, 3, H, W) made by `prepare`.

        Raises a `ShapeError` for images that are too small.
        """
        maps = self.trunk.pooled(x)  # (N, C, H / 2, W / 2) to (N, C', H / 32, W / 32) with VGG-16
        y = maps[-1] if self.fc is None else self._encode(maps[-1])
        dtype = next(self.score.parameters()).dtype  # which may stay float32
        y = self.score["score_fr"](y.to(dtype))  # (N, classes, h, w)
        *enlarge, last = (self.score[name] for name in self.factors)
        for depth, skip in enumerate(self.skips):
            name, fine = f"score_pool{skip}", maps[skip - 1].to(dtype)
            if self.at_once:
                # as in the released network, since maps of lower layers have larger values
                fine = fine * 0.01 ** (depth + 1)
            # twice the side, on the grid of the skip's map
            y = _add(enlarge[depth](y), self.score[name](fine), self.offsets[name])
        y, start, (height, width) = last(y), self.offsets["score"], x.shape[-2:]
        return y[..., start : start + height, start : start + width]

    @torch.no_grad()
    def take(self, other: nn.Module) -> list[str]:
        """Copy all layers of another network that match in name and shape.

        The authors train in stages: FCN-32s starts from VGG-16 (`load_vgg`), FCN-16s from FCN-32s,
        and FCN-8s from FCN-16s. New score layers are zero, so each starts with the function of the
        one before. Filters of the interpolation are copied if they are learned.

        Args:
            other: an FCN, or any network with a `Trunk` and no batch norm, such as `fold(net)` of
                a `DeconvNet`; a `WeightsError` if none of its layers fits.

        Returns:
            The names of the layers that were copied.

        >>> table = ((1, 4), (1, 4), (1, 4))
        >>> FCN(2, table, None, stride=4, pad=1).take(FCN(2, table, None, stride=8, pad=1))
        ['conv1_1', 'conv2_1', 'conv3_1', 'score_fr']
        """
        if any(isinstance(layer, nn.BatchNorm2d | Whitening) for layer in other.modules()):
            raise WeightsError(
                f"got a {type(other).__name__} with normalization, whose filters are not those of "
                "an FCN; "
                "fold it first: take(unpool.models.fast.fold(net))"
            )
        source, taken = other.state_dict(), []
        for name, layer in self.named_modules():
            own = {f"{name}.{key}": value for key, value in layer.named_parameters(recurse=False)}
            fits = all(k in source and source[k].shape == v.shape for k, v in own.items())
            fixed = isinstance(layer, Interpolation) and not self.learned
            if own and fits and not fixed:
                for key, value in own.items():
                    value.copy_(source[key])
                taken.append(name.rpartition(".")[2])
        if not taken:
            raise WeightsError(
                f"got a {type(other).__name__} whose layers do not fit; take one of the same trunk"
            )
        return taken

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments that build this network again, as plain values."""
        names = ("stride", "pad", "window", "dropout", "at_once", "learned")
        trunk = {"trunk": trunk_argument(self.trunk.table), "code": self.code_width}
        own = {name: getattr(self, name) for name in names}
        values = {"classes": self.classes, **trunk, **own}
        return {**values, "norm": self.norm} if self.norm is not None else values

    @property
    def code(self) -> nn.Sequential | None:
        """The code layers, fc6 and fc7; None in a network without them."""
        return self.fc

    @property
    def factors(self) -> dict[str, int]:
        """The upsampling factor of each interpolation layer, in the order of use.

        >>> FCN(2, ((1, 4), (1, 4), (1, 4)), None, stride=4).factors
        {'upscore2': 2, 'upscore4': 4}
        """
        inner = [f"upscore_pool{skip}" for skip in self.skips[:-1]]
        names = ["upscore2", *inner, f"upscore{self.stride}"] if self.skips else ["upscore"]
        return {**dict.fromkeys(names, 2), names[-1]: self.stride}

    def _encode(self, maps: Tensor) -> Tensor:
        least = 1 if self.pad == 1 else self.window
        if min(maps.shape[-2:]) < least:
            raise ShapeError(
                f"got an image whose last pooled map is {maps.shape[-2]} x {maps.shape[-1]}; fc6 "
                f"needs {least} x {least}: enlarge the image, or build the network with more pad, "
                "or pad=1"
            )
        assert self.fc is not None
        if self.trunk.recomputes:
            return recompute(self.fc, nn.Module.__call__, maps)
        return self.fc(maps)

    def _offsets(self) -> dict[str, int]:
        """The offsets at which maps align: of the upsampled scores in each skip's map, and of the
        image in the last scores; by the names of the layers."""
        image, offsets = _Map(1, 0.0), {}
        pools = [image.convolved(3, self.pad).pooled()]
        for _ in self.trunk.table[1:]:
            pools.append(pools[-1].pooled())
        scores = pools[-1]
        if self.code_width is not None and self.pad > 1:
            scores = scores.convolved(self.window, 0)
        for skip in self.skips:
            scores, fine = scores.enlarged(2), pools[skip - 1]
            offsets[f"score_pool{skip}"] = offset = scores.on(fine)
            if offset < 0:
                scores = fine  # the scores are cropped instead
        offsets["score"] = image.on(scores.enlarged(self.stride))
        return offsets

    def _require_arguments(self) -> None:
        stages = len(self.trunk.table)
        strides = [2**i for i in (*range(2, stages), stages)]  # 2 would name two layers upscore2
        if not isinstance(self.stride, int) or self.stride not in strides:
            raise OptionError(
                f"got stride={self.stride}; the strides of {stages} stages are "
                f"{', '.join(map(str, strides))}"
            )
        require_int("classes", self.classes, 2)
        require_int("pad", self.pad)
        require_int("window", self.window)
        if self.code_width is not None:
            require_int("code", self.code_width)
        require_type("dropout", self.dropout, int | float, "a number from 0 to below 1")
        if self.pad > MAX_PAD:
            raise OptionError(f"got pad={self.pad}; wanted at most {MAX_PAD}, 100 as published")
        if not 0 <= self.dropout < 1 or self.window % 2 == 0:
            raise OptionError(
                f"got dropout={self.dropout}, window={self.window}; wanted a dropout from 0 to "
                "below 1, and an odd window"
            )

    def _initialize(self) -> None:
        """Zero scores, bilinear interpolation; trunk, fc6 and fc7 by He, to be replaced by VGG."""
        initialize(self.trunk)
        if self.fc is not None:
            initialize(self.fc)
        for layer in self.score.values():
            if isinstance(layer, nn.Conv2d):
                initialize(layer, nn.init.zeros_)


class Interpolation(nn.ConvTranspose2d):
    """Upsample maps (N, C, H, W) by a whole factor, initially bilinearly, to side (H + 1) * factor.

    The filters are dense, (C, C, k, k), with k twice the factor, and trained if `learned`.

    Long, Shelhamer, Darrell 2015, section 3.3.

    >>> Interpolation(1, 2)(torch.ones(1, 1, 3, 3))[0, 0, 3]
    tensor([0.2500, 0.7500, 1.0000, 1.0000, 1.0000, 1.0000, 0.7500, 0.2500])
    """

    def __init__(self, channels: int, factor: int, learned: bool = False) -> None:
        super().__init__(channels, channels, 2 * factor, factor, bias=False)
        self.weight.requires_grad_(learned)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the filters to bilinear interpolation."""
        self.weight.copy_(bilinear_kernel(self.in_channels, self.kernel_size[0]))


class _Map(NamedTuple):
    """The positions of a map's values in the image: value i is at pixel start + i * step."""

    step: float
    start: float

    def convolved(self, kernel: int, pad: int, stride: int = 1) -> "_Map":
        return _Map(self.step * stride, self.start + self.step * ((kernel - 1) / 2 - pad))

    def pooled(self) -> "_Map":
        return self.convolved(2, 0, 2)

    def enlarged(self, factor: int) -> "_Map":
        step = self.step / factor
        return _Map(step, self.start - step * (2 * factor - 1) / 2)

    def on(self, other: "_Map") -> int:
        """The index of this map's first value in the other map."""
        index = (self.start - other.start) / self.step
        assert self.step == other.step
        assert index == int(index)
        return int(index)


def _code(channels: int, width: int, window: int, pad: int, dropout: float) -> nn.Sequential:
    """fc6 and fc7; fc6 is padded if the image is not."""
    pad = window // 2 if pad == 1 else 0
    return code_layers(nn.Conv2d(channels, width, window, padding=pad), dropout)


def _add(scores: Tensor, fine: Tensor, offset: int) -> Tensor:
    """The sum of two maps where they overlap; either may extend beyond the other."""
    cut, start = max(-offset, 0), max(offset, 0)
    scores, fine = scores[..., cut:, cut:], fine[..., start:, start:]
    fine = fine[..., : scores.shape[-2], : scores.shape[-1]]
    return scores[..., : fine.shape[-2], : fine.shape[-1]] + fine
