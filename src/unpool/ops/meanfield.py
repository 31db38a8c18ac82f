"""The dense CRF: every pixel is joined to every other, and mean field finds the marginals.

The energy of a labeling is the sum of unary energies (minus the log of a network's probability)
and of a penalty for each pair of pixels with different labels: a weighted sum of Gaussians of how
far apart they lie and how different their colors are. Mean field repeats: filter the marginals
with each kernel, add the messages to the unary term, normalize.

Letters: L labels, H W picture, N = H * W pixels.
"""

from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from unpool.errors import OptionError, ShapeError
from unpool.ops.lattice import Filters, Lattice

__all__ = [
    "CRF_PRESETS",
    "DenseCRF",
    "Kernel",
    "crf_filter",
    "kernel_filter",
    "mean_field",
    "messages",
    "unary_from_probabilities",
    "warm_up",
]

Normalization = Literal["none", "before", "after", "symmetric"]

NORMALIZATIONS = ("none", "before", "after", "symmetric")

SMALLEST = 1.9e-22  # about exp(-50)
"""Probabilities below it become 0: denormal numbers would slow everything down tenfold."""


PART = 2**17
"""Numbers that are worked on at a time: half a megabyte."""


class Kernel(NamedTuple):
    """A Gaussian of the distance of two pixels, and of their colors if `rgb` is given."""

    xy: float  #: deviation of the place, in pixels
    weight: float  #: of the penalty for different labels
    rgb: float | None = None  #: deviation of the color, of 255; None for places alone


class DenseCRF(NamedTuple):
    """What a dense CRF is made of, and how long it is run.

    Normalization, with n = K 1 the sum of the weights that a pixel gets from all others: "none"
    filters K q; "before" K (q / n); "after" (K q) / n; "symmetric" K (q / sqrt n) / sqrt n.
    """

    kernels: tuple[Kernel, ...]
    iterations: int = 10
    normalization: Normalization = "symmetric"
    prune: float = 1e-3  #: share of a pixel that dropped labels may hold at first; 0 keeps all


CRF_PRESETS = {
    "edeconvnet": DenseCRF((Kernel(3, 3), Kernel(20, 5, 3)), 10, "none"),
    "deeplab": DenseCRF((Kernel(3, 3), Kernel(49, 4, 5)), 10, "after"),
    "crfrnn": DenseCRF((Kernel(3, 3), Kernel(160, 5, 3)), 10, "after"),
    "densecrf": DenseCRF((Kernel(3, 3), Kernel(80, 10, 13)), 5, "symmetric"),
}


def mean_field(
    unary: Tensor,
    image: Tensor | None,
    crf: DenseCRF | str = "densecrf",
    filters: Filters | None = None,
    *,
    compiled: bool | None = None,
) -> Tensor:
    """The marginals of a dense CRF with a Potts penalty.

    Labels that are unlikely everywhere are left out of the computation, which takes about
    half the time for the few classes of a usual picture: in the order of their largest
    probability, as long as all left-out labels hold `crf.prune` or less of every pixel before the
    first message. They come back with probability 0, and their energies get no gradient. Of up to
    four labels, all are kept.

    With numba (`pip install "unpool[fast]"`), the same is computed in machine code, several times
    faster: on the CPU, in float32, without gradients and `filters`. The first time, this has to be
    compiled, which takes some seconds; numba keeps the result on disk.

    Args:
        unary: energies -log p, (L, H, W), float; plus infinity where a label is impossible.
            Differentiable. Computed in float64 for float64, else in float32.
        image: the picture, (H, W, 3) uint8, RGB; may be None if no kernel looks at colors.
        crf: kernels and options, or the name of one of `CRF_PRESETS`.
        filters: what `crf_filter` made for this picture and CRF, where several unaries are to
            share it; then the picture is not looked at.
        compiled: whether machine code by numba does it; when not given, where that can be.

    Returns:
        Probabilities, (L, H, W), on the device of the unary.

    Raises:
        ShapeError: a unary or picture of the wrong shape or type, or a pixel without a finite
            energy.
        OptionError: an unknown preset, options that do not exist or do not fit, or `compiled`
            where that cannot be.

    Krähenbühl, Koltun 2011, algorithm 1; normalization: Krähenbühl, Koltun 2013, section 4.

    >>> image = torch.zeros(4, 6, 3, dtype=torch.uint8)
    >>> unary = unary_from_probabilities(torch.full((2, 4, 6), 0.5))
    >>> mean_field(unary, image, "deeplab")[:, 0, 0]
    tensor([0.5000, 0.5000])
    """
    crf = _resolve(crf)
    _require_unary(unary)
    labels, height, width = unary.shape
    double = unary.dtype == torch.float64
    energy = unary.to(torch.float64 if double else torch.float32).reshape(labels, -1)
    if not energy.numel():
        return energy.view(unary.shape)
    best = energy.amin(0).detach()
    if not best.isfinite().all():
        raise ShapeError(
            "got a unary with pixels of no finite energy, or with NaN or minus infinity; wanted "
            "-log p: make it with unary_from_probabilities, which clips"
        )
    score = best - energy  # the best label of each pixel at 0
    kept = _likely(score.detach(), crf.prune)
    if len(kept) < labels:
        score = score[kept]
    q = _marginals(score, crf, (height, width), image, filters, compiled)
    if len(kept) < labels:
        q = q.new_zeros(labels, height * width).index_copy(0, kept, q)
    return q.reshape(unary.shape)


def messages(
    q: Tensor,
    filters: Sequence[Filters],
    weights: Sequence[Tensor],
    compatibility: Tensor | None = None,
) -> Tensor:
    """What one iteration of mean field adds to the scores, for learned weights.

    Args:
        q: marginals, (N, L).
        filters: one for each kernel, of `kernel_filter`.
        weights: one (L, L) matrix for each kernel, from labels to labels.
        compatibility: (L, L), how much each label (row) is in favor of each other (column) beside
            it; the identity, which is Potts, when not given.

    Returns:
        (N, L); the next marginals are softmax(score + messages).

    Zheng et al. 2015, section 4 (CRF-RNN).

    >>> near = kernel_filter(Kernel(3, 1), (2, 2), None, "after")
    >>> messages(torch.full((4, 2), 0.5), [near], [3 * torch.eye(2)])[0]
    tensor([1.5000, 1.5000])
    """
    total = torch.zeros_like(q)
    for filtered, weight in zip(filters, weights, strict=True):
        total = total + filtered(q) @ weight.t()
    return total if compatibility is None else total @ compatibility.t()


def crf_filter(
    crf: DenseCRF | str,
    size: tuple[int, int],
    image: Tensor | None,
    like: Tensor | None = None,
) -> Filters:
    """The sum of all kernels of a CRF on the pixels of a picture, weights included.

    Args:
        crf: kernels and normalization, or the name of one of `CRF_PRESETS`.
        size: (H, W).
        image: (H, W, 3) uint8, RGB; may be None if no kernel looks at colors.
        like: a tensor that tells dtype and device; float32 on the CPU when not given.

    Returns:
        A filter of values (N, C), the pixels row by row.

    Raises:
        ShapeError: a picture that is not (H, W, 3) uint8.
        OptionError: an unknown preset, or options that do not exist or do not fit.
    """
    crf = _resolve(crf)
    like = torch.empty(0) if like is None else like
    lattices, before, after = [], [], []
    for kernel in crf.kernels:
        lattice, first, last = _normalized(kernel, size, image, crf.normalization, like)
        last = like.new_ones(lattice.points) if last is None else last
        lattices.append(lattice)
        before.append(first)
        after.append(last * kernel.weight)
    return Filters(lattices, before, after)


def kernel_filter(
    kernel: Kernel,
    size: tuple[int, int],
    image: Tensor | None,
    normalization: Normalization = "after",
    like: Tensor | None = None,
) -> Filters:
    """The filter of one kernel on the pixels of a picture, normalized, without its weight.

    Args:
        kernel: deviations of place and color.
        size: (H, W).
        image: (H, W, 3) uint8, RGB; may be None if the kernel does not look at colors.
        normalization: as of `DenseCRF`.
        like: a tensor that tells dtype and device; float32 on the CPU when not given.

    Returns:
        A filter of values (N, C), the pixels row by row.

    Raises:
        ShapeError: a picture that is not (H, W, 3) uint8.
        OptionError: an unknown normalization.
    """
    if normalization not in NORMALIZATIONS:
        raise OptionError(
            f"got normalization {normalization!r}; it is one of {', '.join(NORMALIZATIONS)}"
        )
    like = torch.empty(0) if like is None else like
    lattice, before, after = _normalized(kernel, size, image, normalization, like)
    return Filters([lattice], [before], [after])


def unary_from_probabilities(probabilities: Tensor, clip: float | None = 1e-5) -> Tensor:
    """Energies: minus the log of probabilities.

    Args:
        probabilities: of any shape, float.
        clip: the smallest probability, so that energies stay finite; None for no limit.

    Raises:
        OptionError: a clip that is not between 0 and 1.

    >>> unary_from_probabilities(torch.tensor([1.0, 0.0]))
    tensor([-0.0000, 11.5129])
    """
    if clip is None:
        return -probabilities.log()
    if not 0 < clip <= 1:
        raise OptionError(f"got clip {clip}; wanted more than 0 and at most 1, or None")
    return -probabilities.clamp(min=clip).log()


def warm_up(crf: str | DenseCRF) -> None:
    """Load numba and the machine code of `mean_field`, or compile it the first time.

    It would be loaded when first needed: half a second that a picture need not wait for. What
    differs by the number of labels that are left after pruning is still loaded, or compiled, with
    the first picture that has as many.

    >>> warm_up("deeplab")
    """
    mean_field(torch.zeros(2, 16, 16), torch.zeros(16, 16, 3, dtype=torch.uint8), crf)


def _marginals(
    score: Tensor,
    crf: DenseCRF,
    size: tuple[int, int],
    image: Tensor | None,
    filters: Filters | None,
    compiled: bool | None,
) -> Tensor:
    """Mean field from scores (L, N) of which the best in each column is 0, in one form or other."""
    obstacle = None if compiled is False else _obstacle(score, crf, size, filters)
    if compiled and obstacle:
        raise OptionError(f"got compiled=True, but {obstacle}")
    machine = None if compiled is False or obstacle else _machine()
    if machine is not None:
        q: Tensor = machine.mean_field(score.contiguous(), size, image, crf)
        return q
    if filters is None:
        filters = crf_filter(crf, size, image, score.detach())
    return _run(score.t().contiguous(), filters, crf.iterations).t()


def _obstacle(
    score: Tensor, crf: DenseCRF, size: tuple[int, int], filters: Filters | None
) -> str | None:
    """What is in the way of machine code, and what to do."""
    if filters is not None:
        return "also filters, which are of torch; leave one of them out"
    if score.device.type != "cpu" or score.dtype != torch.float32:
        return f"a unary in {score.dtype} on {score.device}; pass it in float32 on the CPU"
    if score.requires_grad and torch.is_grad_enabled():
        return "a unary that wants a gradient; call it within torch.no_grad()"
    machine = _machine()
    if machine is None:
        return 'numba is not there: pip install "unpool[fast]"'
    if len(score) > machine.MOST_LABELS:
        return f"{len(score)} labels; wanted at most {machine.MOST_LABELS}: leave some out"
    if not machine.fits(crf, size):
        return f"deviations as small as in {crf.kernels} for {size} pixels; choose larger ones"
    return None


@lru_cache(1)
def _machine() -> ModuleType | None:
    """Mean field in machine code, where numba is installed."""
    try:
        from unpool.ops import compiled
    except ImportError:
        return None
    return compiled


def _run(score: Tensor, filters: Filters, iterations: int) -> Tensor:
    """Mean field from scores (N, L) of which the best in each row is 0."""
    q = _softmax(score)
    for _ in range(iterations):
        if score.requires_grad and torch.is_grad_enabled():
            q = _softmax(filters(q) + score)
        else:
            _update(q, score, filters)
    return q


def _update(q: Tensor, score: Tensor, filters: Filters) -> None:
    """One iteration in place; on the CPU by parts of the pixels that fit into the cache."""
    n, labels = q.shape
    cells = filters.spread(q)
    size = max(PART // labels, 1) if q.device.type == "cpu" else n
    for start in range(0, n, size):
        end = min(start + size, n)
        q[start:end] = _softmax(filters.collect(cells, start, end).add_(score[start:end]))


def _softmax(score: Tensor) -> Tensor:
    """Shares of (N, L) scores, the largest of each row being 0 or more.

    Messages only add to scores, so exp neither overflows nor leaves a row without any share as
    long as no score is very large; this spares the search for the maximum of each row, which
    takes longer than all the rest.
    """
    low, high = (float(end) for end in torch.aminmax(score.detach()))
    if high > 60:
        score = score - score.detach().amax(1, keepdim=True)
    if high - low < 45:  # no share is below SMALLEST, as long as there are under 100 labels
        e = score.exp()
        return e / e.sum(1, keepdim=True)
    e = score.clamp(min=-51).exp()
    return F.threshold(e / e.sum(1, keepdim=True), SMALLEST, 0.0)


def _likely(score: Tensor, prune: float) -> Tensor:
    """The labels that are kept, in order; see `mean_field`."""
    labels = len(score)
    if not prune or labels <= 4:
        return torch.arange(labels, device=score.device)
    q = score.softmax(0)
    order = q.amax(1).argsort()
    dropped, held = 0, torch.zeros_like(q[0])
    for label in order.tolist()[:-1]:
        held += q[label]
        if held.amax() > prune:
            break
        dropped += 1
    return order[dropped:].sort().values


def _normalized(
    kernel: Kernel,
    size: tuple[int, int],
    image: Tensor | None,
    normalization: Normalization,
    like: Tensor,
) -> tuple[Lattice, Tensor | None, Tensor | None]:
    """The lattice of a kernel, and the factors before and after its filter."""
    if kernel.rgb is None:
        return _of_places(kernel.xy, size, normalization, like.dtype, like.device)
    lattice = Lattice(_features(kernel, size, image, like))
    return lattice, *_scales(lattice, normalization)


@lru_cache(4)
def _of_places(
    xy: float,
    size: tuple[int, int],
    normalization: Normalization,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Lattice, Tensor | None, Tensor | None]:
    """Without colors, all pictures of a size have the same lattice; the last few are kept."""
    with torch.inference_mode(False):  # lest they could not be used for gradients later
        like = torch.empty(0, dtype=dtype, device=device)
        lattice = Lattice(_features(Kernel(xy, 1), size, None, like))
        return lattice, *_scales(lattice, normalization)


def _features(kernel: Kernel, size: tuple[int, int], image: Tensor | None, like: Tensor) -> Tensor:
    """x, y, and the color of each pixel, divided by the deviations: (N, 2) or (N, 5)."""
    height, width = size
    x = torch.arange(width, dtype=like.dtype, device=like.device) / kernel.xy
    y = torch.arange(height, dtype=like.dtype, device=like.device) / kernel.xy
    place = [x.expand(height, width), y[:, None].expand(height, width)]
    if kernel.rgb is None:
        return torch.stack(place, -1).flatten(0, 1)
    _require_image(image, size)
    assert image is not None
    color = image.to(like.device, like.dtype) / kernel.rgb
    return torch.cat([torch.stack(place, -1), color], -1).flatten(0, 1)


def _scales(lattice: Lattice, normalization: str) -> tuple[Tensor | None, Tensor | None]:
    """Factors before and after the filter."""
    if normalization == "none":
        return None, None
    ones = torch.ones_like(lattice.slice.weight[: lattice.points, None])
    total = lattice.filter(ones).flatten() + 1e-20
    if normalization == "symmetric":
        return total.rsqrt(), total.rsqrt()
    return (1 / total, None) if normalization == "before" else (None, 1 / total)


def _resolve(crf: DenseCRF | str) -> DenseCRF:
    if isinstance(crf, str):
        if crf not in CRF_PRESETS:
            raise OptionError(f"got CRF preset {crf!r}; it is one of {', '.join(CRF_PRESETS)}")
        return CRF_PRESETS[crf]
    if crf.normalization not in NORMALIZATIONS:
        raise OptionError(
            f"got normalization {crf.normalization!r}; it is one of {', '.join(NORMALIZATIONS)}"
        )
    deviations = [s for k in crf.kernels for s in (k.xy, k.rgb) if s is not None]
    if not crf.kernels or not all(0 < s < torch.inf for s in deviations):
        raise OptionError(f"got kernels {crf.kernels}; wanted one or more, with deviations above 0")
    if not all(0 <= k.weight < torch.inf for k in crf.kernels):
        raise OptionError(f"got kernels {crf.kernels}; wanted finite weights of 0 or more")
    if crf.iterations < 0 or not 0 <= crf.prune < 1:
        raise OptionError(
            f"got iterations={crf.iterations}, prune={crf.prune}; wanted 0 or more iterations, "
            "and a share from 0 to less than 1"
        )
    return crf


def _require_unary(unary: Tensor) -> None:
    if unary.dim() != 3 or not unary.is_floating_point() or not len(unary):
        raise ShapeError(
            f"got a unary of {tuple(unary.shape)} {unary.dtype}; wanted energies (L, H, W), float, "
            "of one label or more: pass one picture at a time"
        )


def _require_image(image: Tensor | None, size: tuple[int, int]) -> None:
    if image is None:
        raise ShapeError("got no picture, but a kernel looks at colors; pass (H, W, 3) uint8 RGB")
    if tuple(image.shape) != (*size, 3) or image.dtype != torch.uint8:
        raise ShapeError(
            f"got a picture of {tuple(image.shape)} {image.dtype}; wanted {(*size, 3)} uint8 RGB, "
            "as large as the unary: resize one to the other"
        )
