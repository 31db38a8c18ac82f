"""What functions are, by name."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.visualize.alike import Spelled, close
from unpool.visualize import project
from unpool.visualize.functions import HIDDEN, Call, name_of

X = torch.zeros(2)


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "expected"),
    [
        ("relu", (X,), {}, math.inf),
        ("relu", (), {"input": X, "inplace": True}, math.inf),
        ("relu6", (X,), {}, 6),
        ("clamp", (X,), {"min": 0}, math.inf),
        ("clamp", (X, 0, 2.5), {}, 2.5),
        ("clamp", (X,), {"max": 0}, None),
        ("clamp", (X, -1), {}, None),
        ("clamp", (X, torch.zeros(1)), {}, math.inf),
        ("threshold", (X, 0, 0), {}, math.inf),
        ("threshold", (X, 0, 1), {}, None),
        ("threshold", (X, 1, 0), {}, None),
        ("hardtanh", (X,), {}, None),
        ("hardtanh", (X, 0.0, 6.0), {"inplace": False}, 6),
        ("maximum", (X, torch.ones(1)), {}, None),
        ("max", (X, 1), {}, None),  # along a dimension
        ("silu", (X,), {}, None),
    ],
)
def test_ceilings_of_relus(name, args, kwargs, expected):
    x = torch.zeros(2, requires_grad=True)
    args = tuple(x if v is X else v for v in args)
    kwargs = {k: x if v is X else v for k, v in kwargs.items()}
    assert Call(name, torch.relu, args, kwargs).ceiling() == expected


def test_names():
    spelled = [torch.relu, torch.relu_, F.relu, F.relu_, torch.Tensor.relu, torch.Tensor.relu_]
    assert {name_of(f) for f in (*spelled, torch.ops.aten.relu.default)} == {"relu"}
    assert name_of(torch.Tensor.clamp_min_) == "clamp_min"
    assert name_of(lambda: None) == "<lambda>"


NONLINEAR = [
    *(torch.relu, torch.sigmoid, torch.tanh, torch.abs, torch.erf, torch.sign, torch.sin),
    *(F.silu, F.gelu, F.elu, F.celu, F.leaky_relu, F.softplus, F.mish, F.hardswish, F.rrelu),
    *(F.hardsigmoid, F.hardtanh, F.logsigmoid, F.softshrink, F.hardshrink, F.glu),
    *(lambda x: x.clamp(min=0), lambda x: x.clamp_min(0), lambda x: x.clamp_max(0)),
    *(lambda x: F.threshold(x, 0, 0), lambda x: F.prelu(x, torch.ones(1))),
    *(lambda x: x.softmax(0), lambda x: x.log_softmax(0), lambda x: x.logsumexp(0)),
    *(torch.exp, torch.expm1, torch.log, torch.log1p, torch.log2, torch.log10, torch.sqrt),
    *(torch.rsqrt, torch.square, torch.atan, torch.cos, torch.tan, lambda x: x**3, torch.erfc),
]


@pytest.mark.parametrize("function", NONLINEAR)
def test_the_names_of_nodes_are_pytorchs(function):
    node = function(torch.zeros(2, 2, requires_grad=True)).grad_fn
    assert type(node).__name__.partition("Backward")[0].lower() in HIDDEN


SPELLINGS = {
    "F.relu": F.relu,
    "F.relu(input=)": lambda x: F.relu(input=x),
    "F.relu in place": lambda x: F.relu(x, inplace=True),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "x.relu()": lambda x: x.relu(),
    "x.relu_()": lambda x: x.relu_(),
    "nn.ReLU(True)": nn.ReLU(inplace=True),
    "aten": torch.ops.aten.relu,
    "aten.default": torch.ops.aten.relu.default,
    "clamp": lambda x: x.clamp(min=0),
    "torch.clamp": lambda x: torch.clamp(x, 0),
    "clamp_": lambda x: x.clamp_(min=0.0),
    "clamp by tensor": lambda x: x.clamp(min=torch.tensor(0.0)),
    "clamp_min": lambda x: x.clamp_min(0),
    "clip": lambda x: torch.clip(x, min=0),
    "threshold": lambda x: F.threshold(x, 0, 0),
    "nn.Threshold": nn.Threshold(0, 0),
    "hardtanh": lambda x: F.hardtanh(x, 0, float("inf")),
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "maximum, turned": lambda x: torch.maximum(torch.zeros(()), x),
    "max": lambda x: torch.max(x, torch.tensor(0.0)),
    "a part in place": lambda x: (x[:, :3].relu_(), x[:, 3:].relu_(), x)[2],
    "result not used": lambda x: (F.relu_(x), x)[1],
}


@pytest.mark.parametrize("rule", ["deconvnet", "guided", "FTF"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_relu_is_one(spelling, rule, build, images):
    net = build("vgg")
    shadow = Spelled(net, SPELLINGS[spelling])
    units = [1, 2]
    expected = project(net, images, "8", units, rule=rule)
    found = project(shadow, images, "convs.3", units, rule=rule)
    assert torch.equal(found.values, expected.values)
    assert close(found.signal, expected.signal)
    assert torch.equal(shadow(images.clone()), net(images))


def test_in_place_is_in_place(filled_net, images):
    """A shortcut taken before an in-place ReLU sees its result, upwards and downwards."""

    class PreActivation(nn.Module):
        def __init__(self, relu):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)
            self.relu = relu

        def forward(self, x):
            x = self.first(x)
            shortcut = x
            return self.second(self.relu(x)) + shortcut

    class Careful(PreActivation):
        def forward(self, x):
            x = F.relu(self.first(x))
            return self.second(x) + x

    careless = filled_net(nn.Sequential(PreActivation(nn.ReLU(inplace=True))))
    careful = filled_net(nn.Sequential(Careful(nn.ReLU())))
    found, expected = (project(net, images, "0", 2) for net in (careless, careful))
    assert torch.equal(found.signal, expected.signal)
