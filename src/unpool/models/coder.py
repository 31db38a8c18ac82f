"""Adaptive deconvolutional networks: layers of sparse codes, joined by 3-D switches.

Filters are learned from images without labels. Coding an image finds its sparse feature maps and,
for each lower layer, the switches of pooling over space and neighboring maps. Decoding follows
these switches down to pixels, so every activation can be shown as a part of the image.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpool.errors import OptionError, ShapeError, require_choice
from unpool.ops.coding import (
    LinearMap,
    Switches3,
    chain,
    conjugate_gradients,
    differentiated,
    fista,
    ista,
    pool3,
    power_bound,
    synthesis,
    synthesis_bound,
    unpool3,
    unpooling,
)
from unpool.ops.deconv import deconv

_UNUSED = 1e-4  #: fraction of the magnitude of all maps below which a filter counts as unused
_SIGMA, _RADIUS = 3.0, 9  #: the window of contrast normalization


class Code(NamedTuple):
    """The sparse code of images at one layer, see `SparseCoder.encode`."""

    maps: Tensor  #: (N, K, h, w), signed; most values are zero
    switches: tuple[Switches3, ...]  #: switches of the lower layers, from the first


class SparseCoder(nn.Module):
    """An adaptive deconvolutional network; the defaults are the sizes of the paper's four layers.

    Layer l reconstructs images y from sparse maps z through the lower layers and their switches:
    R z = F_1 U_1 F_2 U_2 ... F_l z, where F sums all maps convolved with their filters, and U is
    the unpooling. The code z minimizes 0.5 ||R z - y||^2 + lam |z|_1.

    The paper's first layer has 15 maps, which cannot be paired; it has 16 here. 510,384
    parameters.

    Args:
        maps: number of feature maps of each layer.
        kernel: side of the filters.
        pool: side of the pooling cells between the layers.
        pair: number of neighboring maps in a cell.
        channels: number of channels of the images.
        lam: weight of sparsity of each layer, for images of variance 1.
        steps: number of iterations to code a layer.
        switches: "once" finds the maps of a layer by FISTA and then pools them; "every" pools after
            every step of ISTA, as in the paper, which may raise the cost.

    Zeiler, Taylor, Fergus 2011, section 2.

    >>> coder = SparseCoder((6, 8), 5, lam=(0.5, 0.5), steps=5)
    >>> code = coder.encode(torch.randn(2, 1, 30, 41))
    >>> code.maps.shape, coder.decode(code).shape
    (torch.Size([2, 8, 16, 19]), torch.Size([2, 1, 30, 41]))
    """

    size: int | None = None
    """There is no design size; the network takes images of any size."""

    def __init__(
        self,
        maps: Sequence[int] = (16, 50, 100, 150),
        kernel: int = 7,
        pool: int = 3,
        pair: int = 2,
        channels: int = 1,
        lam: Sequence[float] = (0.5, 0.5, 0.5, 0.5),
        steps: int = 60,
        switches: str = "once",
    ) -> None:
        super().__init__()
        require_choice("switches", switches, ("once", "every"))
        self.maps, self.kernel, self.pool, self.pair = list(maps), kernel, pool, pair
        self.channels, self.lam, self.steps, self.switches = channels, list(lam), steps, switches
        if not maps or len(lam) != len(maps):
            raise OptionError(
                f"got maps={self.maps} with lam={self.lam}; wanted one or more layers, and a "
                "weight of sparsity for each"
            )
        if min(*maps, kernel, pool, pair, channels, steps) < 1 or min(lam) < 0:
            raise OptionError(f"got {self.arguments}; wanted 1 or more of each, and lam from 0 up")
        self.layers = nn.ModuleList()
        for inputs, count in zip([channels, *map(self._pooled, maps)], maps, strict=False):
            self.layers.append(
                nn.ConvTranspose2d(count, inputs, kernel, padding=kernel - 1, bias=False)
            )
            initialize(self, len(self.layers))

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments, as plain values, to rebuild this network."""
        names = "maps", "kernel", "pool", "pair", "channels", "lam", "steps", "switches"
        return {name: getattr(self, name) for name in names}

    def forward(self, y: Tensor) -> Tensor:
        """Code images (N, C, H, W) at the last layer, and reconstruct them."""
        return self.decode(self.encode(y))

    def filters(self, layer: int) -> nn.Parameter:
        """The filters of a layer, from 1: (K, C, k, k), with C the number of pooled maps below."""
        if not 1 <= layer <= len(self.layers):
            raise OptionError(f"got layer {layer}; wanted 1 to {len(self.layers)}")
        return self.layers[layer - 1].get_parameter("weight")

    def encode(
        self,
        y: Tensor,
        layer: int | None = None,
        *,
        lam: float | None = None,
        steps: int | None = None,
    ) -> Code:
        """Find the sparse maps of a layer, and the switches of the layers below.

        Args:
            y: images, (N, C, H, W), see `normalize_contrast`.
            layer: number of the layer, from 1; by default the last.
            lam: weight of sparsity for this layer; by default the network's.
            steps: number of iterations for this layer; by default the network's.
        """
        if y.dim() != 4 or y.shape[1] != self.channels or 0 in y.shape[2:]:
            raise ShapeError(f"got images of {tuple(y.shape)}; wanted (N, {self.channels}, H, W)")
        layer = len(self.layers) if layer is None else layer
        self.filters(layer)  # refuses layers that do not exist
        switches: tuple[Switches3, ...] = ()
        for below in range(1, layer):
            maps = self._code(y, switches, self.lam[below - 1], self.steps)
            switches += (pool3(maps, self.pool, self.pair)[1],)
        lam = self.lam[layer - 1] if lam is None else lam
        maps = self._code(y, switches, lam, self.steps if steps is None else steps)
        return Code(maps, switches)

    def decode(self, code: Code) -> Tensor:
        """Reconstruct images (N, C, H, W) from a code at any layer."""
        return self.operator(code.switches).forward(code.maps)

    def project(self, code: Code, unit: int) -> Tensor:
        """Project the strongest activation of one map to the image, (N, C, H, W).

        Zeiler, Taylor, Fergus 2011, figure 1.
        """
        if not 0 <= unit < code.maps.shape[1]:
            raise OptionError(f"got unit {unit}; wanted 0 to {code.maps.shape[1] - 1}")
        alone = torch.zeros_like(code.maps)
        alone[:, unit] = code.maps[:, unit]
        return self.decode(strongest(code._replace(maps=alone), 1))

    def part(
        self, code: Code, place: tuple[int, int, int, int]
    ) -> tuple[Tensor, tuple[int, int, int, int]]:
        """Project one activation to the image, cropped to its receptive field.

        Args:
            code: the code at a layer.
            place: sample, map, row and column of the activation.

        Returns:
            The part (C, S, S), and its box x0, y0, x1, y1 in the image, which may extend beyond the
            border. S is 7 for a first layer of 7 x 7, and 27 for the second.
        """
        sample, unit, row, column = place
        layer, edge = len(code.switches) + 1, self.kernel - 1
        x = code.maps[sample, unit, row, column] * self.filters(layer)[unit]
        top, left = row - edge, column - edge
        for below in range(layer - 1, 0, -1):
            found, side = code.switches[below - 1], x.shape[-1]
            x, index = _window(x, found.index[sample], top, left)
            size = (found.size[0], side * self.pool, side * self.pool)
            z = unpool3(x[None], Switches3(index[None], size, self.pool, self.pair))
            x = deconv(z, self.filters(below))[0]
            top, left = top * self.pool - edge, left * self.pool - edge
        return x, (left, top, left + x.shape[-1], top + x.shape[-2])

    def below(self, switches: tuple[Switches3, ...]) -> LinearMap:
        """The linear map from the pooled maps below a layer to images, given the switches."""
        parts = [
            part
            for layer, found in enumerate(switches, start=1)
            for part in (synthesis(self.filters(layer)), unpooling(found))
        ]
        return chain(*parts)

    def operator(self, switches: tuple[Switches3, ...]) -> LinearMap:
        """The linear map R from the maps of a layer to images, given the switches below it."""
        return chain(self.below(switches), synthesis(self.filters(len(switches) + 1)))

    def _code(self, y: Tensor, switches: tuple[Switches3, ...], lam: float, steps: int) -> Tensor:
        operator = self.operator(switches)
        if switches:
            # through switches, the map depends on the image, and so does its bound
            bound = power_bound(operator, operator.adjoint(y))
        else:
            bound = synthesis_bound(self.filters(1))
        if self.switches == "once":
            return fista(y, operator, lam, steps=steps, bound=bound)
        z = None
        for _ in range(steps):
            z = ista(y, operator, lam, steps=1, bound=bound, start=z)
            z = unpool3(*pool3(z, self.pool, self.pair))
        return operator.adjoint(torch.zeros_like(y)) if z is None else z

    def _pooled(self, count: int) -> int:
        return -(-count // self.pair)


def _window(x: Tensor, index: Tensor, top: int, left: int) -> tuple[Tensor, Tensor]:
    """The values of x (G, S, S) that lie inside the switches' map, and their switches."""
    rows, columns = (
        torch.arange(first, first + x.shape[-1], device=x.device) for first in (top, left)
    )
    height, width = index.shape[-2:]
    down, across = ((rows >= 0) & (rows < height)), ((columns >= 0) & (columns < width))
    index = index[:, rows.clamp(0, height - 1)][:, :, columns.clamp(0, width - 1)]
    return x * (down[:, None] & across), index


def strongest(code: Code, count: int) -> Code:
    """Keep only the strongest activations of each image, over all maps; the rest becomes zero.

    >>> maps = torch.tensor([3.0, -4.0, 1.0, 0.0]).view(1, 1, 2, 2)
    >>> strongest(Code(maps, ()), 2).maps.flatten().tolist()
    [3.0, -4.0, 0.0, 0.0]
    """
    values = code.maps.flatten(1)
    index = values.abs().topk(min(count, values.shape[1]), dim=1).indices
    kept = torch.zeros_like(values).scatter(1, index, values.gather(1, index))
    return code._replace(maps=kept.view_as(code.maps))


@torch.no_grad()
def initialize(coder: SparseCoder, layer: int) -> None:
    """Initialize a layer, counted from 1, with random filters of norm 1."""
    weight = coder.filters(layer)
    if not weight.is_meta:
        weight.copy_(_unit(torch.randn_like(weight))[0])


@torch.no_grad()
def learn_filters(coder: SparseCoder, y: Tensor, code: Code, steps: int) -> Code:
    """Fit the filters of a layer, in place, to images by conjugate gradients, for fixed codes.

    Filters are normalized to norm 1, and the maps are scaled to compensate. A filter that the code
    hardly uses is replaced by the worst reconstructed part of the images.

    Args:
        y: images, (N, C, H, W).
        code: the code of these images, at the layer to learn.
        steps: number of steps of `conjugate_gradients`, which starts from the current filters.

    Returns:
        The code, with its maps scaled for the new filters.

    Zeiler, Taylor, Fergus 2011, section 2.4.
    """
    weight, below = coder.filters(len(code.switches) + 1), coder.below(code.switches)
    start = weight.detach().clone()
    image = differentiated(lambda w: below.forward(synthesis(w).forward(code.maps)), start)
    fitted, norm = _unit(conjugate_gradients(y, image, start, steps))
    weight.copy_(fitted)
    code = code._replace(maps=code.maps * norm.view(1, -1, 1, 1))
    strength = code.maps.abs().sum((0, 2, 3))
    unused = (strength < _UNUSED * strength.sum()).nonzero().flatten().tolist()
    if unused:
        rest = below.adjoint(y - coder.decode(code))  # as seen by the filters
        _replace(weight, unused, rest)
    return code


def _replace(weight: Tensor, units: list[int], rest: Tensor) -> None:
    """Set filters, in place, to the patches of largest norm, one after another."""
    kernel = weight.shape[-1]
    if min(rest.shape[-2:]) < kernel:
        return
    for unit in units:
        energy = F.avg_pool2d(rest.square().sum(1, keepdim=True), kernel, 1)
        place = int(energy.flatten().argmax())
        n, place = divmod(place, energy[0].numel())
        row, column = divmod(place, energy.shape[-1])
        patch = rest[n, :, row : row + kernel, column : column + kernel]
        if patch.any():
            weight[unit] = patch / patch.norm()
            patch.zero_()  # the next filter gets another patch


def _unit(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Normalize filters to norm 1; also return their previous norms, (K, 1, 1, 1)."""
    norm = weight.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
    return weight / norm, norm


def coherence(weight: Tensor) -> Tensor:
    """How much one orientation dominates in each filter: 1 for an edge or bar, 0 for a spot.

    It is (a - b) / (a + b), where a and b are the eigenvalues of the structure tensor, summed over
    the filter and its channels.

    Args:
        weight: filters, (K, C, k, k), with k of 2 or more.

    Returns:
        (K,), from 0 to 1; 0 for filters without structure.

    >>> edge = torch.tensor([-1.0, 0.0, 1.0]).expand(1, 1, 3, 3)
    >>> coherence(edge)
    tensor([1.])
    """
    down, across = torch.gradient(weight, dim=(-2, -1))
    sides = [(a * b).sum((1, 2, 3)) for a, b in ((down, down), (across, across), (down, across))]
    spread = ((sides[0] - sides[1]).square() + 4 * sides[2].square()).sqrt()
    return spread / (sides[0] + sides[1]).clamp_min(1e-12)


def normalize_contrast(x: Tensor) -> Tensor:
    """Subtract the local mean of images, divide by the local contrast, and scale to variance 1.

    The window is a Gaussian of standard deviation 3. The divisor is at least the mean contrast of
    the image, so that flat regions stay flat; flat images become nearly zero.

    Args:
        x: images, (N, C, H, W) floating-point, 0 to 1, with sides of 10 pixels or more.

    Returns:
        (N, C, H, W), around zero.

    Zeiler, Taylor, Fergus 2011, section 3.

    >>> normalize_contrast(torch.full((1, 1, 12, 12), 0.5)).abs().max() < 1e-3
    tensor(True)
    """
    if x.dim() != 4 or min(x.shape[-2:]) <= _RADIUS:
        raise ShapeError(
            f"got images of {tuple(x.shape)}; wanted (N, C, H, W), each side {_RADIUS + 1} or more"
        )
    x = x - _blurred(x)
    contrast = _blurred(x.square()).clamp_min(0).sqrt()
    x = x / torch.maximum(contrast, contrast.mean((1, 2, 3), keepdim=True)).clamp_min(1e-3)
    return x / x.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(0.1)


def _blurred(x: Tensor) -> Tensor:
    line = torch.arange(-_RADIUS, _RADIUS + 1, dtype=x.dtype, device=x.device)
    line = torch.exp(-0.5 * (line / _SIGMA).square())
    line = (line / line.sum()).expand(x.shape[1], 1, 1, -1)
    x = F.pad(x, (_RADIUS,) * 4, mode="reflect")
    x = F.conv2d(x, line, groups=x.shape[1])
    return F.conv2d(x, line.transpose(2, 3), groups=x.shape[1])
