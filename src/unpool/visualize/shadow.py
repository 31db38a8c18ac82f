"""Shadow copies: a model's modules in new objects that share its weights.

Analyses run and hook a shadow copy, so that the model itself is never changed, not even after an
error, and several threads can analyze one model.
"""

from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from unpool.errors import OptionError
from unpool.models.norms import fold_whitening


def shadow_copy(model: nn.Module) -> nn.Module:
    """Copy the modules of a model, in evaluation mode and without `torch.compile`.

    Weights share their memory with the model's but need no gradient, so that autograd saves no
    maps for them; buffers are copied. Network deconvolution is folded: the copy has the filters
    that images meet. The model is not changed.

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
    # all objects are made before their state, since modules refer to one another
    shells = {id(m): object.__new__(type(m)) for m in originals.values()}
    shadows = {key: shells[id(m)] for key, m in originals.items()}
    tensors: dict[int, Tensor] = {}
    for m in originals.values():
        shells[id(m)].__dict__ = _state(m, shadows, tensors)
    return fold_whitening(shells[id(model)]).requires_grad_(False)


def _uncompiled(module: nn.Module) -> nn.Module:
    """The module that `torch.compile` wrapped, or the module itself."""
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
    state["_backward_hooks"], state["_backward_pre_hooks"] = {}, {}  # only for training
    state["training"], state["_compiled_call_impl"] = False, None
    return state


def _moved(value: Any, shadows: dict[int, nn.Module]) -> Any:
    """A plain attribute, with the modules in it replaced by their shadows."""
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
    """A function defined within a method, such as a lambda, closed over the shadows."""
    moved = []
    for cell in cells:
        try:
            value = cell.cell_contents
        except ValueError:  # the cell is still empty
            value = None
        holds = isinstance(value, nn.Module | MethodType)
        moved.append(CellType(_moved(value, shadows)) if holds else cell)
    code, name, defaults = function.__code__, function.__name__, function.__defaults__
    copy = FunctionType(code, function.__globals__, name, defaults, tuple(moved))
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _frozen(parameter: Tensor | None, tensors: dict[int, Tensor]) -> Tensor | None:
    if parameter is None:
        return None
    frozen = nn.Parameter(parameter.detach(), requires_grad=False)
    return tensors.setdefault(id(parameter), frozen)


def _copied(buffer: Tensor | None, tensors: dict[int, Tensor]) -> Tensor | None:
    return None if buffer is None else tensors.setdefault(id(buffer), buffer.detach().clone())
