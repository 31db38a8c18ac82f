"""Blind networks that restore images from coarse to fine: MSResNet (DeepDeblur) and SRN.

Images are as in `unpool.models.deblur`. A pyramid is a list of them, each with half the sides of
the one before.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpool.errors import ShapeError, require_choice, require_int, require_type
from unpool.models.deblur import Deblur, Residual, require_counts, require_odd, resnet
from unpool.ops.blur import outside

_LARGEST = 255  #: the largest value of a pixel in the training of MSResNet


class MSResNet(Deblur):
    """The network of DeepDeblur: residual networks from coarse to fine, for motion of all kinds.

    Each scale restores its image of the pyramid; the scales but the coarsest also see the result
    of the one before, enlarged by a convolution and a pixel shuffle. 11,721,321 parameters; names
    are those of the state dict of the authors' PyTorch code.

    Args:
        scales: number of images in the pyramid.
        width: number of channels.
        blocks: number of residual blocks of each scale.
        kernel: side of all filters, odd.
        channels: of the images.

    Nah, Kim, Lee 2017, figure 4; sizes and pyramid from the authors' PyTorch code.

    >>> net = MSResNet(scales=2, width=8, blocks=1)
    >>> net(torch.rand(2, 3, 21, 30)).shape
    torch.Size([2, 3, 21, 30])
    """

    def __init__(
        self, scales: int = 3, width: int = 64, blocks: int = 19, kernel: int = 5, channels: int = 3
    ) -> None:
        super().__init__()
        self.arguments = {
            "scales": scales, "width": width, "blocks": blocks, "kernel": kernel,
            "channels": channels,
        }  # fmt: skip
        require_counts(scales=scales, width=width, blocks=blocks, channels=channels)
        require_odd(kernel)
        self.scales, self.channels = scales, channels
        self.body_models = nn.ModuleList()
        self.conv_end_models = nn.ModuleList([nn.Identity()])  # nothing is finer than scale 0
        for s in range(scales):
            inputs = channels if s == scales - 1 else 2 * channels
            body = resnet(inputs, channels, width, blocks, kernel)
            self.body_models.append(nn.Sequential(OrderedDict(body=body)))
            if s > 0:
                enlarge = nn.Conv2d(channels, 4 * channels, kernel, padding=kernel // 2)
                uppath = nn.Sequential(enlarge, nn.PixelShuffle(2))
                self.conv_end_models.append(nn.Sequential(OrderedDict(uppath=uppath)))

    def forward(self, y: Tensor | Sequence[Tensor]) -> Any:
        """Restore blurred images (N, channels, H, W), 0 to 1; of a pyramid, all, as `restore`."""
        if not isinstance(y, Tensor):
            return self.restore(y)
        multiple = 2 ** (self.scales - 1)
        return self._restore(y, multiple, lambda y: self.restore(pyramid(y, self.scales))[0])

    def restore(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Restore a pyramid of images (N, channels, H, W), 0 to 1, the finest first."""
        _require_pyramid(images, self.scales)
        found: list[Tensor] = []
        x = _centered(images[-1])
        for s in range(self.scales - 1, -1, -1):
            y = self.body_models[s](x)
            found.insert(0, y / _LARGEST + 0.5)
            if s > 0:
                x = torch.cat([_centered(images[s - 1]), self.conv_end_models[s](y)], 1)
        return found


class SRN(Deblur):
    """SRN-Deblur: one encoder-decoder for all scales, for motion of all kinds.

    At each scale it takes the blurred image and the result of the coarser scale, enlarged and
    without its gradient. 6,881,251 parameters; 6,876,449 with `channels=1`, and then 8,056,609 with
    `lstm`, which the authors have for gray images. Names end in those of the authors' variables.

    Args:
        channels: of the images.
        scales: number of images in the pyramid.
        width: number of channels at full resolution; it is doubled at 1/2 and 1/4.
        blocks: number of residual blocks of each stage.
        kernel: side of the filters, odd, 3 or more.
        lstm: a convolutional LSTM in the middle, whose state goes from scale to scale.
        resize: "smooth" resizes with a Gaussian and by bilinear interpolation; "tf1" as TensorFlow
            1, in which the released networks were trained: every second pixel, which aliases, and
            an interpolation that shifts by half a pixel.

    Tao, Gao, Shen, Wang, Jia 2018 (SRN-DeblurNet); layers from the released code.

    >>> net = SRN(width=4, blocks=1)
    >>> net(torch.rand(2, 3, 21, 30)).shape
    torch.Size([2, 3, 21, 30])
    """

    def __init__(
        self,
        channels: int = 3,
        scales: int = 3,
        width: int = 32,
        blocks: int = 3,
        kernel: int = 5,
        lstm: bool = False,
        resize: str = "smooth",
    ) -> None:
        super().__init__()
        self.arguments = {
            "channels": channels, "scales": scales, "width": width, "blocks": blocks,
            "kernel": kernel, "lstm": lstm, "resize": resize,
        }  # fmt: skip
        require_counts(channels=channels, scales=scales, width=width, blocks=blocks)
        require_odd(kernel, 3)
        require_type("lstm", lstm, bool, "True or False")
        require_choice("resize", resize, ("smooth", "tf1"))
        self.channels, self.scales, self.resize = channels, scales, resize
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        for stage in range(1, 4):
            self.encoder.append(_encoding(stage, 2 * channels, width, blocks, kernel))
            self.decoder.insert(0, _decoding(stage, channels, width, blocks, kernel))
        self.lstm = ConvLSTM(4 * width) if lstm else None
        for layer in [*self.encoder.modules(), *self.decoder.modules()]:
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.get_parameter("bias"))

    def forward(self, y: Tensor | Sequence[Tensor]) -> Any:
        """Restore blurred images (N, channels, H, W), 0 to 1; of a pyramid, all, as `restore`."""
        if not isinstance(y, Tensor):
            return self.restore(y)
        multiple = 4 * 2 ** (self.scales - 1)
        return self._restore(y, multiple, lambda y: self.restore(self.pyramid(y))[0])

    def pyramid(self, y: Tensor) -> list[Tensor]:
        """The blurred images (N, channels, H, W) at all scales, the finest first."""
        if self.resize == "smooth":
            return pyramid(y, self.scales)
        return [y[..., :: 2**s, :: 2**s] for s in range(self.scales)]

    def restore(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Restore a pyramid of images (N, channels, H, W), 0 to 1, the finest first.

        The sides of the coarsest are multiples of 4.
        """
        _require_pyramid(images, self.scales, 4)
        enlarge = _enlarge_tf1 if self.resize == "tf1" else _enlarge
        found: list[Tensor] = []
        state: tuple[Tensor, Tensor] | None = None
        for image in reversed(images):
            # as in the authors' code, the loss of a scale does not train the coarser ones
            before = enlarge(found[0].detach()) if found else image
            maps = [torch.cat([image, before], 1)]
            for stage in self.encoder:
                maps.append(stage(maps[-1]))
            x = maps.pop()
            if self.lstm is not None:
                cell, x = self.lstm(x, state and tuple(map(enlarge, state)))
                state = cell, x
            for stage in self.decoder:
                x = stage(x)
                x = x + maps.pop() if len(maps) > 1 else x
            found.insert(0, x)
        return found


class BlindNet(Deblur):
    """A small blind network after SRN: one encoder-decoder for two scales, at half the resolution.

    2 x 2 pixels are channels, filters are 3 x 3, and what the layers give is added to the blurred
    image, so that an untrained network changes nothing. 498,052 parameters.

    Args:
        width: number of channels; it is doubled in the middle.
        blocks: number of residual blocks in the middle.
        outer: number of residual blocks before and after it, each.
        scales: number of images in the pyramid.

    This library's own; recurrence over the scales after Tao et al. 2018.

    >>> net = BlindNet(width=8, blocks=1, outer=1)
    >>> net(torch.rand(2, 3, 21, 30)).shape
    torch.Size([2, 3, 21, 30])
    """

    channels = 1

    def __init__(self, width: int = 32, blocks: int = 5, outer: int = 2, scales: int = 2) -> None:
        super().__init__()
        self.arguments = {"width": width, "blocks": blocks, "outer": outer, "scales": scales}
        require_counts(width=width, blocks=blocks, outer=outer, scales=scales)
        self.scales = scales
        self.encoder = nn.Sequential(
            nn.Conv2d(8, width, 3, padding=1), *(Residual(width, 3) for _ in range(outer))
        )
        self.middle = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, 2, 1),
            nn.ReLU(),
            *(Residual(2 * width, 3) for _ in range(blocks)),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
        )
        self.decoder = nn.Sequential(
            *(Residual(width, 3) for _ in range(outer)), nn.Conv2d(width, 4, 3, padding=1)
        )
        # an untrained network returns its input
        for parameter in self.decoder[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, y: Tensor | Sequence[Tensor]) -> Any:
        """Restore blurred images (N, C, H, W), 0 to 1; of a pyramid, all, as `restore`."""
        if not isinstance(y, Tensor):
            return self.restore(y)
        multiple = 4 * 2 ** (self.scales - 1)
        return self._restore(y, multiple, lambda y: self.restore(pyramid(y, self.scales))[0])

    def restore(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Restore a pyramid of images (N, 1, H, W), 0 to 1, the finest first.

        The sides of the coarsest are multiples of 4.
        """
        _require_pyramid(images, self.scales, 4)
        found: list[Tensor] = []
        for image in reversed(images):
            before = _enlarge(found[0].detach()) if found else image
            folded = F.pixel_unshuffle(torch.cat([image, before], 1) - 0.5, 2)
            x = self.encoder(folded)
            x = self.decoder(x + self.middle(x))
            found.insert(0, image + F.pixel_shuffle(x, 2))
        return found


class ConvLSTM(nn.Module):
    """A cell of a convolutional LSTM with 3 x 3 filters and a forget bias of 1.

    Args:
        width: number of channels of the maps, and of the state.

    Shi et al. 2015, without connections from the cell to the gates, as in SRN-Deblur.

    >>> cell, hidden = ConvLSTM(4)(torch.randn(2, 4, 8, 8))
    >>> hidden.shape
    torch.Size([2, 4, 8, 8])
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.LSTM_conv = nn.Conv2d(2 * width, 4 * width, 3, padding=1)
        nn.init.trunc_normal_(self.LSTM_conv.weight, std=1e-3, a=-2e-3, b=2e-3)
        nn.init.zeros_(self.LSTM_conv.get_parameter("bias"))

    def forward(self, x: Tensor, state: tuple[Tensor, ...] | None = None) -> tuple[Tensor, Tensor]:
        """The next cell and hidden state, (N, width, H, W), from maps of that shape.

        Args:
            x: maps.
            state: the last cell and hidden state; None for zeros.
        """
        cell, hidden = state or (torch.zeros_like(x), torch.zeros_like(x))
        gates = self.LSTM_conv(torch.cat([x, hidden], 1))
        enter, new, forget, leave = gates.chunk(4, 1)
        cell = cell * (forget + 1).sigmoid() + enter.sigmoid() * new.tanh()
        return cell, cell.tanh() * leave.sigmoid()


def pyramid(y: Tensor, scales: int) -> list[Tensor]:
    """Halve images (N, C, H, W) again and again: the images themselves come first.

    Each is smoothed by a Gaussian of 2/3 pixels, with reflected borders, and 2 x 2 pixels become
    their mean: `skimage.transform.pyramid_gaussian`, with which DeepDeblur is trained.

    Args:
        y: of sides that can be halved as often.
        scales: number of images.

    >>> [tuple(x.shape) for x in pyramid(torch.rand(1, 3, 8, 12), 3)]
    [(1, 3, 8, 12), (1, 3, 4, 6), (1, 3, 2, 3)]
    """
    require_int("scales", scales)
    if any(n % 2 ** (scales - 1) for n in y.shape[2:]):
        raise ShapeError(
            f"got images of {tuple(y.shape)} for {scales} scales; wanted sides that are multiples "
            f"of {2 ** (scales - 1)}: pad them"
        )
    found = [y]
    for _ in range(scales - 1):
        y = _halve(_halve(y, 2), 3)
        found.append(y)
    return found


def _halve(y: Tensor, axis: int) -> Tensor:
    """Smooth images along an axis, and take the mean of every two pixels."""
    reach = 3
    # without smoothing, fine detail would come back as coarse patterns
    bell = [math.exp(-0.5 * (1.5 * i) ** 2) for i in range(-reach, reach + 1)]
    taps = [a + b for a, b in zip([*bell, 0], [0, *bell], strict=True)]
    taps = [tap / sum(taps) for tap in taps]
    place = outside(y, y.shape[axis], reach, "reflect").unfold(0, len(taps), 2)  # (out, taps)
    parts = (tap * y.index_select(axis, place[:, i]) for i, tap in enumerate(taps))
    return torch.stack([*parts]).sum(0)


def _enlarge(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")


def _enlarge_tf1(x: Tensor) -> Tensor:
    """As TensorFlow 1: even pixels are copied, odd ones are the mean of their neighbors."""
    for axis in (2, 3):
        after = torch.cat([x.narrow(axis, 1, x.shape[axis] - 1), x.narrow(axis, -1, 1)], axis)
        x = torch.stack([x, (x + after) / 2], axis + 1).flatten(axis, axis + 1)
    return x


def _encoding(stage: int, inputs: int, width: int, blocks: int, kernel: int) -> nn.Sequential:
    """The first, second or third stage of the encoder of `SRN`."""
    outputs = width * 2 ** (stage - 1)
    layers = OrderedDict[str, nn.Module]()
    if stage == 1:
        layers["enc1_1"] = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    else:  # TensorFlow pads less in front
        front = (kernel - 2) // 2
        layers["pad"] = nn.ZeroPad2d((front, kernel - 2 - front) * 2)
        layers[f"enc{stage}_1"] = nn.Conv2d(outputs // 2, outputs, kernel, 2)
    layers["relu"] = nn.ReLU()
    for i in range(blocks):
        layers[f"enc{stage}_{i + 2}"] = Residual(outputs, kernel)
    return nn.Sequential(layers)


def _decoding(stage: int, channels: int, width: int, blocks: int, kernel: int) -> nn.Sequential:
    """The first, second or third stage of the decoder of `SRN`, counted as those of the encoder."""
    inputs = width * 2 ** (stage - 1)
    layers = OrderedDict[str, nn.Module]()
    for i in range(blocks, 0, -1):
        layers[f"dec{stage}_{i}"] = Residual(inputs, kernel)
    if stage == 1:
        layers["dec1_0"] = nn.Conv2d(inputs, channels, kernel, padding=kernel // 2)
    else:
        layers[f"dec{stage - 1}_{blocks + 1}"] = nn.ConvTranspose2d(inputs, inputs // 2, 4, 2, 1)
        layers["relu"] = nn.ReLU()
    return nn.Sequential(layers)


def _centered(image: Tensor) -> Tensor:
    return (image - 0.5) * _LARGEST


def _require_pyramid(images: Sequence[Tensor], scales: int, multiple: int = 1) -> None:
    sides = [tuple(image.shape[2:]) for image in images]
    halved = all(
        2 * b == a for big, small in pairwise(sides) for a, b in zip(big, small, strict=True)
    )
    if len(images) != scales or not halved or any(n % multiple for n in sides[-1]):
        raise ShapeError(
            f"got a pyramid of images of {sides}; wanted {scales} images, each with half the sides "
            f"of the one before, the last ones multiples of {multiple}: pad the image, see pyramid"
        )
