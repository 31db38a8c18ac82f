"""Network deconvolution against golden values of the released code, and by what whitening is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.models.golden import wave
from unpool.errors import OptionError, ShapeError
from unpool.ops import ChannelDeconv, Delinear, FastDeconv, inverse_root
from unpool.ops.whitening import Whitening

FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN = {
    name: torch.from_numpy(value)
    for file in ("fastdeconv", "fastdeconv2", "channeldeconv_delinear")
    for name, value in np.load(FOLDER / f"{file}.npz").items()
}


def image4(n, c, h, w):
    """Images by formula, (n, c, h, w)."""
    i, j, y, x = np.ogrid[:n, :c, :h, :w]
    smooth = np.cos(0.21 * y + 0.5 * j) * np.sin(0.17 * x + 0.9 * i) + 0.4 * j / c
    return torch.from_numpy(smooth).float() + 0.3 * wave(n, c, h, w)


@torch.no_grad()
def fill(layer):
    """Weights and biases by formula."""
    for parameter in layer.parameters():
        scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1
        parameter.copy_(scale * wave(*parameter.shape))
    return layer


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def mixed(*shape, seed=0, dtype=torch.float64):
    """Maps whose neighbors and channels are correlated."""
    x = randn(*shape, seed=seed, dtype=dtype)
    x = x + 0.5 * x.roll(1, -1) + 0.3 * x.roll(1, -2)
    return x + 0.4 * x.roll(1, 1) + 0.7


def require_golden(name, found, rounding):
    """Compare with golden values, if there are any of the name."""
    if name in GOLDEN:
        wanted = GOLDEN[name]
        atol = max(rounding * float(wanted.abs().max()), 1e-6)
        torch.testing.assert_close(found.detach().view(wanted.shape), wanted, rtol=1e-5, atol=atol)


# ---- golden values -------------------------------------------------------------------------------

CASES = {  # input channels, kernel, options
    "plain": (8, 3, {}),
    "blocks": (8, 3, {"block": 4}),
    "pointwise": (8, 1, {"block": 4}),
    "groups": (8, 3, {"groups": 2}),
    "gcd": (12, 3, {"block": 8}),
    "stride": (8, 3, {"stride": 2}),
    "dilated": (8, 3, {"padding": 2, "dilation": 2}),
    "full": (8, 3, {"steps": 15, "sampling": 1}),
}


def gradients(y, *inputs):
    return torch.autograd.grad((y * wave(*y.shape)).sum(), inputs)


@pytest.mark.parametrize("name", CASES)
def test_fast_deconv_is_the_released_one(name):
    channels, kernel, options = CASES[name]
    settings = {"padding": kernel // 2, "released": True, **options}
    layer = fill(FastDeconv(channels, 6, kernel, **settings))
    # 15 steps multiply rounding: in float64 they differ from the golden values as much
    rounding = 1e-3 if name == "full" else 5e-6
    x = image4(3, channels, 13, 15).requires_grad_()
    y = layer(x)
    found = {"train": y, "mean": layer.whitening.mean, "D": layer.whitening.root}
    found |= dict(zip(("gx", "gw", "gb"), gradients(y, x, layer.weight, layer.bias), strict=True))
    found["eval"] = layer.eval()(image4(2, channels, 9, 11))
    assert len(found.keys() & {key.removeprefix(f"{name}_") for key in GOLDEN}) >= 6
    for key, value in found.items():
        require_golden(f"{name}_{key}", value, rounding)


@pytest.mark.parametrize(
    ("name", "block", "shape"),
    [("even", 4, (3, 8, 10, 11)), ("rest", 4, (3, 10, 10, 11)), ("flat", 5, (1, 1, 6, 10))],
)
def test_channel_deconv_is_the_released_one(name, block, shape):
    layer, x = ChannelDeconv(block, released=True), image4(*shape)
    x = (x[0, 0] if name == "flat" else x).requires_grad_()
    y = layer(x)
    found = {"train": y, "gx": gradients(y, x)[0], "train2": layer(0.5 * x + 0.1)}
    found |= {"running_mean1": layer.whitening.mean, "running_deconv": layer.whitening.root}
    found |= {"running_mean2": layer.rest_mean, "running_var": layer.rest_var}
    found["eval"] = layer.eval()(x)
    for key, value in found.items():
        assert f"{name}_{key}" in GOLDEN
        require_golden(f"{name}_{key}", value, 5e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [("one", {}), ("blocks", {"block": 10}), ("nobias", {"block": 10, "bias": False})],
)
def test_delinear_is_the_released_one(name, options):
    layer, x = fill(Delinear(20, 7, released=True, **options)), image4(1, 1, 30, 20)[0, 0]
    y = layer(x.requires_grad_())
    found = {"train": y, "mean": layer.whitening.mean, "D": layer.whitening.root}
    found |= dict(zip(("gx", "gw"), gradients(y, x, layer.weight), strict=True))
    found["eval"] = layer.eval()(x)
    for key, value in found.items():
        assert f"lin_{name}_{key}" in GOLDEN
        require_golden(f"lin_{name}_{key}", value, 5e-6)


# ---- inverse root --------------------------------------------------------------------------------


def covariances(count, size, least=1e-3):
    """Symmetric matrices (count, size, size) with eigenvalues from `least` to 1."""
    q = torch.linalg.qr(randn(count, size, size, dtype=torch.float64)).Q
    return q @ torch.diag(torch.logspace(np.log10(least), 0, size, dtype=torch.float64)) @ q.mT


def test_inverse_root_is_that_of_the_eigenvalues():
    matrices = covariances(3, 12)
    values, vectors = torch.linalg.eigh(matrices)
    wanted = vectors @ torch.diag_embed(values.rsqrt()) @ vectors.mT
    torch.testing.assert_close(inverse_root(matrices, 20), wanted, rtol=1e-9, atol=1e-9)
    early, exact = (torch.linalg.eigvalsh(m) for m in (inverse_root(matrices, 5), wanted))
    assert (early < exact + 1e-9).all()  # fewer steps regularize
    assert (early[:, -1] < exact[:, -1] / 4).all()


@pytest.mark.parametrize(("steps", "rounding"), [(5, 1e-6), (15, 1e-4)])
def test_inverse_root_is_the_released_one(steps, rounding):
    require_golden(f"isqrt{steps}", inverse_root(GOLDEN["isqrt_A"], steps), rounding)


# ---- what whitening is ---------------------------------------------------------------------------


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize(("groups", "block"), [(1, 8), (1, 4), (2, 4)])
def test_whitened_patches_have_the_identity_as_covariance(released, groups, block):
    options = {"eps": 1e-8, "steps": 20, "sampling": 1, "block": block, "groups": groups}
    layer = FastDeconv(8, 4, 3, **options, released=released).double()
    samples = layer._samples(mixed(4, 8, 18, 18))
    assert samples.shape[1] > 4 * samples.shape[2] == 36 * block  # enough of them
    mean, root = layer.whitening(lambda: samples)
    white = (samples - mean[:, None]) @ root
    for i in range(groups):
        identity = torch.eye(9 * block, dtype=torch.float64)
        torch.testing.assert_close(torch.cov(white[i].T, correction=0), identity, rtol=0, atol=1e-3)
        covariance = torch.cov(samples[i].T, correction=0)
        inverse = torch.linalg.inv(covariance)
        torch.testing.assert_close(root[i].T @ root[i], inverse, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("released", [False, True])
def test_a_block_has_the_values_that_are_documented(released):
    """By hand: the channels of a block, or every G-th value in the order of filters."""
    layer = FastDeconv(4, 2, 3, block=2, released=released)
    values = torch.arange(36)
    blocks = layer.whitening.split(values)
    if released:
        assert blocks[0].tolist() == list(range(0, 36, 2))
    else:
        assert blocks[0].tolist() == list(range(18))  # all pixels of channels 0 and 1
    assert layer.whitening.join(blocks).equal(values)


@pytest.mark.parametrize("released", [False, True])
def test_the_output_is_that_of_whitened_patches(released):
    """Whitening the filters is whitening the patches, here done one after the other."""
    layer = fill(FastDeconv(6, 5, (3, 2), stride=(2, 1), block=3, released=released)).double()
    x = mixed(2, 6, 11, 9)
    y = layer(x)
    mean, root = layer.whitening.eval()(lambda: None)
    layer.whitening.train().reset_running_stats()
    mean, root = layer.whitening(lambda: layer._samples(x))
    patches = F.unfold(x, (3, 2), stride=(2, 1)).transpose(1, 2)
    split, join = layer.whitening.split, layer.whitening.join
    white = join((split(patches) - mean[0]) @ root[0])
    wanted = white @ layer.weight.flatten(1).T + layer.bias
    torch.testing.assert_close(y, wanted.transpose(1, 2).view_as(y))


def test_depthwise_is_a_layer_for_each_channel():
    x, whole = mixed(3, 4, 12, 10), fill(FastDeconv(4, 4, 3, padding=1, groups=4)).double()
    for i, y in enumerate(whole(x).split(1, 1)):
        one = FastDeconv(1, 1, 3, padding=1).double()
        one.weight.data, one.bias.data = whole.weight.data[i : i + 1], whole.bias.data[i : i + 1]
        torch.testing.assert_close(y, one(x[:, i : i + 1]))


def test_pointwise_on_single_channels_is_batch_norm():
    x = mixed(3, 5, 7, 8)
    layer = FastDeconv(5, 5, 1, groups=5, sampling=1).double()
    norm = nn.BatchNorm2d(5, affine=False).double()
    wanted = F.conv2d(norm(x), layer.weight, layer.bias, groups=5)
    torch.testing.assert_close(layer(x), wanted)
    torch.testing.assert_close(layer.whitening.mean, x.mean((0, 2, 3))[:, None])


def test_channel_deconv_whitens_channels():
    x = mixed(4, 6, 9, 9)
    layer = ChannelDeconv(6, eps=1e-8, steps=20, sampling=1).double()
    white = layer(x).transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.cov(white, correction=0), torch.eye(6).double())
    off = ChannelDeconv(6, eps=1e-8, steps=20, sampling=1, released=True).double()
    uneven = torch.cov(off(x).transpose(0, 1).flatten(1), correction=0)
    assert (uneven - torch.eye(6)).abs().max() > 0.1  # the covariance there is about zero


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: FastDeconv(3, 2, 2, padding=1, sampling=1), (2, 3, 2, 3)),
        (lambda: FastDeconv(4, 2, (1, 2), block=2, bias=False), (1, 4, 4, 3)),
        (lambda: FastDeconv(4, 4, 1, groups=2, sampling=1), (1, 4, 3, 2)),
        (lambda: Delinear(6, 3, block=3), (7, 6)),
        (lambda: ChannelDeconv(2), (2, 5, 2, 2)),
    ],
)
def test_gradients(make, shape):
    layer, x = make().double(), mixed(*shape) if len(shape) == 4 else randn(*shape).double()
    weights = dict(layer.named_parameters())

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(weights, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x.requires_grad_(), *weights.values()))


# ---- running statistics --------------------------------------------------------------------------

LAYERS = {
    "conv": lambda **options: FastDeconv(6, 4, 3, padding=1, stride=2, block=3, **options),
    "bare": lambda **options: FastDeconv(6, 4, (3, 1), dilation=2, bias=False, **options),
    "groups": lambda **options: FastDeconv(6, 4, 3, groups=2, **options),
    "linear": lambda **options: Delinear(6, 4, block=3, **options),
    "unbiased": lambda **options: Delinear(6, 4, bias=False, **options),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


def batch(name, seed=0):
    if name in ("linear", "unbiased"):
        return mixed(8, 6, 1, 1, seed=seed, dtype=torch.float32)[:, :, 0, 0]
    return mixed(2, 6, 11, 9, seed=seed, dtype=torch.float32)


@every_layer
@torch.no_grad()
def test_folded_is_a_plain_layer(name):
    layer = LAYERS[name]()
    for seed in range(3):
        layer(batch(name, seed))
    plain = layer.eval().folded()
    assert type(plain) in (nn.Conv2d, nn.Linear)
    torch.testing.assert_close(plain(batch(name, 9)), layer(batch(name, 9)), rtol=1e-6, atol=1e-6)


@every_layer
@torch.no_grad()
def test_before_training_a_layer_is_plain(name):
    layer = LAYERS[name]().eval()
    assert torch.equal(layer.folded().weight, layer.weight)


@torch.no_grad()
def test_channel_deconv_before_training():
    x = mixed(2, 5, 4, 4, dtype=torch.float32)
    y = ChannelDeconv(2).eval()(x)
    torch.testing.assert_close(y[:, :4], x[:, :4])
    torch.testing.assert_close(y[:, 4:], x[:, 4:] / 1.01**0.5)


@torch.no_grad()
def test_running_statistics_are_means_of_those_of_batches():
    found, layer = [], LAYERS["conv"]()
    for seed in range(15):
        found.append(layer.whitening(lambda seed=seed: layer._samples(batch("conv", seed)))[1])
        if seed == 7:  # the mean of all, with nothing of the identity
            torch.testing.assert_close(layer.whitening.root, sum(found) / 8)
    wanted = sum(found[:10]) / 10
    for root in found[10:]:
        wanted = 0.9 * wanted + 0.1 * root
    torch.testing.assert_close(layer.whitening.root, wanted)


@torch.no_grad()
def test_all_batches_count_alike_without_momentum():
    layer = LAYERS["conv"](momentum=None)
    roots = [layer.whitening(lambda s=s: layer._samples(batch("conv", s)))[1] for s in range(15)]
    torch.testing.assert_close(layer.whitening.root, sum(roots) / 15)
    layer.whitening.reset_running_stats()
    assert torch.equal(layer.eval().folded().weight, layer.weight)


@torch.no_grad()
def test_statistics_stay_with_a_momentum_of_zero():
    layer = LAYERS["conv"]()
    layer(batch("conv"))
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    layer.whitening.momentum = 0.0
    assert not layer(batch("conv", 1)).equal(layer.eval()(batch("conv", 1)))
    assert all(value.equal(before[key]) for key, value in layer.state_dict().items())


@torch.no_grad()
def test_frozen_steps_use_the_running_statistics():
    """Of 20 steps, those that number 1, 2, 0 in turns of 20 estimate, as in the released code."""
    layer, changed = LAYERS["conv"](freeze=2), []
    for n in range(1, 45):
        before = layer.whitening.root.clone()
        y = layer(batch("conv", n))
        changed += [n] * (not before.equal(layer.whitening.root))
        if n not in changed:
            torch.testing.assert_close(y, layer.folded()(batch("conv", n)))
    assert changed == [1, 2, 20, 21, 22, 40, 41, 42]


@every_layer
def test_training_goes_on_bit_for_bit_from_a_state_dict(name):
    options = {"freeze": 2} if name == "conv" else {}
    layer, again = LAYERS[name](**options), LAYERS[name](**options)

    def step(layer, seed):
        layer(batch(name, seed)).square().sum().backward()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter -= 1e-3 * parameter.grad
                parameter.grad = None

    for seed in range(3):
        step(layer, seed)
    again.load_state_dict({key: value.clone() for key, value in layer.state_dict().items()})
    for seed in range(3, 22):
        step(layer, seed)
        step(again, seed)
    ours, theirs = layer.state_dict(), again.state_dict()
    assert all(value.equal(theirs[key]) for key, value in ours.items())


def test_statistics_are_exact_under_autocast():
    x = batch("conv")
    layer, other = fill(LAYERS["conv"]()), fill(LAYERS["conv"]())
    layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = other(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(other.whitening.root, layer.whitening.root)


@pytest.mark.parametrize("name", ["conv", "groups"])
@torch.no_grad()
def test_strides_do_not_matter(name):
    layer, other = fill(LAYERS[name]()), fill(LAYERS[name]())
    other.to(memory_format=torch.channels_last)
    x = batch(name)
    y = layer(x)
    torch.testing.assert_close(other(x.contiguous(memory_format=torch.channels_last)), y)
    assert layer.to("meta")(x.to("meta")).shape == y.shape  # which has no autocast


# ---- messages ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: FastDeconv(3, 4, 3, padding="same"), OptionError, "such as padding=1"),
        (lambda: FastDeconv(3, 4, 3, block=0), OptionError, "got block=0; wanted 1 or more"),
        (lambda: FastDeconv(3, 4, 3, sampling=0), OptionError, "got sampling=0"),
        (lambda: FastDeconv(3, 4, 3, steps=0), OptionError, "got steps=0"),
        (lambda: FastDeconv(3, 4, 3, eps=-1), OptionError, "wanted numbers from 0 to 1"),
        (lambda: Whitening(1, 2, momentum=2), OptionError, "got eps=1e-05, momentum=2"),
        (lambda: FastDeconv(3, 4, 3)(torch.zeros(0, 3, 5, 5)), ShapeError, "empty batch to train"),
        (lambda: ChannelDeconv(4)(torch.zeros(2, 3, 5, 5)), ShapeError, "choose a smaller block"),
        (lambda: ChannelDeconv(4)(torch.zeros(2, 8, 5)), ShapeError, r"wanted \(N, C, H, W\) or"),
        (lambda: inverse_root(torch.zeros(2, 3)), ShapeError, r"square matrices \(..., d, d\)"),
    ],
)
def test_refuses(make, error, message):
    with pytest.raises(error, match=message):
        make()
