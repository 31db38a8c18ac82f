"""Unpooling against PyTorch's, against a literal loop, and against autograd; both forms alike."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from unpool.errors import OptionError, ShapeError
from unpool.ops import Switches, fixed_unpool, pool, unpool

DEVICES = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
EVERYWHERE = [
    pytest.param(device, dtype, layout, id=f"{device}-{str(dtype)[6:]}-{layout}")
    for device, dtype, layout in itertools.product(DEVICES, DTYPES, LAYOUTS)
]
everywhere = pytest.mark.parametrize(("device", "dtype", "layout"), EVERYWHERE)

# kernel, stride, padding
DISJOINT = [(2, 2, 0), (2, 2, 1), (3, 3, 1), (2, 3, 0), (1, 2, 0), (3, 4, 1)]
OVERLAPPING = [(3, 2, 0), (3, 2, 1), (2, 1, 0), (3, 1, 1), (5, 2, 2), (4, 3, 1)]


def maps(shape, seed=0, dtype=torch.float32, device="cpu", layout="nchw", special=True):
    """Few different values, so that ties are common; and what is not a number like others."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-2, 3, shape, generator=generator).float()
    if special:
        kind = torch.randint(0, 24, shape, generator=generator)
        x[kind == 0], x[kind == 1], x[kind == 2] = math.nan, -math.inf, math.inf
        x[:, :, :2, :2] = 0  # a window of zeros, as after a ReLU
        x[:, -1:, -2:] = -math.inf
    return x.to(device, dtype).contiguous(memory_format=LAYOUTS[layout])


def same(a, b):
    """Bit-equal but for the sign of zero and the payload of NaN."""
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(7), b.nan_to_num(7))


def laid_out(x, layout):
    return x.is_contiguous(memory_format=LAYOUTS[layout])


def unpool_by_loop(y, index, size, add=False):
    """The authors' loop: `out[mask[i]] = in[i]` over the windows in row-major order."""
    n, c, h, w = y.shape
    out = torch.zeros(n, c, size[0] * size[1], dtype=y.dtype)
    for i, j, k in itertools.product(range(n), range(c), range(h * w)):
        place, value = index[i, j].flatten()[k], y[i, j].flatten()[k]
        out[i, j, place] = out[i, j, place] + value if add else value
    return out.view(n, c, *size)


@pytest.fixture
def deterministic():
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


# ---- pooling -------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("window", [(2, 2, 0), (3, 2, 1)])
def test_pool_is_pytorchs_and_keeps_the_size(device, dtype, layout, ceil, window):
    x = maps((2, 3, 7, 9), 1, dtype, device, layout)
    y, switches = pool(x, *window, ceil=ceil)
    kernel, stride, padding = window
    expected = F.max_pool2d(x, kernel, stride, padding, 1, ceil, return_indices=True)
    assert same(y, expected[0])
    assert torch.equal(switches.index, expected[1])
    assert (y.dtype, switches.index.dtype, switches.size) == (dtype, torch.int64, (7, 9))
    assert laid_out(y, layout)


def test_pool_takes_the_first_of_equal_values_by_hand():
    x = torch.tensor([[[[1.0, 2, 0, 0], [2, 2, 0, 0], [3, 1, -5, -4], [1, 3, -4, -9]]]])
    for form in ("flat", "phase"):
        y, switches = pool(x, form=form)
        assert y.flatten().tolist() == [2, 0, 3, -4]
        assert switches.flat.index.flatten().tolist() == [1, 2, 8, 11]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2),
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 9),
    st.booleans(),
    st.sampled_from(DTYPES),
    st.sampled_from(list(LAYOUTS)),
    st.integers(0, 99),
)
def test_phase_form_is_the_flat_form(n, c, height, width, ceil, dtype, layout, seed):
    x = maps((n, c, height, width), seed, dtype, layout=layout)
    if not ceil and min(height, width) < 2:
        return
    y, flat = pool(x, ceil=ceil)
    z, phase = pool(x, ceil=ceil, form="phase")
    assert same(y, z)
    assert phase.index.dtype == torch.uint8
    assert torch.equal(phase.flat.index, flat.index)
    assert torch.equal(flat.phase.index, phase.index)
    assert phase.flat.size == flat.phase.size == phase.size == flat.size == (height, width)
    assert flat.flat is flat
    assert phase.phase is phase
    for overlap in ("overwrite", "sum"):
        expected = unpool(y, flat, overlap)
        assert same(unpool(y, phase, overlap), expected)
        assert same(unpool(y, flat.phase, overlap), expected)
        assert same(unpool(y, phase.flat, overlap), expected)


@everywhere
def test_phase_form_is_the_flat_form_everywhere(device, dtype, layout):
    x = maps((2, 3, 7, 10), 3, dtype, device, layout)
    for ceil in (False, True):
        (y, flat), (z, phase) = pool(x, ceil=ceil), pool(x, ceil=ceil, form="phase")
        assert same(y, z)
        assert torch.equal(flat.index, phase.flat.index)
        up = unpool(z, phase)
        assert same(up, unpool(y, flat))
        assert laid_out(z, layout)
        assert laid_out(up, layout)


def test_the_phase_form_is_an_eighth_of_the_flat_form():
    x = torch.zeros(1, 2, 8, 8)
    flat, phase = pool(x)[1].index, pool(x, form="phase")[1].index
    assert flat.nbytes == 8 * phase.nbytes


def test_switches_from_elsewhere_have_a_phase_form_if_they_fit_it():
    index = torch.tensor([[[[0, 3], [9, 14]]]])  # as a Caffe mask, made whole numbers
    mask = Switches(index, (4, 4))
    assert mask.phase.index.flatten().tolist() == [0, 1, 1, 2]
    assert torch.equal(mask.phase.flat.index, index)
    y = torch.randn(1, 1, 2, 2)
    assert torch.equal(unpool(y, mask), unpool(y, mask.phase))


# ---- unpooling -----------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("window", DISJOINT)
def test_unpool_is_pytorchs_without_overlaps(device, dtype, layout, ceil, window):
    x = maps((2, 3, 9, 12), 2, dtype, device, layout)
    y, switches = pool(x, *window, ceil=ceil)
    expected = F.max_unpool2d(y, switches.index, *window, output_size=(9, 12))
    for overlap in ("overwrite", "sum"):
        up = unpool(y, switches, overlap)
        assert same(up, expected)
        assert up.dtype == dtype
        assert laid_out(up, layout)
        assert up.shape == x.shape


@everywhere
@pytest.mark.parametrize("window", DISJOINT)
def test_the_deterministic_way_is_the_native_one(device, dtype, layout, window, deterministic):
    x = maps((2, 3, 9, 12), 2, dtype, device, layout)
    y, switches = pool(x, *window, ceil=True)
    up = unpool(y, switches)
    torch.use_deterministic_algorithms(False)
    assert same(up, unpool(y, switches))
    assert laid_out(up, layout)


@everywhere
@pytest.mark.parametrize("window", OVERLAPPING)
def test_unpool_is_the_loop_with_overlaps(device, dtype, layout, window):
    x = maps((2, 2, 7, 8), 4, dtype, device, layout)
    for ceil in (False, True):
        y, switches = pool(x, *window, ceil=ceil)
        up = unpool(y, switches)
        assert same(up.cpu(), unpool_by_loop(y.cpu(), switches.index.cpu(), (7, 8)))
        assert up.dtype == dtype
        assert laid_out(up, layout)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2),
    st.integers(1, 3),
    st.integers(1, 7),
    st.integers(1, 7),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 2),
    st.booleans(),
    st.sampled_from(list(LAYOUTS)),
    st.integers(0, 99),
)
def test_unpool_is_the_loop_for_every_window(
    n, c, height, width, kernel, stride, padding, ceil, layout, seed
):
    x = maps((n, c, height, width), seed, layout=layout)
    try:
        y, switches = pool(x, kernel, stride, padding, ceil)
    except (OptionError, ShapeError):  # as PyTorch refuses them
        with pytest.raises(RuntimeError):
            F.max_pool2d(
                x[:1] if n else x.new_zeros(1, *x.shape[1:]), kernel, stride, padding, 1, ceil
            )
        return
    up = unpool(y, switches)
    assert same(up, unpool_by_loop(y, switches.index, (height, width)))
    assert up.shape == x.shape
    finite = y.nan_to_num(7, 8, -8)
    up = unpool(finite, switches, "sum")
    assert torch.equal(up, unpool_by_loop(finite, switches.index, (height, width), add=True))


@everywhere
def test_overlaps_end_the_same_every_time(device, dtype, layout):
    x = maps((2, 4, 31, 33), 5, dtype, device, layout)
    y, switches = pool(x, 5, 1, 2)
    first = unpool(y, switches)
    assert all(same(first, unpool(y, switches)) for _ in range(5))


@everywhere
@pytest.mark.parametrize("form", ["flat", "phase"])
def test_an_empty_batch_passes(device, dtype, layout, form):
    x = maps((0, 3, 7, 9), 0, dtype, device, layout).requires_grad_()
    windows = [(2, 2, 0), (3, 2, 1)] if form == "flat" else [(2, 2, 0)]
    for window, ceil, overlap in itertools.product(windows, (False, True), ("overwrite", "sum")):
        y, switches = pool(x, *window, ceil=ceil, form=form)
        assert (
            y.shape
            == switches.index.shape
            == (0, *pool(torch.zeros(1, 3, 7, 9), *window, ceil=ceil)[0].shape[1:])
        )
        up = unpool(y, switches, overlap)
        assert (up.shape, up.dtype) == (x.shape, dtype)
        (gradient,) = torch.autograd.grad(up.sum(), x)
        assert gradient.shape == x.shape
        assert switches.phase.flat.index.shape == y.shape if window == (2, 2, 0) else True


def test_pooling_again_finds_values_and_places_again():
    x = torch.rand(2, 3, 9, 11) + 0.1
    for form in ("flat", "phase"):
        y, switches = pool(x, ceil=True, form=form)
        z, again = pool(unpool(y, switches), ceil=True, form=form)
        assert torch.equal(y, z)
        assert torch.equal(again.index, switches.index)


@everywhere
def test_fixed_unpool_is_the_loop(device, dtype, layout):
    y = maps((2, 3, 4, 5), 6, dtype, device, layout)
    for factor in (1, 2, 3):
        expected = torch.zeros(2, 3, 4 * factor, 5 * factor, dtype=dtype, device=device)
        for i, j in itertools.product(range(4), range(5)):
            expected[:, :, i * factor, j * factor] = y[:, :, i, j]
        up = fixed_unpool(y, factor)
        assert same(up, expected)
        assert laid_out(up, layout)
    assert fixed_unpool(y[:0]).shape == (0, 3, 8, 10)


def test_fixed_unpool_has_the_switches_of_a_falling_map():
    y = torch.rand(1, 2, 3, 4)
    zeros = Switches(torch.zeros(1, 2, 3, 4, dtype=torch.uint8), (6, 8))
    assert torch.equal(fixed_unpool(y), unpool(y, zeros))


# ---- adjoint and gradients -----------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 9), st.integers(3, 9), st.sampled_from(DISJOINT + OVERLAPPING), st.booleans())
def test_the_sum_is_the_adjoint_of_picking(height, width, window, ceil):
    """<pick x, y> = <x, unpool y>, where picking takes what the switches name."""
    generator = torch.Generator().manual_seed(height * width)
    x, z = torch.randn(2, 2, 3, height, width, generator=generator, dtype=torch.float64)
    _, switches = pool(x, *window, ceil=ceil)
    y = torch.randn(switches.index.shape, generator=generator, dtype=torch.float64)
    picked = z.flatten(2).gather(2, switches.index.flatten(2)).view_as(y)
    left, right = (picked * y).sum(), (z * unpool(y, switches, "sum")).sum()
    assert torch.allclose(left, right, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("window", [(3, 2, 0), *OVERLAPPING[1:], (2, 2, 0)])
def test_the_sum_is_the_gradient_of_max_pooling(window, layout):
    x = maps((2, 3, 8, 11), 7, torch.float64, layout=layout, special=False).requires_grad_()
    kernel, stride, padding = window
    y = F.max_pool2d(x, kernel, stride, padding, 1, True)
    above = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (expected,) = torch.autograd.grad(y, x, above)
    got = unpool(above, pool(x, *window, ceil=True)[1], "sum")
    assert torch.allclose(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("strict", [False, True], ids=["native", "deterministic"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("overlap", ["overwrite", "sum"])
@pytest.mark.parametrize(
    ("window", "form"), [((2, 2, 0), "flat"), ((2, 2, 0), "phase"), ((3, 2, 1), "flat")]
)
def test_gradients(window, form, overlap, layout, strict, request):
    if strict:
        request.getfixturevalue("deterministic")
    values = torch.randperm(2 * 3 * 5, generator=torch.Generator().manual_seed(8)).double()
    x = values.view(1, 2, 3, 5).contiguous(memory_format=LAYOUTS[layout])  # no ties

    def function(x):
        y, switches = pool(x, *window, ceil=True, form=form)
        return unpool(y * y / 100, switches, overlap)

    assert torch.autograd.gradcheck(function, x.requires_grad_())
    y, switches = pool(x.detach(), *window, ceil=True, form=form)
    inputs = y.requires_grad_()
    assert torch.autograd.gradcheck(lambda y: unpool(y, switches, overlap), inputs)


def test_second_gradients():
    x = torch.randperm(2 * 3 * 5, generator=torch.Generator().manual_seed(8)).double() / 9
    for form in ("flat", "phase"):
        y, switches = pool(x.view(1, 2, 3, 5), ceil=True, form=form)
        y.requires_grad_()
        assert torch.autograd.gradgradcheck(lambda y, s=switches: unpool(y**3, s), y)


def test_fixed_unpool_gradients():
    y = torch.randn(1, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: fixed_unpool(y, 3), y)


# ---- messages ------------------------------------------------------------------------------------


def test_pool_refuses():
    x = torch.zeros(1, 2, 5, 4)
    with pytest.raises(ShapeError, match=r"got a tensor of shape \(5, 4\).*x\[None\]"):
        pool(x[0, 0])
    with pytest.raises(ShapeError, match=r"maps of \(5, 4\) and windows of 6 x 6; pass larger"):
        pool(x, 6)
    with pytest.raises(ShapeError, match="windows of 3 x 3"):
        pool(x[:, :, :, :1], 3, 2, ceil=True)
    with pytest.raises(ShapeError, match="windows of 2 x 2"):
        pool(x[:, :, :0], ceil=True)
    with pytest.raises(OptionError, match="got kernel 2, stride 2, padding 2; wanted"):
        pool(x, 2, 2, 2)
    with pytest.raises(OptionError, match="got kernel 0"):
        pool(x, 0)
    with pytest.raises(OptionError, match="got kernel 2, stride 0"):
        pool(x, 2, 0)
    with pytest.raises(OptionError, match="form='phase' with kernel 3, stride 2, padding 0"):
        pool(x, 3, 2, form="phase")
    with pytest.raises(OptionError, match=r"got form 'sparse'; .*choices are flat, phase"):
        pool(x, form="sparse")


def test_unpool_refuses():
    y, switches = pool(torch.zeros(1, 2, 8, 8))
    with pytest.raises(
        ShapeError, match=r"maps of \(1, 2, 8, 8\) but switches recorded at \(1, 2, 4, 4\); pass"
    ):
        unpool(torch.zeros(1, 2, 8, 8), switches)
    with pytest.raises(ShapeError, match="add a batch dimension"):
        unpool(y[0], switches)
    with pytest.raises(OptionError, match="got overlap 'mean'; the choices are overwrite, sum"):
        unpool(y, switches, "mean")
    with pytest.raises(ShapeError, match="add a batch dimension"):
        fixed_unpool(y[0])
    with pytest.raises(OptionError, match="got factor 0"):
        fixed_unpool(y, 0)


@pytest.mark.parametrize("window", [(2, 3, 0), (3, 2, 0), (2, 1, 0), (2, 2, 1)])
def test_other_windows_have_no_phase_form(window):
    _, switches = pool(torch.arange(64.0).view(1, 1, 8, 8), *window)
    with pytest.raises(ShapeError, match=r"on maps of \(8, 8\).*use the flat form"):
        _ = switches.phase


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize(("size", "ceil"), [((8, 6), False), ((7, 9), True), ((7, 9), False)])
def test_integers_are_pooled_as_floats(layout, size, ceil):
    """With many equal values, of which the first wins."""
    random = torch.Generator().manual_seed(0)
    x = torch.randint(250, 256, (2, 5, *size), generator=random, dtype=torch.uint8)
    x[:, 0] = 0
    x = x.to(memory_format=layout)
    y, switches = pool(x, ceil=ceil)
    expected, floats = pool(x.float(), ceil=ceil)
    assert y.dtype == switches.index.dtype == torch.uint8
    assert torch.equal(y, expected)
    assert torch.equal(switches.index, floats.phase.index)
    assert switches.size == floats.size
    value = torch.randint(0, 256, y.shape, generator=random, dtype=torch.uint8)
    value = value.to(memory_format=layout)
    for either in (switches, floats):
        found = unpool(value, either)
        assert found.dtype == torch.uint8
        assert torch.equal(found, unpool(value.float(), floats))


def test_other_windows_are_not_pooled_as_integers():
    with pytest.raises(OptionError, match=r"kernel 3, stride 2.*and floating-point maps"):
        pool(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), 3, 2)


def test_switches_are_shown_in_a_line():
    x = torch.zeros(2, 3, 9, 12)
    assert repr(pool(x)[1]) == "Switches((2, 3, 4, 6) of maps (9, 12), disjoint, flat)"
    assert repr(pool(x, form="phase")[1]).endswith("disjoint, phase)")
    assert str(pool(x, 3, 2)[1]).endswith("(2, 3, 4, 5) of maps (9, 12), overlapping, flat)")
    assert f"{pool(x[:0])[1]}".startswith("Switches((0, 3, 4, 6) of")
    leaves, structure = torch.utils._pytree.tree_flatten(pool(x)[1])
    assert repr(structure.unflatten(range(len(leaves)))).startswith("(0, ")
