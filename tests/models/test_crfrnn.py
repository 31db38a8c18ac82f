"""CRF-RNN: counts, values and gradients of the authors' code, and properties of mean field."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from unpool.errors import OptionError
from unpool.models import CRFRNN, FCN
from unpool.models.crfrnn import MeanField
from unpool.models.fast import accelerate
from unpool.ops import CRF_PRESETS, Kernel, kernel_filter, mean_field
from unpool.ops.lattice import Filters

GOLDEN = dict(np.load(Path(__file__).parents[1] / "golden/crfrnn.npz"))
IMAGE = torch.from_numpy(GOLDEN["image"])  # (24, 32, 3) uint8, RGB
COLORS = IMAGE.movedim(-1, 0)[None].float()  # (1, 3, 24, 32)
SCORES = torch.from_numpy(GOLDEN["logits"])[None]  # (1, 5, 24, 32)
SMALL = {"trunk": ((1, 4), (1, 8), (1, 8)), "code": 8, "stride": 4, "pad": 1, "window": 3}


def golden(name, found):
    expected = torch.from_numpy(GOLDEN[name])
    torch.testing.assert_close(found.reshape(expected.shape), expected, rtol=1e-5, atol=1e-4)


def layer(labels=5, seed=None, dtype=torch.float32):
    """A mean-field layer as it is initially, or with random matrices."""
    crf = MeanField(labels).to(dtype)
    if seed is not None:
        random = torch.Generator().manual_seed(seed)
        for matrix in crf.parameters():
            noise = torch.rand(matrix.shape, generator=random, dtype=dtype)
            matrix.data += noise - 0.5
    return crf


def small_scene(labels=3, height=5, width=6):
    random = torch.Generator().manual_seed(0)
    scores = 2 * torch.randn(1, labels, height, width, generator=random, dtype=torch.float64)
    return scores, 20 * torch.randn(1, 3, height, width, generator=random, dtype=torch.float64)


# ---- the authors' numbers ------------------------------------------------------------------------


def test_parameters():
    """As published, but for the bias of score2, which is added to that of score_pool4."""
    with torch.device("meta"):
        net = CRFRNN()
        bias_of_score2 = net.net.score["upscore2"].out_channels
    count = sum(p.numel() for p in net.parameters())
    assert sum(p.numel() for p in net.crf.parameters()) == 1_323
    assert count == 134_491_082 == 134_489_759 + 1_323
    assert count + bias_of_score2 == 134_491_103
    fixed = [name for name, p in net.named_parameters() if not p.requires_grad]
    assert fixed == ["net.score.upscore8.weight"]


@pytest.mark.parametrize(
    ("name", "kernel"), [("spatial", Kernel(3, 1)), ("bilateral", Kernel(160, 1, 3))]
)
def test_golden_filters(name, kernel):
    q = SCORES[0].softmax(0).flatten(1).t().contiguous()
    raw, after = (kernel_filter(kernel, (24, 32), IMAGE, how) for how in ("none", "after"))
    golden(f"{name}_raw", raw(q).t())
    norm = 1 / raw(torch.ones(24 * 32, 1))
    golden(f"{name}_norm", norm)
    torch.testing.assert_close(after(q), norm * raw(q))


@torch.no_grad()
def test_golden_scores():
    for iterations in (1, 5, 10):
        golden(f"out_T{iterations}", layer()(SCORES, COLORS, iterations))


@torch.no_grad()
def test_the_lattice_depends_on_the_input_as_the_networks_take_it():
    mean = torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    found = layer()(SCORES, COLORS.flip(1) - mean, 5)
    golden("out_T5_bgr_mean", found)
    assert (found - layer()(SCORES, COLORS, 5)).abs().max() > 0.1


def test_golden_gradients():
    i, j = torch.meshgrid(torch.arange(5.0), torch.arange(5.0), indexing="ij")
    crf, scores = layer(), SCORES.clone().requires_grad_()
    with torch.no_grad():
        crf.spatial += 0.1 * (5 * i + j).sin()
        crf.bilateral += 0.2 * (i + 2 * j).cos()
        crf.compatibility += 0.05 * (3 * i + j).sin()
    found = crf(scores, COLORS, 5)
    golden("out_T5_w", found)
    label, y, x = torch.meshgrid(*map(torch.arange, (5, 24, 32)), indexing="ij")
    (found * (0.7 * label + 0.2 * x - 0.35 * y).cos()).sum().backward()
    for name, tensor in [
        ("grad_logits", scores),
        ("grad_ws", crf.spatial),
        ("grad_wb", crf.bilateral),
        ("grad_mu", crf.compatibility),
    ]:
        golden(name, tensor.grad)


# ---- mean field ----------------------------------------------------------------------------------


@pytest.mark.parametrize("iterations", [5, 10])
@torch.no_grad()
def test_initially_it_is_the_dense_crf(iterations):
    crf = CRF_PRESETS["crfrnn"]._replace(iterations=iterations, prune=0)
    expected = mean_field(-SCORES[0], IMAGE, crf, compiled=False)
    found = layer()(SCORES, COLORS, iterations)[0].softmax(0)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_without_iterations_the_scores_stay():
    assert torch.equal(layer(seed=1)(SCORES, COLORS, 0), SCORES)


def test_gradients():
    (scores, image), crf = small_scene(), layer(3, 0, torch.float64)

    def run(u, *matrices):
        named = dict(zip(("spatial", "bilateral", "compatibility"), matrices, strict=True))
        return torch.func.functional_call(crf, named, (u, image, 3))

    assert gradcheck(run, (scores.requires_grad_(), *crf.parameters()))


@torch.no_grad()
def test_only_differences_between_scores_count():
    scores, image = small_scene()
    crf, shift = layer(3, 0, torch.float64), torch.randn(1, 1, 5, 6, dtype=torch.float64)
    found, shifted = crf(scores, image, 4), crf(scores + shift, image, 4)
    torch.testing.assert_close(shifted, found + shift)


@torch.no_grad()
def test_labels_may_be_exchanged():
    scores, image = small_scene()
    crf, order = layer(3, 0, torch.float64), [2, 0, 1]
    other = copy.deepcopy(crf)
    for matrix in other.parameters():
        matrix.copy_(matrix[order][:, order])
    torch.testing.assert_close(other(scores[:, order], image, 4), crf(scores, image, 4)[:, order])


@torch.no_grad()
def test_the_sign_of_the_compatibility_is_that_of_a_gain():
    """The authors' Caffe subtracts a penalty, initially minus the identity."""
    scores, image = small_scene()
    crf, u = layer(3, 0, torch.float64), scores[0].flatten(1)
    kernels = Kernel(3, 1), Kernel(160, 1, 3)
    near, alike = (kernel_filter(k, (5, 6), image[0].movedim(0, 2), like=u) for k in kernels)
    penalty, current = -crf.compatibility, u
    for _ in range(4):
        q = current.softmax(0).t().contiguous()
        message = crf.spatial @ near(q).t() + crf.bilateral @ alike(q).t()
        current = u - penalty @ message
    torch.testing.assert_close(crf(scores, image, 4)[0].flatten(1), current)


@torch.no_grad()
def test_colors_count_in_the_bilateral_kernel_only():
    (scores, image), crf = small_scene(), layer(3, 0, torch.float64)
    assert not torch.allclose(crf(scores, image, 3), crf(scores, image / 9, 3))
    crf.bilateral.zero_()
    torch.testing.assert_close(crf(scores, image, 3), crf(scores, image / 9, 3))


def test_the_transpose_of_a_filter_is_its_gradient():
    _, image = small_scene()
    like = torch.empty(0, dtype=torch.float64)
    for kernel in (Kernel(3, 1), Kernel(160, 1, 3)):
        filters: Filters = kernel_filter(kernel, (5, 6), image[0].movedim(0, 2), like=like)
        a, b = torch.randn(2, 30, 4, dtype=torch.float64)
        a.requires_grad_()
        product = (filters(a) * b).sum()
        (transposed,) = torch.autograd.grad(product, a)
        torch.testing.assert_close(product, (a * transposed).sum())
        for step in filters.transposed:
            b = step(b)
        torch.testing.assert_close(transposed, b)


# ---- the network ---------------------------------------------------------------------------------


@torch.no_grad()
def test_the_crf_is_the_last_layer_and_counts_iterations_by_mode(filled):
    net = filled(CRFRNN(3, **SMALL, dropout=0.0, iterations=(1, 3)))
    x = 50 * torch.randn(2, 3, 20, 26)
    scores = net.net(x)
    assert torch.equal(net(x), net.crf(scores, x, 3))
    assert torch.equal(net.train()(x), net.crf(scores, x, 1))


def test_all_weights_but_the_last_upsampling_learn(filled):
    net = filled(CRFRNN(3, **SMALL)).train()
    net(50 * torch.randn(1, 3, 16, 16)).square().mean().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None] == ["net.score.upscore4.weight"]


@torch.no_grad()
def test_padding_is_seen_by_the_network_and_the_crf(filled):
    net = filled(CRFRNN(3, **SMALL, pad_to=32))
    plain = CRFRNN(3, **SMALL)
    plain.load_state_dict(net.state_dict())
    x = 50 * torch.randn(2, 3, 20, 36)
    padded = torch.zeros(2, 3, 32, 36)
    padded[:, :, :20] = x
    assert torch.equal(net(x), plain.eval()(padded)[:, :, :20])
    assert not torch.allclose(net(x), plain(x))
    assert torch.equal(net(padded), plain(padded))


@torch.no_grad()
def test_mean_field_is_computed_in_float32(filled):
    net = filled(CRFRNN(3, **SMALL))
    x = 50 * torch.randn(1, 3, 20, 26)
    with torch.autocast("cpu", torch.bfloat16):
        scores, found = net.net(x), net(x)
        assert found.dtype == torch.float32
    assert torch.equal(found, net.crf(scores.float(), x, 10))
    double = copy.deepcopy(net).double()
    torch.testing.assert_close(double(x.double()).float(), net(x), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_the_fast_form_in_bfloat16_keeps_colors_and_crf(filled, bf16):
    quick = accelerate(filled(CRFRNN(3, **SMALL)), torch.bfloat16)
    x = 50 * torch.randn(1, 3, 20, 26)
    kinds = [{p.dtype for p in part.parameters()} for part in (quick.trunk, quick.crf)]
    assert kinds == [{torch.bfloat16}, {torch.float32}]
    assert torch.equal(quick(x), quick.crf(quick.net(x.bfloat16()), x, 10))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": (5, 10, 10)}, "two numbers up to 100"),
        ({"iterations": (5, 101)}, "two numbers up to 100"),
        ({"iterations": (-1, 5)}, "got iterations=-1; wanted 0 or more"),
        ({"theta": 80}, "got theta=80; wanted three standard deviations"),
        ({"iterations": 5}, "got iterations=5; wanted a pair, for training"),
        ({"theta": (160, 3)}, "three standard deviations above 0"),
        ({"theta": (160, 0, 3)}, "three standard deviations above 0"),
        ({"pad_to": 0}, "got pad_to=0; wanted 1 or more"),
        ({"pad_to": 5000}, "got pad_to=5000; wanted at most 4096"),
        ({"classes": 1}, "classes"),
    ],
)
def test_impossible_arguments(options, message):
    with pytest.raises(OptionError, match=message):
        CRFRNN(**{"classes": 3, **SMALL, **options})


def test_arguments_build_it_again():
    net = CRFRNN(3, **SMALL, iterations=(2, 4), theta=(80, 5, 2), pad_to=64)
    again = CRFRNN(**net.arguments)
    assert again.arguments == net.arguments
    assert again.iterations == (2, 4)
    assert isinstance(again.net, FCN)
