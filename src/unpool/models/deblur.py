"""Networks of iterative residual deconvolution, and what all networks that deblur share.

`CRCNet` learns to invert one PSF; `IRDNet` is given the PSF. `unpool.models.multiscale` has the
networks that are blind. Images are (N, C, H, W) from 0 to 1, of any size; results are not clipped.
Networks for gray images, `channels=1`, restore the channels of others one by one.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpool.errors import OptionError, ShapeError, require_int, require_type
from unpool.ops.blur import require_fit
from unpool.ops.inversion import residuals, total_variation

if TYPE_CHECKING:
    from unpool.recipes.presets import Edges

_FIRST_STEPS = 16  #: the steps of `residuals` with which an untrained `IRDNet` restores
_WEIGHT, _POWER = 0.7, 1.5  #: lam = 0.7 sigma ** 1.5 is nearly the best weight of the variation
_CALM = 10  #: how strongly components that are mostly noise are reduced
_LEAST_NOISE = 5e-4  #: below which the weight falls no more


class Deblur(nn.Module):
    """A network that restores blurred images: the base of those here and in `multiscale`."""

    size: int | None = None
    """There is no design size; the networks take images of any size."""

    channels: int  #: of the images that the layers take
    arguments: dict[str, Any]
    """The constructor's arguments that build this network again, as plain values."""

    def _restore(self, y: Tensor, multiple: int, restore: Callable[[Tensor], Tensor]) -> Tensor:
        """Restore images whose sides are made multiples, by copies of the last row and column."""
        fits = y.dim() == 4 and self.channels in (1, y.shape[1]) and 0 not in y.shape[1:]
        if not fits or not y.is_floating_point():
            got = f"got images of {tuple(y.shape)} and {y.dtype}".replace("torch.", "")
            wanted = "C" if self.channels == 1 else self.channels
            raise ShapeError(
                f"{got}; wanted (N, {wanted}, H, W), floating-point from 0 to 1: convert the "
                "colors, divide bytes by 255, and pass a single image as y[None]"
            )
        if not len(y):  # an FFT and pixel shuffling take no empty batch
            return y
        height, width = y.shape[2:]
        planes = y.reshape(-1, self.channels, height, width)
        # zeros would be an edge, which is sharpened like all others
        padded = F.pad(planes, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        found = restore(padded)[..., :height, :width]
        return found.reshape(*y.shape[:2], *found.shape[2:])


class Residual(nn.Module):
    """x + conv(ReLU(conv(x))), as in the authors' networks without batch norm."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(width, width, kernel, padding=kernel // 2) for _ in range(2))
        self.body = nn.Sequential(first, nn.ReLU(), second)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, width, H, W) from maps of that shape."""
        found: Tensor = x + self.body(x)
        return found


def resnet(inputs: int, outputs: int, width: int, blocks: int, kernel: int) -> nn.Sequential:
    """A convolution, residual blocks, and a convolution; nothing in between."""
    return nn.Sequential(
        nn.Conv2d(inputs, width, kernel, padding=kernel // 2),
        *(Residual(width, kernel) for _ in range(blocks)),
        nn.Conv2d(width, outputs, kernel, padding=kernel // 2),
    )


def require_counts(**numbers: int) -> None:
    """Raise an `OptionError` unless all are integers of 1 or more."""
    for name, value in numbers.items():
        require_int(name, value)


def require_odd(kernel: int, least: int = 1) -> None:
    """Raise an `OptionError` for the side of a filter that has no middle."""
    require_int("kernel", kernel, least)
    if kernel % 2 == 0:
        raise OptionError(f"got kernel={kernel}; wanted an odd number")


# ---- iterative residual deconvolution ------------------------------------------------------------


class CRCNet(Deblur):
    """CRCNet: iterative residual deconvolution with learned filters, for one PSF.

    Each unit restores what the ones before have left, x - H (PReLU (H^T x)), where the convolution
    H^T and the transposed convolution H are learned; `S` integrates the image and all residuals.
    421,733 parameters; names are those of the authors' state dict.

    Args:
        units: of residual deconvolution.
        width: number of channels of the units.
        kernel: side of all filters, odd; an image has no smaller side.
        widths: number of channels of the layers of `S` but the last.

    Li Si-Yao et al. 2018 (arXiv 1804.06042); layers from the released code.

    >>> net = CRCNet(units=2, width=4, kernel=3, widths=(4,))
    >>> net(torch.rand(2, 3, 20, 31)).shape
    torch.Size([2, 3, 20, 31])
    """

    channels = 1

    def __init__(
        self,
        units: int = 10,
        width: int = 10,
        kernel: int = 7,
        widths: Sequence[int] = (50, 25, 12),
    ) -> None:
        super().__init__()
        self.arguments = {"units": units, "width": width, "kernel": kernel, "widths": [*widths]}
        require_counts(
            units=units, width=width, **{f"widths[{i}]": n for i, n in enumerate(widths)}
        )
        require_odd(kernel)
        self.kernel = kernel
        self.up = nn.Conv2d(1, width, 1)
        for i in range(1, units + 1):
            self.add_module(f"A{i}", IRUnit(width, kernel))
        layers, inputs = OrderedDict[str, nn.Module](), 1 + units * width
        for i, outputs in enumerate(widths, 1):
            layers[f"conv{i}"] = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
            layers[f"prelu{i}"] = nn.PReLU()
            inputs = outputs
        layers[f"conv{len(widths) + 1}"] = nn.Conv2d(inputs, 1, 1)
        self.S = nn.Sequential(layers)

    def forward(self, y: Tensor) -> Tensor:
        """Restore blurred images (N, C, H, W), 0 to 1.

        Raises a `ShapeError` for images that are smaller than the filters.
        """
        return self._restore(y, 1, lambda y: self.S(torch.cat([y, *self.residuals(y)], 1)))

    def residuals(self, y: Tensor) -> list[Tensor]:
        """The outputs of the units, (N, width, H, W) each, for images (N, 1, H, W)."""
        if min(y.shape[2:]) < self.kernel:
            raise ShapeError(
                f"got images of {tuple(y.shape)}; wanted sides of {self.kernel} or more, the side "
                "of the filters: pad them"
            )
        x, found = self.up(y), []
        for i in range(1, self.arguments["units"] + 1):
            x = self.get_submodule(f"A{i}")(x)
            found.append(x)
        return found


class IRUnit(nn.Module):
    """A unit of `CRCNet`: subtract what a convolution and its transpose explain.

    Li Si-Yao et al. 2018 (arXiv 1804.06042).
    """

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, kernel)
        self.nonlinear = nn.PReLU()
        self.tconv = nn.ConvTranspose2d(width, width, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """The residual (N, width, H, W) of maps (N, width, H, W)."""
        found: Tensor = x - self.tconv(self.nonlinear(self.conv(x)))
        return found


class IRDNet(Deblur):
    """Iterative residual deconvolution with a known PSF, and its integration by a network.

    The idea of `CRCNet` with the exact PSF in place of learned filters, so that one set of weights
    serves every PSF and level of noise. The inputs are the blurred image and what `residuals` adds
    from one number of steps to the next; the network adds to a weighted sum of them, `mix`, which
    begins as the image after 16 steps. It works at half the resolution, with 2 x 2 pixels as
    channels. 155,971 parameters.

    With `variation`, two more inputs are the image that `total_variation` restores, with which
    `mix` begins, and the level of the noise, which must be known then.

    Args:
        width: number of channels.
        blocks: number of residual blocks.
        kernel: side of the filters, odd.
        steps: numbers of steps of `residuals`, increasing.
        variation: whether the image of least total variation is an input, too.

    This library's own; components after Li Si-Yao et al. 2018 (arXiv 1804.06042).

    >>> net = IRDNet(width=8, blocks=1)
    >>> psf = torch.ones(1, 5) / 5
    >>> net(torch.rand(2, 3, 21, 30), psf).shape
    torch.Size([2, 3, 21, 30])
    """

    channels = 1

    def __init__(
        self,
        width: int = 40,
        blocks: int = 5,
        kernel: int = 3,
        steps: Sequence[int] = (1, 4, 16, 64, 256, 1024),
        variation: bool = False,
    ) -> None:
        super().__init__()
        self.steps, self.variation = list(steps), variation
        self.arguments = {
            "width": width, "blocks": blocks, "kernel": kernel, "steps": self.steps,
            "variation": variation,
        }  # fmt: skip
        require_counts(
            width=width, blocks=blocks, **{f"steps[{i}]": n for i, n in enumerate(steps)}
        )
        require_odd(kernel)
        require_type("variation", variation, bool, "True or False")
        if not steps or self.steps != sorted(set(steps)):
            raise OptionError(f"got steps={self.steps}; wanted one or more, increasing")
        components = 1 + len(self.steps) + variation
        self.body = resnet(4 * (components + variation), 4, width, blocks, kernel)
        first = max(sum(n <= _FIRST_STEPS for n in self.steps), 1)
        # training begins with a restoration: a few steps, or the image of least variation
        mix = [float(0 < i <= first) for i in range(components)]
        if variation:
            mix = [0.0] * (components - 1) + [1.0]
        self.mix = nn.Parameter(torch.tensor(mix))
        for block in self.body:
            if isinstance(block, Residual):
                nn.init.zeros_(block.body[2].get_parameter("bias"))
                with torch.no_grad():
                    # blocks begin near the identity
                    block.body[2].get_parameter("weight").mul_(0.1)
        # at first, nothing is added to the mixture
        for parameter in self.body[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        y: Tensor,
        psf: Tensor,
        sigma: Tensor | float | None = None,
        edges: "Edges" = "ramp",
        margin: int = 0,
    ) -> Tensor:
        """Restore images that a PSF blurred.

        Args:
            y: (N, C, H, W), 0 to 1.
            psf: (h, w), or (N, C, h, w) with 1 for N or C where they share it; of sum 1, odd.
            sigma: standard deviation of the noise, or (N,); a network with `variation` needs it.
            edges: how the borders are extended, one of `unpool.recipes.presets.EDGES`.
            margin: width of the border to leave out; the result is smaller by twice as much.
        """
        if self.variation and sigma is None:
            raise OptionError("got no sigma; wanted the standard deviation of the noise, see "
                              "unpool.ops.noise_level")  # fmt: skip

        def restore(planes: Tensor) -> Tensor:
            levels = None if sigma is None else _levels(sigma, y)
            parts = self.components(planes, _for_planes(psf, y), levels, edges)
            height, width = parts.shape[2:]
            inside = slice(margin, height - margin), slice(margin, width - margin)
            return self._integrate(parts[..., inside[0], inside[1]], levels)

        found = self._restore(y, 2, restore)
        return found[..., : y.shape[-2] - 2 * margin, : y.shape[-1] - 2 * margin]

    def components(
        self, y: Tensor, psf: Tensor, sigma: Tensor | None = None, edges: "Edges" = "ramp"
    ) -> Tensor:
        """What is integrated, (N, components, H, W), for gray images (N, 1, H, W).

        The blurred image and the first of `residuals`, both minus 0.5, the differences from one
        number of steps to the next, and with `variation` the image of least variation minus 0.5.

        Args:
            y: images.
            psf: (h, w), or (N, 1, h, w), one for each.
            sigma: standard deviations of the noise, (N, 1, 1, 1).
            edges: see `forward`.
        """
        y = y.to(torch.promote_types(y.dtype, torch.float32))  # as the FFT wants it
        psf = psf.to(y.dtype)
        x = residuals(y, psf, self.steps, edges=edges)[:, :, 0]  # (S, N, H, W)
        parts = [y[:, 0] - 0.5, x[0] - 0.5, *(x[1:] - x[:-1])]
        if self.variation and sigma is not None:
            sigma = sigma.to(y.dtype)
            for i, n in enumerate(self.steps[1:], 2):  # n steps amplify noise by sqrt(n) at most
                parts[i] = parts[i] / (1 + _CALM * math.sqrt(n) * sigma[:, 0])
            lam = _WEIGHT * sigma**_POWER
            parts.append(total_variation(y, psf, lam, edges=edges)[:, 0] - 0.5)
        return torch.stack(parts, 1)

    def _integrate(self, components: Tensor, sigma: Tensor | None) -> Tensor:
        weights = self.mix.to(components.dtype)[:, None, None]  # no product of matrices: fp32
        mixed = (components * weights).sum(1)
        if self.variation and sigma is not None:
            level = (sigma.log10() / 2 + 1).to(components.dtype)  # 0 at 0.01
            plane = level.expand(len(components), 1, *components.shape[2:])
            components = torch.cat([components, plane], 1)
        # at half the resolution, filters see twice as far for a quarter of the work
        folded = F.pixel_unshuffle(components, 2).to(self.body[-1].get_parameter("weight").dtype)
        added: Tensor = F.pixel_shuffle(self.body(folded), 2)
        return 0.5 + mixed[:, None] + added


def _for_planes(psf: Tensor, y: Tensor) -> Tensor:
    """The PSF of images (N, C, h, w) as that of their channels, (N * C, 1, h, w)."""
    require_fit(y.float(), psf.float())
    return psf if psf.dim() == 2 else psf.expand(*y.shape[:2], -1, -1).flatten(0, 1)[:, None]


def _levels(sigma: Tensor | float, y: Tensor) -> Tensor:
    """The noise of images (N, C, h, w) as that of their channels, (N * C, 1, 1, 1)."""
    levels = torch.as_tensor(sigma, dtype=torch.float32, device=y.device).clamp_min(_LEAST_NOISE)
    return levels.reshape(-1, 1).expand(*y.shape[:2]).reshape(-1, 1, 1, 1)
