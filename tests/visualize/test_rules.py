"""Rules, functions without one, and hidden functions."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unpool.errors import OptionError
from unpool.visualize import RULES, Interception, Rule, find_rule, project


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("FTT", RULES["deconvnet"]),
        ("TTT", RULES["guided"]),
        ("TTFF", RULES["saliency"]),
        ("TTF", Rule(True, False)),
        ("TTTF", Rule(True, True, lrn="gradient")),
        ("TTTFT", Rule(True, True, lrn="gradient", excite=True)),
        ("FTF", Rule(False, False)),
        ("FFT", Rule(False, True, "center")),
        ("TFT", Rule(True, True, "center")),
        ("TFF", Rule(True, False, "center")),
        ("FFF", Rule(False, False, "center")),
    ],
)
def test_codes_are_those_of_the_release(code, rule):
    assert find_rule(code) == rule


def test_options_go_before_the_rule():
    assert find_rule("deconvnet", "overwrite", "gradient") == Rule(
        False, True, "overwrite", "gradient"
    )
    assert find_rule("FFT", overlap="sum") == RULES["deconvnet"]
    assert find_rule(Rule(True, True), lrn="gradient") == find_rule("TTTF")
    with pytest.raises(OptionError, match="got overlap 'both'; it is one of sum, overwrite"):
        find_rule(Rule(True, True, overlap="both"))


class Single(nn.Module):
    """A convolution, some function, and another convolution."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.function = nn.Conv2d(3, 4, 3), [function]
        self.second = nn.Conv2d(4, 4, 3)

    def forward(self, x):
        return self.second(self.function[0](self.first(x)))


def down(function, images, **options):
    return project(Single(function), images, "second", 1, place=(4, 5), start="one", **options)


LEFT = {
    "relu": F.relu,
    "linear": lambda x: x * 2 - 1,
    "avg_pool2d": lambda x: F.avg_pool2d(x, 3, 1, 1),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"),
    "group_norm": lambda x: F.group_norm(x, 2),
    "normalize": lambda x: F.normalize(x, dim=1),
    "rms_norm": lambda x: F.rms_norm(x, x.shape[-1:]),
    "dropout": lambda x: F.dropout(x, 0.5, training=False),
    "the larger of two maps": lambda x: torch.maximum(x[:, :2], x[:, 2:]).repeat(1, 2, 1, 1),
    "the largest of a window": lambda x: F.max_pool2d(x, 3, 1),
    "the largest of all": lambda x: x + x.amax(1, keepdim=True) + x.max(dim=1, keepdim=True)[0],
    "a shape that is compared": lambda x: x if x.shape[1] > 2 else x.sigmoid(),
}


@pytest.mark.parametrize("name", LEFT)
def test_functions_that_are_no_activations_pass(name, images):
    for rule in ("deconvnet", "guided"):
        assert down(LEFT[name], images, rule=rule).signal.abs().max() > 0
    linear = name not in ("relu",)
    both = [down(LEFT[name], images, rule=rule).signal for rule in ("deconvnet", "saliency")]
    assert torch.equal(*both) == linear


class Cube(torch.autograd.Function):
    """Written by hand."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx, signal):
        return signal * 3 * ctx.saved_tensors[0] ** 2


def no_grad_mask(x):
    with torch.no_grad():
        mask = x > 0
    return x * mask


REFUSED = {
    "silu": F.silu,
    "gelu": nn.GELU(),
    "leaky_relu": nn.LeakyReLU(0.1),
    "prelu": nn.PReLU(),
    "elu": F.elu,
    "selu": F.selu,
    "hardswish": nn.Hardswish(),
    "mish": nn.Mish(),
    "sigmoid": torch.sigmoid,
    "tanh": lambda x: x.tanh_(),
    "softplus": F.softplus,
    "softmax": lambda x: x.softmax(1),
    "abs": torch.abs,
    "threshold": lambda x: F.threshold(x, 0.1, 0),
    "clamp": lambda x: x.clamp(-1, 1),
    "hardtanh": nn.Hardtanh(),
    "minimum": lambda x: torch.minimum(F.relu(x), torch.tensor(1.0)),
    "maximum": lambda x: torch.maximum(x, torch.tensor(0.1)),
    "gt": lambda x: x * (x > 0),
    "lt": lambda x: x.masked_fill(x < 0, 0.0),
    "ge": lambda x: torch.where(x >= 0, x, 0.0),
    "scaled_dot_product_attention": lambda x: F.scaled_dot_product_attention(x, x, x),
    "logsumexp": lambda x: x.logsumexp(1, keepdim=True).expand_as(x),
    "exp": lambda x: x / (1 + torch.exp(-x)),  # SiLU, and other activations made by hand
    "rpow": lambda x: x / (1 + 2**-x),
    "atan": torch.atan,
    "cos": lambda x: x.cos(),
    "log1p": lambda x: torch.log1p(x * x),
    "pow": lambda x: x**3,
    "sqrt": lambda x: torch.sqrt(x * x + 1),
}
UNLIKE = (
    "softmax",
    "scaled_dot_product_attention",
    "logsumexp",
    "exp",
    "rpow",
    "log1p",
    "pow",
    "sqrt",
)


@pytest.mark.parametrize("rule", ["deconvnet", "guided", "FTF"])
@pytest.mark.parametrize("name", REFUSED)
def test_activations_without_a_rule_are_refused_by_name(name, rule, images):
    word = "gradient" if name in UNLIKE else "relu"
    hint = rf"activations=\{{'{name}': '{word}'\}} to "
    with pytest.raises(OptionError, match=rf"the model calls {name}, .* {hint}"):
        down(REFUSED[name], images, rule=rule)


def test_a_mask_made_without_gradients_is_refused(images):
    with pytest.raises(OptionError, match="the model calls gt, which this rule does not cover"):
        down(no_grad_mask, images)


@pytest.mark.parametrize("name", REFUSED)
def test_the_gradient_needs_no_rules(name, images):
    net = Single(REFUSED[name])
    x = images.clone().requires_grad_()
    expected = torch.autograd.grad(net(x)[:, 1, 4, 5].sum(), x)[0]
    assert torch.equal(down(REFUSED[name], images, rule="saliency").signal, expected)


@pytest.mark.parametrize("name", REFUSED)
def test_the_derivative_may_be_asked_for(name, images):
    """Then it is that of a network that has no other activation."""
    if name == "minimum":  # which stands beside a ReLU
        pytest.skip("has a ReLU, too")
    expected = down(REFUSED[name], images, rule="saliency").signal
    for meant in ({name: "gradient"}, "gradient"):
        assert torch.equal(down(REFUSED[name], images, activations=meant).signal, expected)


@pytest.mark.parametrize("name", ["silu", "gelu", "leaky_relu", "prelu", "hardswish", "softplus"])
def test_an_activation_may_be_treated_as_relu(name, images):
    """It goes up as it is, and down as a ReLU would."""
    for rule in ("deconvnet", "guided"):
        found = down(REFUSED[name], images, rule=rule, activations={name: "relu"})
        expected = down(F.relu, images, rule=rule)
        assert torch.equal(found.signal, expected.signal)
        assert torch.equal(found.values, Single(REFUSED[name])(images)[:, 1, 4, 5])


def test_a_gate_may_stay_as_it_was(images):
    def gated(x):
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))

    found = down(gated, images, activations={"sigmoid": "constant"}).signal
    net = Single(gated)
    gate = torch.sigmoid(net.first(images).mean((2, 3))).detach()
    signal = torch.zeros_like(net(images))
    signal[:, 1, 4, 5] = 1
    expected = F.conv_transpose2d(signal, net.second.weight) * gate[:, :, None, None]
    expected = F.conv_transpose2d(expected, net.first.weight).detach()
    assert torch.allclose(found, expected, atol=1e-6)
    moving = down(gated, images, activations={"sigmoid": "gradient"}).signal
    assert not torch.allclose(found, moving, atol=1e-6)


class Attention(nn.Module):
    """A convolution, and attention over its places, which gives several tensors."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.attend = nn.Conv2d(3, 4, 9, 6), nn.MultiheadAttention(4, 2)

    def forward(self, x):
        x = self.conv(x).flatten(2).permute(2, 0, 1)
        return (x + self.attend(x, x, x)[0]).permute(1, 2, 0)


def test_attention_gives_several_tensors(images):
    net, name = Attention(), "multi_head_attention_forward"
    x = images.clone().requires_grad_()
    expected = torch.autograd.grad(net(x)[:, 1].sum(), x)[0]
    whole = nn.Sequential(net)
    options = {"layer": "0", "unit": 1, "place": "all", "start": "one"}
    found = project(whole, images, activations="gradient", **options).signal
    assert torch.allclose(found, expected, atol=1e-6)
    still = project(whole, images, activations={name: "constant"}, **options).signal
    plain = torch.autograd.grad(net.conv(x)[:, 1].sum(), x)[0]  # past the attention
    assert torch.allclose(still, plain, atol=1e-6)
    for meant in ("relu", {name: "relu"}):
        with pytest.raises(OptionError, match=rf"calls {name}, .*'{name}': 'gradient'\}} to take"):
            project(whole, images, activations=meant, **options)


@pytest.mark.parametrize(
    ("name", "function"), [("Cube", Cube.apply), ("Pow", lambda x: F.lp_pool2d(x, 2.0, 3, 1))]
)
def test_hidden_functions_are_refused(name, function, images):
    with pytest.raises(
        OptionError, match=rf"{name} is computed out of sight .*=\{{'{name}': 'gradient'\}}"
    ):
        down(function, images)
    expected = down(function, images, rule="saliency").signal
    assert torch.equal(down(function, images, activations="gradient").signal, expected)


def test_a_scripted_function_is_refused(images):
    with warnings.catch_warnings(action="ignore"):  # TorchScript itself is on its way out
        scripted = torch.jit.trace(lambda x: torch.relu(x) * 1.5, torch.zeros(1, 4, 8, 8))
    for _ in range(3):  # it is only optimized after some runs
        with pytest.raises(OptionError, match="is computed out of sight"):
            down(scripted, images)


def test_functions_outside_of_the_interception_are_untouched(images):
    """Functions before and after the interception, and of what has no gradient, are untouched."""
    x = images.clone().requires_grad_()
    with Interception(RULES["deconvnet"]):
        inside = x.relu()
        assert type(images.sigmoid()) is torch.Tensor
    assert type(inside.grad_fn).__name__ == "RectifyBackward"
    assert type(x.relu().grad_fn).__name__ == "ReluBackward0"
    with pytest.raises(OptionError), Interception(RULES["deconvnet"]):
        x.sigmoid()
    assert type(x.sigmoid().grad_fn).__name__ == "SigmoidBackward0"
