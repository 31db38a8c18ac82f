"""What functions are, by name."""

import math

import pytest
import torch
import torch.nn.functional as F

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
