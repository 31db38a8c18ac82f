"""The kernels of dense CRFs: their filters against the full matrix of all pairs of pixels."""

import math

import pytest
import torch

from unpool.errors import OptionError, ShapeError
from unpool.ops import CRF_PRESETS, DenseCRF, Kernel, crf_filter, kernel_filter, mean_field
from unpool.ops.crf import NORMALIZATIONS, _of_positions, find_crf

KERNELS = (Kernel(2, 1.5), Kernel(5, 2, 30))


def photo(height=9, width=11):
    random = torch.Generator().manual_seed(0)
    image = torch.randint(100, 160, (height, width, 3), generator=random, dtype=torch.uint8)
    values = torch.rand(height * width, 3, generator=random, dtype=torch.float64)
    return image, values


def full(kernel, image):
    """What each pixel gives to each other one, pixel by pixel."""
    height, width = image.shape[:2]
    pixels = [(x, y, *image[y, x].tolist()) for y in range(height) for x in range(width)]
    place, color = torch.tensor(pixels, dtype=torch.float64).split([2, 3], 1)
    distance = torch.cdist(place, place) ** 2 / kernel.xy**2
    if kernel.rgb is not None:
        distance += torch.cdist(color, color) ** 2 / kernel.rgb**2
    return torch.exp(-distance / 2)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("kernel", KERNELS, ids=["places", "colors"])
def test_a_filter_is_near_to_the_full_matrix(kernel, normalization):
    image, values = photo()
    matrix = full(kernel, image)
    total = matrix.sum(1, keepdim=True)
    wanted = {
        "none": matrix @ values,
        "before": matrix @ (values / total),
        "after": matrix @ values / total,
        "symmetric": matrix @ (values * total**-0.5) * total**-0.5,
    }[normalization]
    found = kernel_filter(kernel, (9, 11), image, normalization, values)(values)
    if normalization == "none":  # the lattice knows sums but for a factor
        found = found * (wanted.sum() / found.sum())
    error = (found - wanted).norm() / wanted.norm()
    assert error < 0.08


@pytest.mark.parametrize("kernel", KERNELS, ids=["places", "colors"])
def test_properties_of_the_normalizations(kernel):
    image, values = photo()
    ones, other = torch.ones_like(values[:, :1]), values.flip(0)
    after, before, symmetric = (
        kernel_filter(kernel, (9, 11), image, name, values)
        for name in ("after", "before", "symmetric")
    )
    torch.testing.assert_close(after(ones), ones)
    nearly = {"rtol": 0.02, "atol": 0}  # the lattice blurs along one direction after the other
    torch.testing.assert_close(before(values).sum(0), values.sum(0), **nearly)
    there, back = (symmetric(values) * other).sum(), (values * symmetric(other)).sum()
    torch.testing.assert_close(there, back, **nearly)


def test_the_filter_of_a_crf_is_the_sum_of_its_kernels():
    image, values = photo()
    for normalization in NORMALIZATIONS:
        crf = DenseCRF(KERNELS, normalization=normalization)
        parts = (kernel_filter(k, (9, 11), image, normalization, values) for k in KERNELS)
        wanted = sum(k.weight * f(values) for k, f in zip(KERNELS, parts, strict=True))
        torch.testing.assert_close(crf_filter(crf, (9, 11), image, values)(values), wanted)


@pytest.mark.parametrize(
    "use",
    [
        find_crf,
        lambda crf: crf_filter(crf, (9, 11), photo()[0]),
        lambda crf: mean_field(torch.zeros(3, 9, 11), photo()[0], crf),
    ],
    ids=["find_crf", "crf_filter", "mean_field"],
)
def test_crfs_that_cannot_be_are_refused(use):
    with pytest.raises(OptionError, match="edeconvnet, deeplab, crfrnn, densecrf"):
        use("paper")
    for options in (
        {"kernels": ()},
        {"kernels": (Kernel(0, 1),)},
        {"kernels": (Kernel(1, 1, -3),)},
        {"kernels": (Kernel(1, math.nan),)},
        {"iterations": -1},
        {"normalization": "both"},
        {"prune": 1},
        {"clip": 0},
    ):
        with pytest.raises(OptionError, match=r"wanted|choices are"):
            use(DenseCRF(KERNELS)._replace(**options))


def test_colors_may_be_floating_point_numbers_and_their_place_matters_little():
    """A Gaussian knows only differences; the lattice is an approximation to some percent."""
    image, values = photo()
    kernel = Kernel(5, 1, 30)
    whole = kernel_filter(kernel, (9, 11), image, like=values)(values)
    same = kernel_filter(kernel, (9, 11), image.float(), like=values)(values)
    torch.testing.assert_close(same, whole, rtol=0, atol=0)
    moved = kernel_filter(kernel, (9, 11), image.double().flip(-1) - 110.5, like=values)(values)
    assert not torch.equal(moved, whole)
    assert (moved - whole).norm() / whole.norm() < 0.05
    with pytest.raises(ShapeError, match=r"got an image of \(9, 11, 3\) torch.int64; wanted"):
        kernel_filter(kernel, (9, 11), image.long())


def test_a_normalization_that_is_not_there_is_refused():
    with pytest.raises(OptionError, match="none, before, after, symmetric"):
        kernel_filter(KERNELS[0], (2, 2), None, "both")


def test_lattices_of_positions_are_kept_and_serve_gradients_too():
    image = torch.zeros(9, 11, 3, dtype=torch.uint8)
    unary = torch.rand(3, 9, 11, dtype=torch.float64)
    _of_positions.cache_clear()
    with torch.inference_mode():
        first = mean_field(unary, image, "deeplab").clone()
    again = mean_field(unary.requires_grad_(), image, "deeplab")
    again.square().sum().backward()
    assert _of_positions.cache_info().hits == 1
    torch.testing.assert_close(first, again.detach())
    assert unary.grad.abs().max() > 0
    mean_field(unary.detach(), image, CRF_PRESETS["deeplab"]._replace(normalization="before"))
    assert _of_positions.cache_info().hits == 1  # another normalization has factors of its own
