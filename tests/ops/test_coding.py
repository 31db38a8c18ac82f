"""Convolutional sparse coding, against sporco's optimum and the properties of any solution."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from unpool.errors import OptionError, ShapeError
from unpool.ops import pool, unpool
from unpool.ops.coding import (
    LinearMap,
    chain,
    coding_cost,
    conjugate_gradients,
    differentiated,
    fista,
    ista,
    pool3,
    pool_at,
    power_bound,
    synthesis,
    synthesis_bound,
    unpool3,
    unpooling,
)

GOLDEN = Path(__file__).parent.parent / "golden"


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def circular(weight, size):
    """The synthesis (K, 1, k, k) on a torus, as sporco has it: filters begin at index 0."""
    spectrum = torch.fft.rfft2(weight[:, 0], s=size)
    return LinearMap(
        lambda z: torch.fft.irfft2((torch.fft.rfft2(z) * spectrum).sum(1, keepdim=True), s=size),
        lambda y: torch.fft.irfft2(torch.fft.rfft2(y) * spectrum.conj(), s=size),
    )


def deep(layers, size=(31, 26), dtype=torch.float64):
    """R of some layers with pools of 3 x 3 x 2 between them, and random switches."""
    channels, parts = 1, []
    for layer in range(layers):
        maps, size = 5 + layer, (size[0] + 4, size[1] + 4)
        weight = normal(maps, channels, 5, 5, seed=layer, dtype=dtype)
        parts.append(synthesis(weight / weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)))
        shape = 2, maps, *size
        if layer < layers - 1:
            pooled, switches = pool3(normal(*shape, seed=10 + layer))
            parts.append(unpooling(switches))
            channels, size = pooled.shape[1], pooled.shape[2:]
    return chain(*parts), shape


# ---- linear maps ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_adjoint_is_exact(layers, dtype):
    operator, shape = deep(layers, dtype=dtype)
    z, y = normal(*shape, dtype=dtype), normal(2, 1, 31, 26, seed=1, dtype=dtype)
    image, code = operator.forward(z), operator.adjoint(y)
    assert (image.shape, code.shape) == (y.shape, z.shape)
    scale = float(image.norm() * y.norm())
    assert abs(float((image * y).sum() - (z * code).sum())) < 1e-5 * scale
    (gradient,) = torch.autograd.grad((operator.forward(z.requires_grad_()) * y).sum(), z)
    torch.testing.assert_close(code, gradient)


def test_synthesis_by_a_loop():
    """Every map's values put its filter, unflipped, at their places; the border is cut."""
    weight, z = normal(3, 2, 3, 3), normal(1, 3, 6, 7, seed=1)
    canvas = torch.zeros(2, 8, 9, dtype=torch.float64)
    for k, row, column in np.ndindex(3, 6, 7):
        canvas[:, row : row + 3, column : column + 3] += z[0, k, row, column] * weight[k]
    torch.testing.assert_close(synthesis(weight).forward(z)[0], canvas[:, 2:-2, 2:-2])


def test_differentiated_has_the_written_adjoint():
    weight, y = normal(3, 2, 5, 5), normal(2, 2, 9, 8, seed=1)
    written = synthesis(weight)
    found = differentiated(written.forward, torch.zeros_like(written.adjoint(y)))
    for _ in range(2):  # it can be used again
        torch.testing.assert_close(found.adjoint(y), written.adjoint(y))


# ---- pooling over features and space -------------------------------------------------------------


@pytest.mark.parametrize("size", [(6, 9, 12), (5, 8, 7), (1, 1, 1)])
def test_pool3_by_a_loop(size):
    z = normal(2, *size)
    z[0, :, :3, :3] = 1.0  # ties: the first by map, row and column
    pooled, switches = pool3(z, 3, 2)
    assert switches.size == size
    for place in np.ndindex(*pooled.shape):
        n, g, i, j = place
        cell = z[n, 2 * g : 2 * g + 2, 3 * i : 3 * i + 3, 3 * j : 3 * j + 3]
        best = max(np.ndindex(*cell.shape), key=lambda at, cell=cell: abs(float(cell[at])))
        assert pooled[place] == cell[best]
        assert int(switches.index[place]) == best[0] * 9 + best[1] * 3 + best[2]


def test_unpooling_keeps_the_maxima_and_nothing_else():
    z = normal(2, 5, 8, 7)
    pooled, switches = pool3(z)
    sparse = unpool3(pooled, switches)
    assert int((sparse != 0).sum()) == pooled.numel()
    assert torch.equal(sparse[sparse != 0], z[sparse != 0])
    again, same = pool3(sparse)
    assert torch.equal(again, pooled)
    assert torch.equal(same.index, switches.index)
    assert torch.equal(pool_at(z, switches), pooled)
    assert pool3(z[:0])[0].shape == (0, *pooled.shape[1:])


def test_one_map_a_cell_is_pooling_of_magnitudes():
    z = normal(2, 3, 8, 7)
    magnitudes, flat = pool(z.abs(), 3, ceil=True)
    pooled, switches = pool3(z, 3, 1)
    assert torch.equal(pooled.abs(), magnitudes)
    expected = unpool(magnitudes, flat) * z.sign()
    assert torch.equal(unpool3(pooled, switches), expected)


def test_what_does_not_fit_is_refused():
    pooled, switches = pool3(normal(1, 4, 6, 6))
    with pytest.raises(ShapeError, match="pass the switches of the matching pool3"):
        unpool3(pooled[:, :1], switches)
    with pytest.raises(ShapeError, match=r"these switches are of \(1, 4, 6, 6\)"):
        pool_at(pooled, switches)
    with pytest.raises(ShapeError, match=r"wanted \(N, K, H, W\)"):
        pool3(normal(4, 6, 6))
    with pytest.raises(OptionError, match="got kernel=3, maps=0"):
        pool3(normal(1, 4, 6, 6), 3, 0)


# ---- coding --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sporco():
    """The problem that sporco solved: the image, the circular synthesis, lam, all arrays."""
    arrays = np.load(GOLDEN / "sporco_cbpdn.npz")
    weight = torch.from_numpy(arrays["D"]).permute(2, 0, 1)[:, None]
    y = torch.from_numpy(arrays["s"])[None, None]
    return y, weight, circular(weight, (20, 24)), float(arrays["lam"]), arrays


def test_the_bound_is_that_of_sporco(sporco):
    _, weight, operator, _, arrays = sporco
    bound = synthesis_bound(weight, (20, 24))
    assert float(bound) == pytest.approx(float(arrays["L"]), rel=1e-12)
    estimate = power_bound(operator, normal(1, 6, 20, 24), 300)
    assert float(estimate / 1.05) == pytest.approx(float(bound), rel=1e-3)


def test_costs_of_ista(sporco):
    y, weight, operator, lam, arrays = sporco
    bound, z, done = synthesis_bound(weight, (20, 24)), None, 0
    for steps, expected in zip((1, 10, 100, 1000), arrays["ista_costs"], strict=True):
        z, done = ista(y, operator, lam, steps=steps - done, bound=bound, start=z), steps
        assert float(coding_cost(y, operator, z, lam)) == pytest.approx(expected, rel=1e-9)


def test_sporco_finds_the_same_optimum(sporco):
    y, weight, operator, lam, arrays = sporco
    bound = synthesis_bound(weight, (20, 24))
    z = fista(y, operator, lam, steps=2000, bound=bound)
    cost = float(coding_cost(y, operator, z, lam))
    assert cost == pytest.approx(float(arrays["cost"]), rel=1e-6)
    theirs = torch.from_numpy(arrays["X"]).permute(2, 0, 1)[None]
    assert float((z - theirs).norm() / theirs.norm()) < 1e-2
    rebuilt = torch.from_numpy(arrays["rec"])
    assert float((operator.forward(z)[0, 0] - rebuilt).norm() / rebuilt.norm()) < 1e-3
    best = torch.from_numpy(arrays["fista"]).permute(2, 0, 1)[None]  # after 20000 steps
    assert int((best != 0).sum()) == 436
    kept = ista(y, operator, lam, steps=10, bound=bound, start=best)
    assert float((kept - best).abs().max()) < 1e-6


def small(lam=0.7, seed=0):
    weight, y = normal(4, 1, 5, 5, seed=seed), normal(2, 1, 12, 15, seed=seed + 1)
    return y, synthesis(weight), lam, synthesis_bound(weight)


def test_ista_never_raises_the_cost_up_to_its_step(sporco):
    y, weight, operator, lam, _ = sporco
    bound = synthesis_bound(weight, (20, 24))

    def rises(lam, bound):
        z, costs = operator.adjoint(torch.zeros_like(y)), []
        for _ in range(100):
            z = ista(y, operator, lam, steps=1, bound=bound, start=z)
            costs.append(float(coding_cost(y, operator, z, lam)))
        return sum(after > before for before, after in itertools.pairwise(costs))

    assert rises(lam, bound) == rises(lam / 1000, bound) == 0
    assert rises(lam / 1000, bound / 2.1) > 0  # nearly linear, where 2 / L is the limit


def test_the_solution_is_optimal():
    """|F^T (y - F z)| is at most lam, and equals lam, with the sign of z, where z is not zero."""
    y, operator, lam, bound = small()
    z = fista(y, operator, lam, steps=4000, bound=bound)
    pull = operator.adjoint(y - operator.forward(z))
    assert float(pull.abs().max()) <= lam + 1e-4
    used = z != 0
    assert 0.01 < float(used.double().mean()) < 0.5
    torch.testing.assert_close(pull[used], lam * z[used].sign(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("solve", [ista, fista])
def test_large_lam_gives_zero(solve):
    y, operator, _, bound = small()
    lam = float(operator.adjoint(y).abs().max())
    assert not solve(y, operator, lam, steps=5, bound=bound).any()
    assert solve(y, operator, 0.99 * lam, steps=5, bound=bound).any()


@pytest.mark.parametrize("solve", [ista, fista])
def test_one_pixel_filters_shrink(solve):
    y = normal(2, 1, 6, 7)
    operator = synthesis(torch.ones(1, 1, 1, 1, dtype=torch.float64))
    z = solve(y, operator, 0.4, steps=3, bound=1.0)
    torch.testing.assert_close(z, torch.nn.functional.softshrink(y, 0.4))


@pytest.mark.parametrize("solve", [ista, fista])
def test_scale(solve):
    y, operator, lam, bound = small()
    z = solve(y, operator, lam, steps=20, bound=bound)
    torch.testing.assert_close(solve(4 * y, operator, 4 * lam, steps=20, bound=bound), 4 * z)


def test_each_sample_has_its_own_bound():
    """Switches differ, and so do the bounds; a sample does not depend on the others."""
    operator, shape = deep(2, (8, 7))
    zero, y = torch.zeros(shape, dtype=torch.float64), normal(2, 1, 8, 7)
    matrix = torch.autograd.functional.jacobian(operator.forward, zero)
    blocks = [matrix[n, ..., n, :, :, :].reshape(56, -1) for n in range(2)]
    exact = torch.stack([torch.linalg.matrix_norm(block, 2).square() for block in blocks])
    bound = power_bound(operator, operator.adjoint(y)).flatten()
    assert ((bound > 0.9 * exact) & (bound < 1.051 * exact)).all()
    y[1] = 0
    alone = power_bound(operator, operator.adjoint(y)).flatten()
    assert alone[0] == bound[0]
    assert 0 < alone[1] < 1e-10  # there is nothing to code
    z = ista(y, operator, 1.0, steps=2, bound=alone.view(2, 1, 1, 1))
    assert z[0].any()
    assert not z[1].any()


# ---- filters -------------------------------------------------------------------------------------


def test_conjugate_gradients_solve_least_squares():
    matrix, y = normal(9, 5), normal(9, seed=1)
    operator = LinearMap(lambda x: matrix @ x, lambda r: matrix.T @ r)
    expected = torch.linalg.lstsq(matrix, y[:, None]).solution[:, 0]
    found = conjugate_gradients(y, operator, normal(5, seed=2), 5)  # as many steps as unknowns
    torch.testing.assert_close(found, expected)
    again = conjugate_gradients(y, operator, expected, 3)  # nothing is left to do
    torch.testing.assert_close(again, expected)


def test_dictionary_learning_comes_up_to_sporco():
    arrays = np.load(GOLDEN / "sporco_dictlearn.npz")
    weight = torch.from_numpy(arrays["D0"]).permute(2, 0, 1)[:, None]
    y = torch.from_numpy(arrays["S"]).permute(2, 0, 1)[:, None]
    lam, z, size = float(arrays["lam"]), None, (24, 24)
    for _ in range(100):
        operator, bound = circular(weight, size), synthesis_bound(weight, size)
        z = fista(y, operator, lam, steps=20, bound=bound, start=z)
        image = differentiated(lambda weight, z=z: circular(weight, size).forward(z), weight)
        weight = conjugate_gradients(y, image, weight, 1)
        norm = weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        weight, z = weight / norm, z * norm.view(1, -1, 1, 1)
    operator, bound = circular(weight, size), synthesis_bound(weight, size)
    z = fista(y, operator, lam, steps=100, bound=bound, start=z)
    cost = float(coding_cost(y, operator, z, lam))
    assert cost <= 1.05 * float(arrays["objective"][-1])
