"""Mean-field inference in dense CRFs, where every pixel is connected to every other.

The energy of a labeling is the sum of unary energies (minus the log of a network's probability)
and of a penalty for each pair of pixels with different labels: a weighted sum of Gaussians of
their distance and of their difference in color. Mean field iterates: filter the marginals with
each kernel, add the messages to the unary term, normalize.

Letters: L labels, H W image, N = H * W pixels.
"""

from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from unpool.errors import OptionError, ShapeError
from unpool.ops.crf import SMALLEST, crf_filter, find_crf

if TYPE_CHECKING:
    from unpool.ops.lattice import Filters
    from unpool.recipes.presets import DenseCRF

PART = 2**17
"""Values processed at a time: half a megabyte, which fits into the cache."""


def mean_field(
    unary: Tensor,
    image: Tensor | None,
    crf: "DenseCRF | str" = "densecrf",
    filters: "Filters | None" = None,
    *,
    compiled: bool | None = None,
) -> Tensor:
    """The marginals of a dense CRF with a Potts penalty.

    Labels that are unlikely everywhere are pruned: those with the smallest maxima, as long as
    together they have at most `crf.prune` of the probability at every pixel. Their marginals are 0,
    and their energies get no gradient. With four labels or fewer, all are kept.

    With numba (`pip install "unpool[fast]"`), the same is computed in machine code, several times
    faster: on the CPU, in float32, without gradients and without `filters`. The first call compiles
    it, which takes some seconds; numba caches the result on disk.

    Args:
        unary: energies -log p, (L, H, W), float; plus infinity for impossible labels.
            Differentiable. Computed in float64 for float64, else in float32.
        image: the image, (H, W, 3) uint8, RGB, or other colors, see `crf_filter`; may be None if
            no kernel uses colors.
        crf: kernels and options, or the name of one of `CRF_PRESETS`.
        filters: the result of `crf_filter` for this image and CRF, to be shared by several
            unaries; the image is then ignored.
        compiled: whether to use machine code by numba; by default where possible.

    Returns:
        Probabilities, (L, H, W), on the device of the unary.

    Raises:
        ShapeError: wrong shapes or types, or a pixel without finite energy.
        OptionError: the preset is unknown, a value is out of range, or `compiled` is not possible.

    Krähenbühl, Koltun 2011, algorithm 1; normalization: Krähenbühl, Koltun 2013, section 4.

    >>> image = torch.zeros(4, 6, 3, dtype=torch.uint8)
    >>> unary = unary_from_probabilities(torch.full((2, 4, 6), 0.5))
    >>> mean_field(unary, image, "deeplab")[:, 0, 0]
    tensor([0.5000, 0.5000])
    """
    crf = find_crf(crf)
    if unary.dim() != 3 or not unary.is_floating_point() or not len(unary):
        raise ShapeError(
            f"got a unary of {tuple(unary.shape)} {unary.dtype}; wanted energies (L, H, W), float, "
            "with one label or more: pass one image at a time"
        )
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
    score = best - energy  # 0 for the best label of each pixel
    kept = _likely(score.detach(), crf.prune)
    if len(kept) < labels:
        score = score[kept]
    q = _marginals(score, crf, (height, width), image, filters, compiled)
    if len(kept) < labels:
        q = q.new_zeros(labels, height * width).index_copy(0, kept, q)
    return q.reshape(unary.shape)


def messages(
    q: Tensor,
    filters: Sequence["Filters"],
    weights: Sequence[Tensor],
    compatibility: Tensor | None = None,
) -> Tensor:
    """The messages of one iteration of mean field, with learned weights (CRF-RNN).

    Args:
        q: marginals, (N, L).
        filters: the `kernel_filter` of each kernel.
        weights: a matrix (L, L) for each kernel, from labels to labels.
        compatibility: (L, L), how much each label (row) favors each other (column) nearby; by
            default the identity, the Potts model.

    The result is (N, L); the next marginals are softmax(score + messages): Zheng et al. 2015,
    section 4.

    >>> from unpool.ops import Kernel, kernel_filter
    >>> near = kernel_filter(Kernel(3, 1), (2, 2), None, "after")
    >>> messages(torch.full((4, 2), 0.5), [near], [3 * torch.eye(2)])[0]
    tensor([1.5000, 1.5000])
    """
    total = torch.zeros_like(q)
    for filtered, weight in zip(filters, weights, strict=True):
        total = total + filtered(q) @ weight.t()
    return total if compatibility is None else total @ compatibility.t()


def unary_from_probabilities(probabilities: Tensor, clip: float | None = 1e-5) -> Tensor:
    """Energies: minus the log of probabilities, of any shape.

    `clip` is the smallest probability, which keeps energies finite; None for no limit.

    >>> unary_from_probabilities(torch.tensor([1.0, 0.0]))
    tensor([-0.0000, 11.5129])
    """
    if clip is None:
        return -probabilities.log()
    if not 0 < clip <= 1:
        raise OptionError(f"got clip {clip}; wanted more than 0 and at most 1, or None")
    return -probabilities.clamp(min=clip).log()


def warm_up(crf: "str | DenseCRF") -> None:
    """Load numba and the machine code of `mean_field` in advance, or compile it the first time.

    Otherwise the first image waits half a second for it. Code for each number of labels left after
    pruning is still loaded or compiled with the first image that needs it.

    >>> warm_up("deeplab")
    """
    mean_field(torch.zeros(2, 16, 16), torch.zeros(16, 16, 3, dtype=torch.uint8), crf)


def _marginals(
    score: Tensor,
    crf: "DenseCRF",
    size: tuple[int, int],
    image: Tensor | None,
    filters: "Filters | None",
    compiled: bool | None,
) -> Tensor:
    """Mean field from scores (L, N), the best of each column 0: compiled or by torch."""
    obstacle = None if compiled is False else _obstacle(score, crf, size, image, filters)
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
    score: Tensor,
    crf: "DenseCRF",
    size: tuple[int, int],
    image: Tensor | None,
    filters: "Filters | None",
) -> str | None:
    """Why machine code cannot be used, and what to do about it."""
    if filters is not None:
        return "also filters, which need torch; leave one of them out"
    if image is not None and image.is_floating_point():
        return "an image of floating-point colors; pass uint8"
    if score.device.type != "cpu" or score.dtype != torch.float32:
        return f"a unary in {score.dtype} on {score.device}; pass float32 on the CPU"
    if score.requires_grad and torch.is_grad_enabled():
        return "a unary that requires a gradient; call it within torch.no_grad()"
    machine = _machine()
    if machine is None:
        return 'numba is not installed: pip install "unpool[fast]"'
    if len(score) > machine.MOST_LABELS:
        return f"{len(score)} labels; wanted at most {machine.MOST_LABELS}: leave some out"
    if not machine.fits(crf, size):
        return f"deviations as small as in {crf.kernels} for {size} pixels; choose larger ones"
    return None


@lru_cache(1)
def _machine() -> ModuleType | None:
    """The compiled implementation; None without numba."""
    try:
        from unpool.ops.compiled import mean_field as compiled
    except ImportError:
        return None
    return compiled


def _run(score: Tensor, filters: "Filters", iterations: int) -> Tensor:
    """Mean field from scores (N, L), the best of each row 0."""
    q = _softmax(score)
    for _ in range(iterations):
        if score.requires_grad and torch.is_grad_enabled():
            q = _softmax(filters(q) + score)
        else:
            _update(q, score, filters)
    return q


def _update(q: Tensor, score: Tensor, filters: "Filters") -> None:
    """One iteration in place; on the CPU in parts that fit into the cache."""
    n, labels = q.shape
    cells = filters.spread(q)
    size = max(PART // labels, 1) if q.device.type == "cpu" else n
    for start in range(0, n, size):
        end = min(start + size, n)
        q[start:end] = _softmax(filters.collect(cells, start, end).add_(score[start:end]))


def _softmax(score: Tensor) -> Tensor:
    """Softmax of scores (N, L) whose row maxima are 0 or more; tiny probabilities become 0.

    Messages only add to scores, so exp does not underflow for a whole row, and overflows only if a
    score is very large. The usual search for row maxima, the slowest part, can thus be skipped.
    """
    low, high = (float(end) for end in torch.aminmax(score.detach()))
    # float32 overflows at exp(88); this leaves room for the sum over labels
    if high > 60:
        score = score - score.detach().amax(1, keepdim=True)
    if high - low < 45:  # with fewer than 100 labels, none is below SMALLEST
        e = score.exp()
        return e / e.sum(1, keepdim=True)
    # what is below becomes 0 in any case, and exp of it would be slow denormal numbers
    e = score.clamp(min=-51).exp()
    return F.threshold(e / e.sum(1, keepdim=True), SMALLEST, 0.0)


def _likely(score: Tensor, prune: float) -> Tensor:
    """The labels to keep, in order; see `mean_field`."""
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
