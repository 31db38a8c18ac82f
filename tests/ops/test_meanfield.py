"""The dense CRF against the exact one on tiny images, against pydensecrf, and by properties."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from skimage.transform import resize

from unpool.errors import OptionError, ShapeError
from unpool.ops import (
    CRF_PRESETS,
    DenseCRF,
    Kernel,
    crf_filter,
    kernel_filter,
    mean_field,
    meanfield,
    messages,
    unary_from_probabilities,
)
from unpool.ops.crf import NORMALIZATIONS

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(autouse=True, params=["torch", "numba"])
def form(request, monkeypatch):
    """All of it by torch alone, and again with machine code where that is to be had."""
    if request.param == "torch":
        monkeypatch.setattr(meanfield, "_machine", lambda: None)
    else:
        pytest.importorskip("numba", reason="numba is not installed")


BOTH = (Kernel(2, 1.5), Kernel(5, 2, 30))


def noise(labels, height, width, seed=0, dtype=torch.float32):
    random = torch.Generator().manual_seed(seed)
    unary = 2 * torch.rand(labels, height, width, generator=random, dtype=dtype)
    image = torch.randint(256, (height, width, 3), generator=random, dtype=torch.uint8)
    return unary, image // 2 + 60


def photo(name, size=(120, 160)):
    return (255 * resize(getattr(data, name)(), size, anti_aliasing=True)).astype(np.uint8)


def clusters(image, labels, active):
    """Energies by the distance to some pixels in color and place, with noise; the labels beyond
    the active ones are as good as impossible."""
    random = np.random.default_rng(0)
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    points = np.concatenate([image / 64, 3 * np.stack([x / width, y / height], -1)], -1)
    centers = points[random.integers(0, height, active), random.integers(0, width, active)]
    energy = 1.5 * ((points[None] - centers[:, None, None]) ** 2).sum(-1)
    energy += random.normal(0, 0.7, energy.shape)
    rest = random.uniform(12, 14, (labels - active, height, width))
    energy = torch.from_numpy(np.concatenate([energy, energy.min(0) + rest]))
    return unary_from_probabilities((-energy).softmax(0).float())


def exact(unary, image, crf):
    """Mean field with the full matrix of all pairs of pixels."""
    labels, height, width = unary.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([x, y], -1).reshape(-1, 2).to(unary)
    score = -unary.reshape(labels, -1).t()
    q = score.softmax(1)
    weights = []
    for kernel in crf.kernels:
        f = place / kernel.xy
        if kernel.rgb is not None:
            f = torch.cat([f, image.reshape(-1, 3).to(unary) / kernel.rgb], 1)
        k = torch.exp(-(torch.cdist(f, f) ** 2) / 2)
        n = k.sum(1)
        before, after = {
            "none": (1, 1),
            "before": (1 / n, 1),
            "after": (1, 1 / n[:, None]),
            "symmetric": (n**-0.5, n[:, None] ** -0.5),
        }[crf.normalization]
        weights.append(kernel.weight * after * k * before)
    for _ in range(crf.iterations):
        q = (score + sum(weights) @ q).softmax(1)
    return q.t().view(unary.shape)


@pytest.mark.parametrize("normalization", ["before", "after", "symmetric"])
def test_near_to_the_exact_one(normalization):
    unary, image = noise(3, 12, 12, dtype=torch.float64)
    unary[0, :, :6] -= 0.4
    unary[1, :, 6:] -= 0.4
    image = image // 10
    image[:, 6:] += 90
    crf = DenseCRF((Kernel(2, 1), Kernel(5, 2, 30)), 5, normalization)
    mine, true = mean_field(unary, image, crf), exact(unary, image, crf)
    assert (mine - true).abs().max() < 0.06
    assert (mine.argmax(0) == true.argmax(0)).float().mean() > 0.98
    assert (true - (-unary).softmax(0)).abs().mean() > 0.2  # far from where it began


@pytest.mark.parametrize(
    ("name", "weight", "xy", "rgb"),
    [("q_w5_xy50_rgb3", 5, 50, 3), ("q_w4_xy49_rgb5", 4, 49, 5), ("q_w5_xy70_rgb5", 5, 70, 5)],
)
def test_equals_the_code_of_deeplab(name, weight, xy, rgb):
    """Marginals by the authors' C++, whose unary is minus the score."""
    scene, expected = np.load(GOLDEN / "crfrnn.npz"), np.load(GOLDEN / "deeplab_crf.npz")[name]
    image, scores = torch.from_numpy(scene["image"]), torch.from_numpy(scene["logits"])
    kernels = Kernel(3, 3), Kernel(xy, weight, rgb)
    known = {50: CRF_PRESETS["deeplab1"], 49: CRF_PRESETS["deeplab"]}
    crf = known.get(xy, DenseCRF(kernels, 10, "after"))
    assert crf.kernels == kernels
    found = mean_field(-scores, image, crf).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    assert (found.argmax(0) == expected.argmax(0)).all()


@pytest.mark.parametrize("preset", ["densecrf", "deeplab", "edeconvnet"])
@pytest.mark.parametrize("active", [21, 4])
@pytest.mark.parametrize("name", ["chelsea", "astronaut", "coffee"])
def test_equals_pydensecrf(name, active, preset):
    densecrf = pytest.importorskip(
        "pydensecrf.densecrf", reason="pydensecrf2 is not there: pip install unpool[oracle]"
    )
    image, crf = photo(name), CRF_PRESETS[preset]
    unary = clusters(image, 21, active)
    other = densecrf.DenseCRF2D(image.shape[1], image.shape[0], 21)
    other.setUnaryEnergy(unary.reshape(21, -1).numpy())
    options = {
        "kernel": densecrf.DIAG_KERNEL,
        "normalization": {
            "none": densecrf.NO_NORMALIZATION,
            "after": densecrf.NORMALIZE_AFTER,
            "symmetric": densecrf.NORMALIZE_SYMMETRIC,
        }[crf.normalization],
    }
    near, alike = crf.kernels
    other.addPairwiseGaussian(sxy=near.xy, compat=near.weight, **options)
    other.addPairwiseBilateral(
        sxy=alike.xy, srgb=alike.rgb, rgbim=image, compat=alike.weight, **options
    )
    expected = np.array(other.inference(crf.iterations)).reshape(unary.shape)
    for prune in (0, crf.prune):
        mine = mean_field(unary, torch.from_numpy(image), crf._replace(prune=prune)).numpy()
        apart = np.abs(mine - expected).max(0)
        # Without normalization messages are in the thousands, and near a tie float32 decides: of
        # one pixel in 19,200 either package may lie .01 from what float64 gives.
        share = 2e-4 if crf.normalization == "none" else 0
        assert (apart > 2e-3).mean() <= share
        assert np.array_equal(mine.argmax(0), expected.argmax(0))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_gradient_of_the_unary(normalization):
    unary, image = noise(3, 4, 5, dtype=torch.float64)
    crf = DenseCRF((Kernel(1, 0.5), Kernel(2, 0.7, 40)), 3, normalization, prune=0)
    unary.requires_grad_()
    assert torch.autograd.gradcheck(lambda u: mean_field(u, image, crf), (unary,))
    with torch.no_grad():
        quick = mean_field(unary, image, crf)
    torch.testing.assert_close(quick, mean_field(unary, image, crf).detach())


@pytest.mark.parametrize("preset", CRF_PRESETS)
def test_marginals_sum_to_one(preset):
    unary, image = noise(7, 20, 30)
    q = mean_field(unary, image, preset)
    assert q.min() >= 0
    torch.testing.assert_close(q.sum(0), torch.ones(20, 30))


def test_labels_may_be_exchanged_and_pixels_shifted():
    unary, image = noise(6, 15, 17)
    crf = DenseCRF(BOTH, 4)
    q = mean_field(unary, image, crf)
    order = [4, 2, 0, 5, 1, 3]
    torch.testing.assert_close(mean_field(unary[order], image, crf), q[order])
    shift = torch.randn(15, 17)  # of all labels of a pixel: no change of the distribution
    torch.testing.assert_close(mean_field(unary + shift, image, crf), q, atol=1e-5, rtol=1e-4)


def test_without_a_preference_nothing_is_preferred():
    _, image = noise(1, 9, 8)
    q = mean_field(torch.full((5, 9, 8), 3.0), image, DenseCRF(BOTH))
    torch.testing.assert_close(q, torch.full((5, 9, 8), 0.2))


def test_iterations_of_zero_and_kernels_of_no_weight_give_the_softmax():
    unary, image = noise(5, 8, 9)
    for crf in (DenseCRF(BOTH, 0), DenseCRF((Kernel(3, 0), Kernel(9, 0, 9)), 3)):
        torch.testing.assert_close(mean_field(unary, image, crf), (-unary).softmax(0))


def test_a_speck_is_smoothed_away_and_an_edge_is_not():
    image = torch.full((20, 20, 3), 40, dtype=torch.uint8)
    image[:, 10:] = 200
    unary = torch.full((2, 20, 20), 1.0)
    unary[0, :, :10] = unary[1, :, 10:] = 0
    unary[:, 5, 5] = unary[:, 5, 5].flip(0)
    found = mean_field(unary, image, DenseCRF((Kernel(3, 3), Kernel(20, 5, 10)))).argmax(0)
    assert not found[:, :10].any()
    assert found[:, 10:].all()


def test_pruning_changes_little():
    image = photo("chelsea", (60, 80))
    unary = clusters(image, 21, 5)
    for crf in (CRF_PRESETS["densecrf"], CRF_PRESETS["deeplab"]):
        whole = mean_field(unary, torch.from_numpy(image), crf._replace(prune=0))
        pruned = mean_field(unary, torch.from_numpy(image), crf)
        assert (whole - pruned).abs().max() < 2e-3
        assert torch.equal(whole.argmax(0), pruned.argmax(0))
        assert pruned[:5].amax((1, 2)).min() > 0
        assert not pruned[5:].any()
        assert whole[5:].any()


def test_pruning_keeps_what_is_likely_somewhere():
    p = torch.full((6, 5, 5), 1e-7)
    p[0] = 1
    p[4, 2, 2] = 5e-3
    p[5] = 6e-4  # with label 3 more than a thousandth
    p[3] = 7e-4
    unary = unary_from_probabilities(p / p.sum(0), None)
    crf = DenseCRF((Kernel(1, 0.1),), 1)
    assert mean_field(unary, None, crf).amax((1, 2)).bool().tolist() == [1, 0, 0, 1, 1, 0]
    assert mean_field(unary, None, crf._replace(prune=0)).all()
    assert mean_field(unary[:4], None, crf).all()  # of four labels, all are kept


@pytest.mark.parametrize("strength", [1, 1e3, 1e6])
def test_strong_energies_leave_no_denormals(strength):
    unary, image = noise(8, 16, 16)
    q = mean_field(strength * unary, image, CRF_PRESETS["edeconvnet"])
    assert q.isfinite().all()
    assert q[q > 0].min() >= 1.9e-22
    torch.testing.assert_close(q.sum(0), torch.ones(16, 16))


def test_impossible_labels_stay_impossible():
    unary, image = noise(6, 8, 9)
    unary[2, :4] = math.inf
    unary[5] = math.inf
    q = mean_field(unary, image, DenseCRF(BOTH, 3))
    assert not q[2, :4].any()
    assert not q[5].any()
    assert q.isfinite().all()
    unary.requires_grad_()
    assert torch.autograd.grad(mean_field(unary, image).square().sum(), unary)[0].isfinite().all()


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (1, 1), (1, 7)])
@pytest.mark.parametrize("labels", [1, 3])
def test_small_images(labels, size):
    unary, image = noise(labels, *size)
    q = mean_field(unary, image)
    assert q.shape == (labels, *size)
    torch.testing.assert_close(q.sum(0), torch.ones(size))


def test_one_filter_serves_all_energies_of_a_image():
    image = noise(1, 9, 11)[1]
    filters = crf_filter("deeplab", (9, 11), image)
    for seed, labels in enumerate((2, 6)):
        unary = noise(labels, 9, 11, seed)[0]
        found = mean_field(unary, None, "deeplab", filters)
        assert torch.equal(found, mean_field(unary, image, "deeplab", compiled=False))
    with pytest.raises(ShapeError, match="as the features"):
        mean_field(unary[:, :5], None, "deeplab", filters)
    with pytest.raises(ShapeError, match="as the features"):
        mean_field(unary.double(), None, "deeplab", filters)


def test_half_precision_is_computed_in_single():
    unary, image = noise(3, 6, 6)
    q = mean_field(unary.bfloat16(), image)
    assert q.dtype == torch.float32
    assert mean_field(unary.double(), image).dtype == torch.float64


def test_messages_with_potts_matrices_are_mean_field():
    """The parts that CRF-RNN learns, at their initial values."""
    unary, image = noise(4, 9, 11)
    crf = DenseCRF((Kernel(3, 3), Kernel(160, 5, 3)), 4, "after", prune=0)
    filters = [kernel_filter(kernel, (9, 11), image, "after") for kernel in crf.kernels]
    weights = [kernel.weight * torch.eye(4) for kernel in crf.kernels]
    score = -unary.reshape(4, -1).t()
    q = score.softmax(1)
    for _ in range(4):
        q = (score + messages(q, filters, weights)).softmax(1)
    torch.testing.assert_close(q.t().view(4, 9, 11), mean_field(unary, image, crf))
    swap = torch.eye(4)[[1, 0, 3, 2]]
    swapped = messages(q, filters, weights, swap)
    torch.testing.assert_close(swapped, messages(q, filters, weights)[:, [1, 0, 3, 2]])


def test_messages_reach_weights_and_compatibility():
    filters = [kernel_filter(Kernel(2, 1), (3, 3), None)]
    weight, mu = torch.eye(2, requires_grad=True), torch.eye(2, requires_grad=True)
    messages(torch.rand(9, 2), filters, [weight], mu).square().sum().backward()
    assert weight.grad.abs().min() > 0
    assert mu.grad.abs().min() > 0


def test_unary_from_probabilities():
    p = torch.tensor([0.0, 0.5, 1.0])
    assert torch.equal(unary_from_probabilities(p, None), -p.log())
    torch.testing.assert_close(unary_from_probabilities(p), -p.clamp(1e-5).log())
    for clip in (0, -1, 2):
        with pytest.raises(OptionError, match="or None"):
            unary_from_probabilities(p, clip)


def test_errors_say_what_to_do():
    unary, image = noise(3, 4, 5)
    for wrong in (unary[0], unary[None], unary[:0], unary.long()):
        with pytest.raises(ShapeError, match="one image at a time"):
            mean_field(wrong, image)
    for value in (math.nan, -math.inf):
        bad = unary.clone()
        bad[1, 2, 3] = value
        with pytest.raises(ShapeError, match="which clips"):
            mean_field(bad, image)
    with pytest.raises(ShapeError, match="which clips"):
        mean_field(torch.full((3, 4, 5), math.inf), image)
    for wrong in (image[:3], image.long(), image[..., 0]):
        with pytest.raises(ShapeError, match="as large as the unary"):
            mean_field(unary, wrong)
    with pytest.raises(ShapeError, match="a kernel uses colors"):
        mean_field(unary, None)
