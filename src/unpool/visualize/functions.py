"""Kinds of tensor functions: ReLUs, pooling, weighted sums, and those without a rule.

Functions are identified by name, so that `torch.relu`, `F.relu`, `Tensor.relu_` and the call of
`nn.ReLU` are one. A *signal* is a tensor that requires a gradient.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

_RECTIFIERS: dict[str, Callable[..., tuple[Any, Any]]] = {  # lower and upper bounds
    "relu": lambda input, inplace=False: (0, None),
    "relu6": lambda input, inplace=False: (0, 6),
    "clamp": lambda input, min=None, max=None: (min, max),
    "clip": lambda input, min=None, max=None: (min, max),
    "clamp_min": lambda input, min: (min, None),
    "threshold": lambda input, threshold, value, inplace=False: (threshold or value, None),
    "hardtanh": lambda input, min_val=-1.0, max_val=1.0, inplace=False: (min_val, max_val),
    "maximum": lambda input, other: (other if _is_zero(other) else input, None),
    "fmax": lambda input, other: (other if _is_zero(other) else input, None),
    "max": lambda input, other: (other if _is_zero(other) else input, None),
}

SELECTING = {"fmax", "fmin", "max", "maximum", "min", "minimum"}
"""Choose among maps, as pooling does, unless one of the maps is a constant."""

ACTIVATIONS = {*_RECTIFIERS, "abs", "absolute", "celu", "clamp_max", "elu", "erf", "gelu"}
ACTIVATIONS |= {"hardshrink", "hardsigmoid", "hardswish", "heaviside", "leaky_relu", "log_sigmoid"}
ACTIVATIONS |= {"logsigmoid", "mish", "prelu", "rrelu", "selu", "sigmoid", "sign", "silu", "sin"}
ACTIVATIONS |= {"softplus", "softshrink", "softsign", "tanh", "tanhshrink"}
ACTIVATIONS |= {"arctan", "asinh", "atan", "cos", "cosh", "erfc", "sinh", "tan"}
ACTIVATIONS -= SELECTING
"""Elementwise functions."""

UNLIKE = {"glu", "log_softmax", "logaddexp", "logsumexp", "multi_head_attention_forward"}
UNLIKE |= {"scaled_dot_product_attention", "softmax", "softmin"}
UNLIKE |= {"exp", "exp2", "expm1", "float_power", "log", "log10", "log1p", "log2", "pow", "rpow"}
UNLIKE |= {"rsqrt", "sqrt", "square"}
"""Cannot be treated as a ReLU: they mix values, or are parts of hand-written activations."""

_COMPARING = {"ge", "greater", "greater_equal", "gt", "le", "less", "less_equal", "lt"}  # for masks

WEIGHTED = {"conv1d", "conv2d", "conv3d", "linear"}
SMOOTH = {"cosine_similarity", "local_response_norm", "normalize", "rms_norm"}
"""Made of functions without a rule, but can be differentiated."""

_POOLS = {
    f"{kind}max_pool{dims}d{indices}"
    for kind in ("", "adaptive_", "fractional_")
    for dims in (1, 2, 3)
    for indices in ("", "_with_indices")
}
KNOWN = ACTIVATIONS | SELECTING | UNLIKE | _COMPARING | WEIGHTED | SMOOTH | _POOLS
"""All functions that a rule may concern."""

HIDDEN = {name.replace("_", "") for name in ACTIVATIONS | UNLIKE}
HIDDEN |= {"preluKernel".lower(), "rreluwithnoise"}
"""Names of nonlinear autograd nodes, in lower case."""


class Replacement(TorchFunctionMode):
    """A context in which tensor functions of this thread are replaced by `stand_in`.

    Tensors saved for the gradient are kept even where a model asks for checkpointing, which would
    recompute them with the original functions.
    """

    def stand_in(
        self,
        name: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Compute the replacement of a function; `name` is that of `name_of`."""
        raise NotImplementedError

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call the replacement of the function."""
        with saved_tensors_hooks(_identity, _identity):
            return self.stand_in(name_of(func), func, args, kwargs or {})


def _identity(saved: Tensor) -> Tensor:
    return saved


def name_of(function: Callable[..., Any]) -> str:
    """The name of a tensor function, the same for all its spellings.

    >>> import torch
    >>> name_of(torch.relu_), name_of(torch.Tensor.relu), name_of(torch.ops.aten.relu.default)
    ('relu', 'relu', 'relu')
    """
    return getattr(function, "__name__", "").partition(".")[0].strip("_")


def signals(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """The arguments that require a gradient."""
    return (v for v in (*args, *kwargs.values()) if isinstance(v, Tensor) and v.requires_grad)


def against_constant(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether one of the arguments is a tensor that requires no gradient."""
    return any(isinstance(v, Tensor) and not v.requires_grad for v in (*args, *kwargs.values()))


def ceiling(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
    """The upper bound of a function if it is a ReLU, infinite for a plain one; otherwise None.

    A clamp with minimum 0 is a ReLU, from 0 to 6 a ReLU6; so is the maximum of a map and zero.

    >>> x = torch.zeros(1)
    >>> ceiling("relu", (x,), {}), ceiling("clamp", (x, 0, 6), {}), ceiling("clamp", (x, 1), {})
    (inf, 6.0, None)
    """
    chooses = name in SELECTING and not against_constant(args, kwargs)
    if name not in _RECTIFIERS or chooses:
        return None
    low, high = _RECTIFIERS[name](*args, **kwargs)
    if low is None or not _is_zero(low):
        return None
    return math.inf if high is None else float(high)


def _is_zero(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.requires_grad and not bool(value.any())
    return bool(value == 0)
