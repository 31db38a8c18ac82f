"""Kinds of tensor functions: ReLUs, pooling, weighted sums, and those without a rule.

Functions are identified by name, so that `torch.relu`, `F.relu`, `Tensor.relu_` and the call of
`nn.ReLU` are one. A *signal* is a tensor that requires a gradient.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

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


class Call(NamedTuple):
    """A call of a tensor function."""

    name: str  #: as of `name_of`
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def value(self) -> Any:
        """The result of the call."""
        return self.function(*self.args, **self.kwargs)

    def tensors(self) -> list[Tensor]:
        """The arguments that are tensors."""
        return [v for v in (*self.args, *self.kwargs.values()) if isinstance(v, Tensor)]

    def of(self, signal: Tensor) -> Callable[[Tensor], Any]:
        """The function of one of its tensors, with all other arguments fixed."""

        def function(x: Tensor) -> Any:
            args = (x if v is signal else v for v in self.args)
            kwargs = {k: x if v is signal else v for k, v in self.kwargs.items()}
            return self.function(*args, **kwargs)

        return function

    def selects(self) -> bool:
        """Whether it chooses among maps, none of which is a constant."""
        return self.name in SELECTING and all(t.requires_grad for t in self.tensors())

    def ceiling(self) -> float | None:
        """The upper bound of a ReLU, infinite for a plain one; None for other functions.

        A clamp with minimum 0 is a ReLU, from 0 to 6 a ReLU6; so is the maximum of a map and zero.

        >>> x = torch.zeros(1)
        >>> [Call("clamp", torch.clamp, (x, *b), {}).ceiling() for b in ((0,), (0, 6), (1,))]
        [inf, 6.0, None]
        """
        if self.name not in _RECTIFIERS or self.selects():
            return None
        low, high = _RECTIFIERS[self.name](*self.args, **self.kwargs)
        if low is None or not _is_zero(low):
            return None
        return math.inf if high is None else float(high)


def signals(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among some values that require a gradient."""
    return (v for v in values if isinstance(v, Tensor) and v.requires_grad)


def name_of(function: Callable[..., Any]) -> str:
    """The name of a tensor function, the same for all its spellings.

    >>> import torch
    >>> name_of(torch.relu_), name_of(torch.Tensor.relu), name_of(torch.ops.aten.relu.default)
    ('relu', 'relu', 'relu')
    """
    return getattr(function, "__name__", "").partition(".")[0].strip("_")


class Replacement(TorchFunctionMode):
    """A context in which tensor functions of this thread are replaced by `replace`.

    Tensors saved for the gradient are kept even where a model asks for checkpointing, which would
    recompute them with the original functions.
    """

    def replace(self, call: Call) -> Any:
        """Compute what replaces the result of a call."""
        raise NotImplementedError

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Replace a call."""
        with saved_tensors_hooks(lambda saved: saved, lambda saved: saved):
            return self.replace(Call(name_of(func), func, args, kwargs or {}))


def _is_zero(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.requires_grad and not bool(value.any())
    return bool(value == 0)
