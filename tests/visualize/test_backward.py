"""The backward passes of max pooling, against loops, in one, two and three dimensions."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unpool.errors import OptionError
from unpool.visualize import RULES, Interception, project

WINDOWS = [  # kernel, stride, padding, dilation, ceil
    (2, None, 0, 1, False),
    (3, 2, 0, 1, False),
    (3, 2, 1, 1, True),
    (3, 1, 1, 1, False),
    (2, 2, 0, 1, True),
    (2, 3, 1, 1, True),
    (3, 2, 0, 2, False),
    (4, 3, 1, 1, False),
]


def maps(dims, seed=0):
    """Few distinct values, so that ties are common."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 3, *(9, 8, 7)[:dims])
    return torch.randint(-2, 3, shape, generator=generator).double()


def starts(window, n, count):
    kernel, stride, padding, dilation, _ = window
    return [i * (stride or kernel) - padding for i in range(count)], kernel, dilation


def by_loop(x, signal, window, overlap):
    """For each plane and window, in row-major order: find the place, put the value."""
    sides, out = x.shape[2:], torch.zeros_like(x)
    lines = [starts(window, n, count) for n, count in zip(sides, signal.shape[2:], strict=True)]
    for plane in itertools.product(range(x.shape[0]), range(x.shape[1])):
        for unit in itertools.product(*map(range, signal.shape[2:])):
            begins = [line[0][i] for line, i in zip(lines, unit, strict=True)]
            kernel, dilation = lines[0][1:]
            cells = itertools.product(*([b + dilation * k for k in range(kernel)] for b in begins))
            inside = [c for c in cells if all(0 <= v < n for v, n in zip(c, sides, strict=True))]
            if overlap == "center":
                middle = [b + dilation * ((kernel + 1) // 2 - 1) for b in begins]
                place = tuple(min(max(v, 0), n - 1) for v, n in zip(middle, sides, strict=True))
            else:
                place = max(inside, key=lambda cell: x[plane + cell])  # the first of equal ones
            if overlap == "overwrite":
                out[plane + place] = signal[plane + unit]
            else:
                out[plane + place] += signal[plane + unit]
    return out


def intercepted(x, overlap, pool):
    """The result of a pooling, the random signal sent down, and the signal below."""
    x = x.clone().requires_grad_()
    rule = RULES["deconvnet"]._replace(overlap=overlap)
    with Interception(rule):
        found = pool(x)
        y = found[0] if isinstance(found, tuple) else found
    signal = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).double()
    return found, signal, torch.autograd.grad(y, x, signal)[0]


@pytest.mark.parametrize("overlap", ["sum", "overwrite", "center"])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("dims", [1, 2])
def test_pooling_against_a_loop(dims, window, overlap):
    kernel, stride, padding, dilation, ceil = window
    pool, x = getattr(F, f"max_pool{dims}d"), maps(dims)
    y, signal, down = intercepted(
        x, overlap, lambda t: pool(t, kernel, stride, padding, dilation, ceil)
    )
    assert torch.equal(y, pool(x, kernel, stride, padding, dilation, ceil))
    assert torch.allclose(down, by_loop(x, signal, window, overlap))


@pytest.mark.parametrize("overlap", ["overwrite", "center"])
def test_pooling_of_volumes(overlap):
    window, x = (2, 1, 0, 1, False), maps(3)[:1, :1, :5, :4, :4]
    _, signal, down = intercepted(x, overlap, lambda t: F.max_pool3d(t, 2, stride=1))
    assert torch.allclose(down, by_loop(x, signal, window, overlap))


@pytest.mark.parametrize("overlap", ["sum", "overwrite", "center"])
def test_every_spelling_of_pooling(overlap):
    x = maps(2)
    wanted = intercepted(x, overlap, lambda t: F.max_pool2d(t, 3, 2))[2]
    spellings = [
        nn.MaxPool2d(3, 2),
        nn.MaxPool2d(3, 2, return_indices=True),
        lambda t: torch.max_pool2d(t, 3, 2),
        lambda t: torch.max_pool2d(input=t, kernel_size=(3, 3), stride=[2, 2]),
        lambda t: F.max_pool2d_with_indices(t, 3, 2),
        lambda t: F.max_pool2d(t, 3, stride=2, return_indices=True),
        lambda t: torch.stack([F.max_pool2d(plane, 3, 2) for plane in t]),  # (C, H, W) each
    ]
    for pool in spellings:
        found, _, down = intercepted(x, overlap, pool)
        assert torch.equal(down, wanted)
        if isinstance(found, tuple):
            assert torch.equal(found[1], F.max_pool2d(x, 3, 2, return_indices=True)[1])


@pytest.mark.parametrize("sides", [(3, 4), 5, (None, 3), 1])
def test_adaptive_windows(sides):
    x = maps(2)
    for overlap in ("overwrite", "center"):
        y, signal, down = intercepted(x, overlap, lambda t: F.adaptive_max_pool2d(t, sides))
        assert torch.equal(y, F.adaptive_max_pool2d(x, sides))
        expected = torch.zeros_like(x)
        lines = []
        for n, count in zip(x.shape[2:], y.shape[2:], strict=True):
            ends = [(i * n // count, -(-(i + 1) * n // count)) for i in range(count)]
            lines.append(ends)
        for a, b, i, j in itertools.product(*map(range, y.shape)):
            (top, bottom), (left, right) = lines[0][i], lines[1][j]
            place = ((top + bottom - 1) // 2, (left + right - 1) // 2)
            if overlap == "overwrite":
                flat = int(x[a, b, top:bottom, left:right].argmax())
                place = (top + flat // (right - left), left + flat % (right - left))
                expected[a, b, place[0], place[1]] = 0
            expected[a, b, place[0], place[1]] += signal[a, b, i, j]
        assert torch.allclose(down, expected)


def test_fractional_pooling_needs_its_switches():
    pool = nn.FractionalMaxPool2d(2, output_size=3)
    assert intercepted(maps(2), "sum", pool)[0].shape == (2, 3, 3, 3)
    with pytest.raises(OptionError, match="fractional_max_pool2d goes down by its switches only"):
        intercepted(maps(2), "center", pool)


@pytest.mark.parametrize(("side", "least", "most"), [(3, 0.5, 0.9), (2, 0.0, 1e-6)])
def test_overwriting_loses_signal_where_windows_overlap(side, least, most):
    """The relative L2 difference from the sum, for networks with two pools of stride 2."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(side, 2)),
        *(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.MaxPool2d(side, 2)),
    )
    images = torch.randn(4, 3, 33, 33)

    def down(overlap):
        return project(net, images, "5", 3, place="all", overlap=overlap).signal

    lost = (down("sum") - down("overwrite")).norm() / down("sum").norm()
    assert least <= lost <= most
