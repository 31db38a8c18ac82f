"""The permutohedral lattice against a slow one of dictionaries, and against the exact Gaussian."""

import math

import numpy as np
import pytest
import torch

from unpool.errors import OptionError, ShapeError
from unpool.ops import Filters, Lattice


def slow_filter(features, values):
    """Point by point, vertices named by their coordinates in a dictionary."""
    d = features.shape[1]
    inside = []
    for f in features.tolist():
        up = [sum(f[k] * scale(k, d) for k in range(i, d)) for i in range(d + 1)]
        x = [up[i] - (i * f[i - 1] * scale(i - 1, d) if i else 0) for i in range(d + 1)]
        inside.append(simplex(x))
    table = {}
    for corners, value in zip(inside, values, strict=True):
        for vertex, weight in corners:
            table[vertex] = table.get(vertex, 0) + weight * value
    for j in range(d + 1):
        step = [d if i == j else -1 for i in range(d + 1)]
        table = {
            v: here + (table.get(moved(v, step, 1), 0) + table.get(moved(v, step, -1), 0)) / 2
            for v, here in table.items()
        }
    out = [sum(w * table[v] for v, w in corners) for corners in inside]
    return np.array(out) / (1 + 2.0**-d), len(table)


def moved(vertex, step, sign):
    return tuple(v + sign * s for v, s in zip(vertex, step, strict=True))


def scale(k, d):
    return math.sqrt(2 / 3) * (d + 1) / math.sqrt((k + 1) * (k + 2))


def simplex(x):
    """The vertices around a point on the plane of sum zero, with barycentric weights."""
    d = len(x) - 1
    nearest = [round(c / (d + 1)) * (d + 1) for c in x]
    order = sorted(range(d + 1), key=lambda i: nearest[i] - x[i])  # the largest rest first
    for _ in range(abs(sum(nearest)) // (d + 1)):
        if sum(nearest) > 0:
            i = order.pop()
            nearest[i] -= d + 1
            order.insert(0, i)
        else:
            i = order.pop(0)
            nearest[i] += d + 1
            order.append(i)
    rest = [(x[i] - nearest[i]) / (d + 1) for i in order]
    corners = []
    for k in range(d + 1):
        vertex = list(nearest)
        for place, i in enumerate(order):
            vertex[i] += k if place <= d - k else k - (d + 1)
        weight = rest[d - k] - rest[d - k + 1] if k else 1 + rest[d] - rest[0]
        corners.append((tuple(vertex), weight))
    assert abs(sum(w for _, w in corners) - 1) < 1e-9
    return corners


def exact(features, values):
    return torch.exp(-(torch.cdist(features, features) ** 2) / 2) @ values


def grid(side):
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2).double()


@pytest.mark.parametrize("d", [1, 2, 3, 5, 8])
def test_equals_the_slow_lattice(d):
    random = torch.Generator().manual_seed(d)
    features = 3 * torch.randn(60, d, generator=random, dtype=torch.float64)
    values = torch.randn(60, 3, generator=random, dtype=torch.float64)
    lattice = Lattice(features)
    expected, cells = slow_filter(features, values.numpy())
    assert lattice.cells == cells
    np.testing.assert_allclose(lattice.filter(values).numpy(), expected, atol=1e-12)
    single = Lattice(features.float()).filter(values.float())
    np.testing.assert_allclose(single.numpy(), expected, atol=1e-4)


def test_points_far_apart_do_not_meet():
    """Where the keys need 64 bits, and where they need more than there are."""
    for d, spread in [(5, 3e3), (5, 9e5), (12, 9e5)]:
        random = torch.Generator().manual_seed(d)
        near = torch.randn(20, d, generator=random, dtype=torch.float64)
        far = near + spread
        values = torch.randn(40, 2, generator=random, dtype=torch.float64)
        both = Lattice(torch.cat([near, far])).filter(values)
        apart = [Lattice(near).filter(values[:20]), Lattice(far).filter(values[20:])]
        torch.testing.assert_close(both, torch.cat(apart))


@pytest.mark.parametrize("sigma", [1.5, 3.0, 6.0])
def test_near_to_the_exact_gaussian_of_positions(sigma):
    features = grid(12) / sigma
    lattice = Lattice(features)
    values = torch.rand(144, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ones = torch.ones(144, 1, dtype=torch.float64)
    mine = lattice.filter(values) / lattice.filter(ones)
    true = exact(features, values) / exact(features, ones)
    assert (mine - true).abs().max() < 0.06
    share = lattice.filter(ones) / exact(features, ones)
    assert share.min() > 0.75
    assert share.max() < 1.05


def test_a_constant_field_has_the_known_sum():
    """49.9 where the Gaussian of three pixels sums to 56.5."""
    ones = torch.ones(60 * 60, 1)
    total = Lattice((grid(60) / 3).float()).filter(ones).view(60, 60)[20:40, 20:40]
    assert abs(total.mean().item() - 49.9) < 0.2


def test_near_to_the_exact_gaussian_with_colors():
    random = torch.Generator().manual_seed(3)
    color = torch.rand(1, 3, generator=random) + 0.2 * torch.rand(144, 3, generator=random)
    features = torch.cat([grid(12) / 6, color.double() / 0.3], 1)
    values = torch.rand(144, 2, generator=random, dtype=torch.float64)
    ones = torch.ones(144, 1, dtype=torch.float64)
    lattice = Lattice(features)
    mine = lattice.filter(values) / lattice.filter(ones)
    true = exact(features, values) / exact(features, ones)
    assert (mine - true).abs().max() < 0.1


@pytest.mark.parametrize("dims", [[2], [5], [2, 5]])
def test_the_backward_is_the_transpose(dims):
    random = torch.Generator().manual_seed(1)

    def rand(*shape):
        return torch.rand(*shape, generator=random, dtype=torch.float64)

    lattices = [Lattice(4 * rand(50, d)) for d in dims]
    filters = Filters(lattices, [rand(50) for _ in dims], [rand(50) for _ in dims])
    x, y = rand(50, 3).requires_grad_(), rand(50, 3).requires_grad_()
    (back,) = torch.autograd.grad(filters(x), x, y, create_graph=True)
    torch.testing.assert_close((filters(x) * y).sum(), (x * back).sum())
    torch.testing.assert_close(torch.autograd.grad(back, y, x)[0], filters(x))
    assert torch.autograd.gradcheck(filters, (x,))


def test_filters_add_up_with_their_scales():
    random = torch.Generator().manual_seed(2)
    lattices = [Lattice(3 * torch.randn(40, d, generator=random)) for d in (2, 5, 3)]
    before = [torch.rand(40, generator=random), None, torch.rand(40, generator=random)]
    after = [None, torch.rand(40, generator=random), torch.rand(40, generator=random)]
    values = torch.randn(40, 4, generator=random)
    expected = torch.zeros(40, 4)
    for lattice, first, last in zip(lattices, before, after, strict=True):
        part = lattice.filter(values if first is None else values * first[:, None])
        expected += part if last is None else part * last[:, None]
    filters = Filters(lattices, before, after)
    torch.testing.assert_close(filters(values), expected)
    cells = filters.spread(values)
    parts = [filters.collect(cells, a, b) for a, b in [(0, 7), (7, 8), (8, 40)]]
    torch.testing.assert_close(torch.cat(parts), expected)


def test_channels_do_not_mix_and_order_does_not_matter():
    random = torch.Generator().manual_seed(4)
    features = torch.randn(30, 4, generator=random)
    values = torch.randn(30, 5, generator=random)
    out = Lattice(features).filter(values)
    torch.testing.assert_close(Lattice(features).filter(values[:, 2:3]), out[:, 2:3])
    order = torch.randperm(30, generator=random)
    torch.testing.assert_close(Lattice(features[order]).filter(values[order]), out[order])


def test_few_points():
    assert Lattice(torch.zeros(0, 5)).filter(torch.zeros(0, 3)).shape == (0, 3)
    one = Lattice(torch.rand(1, 5))
    assert one.filter(torch.zeros(1, 0)).shape == (1, 0)
    assert 0 < one.filter(torch.ones(1, 1)).item() <= 1.2


def test_errors_say_what_to_do():
    for wrong in (torch.zeros(3), torch.zeros(3, 0), torch.zeros(3, 2, dtype=torch.int64)):
        with pytest.raises(ShapeError, match="one row for each point"):
            Lattice(wrong)
    for wrong in (math.nan, math.inf, 1e7):
        with pytest.raises(ShapeError, match="choose a larger deviation"):
            Lattice(torch.full((3, 2), wrong))
    lattice = Lattice(torch.zeros(3, 2))
    for values in (torch.zeros(4, 1), torch.zeros(3), torch.zeros(3, 1, dtype=torch.float64)):
        with pytest.raises(ShapeError, match="as the features"):
            lattice.filter(values)
    with pytest.raises(ShapeError, match="of the same points"):
        Filters([lattice, Lattice(torch.zeros(4, 2))])
    with pytest.raises(OptionError, match="one of each for a lattice"):
        Filters([])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_gpu_agrees():
    features, values = torch.randn(500, 5), torch.rand(500, 4)
    out = Lattice(features.cuda()).filter(values.cuda())
    torch.testing.assert_close(out.cpu(), Lattice(features).filter(values), atol=1e-3, rtol=1e-3)
