"""Deconvolution against convolution, by inner products and as a matrix; kernels by formula."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from unpool.errors import ShapeError
from unpool.ops import as_convolution, bilinear_kernel, deconv, uconv


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(0, 2),
)
def test_adjoint_of_convolution(n, size, kernel, stride, padding):
    """<conv x, y> = <x, deconv y> with the same filters, whatever the convolution left out."""
    if min(size) + 2 * padding < kernel:
        return
    x, weight = randn(n, 3, *size, seed=1), randn(4, 3, kernel, kernel, seed=2)
    below = F.conv2d(x, weight, None, stride, padding)
    y = randn(*below.shape, seed=3)
    back = deconv(y, weight, None, stride, padding, size)
    assert back.shape == x.shape
    assert torch.allclose((below * y).sum(), (x * back).sum(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("stride", "padding"), [*itertools.product((1, 2, 3), (0, 1))])
def test_transposed_matrix_of_convolution(stride, padding):
    """Column by column: the convolution as a matrix, transposed."""
    weight = randn(2, 1, 3, 3)
    cells = torch.eye(35, dtype=torch.float64).view(35, 1, 5, 7)
    matrix = F.conv2d(cells, weight, None, stride, padding).flatten(1)  # (in, out)
    outs = F.conv2d(cells[:1], weight, None, stride, padding).shape[1:]
    y = randn(1, *outs, seed=1)
    expected = (matrix @ y.flatten()).view(1, 1, 5, 7)
    assert torch.allclose(deconv(y, weight, None, stride, padding, (5, 7)), expected)


def test_spreads_and_adds_by_hand():
    y = torch.tensor([[[[1.0, 10.0]]]])
    weight = torch.tensor([[[[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]]])
    bias = torch.tensor([0.5])
    expected = [
        [1.5, 2.5, 13.5, 20.5, 30.5],
        [4.5, 5.5, 46.5, 50.5, 60.5],
        [7.5, 8.5, 79.5, 80.5, 90.5],
    ]
    assert deconv(y, weight, bias, stride=2)[0, 0].tolist() == expected
    cropped = [row[1:-1] for row in expected[1:-1]]
    assert deconv(y, weight, bias, stride=2, padding=1)[0, 0].tolist() == cropped


def test_the_papers_crop_rule():
    """The output has the size of the unpooled map that goes in; fc6-deconv grows 1 to 7."""
    assert deconv(randn(1, 2, 14, 14), randn(2, 3, 3, 3), padding=1).shape == (1, 3, 14, 14)
    assert deconv(randn(1, 2, 1, 1), randn(2, 3, 7, 7)).shape == (1, 3, 7, 7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_is_conv_transpose_in_every_precision(dtype, layout):
    x = randn(2, 4, 5, 6, dtype=torch.float32).to(dtype).contiguous(memory_format=layout)
    weight = randn(4, 3, 3, 3, seed=1, dtype=torch.float32).to(dtype)
    y = deconv(x, weight, stride=2, padding=1, size=(10, 11))
    assert y.dtype == dtype
    assert torch.equal(y, F.conv_transpose2d(x, weight, None, 2, 1, (1, 0)))


def test_gradients():
    x, weight, bias = randn(1, 2, 3, 2), randn(2, 3, 3, 3, seed=1), randn(3, seed=2)
    inputs = [t.requires_grad_() for t in (x, weight, bias)]
    assert torch.autograd.gradcheck(
        lambda x, w, b: deconv(x, w, b, stride=2, padding=1, size=(6, 4)), inputs
    )


def test_tied_filters_learn_from_both_uses():
    weight = randn(4, 3, 3, 3).requires_grad_()
    x = randn(1, 3, 6, 6, seed=1)
    code = F.conv2d(x, weight, padding=1)
    deconv(code, weight, padding=1).sum().backward()
    both = weight.grad.clone()
    weight.grad = None
    deconv(code.detach(), weight, padding=1).sum().backward()
    assert not torch.allclose(both, weight.grad)


@pytest.mark.parametrize(("kernel", "padding"), [(k, p) for k in (1, 2, 3, 5, 7) for p in range(k)])
def test_as_convolution(kernel, padding):
    x, weight = randn(2, 3, 8, 9), randn(3, 4, kernel, kernel, seed=1)
    assert torch.allclose(
        deconv(x, weight, padding=padding),
        F.conv2d(x, as_convolution(weight), padding=kernel - 1 - padding),
    )


# ---- bilinear kernels ----------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [2, 4, 8, 16, 3, 5])
def test_bilinear_kernel_interpolates(stride):
    """Away from the border, upsampling is F.interpolate's."""
    kernel = 2 * stride - stride % 2
    x = randn(2, 3, 6, 7)
    up = deconv(
        x, bilinear_kernel(3, kernel).double(), stride=stride, padding=(kernel - stride) // 2
    )
    expected = F.interpolate(x, scale_factor=stride, mode="bilinear", align_corners=False)
    assert up.shape == expected.shape
    inside = (..., slice(stride, -stride), slice(stride, -stride))
    assert torch.allclose(up[inside], expected[inside], atol=1e-6)


@pytest.mark.parametrize("stride", [2, 3, 4, 5, 6, 8, 16, 32])
def test_bilinear_kernel_is_caffes_filler(stride):
    kernel = 2 * stride - stride % 2  # as Caffe's documentation asks for
    f = math.ceil(kernel / 2)
    c = (2 * f - 1 - f % 2) / (2.0 * f)
    line = [1 - abs(x / f - c) for x in range(kernel)]
    expected = [[a * b for b in line] for a in line]
    assert np.allclose(bilinear_kernel(1, kernel)[0, 0], expected, atol=1e-6)


@pytest.mark.parametrize("size", range(1, 20))
def test_bilinear_kernel_is_longs(size):
    """`upsample_filt` of the FCN authors' surgery.py, as published."""
    factor = (size + 1) // 2
    center = factor - 1 if size % 2 == 1 else factor - 0.5
    og = np.ogrid[:size, :size]
    expected = (1 - abs(og[0] - center) / factor) * (1 - abs(og[1] - center) / factor)
    weight = bilinear_kernel(3, size)
    assert (weight.shape, weight.dtype) == ((3, 3, size, size), torch.float32)
    for i, j in itertools.product(range(3), range(3)):
        assert np.allclose(weight[i, j], expected if i == j else 0, atol=1e-6)


# ---- messages ------------------------------------------------------------------------------------


def test_refuses():
    x, weight = torch.zeros(1, 2, 4, 5), torch.zeros(2, 3, 3, 3)
    for size in ((6, 9), (9, 9), (7, 8)):
        with pytest.raises(
            ShapeError,
            match=r"maps of \(4, 5\).* stride 2, padding 1 gives \(7, 9\) to \(8, 10\): pass",
        ):
            deconv(x, weight, stride=2, padding=1, size=size)
    with pytest.raises(ShapeError, match=r"maps of \(1, 2, 4, 5\) and filters of \(3, 2, 3, 3\)"):
        deconv(x, weight.transpose(0, 1))
    with pytest.raises(ShapeError, match=r"wanted \(N, I, H, W\)"):
        deconv(x[0], weight)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 7), st.integers(1, 7), st.booleans())
def test_uconv_is_the_layer_that_networks_use(channels, height, width, biased):
    """Values and gradients of unpooling + convolution equal those of `nn.ConvTranspose2d`."""
    layer = torch.nn.ConvTranspose2d(channels, 3, 5, 2, 2, 1, bias=biased)
    x = torch.randn(2, channels, height, width, requires_grad=True)
    found, wanted = uconv(x, layer.weight, layer.bias), layer(x)
    assert found.shape == (2, 3, 2 * height, 2 * width)
    assert torch.allclose(found, wanted, atol=1e-5)
    probe = torch.randn_like(wanted)
    for a, b in zip(
        torch.autograd.grad((found * probe).sum(), [x, *layer.parameters()]),
        torch.autograd.grad((wanted * probe).sum(), [x, *layer.parameters()]),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-4)


def test_uconv_by_hand():
    """One value spreads its turned filter around the top-left cell of its block."""
    x, weight = torch.zeros(1, 1, 3, 3), torch.arange(25.0).view(1, 1, 5, 5)
    x[0, 0, 1, 1] = 2
    found = uconv(x, weight)[0, 0]
    wanted = torch.zeros(6, 6)
    wanted[0:5, 0:5] = 2 * weight[0, 0]  # the cell (2, 2) is its center
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("shape", [(2, 3, 3, 3), (3, 2, 5, 5), (2, 5, 5)])
def test_uconv_refuses_other_filters(shape):
    with pytest.raises(ShapeError, match=r"wanted \(N, I, H, W\) and \(I, O, 5, 5\)"):
        uconv(torch.zeros(1, 2, 4, 4), torch.zeros(shape))
