"""The shadow of a model: the same modules and weights in new shells, to be used and thrown away.

What looks into a model runs its shadow, and puts hooks on that. So nothing is left behind in the
model, even after an error, and two threads may look into one model at once.
"""

from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from unpool.errors import OptionError


def shadow_copy(model: nn.Module) -> nn.Module:
    """The shadow of a model, in evaluation mode.

    Not compiled, since compiled functions hide what they compute. Weights share their memory with
    the model's, but carry no gradient, so that no maps are kept for one; buffers are copied.

    Args:
        model: any module; it stays as it is.

    Raises:
        OptionError: the model, or a part of it, is TorchScript.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout())
    >>> shadow = shadow_copy(model)
    >>> model.training, shadow.training, shadow[0].weight.data_ptr() == model[0].weight.data_ptr()
    (True, False, True)
    """
    model = _uncompiled(model)
    originals = {id(m): _uncompiled(m) for m in model.modules()}
    if any(isinstance(m, torch.jit.ScriptModule) for m in originals.values()):
        raise OptionError(
            "got a TorchScript model, which cannot be looked into; pass the Python model that it "
            "was made from"
        )
    shells = {id(m): object.__new__(type(m)) for m in originals.values()}
    shadows = {key: shells[id(m)] for key, m in originals.items()}
    tensors: dict[int, Tensor] = {}
    for m in originals.values():
        shells[id(m)].__dict__ = _state(m, shadows, tensors)
    return shells[id(model)]


def _uncompiled(module: nn.Module) -> nn.Module:
    """What `torch.compile` was given."""
    inner = getattr(module, "_orig_mod", module)
    return inner if isinstance(inner, nn.Module) else module


def _state(
    module: nn.Module, shadows: dict[int, nn.Module], tensors: dict[int, Tensor]
) -> dict[str, Any]:
    state = {key: _moved(value, shadows) for key, value in module.__dict__.items()}
    for key in ("_forward_hooks", "_forward_pre_hooks"):
        hooks = module.__dict__[key]
        state[key] = type(hooks)((k, _moved(hook, shadows)) for k, hook in hooks.items())
    state["_modules"] = {k: shadows.get(id(v)) for k, v in module._modules.items()}
    state["_parameters"] = {k: _frozen(v, tensors) for k, v in module._parameters.items()}
    state["_buffers"] = {k: _copied(v, tensors) for k, v in module._buffers.items()}
    state["_backward_hooks"], state["_backward_pre_hooks"] = {}, {}  # they are about training
    state["training"], state["_compiled_call_impl"] = False, None
    return state


def _moved(value: Any, shadows: dict[int, nn.Module]) -> Any:
    """A plain attribute, with shadows in place of the modules in it."""
    if isinstance(value, nn.Module):
        return shadows.get(id(value), value)
    if isinstance(value, MethodType):
        return MethodType(value.__func__, _moved(value.__self__, shadows))
    if isinstance(value, FunctionType) and value.__closure__:
        return _closed(value, value.__closure__, shadows)
    if type(value) is partial:
        keywords = _moved(value.keywords, shadows)
        return partial(_moved(value.func, shadows), *_moved(value.args, shadows), **keywords)
    if type(value) in (list, tuple):
        return type(value)(_moved(item, shadows) for item in value)
    if type(value) is dict:
        return {key: _moved(item, shadows) for key, item in value.items()}
    return value


def _closed(
    function: FunctionType, cells: tuple[CellType, ...], shadows: dict[int, nn.Module]
) -> FunctionType:
    """A function that was made within a method, such as a lambda, closed over the shadows."""
    moved = []
    for cell in cells:
        try:
            value = cell.cell_contents
        except ValueError:  # nothing is in it yet
            value = None
        holds = isinstance(value, nn.Module | MethodType)
        moved.append(CellType(_moved(value, shadows)) if holds else cell)
    code, name, defaults = function.__code__, function.__name__, function.__defaults__
    made = FunctionType(code, function.__globals__, name, defaults, tuple(moved))
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def _frozen(parameter: Tensor | None, tensors: dict[int, Tensor]) -> Tensor | None:
    """The same values without a gradient, so that no maps are kept for it."""
    if parameter is None:
        return None
    frozen = nn.Parameter(parameter.detach(), requires_grad=False)
    return tensors.setdefault(id(parameter), frozen)


def _copied(buffer: Tensor | None, tensors: dict[int, Tensor]) -> Tensor | None:
    return None if buffer is None else tensors.setdefault(id(buffer), buffer.detach().clone())
