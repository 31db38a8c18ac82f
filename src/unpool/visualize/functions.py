"""Which tensor functions are ReLUs, which choose or weigh, and which have no rule of their own.

Functions are known by name, so that `torch.relu`, `F.relu`, `Tensor.relu_` and what `nn.ReLU` calls
are one. A *signal* is a tensor that carries a gradient.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

_RECTIFIERS: dict[str, Callable[..., tuple[Any, Any]]] = {  # the bounds of their values
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
"""They choose among maps, as pooling does, unless one of the maps is a constant."""

ACTIVATIONS = {*_RECTIFIERS, "abs", "absolute", "celu", "clamp_max", "elu", "erf", "gelu"}
ACTIVATIONS |= {"hardshrink", "hardsigmoid", "hardswish", "heaviside", "leaky_relu", "log_sigmoid"}
ACTIVATIONS |= {"logsigmoid", "mish", "prelu", "rrelu", "selu", "sigmoid", "sign", "silu", "sin"}
ACTIVATIONS |= {"softplus", "softshrink", "softsign", "tanh", "tanhshrink"}
ACTIVATIONS |= {"arctan", "asinh", "atan", "cos", "cosh", "erfc", "sinh", "tan"}
ACTIVATIONS -= SELECTING
"""Functions of each value by itself."""

UNLIKE = {"glu", "log_softmax", "logaddexp", "logsumexp", "multi_head_attention_forward"}
UNLIKE |= {"scaled_dot_product_attention", "softmax", "softmin"}
UNLIKE |= {"exp", "exp2", "expm1", "float_power", "log", "log10", "log1p", "log2", "pow", "rpow"}
UNLIKE |= {"rsqrt", "sqrt", "square"}
"""Nothing that a ReLU could stand for: they mix values, or activations are made of them by hand."""

_COMPARING = {"ge", "greater", "greater_equal", "gt", "le", "less", "less_equal", "lt"}  # for masks

WEIGHTED = {"conv1d", "conv2d", "conv3d", "linear"}
SMOOTH = {"cosine_similarity", "local_response_norm", "normalize", "rms_norm"}
"""Made of functions without a rule, but fit to be differentiated."""

_POOLS = {
    f"{kind}max_pool{dims}d{indices}"
    for kind in ("", "adaptive_", "fractional_")
    for dims in (1, 2, 3)
    for indices in ("", "_with_indices")
}
KNOWN = ACTIVATIONS | SELECTING | UNLIKE | _COMPARING | WEIGHTED | SMOOTH | _POOLS
"""All that a rule may have to do with."""

HIDDEN = {name.replace("_", "") for name in ACTIVATIONS | UNLIKE}
HIDDEN |= {"preluKernel".lower(), "rreluwithnoise"}
"""Nodes of the gradient's graph, in lower case, that are nonlinear."""


class Replacement(TorchFunctionMode):
    """While it is entered, something else may stand for the tensor functions of this thread.

    What they save for the gradient is kept even where a model wants it computed again
    (checkpointing), since that would be done by the functions themselves.
    """

    def stand_in(
        self,
        name: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """What stands for a function: its name, as of `name_of`, and its arguments."""
        raise NotImplementedError

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """The function, or what stands for it."""
        with saved_tensors_hooks(_as_it_is, _as_it_is):
            return self.stand_in(name_of(func), func, args, kwargs or {})


def _as_it_is(saved: Tensor) -> Tensor:
    return saved


def name_of(function: Callable[..., Any]) -> str:
    """The name of a tensor function without the affixes of its spellings.

    >>> import torch
    >>> name_of(torch.relu_), name_of(torch.Tensor.relu), name_of(torch.ops.aten.relu.default)
    ('relu', 'relu', 'relu')
    """
    return getattr(function, "__name__", "").partition(".")[0].strip("_")


def signals(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """The arguments that carry a signal."""
    return (v for v in (*args, *kwargs.values()) if isinstance(v, Tensor) and v.requires_grad)


def against_constant(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether one of the arguments is a tensor that carries no signal."""
    return any(isinstance(v, Tensor) and not v.requires_grad for v in (*args, *kwargs.values()))


def ceiling(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
    """Where a function stops growing if it is a ReLU (which never does); None if it is not.

    A clamp from 0 up is a ReLU, from 0 to 6 a ReLU6; so is the maximum of a map and zero.

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
