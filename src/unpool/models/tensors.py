"""Files of tensors: safetensors, also with int8 filters, and what `torch.save` writes.

Nothing is ever unpickled except plain tensors (`weights_only=True`), and only finite ones are read.
"""

import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from unpool.errors import WeightsError, first_line
from unpool.files import require_regular, require_zip_directory
from unpool.limits import MAX_TENSORS, MAX_TUPLES, MAX_WEIGHT, MIB
from unpool.models.fcn import Interpolation

_SCALE = "::scale"  #: suffix of the per-channel scales of an int8 tensor
_PICKLES = 5  #: in a file as torch.save wrote them before it wrote zip files
_LARGER = 5  #: how much larger tensors can be than their file: int8 filters become fp32


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file, as fp32 unless they are integers; a `WeightsError` if one has NaN."""
    path = require_regular(path, WeightsError)
    try:
        if path.suffix == ".safetensors":
            state = _dequantize(_read_safetensors(path))
        else:
            state = load_torch(path)
    except WeightsError:
        raise
    except Exception as error:  # of any kind: a damaged file can break anywhere
        raise WeightsError(
            f"cannot read {path}: {describe_failure(error)}; wanted a safetensors file, or a torch "
            "file that holds nothing but tensors"
        ) from None
    require_tensors(state, path)
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def load_torch(path: Path) -> Any:
    """What `torch.save` wrote of plain values and tensors, on the CPU; errors are of any kind."""
    with path.open("rb") as file:
        packed = file.read(4) == b"PK\x03\x04"
    if packed:
        require_zip_directory(path, WeightsError)
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            if any(part.compress_type for part in parts):
                raise ValueError("its parts are compressed, as torch.save never does")
            if sum(part.file_size for part in parts) > path.stat().st_size:
                raise ValueError("its parts overlap")
            if damaged := archive.testzip():  # torch.load does not look at the checksums
                raise ValueError(f"{damaged} is damaged")
            for part in parts:
                if part.filename.endswith(".pkl"):
                    with archive.open(part) as content:
                        _require_shallow(content, path)
    else:
        with path.open("rb") as file:
            for _ in range(_PICKLES):
                _require_shallow(file, path)
    with warnings.catch_warnings(action="ignore"):  # the error says it all
        return torch.load(path, map_location="cpu", weights_only=True)


def _require_shallow(file: IO[bytes], path: Path) -> None:
    """Refuse a pickle with so many tuples that hashing nested ones would crash Python."""
    tuples = 0
    operations = enumerate(pickletools.genops(file))
    while True:
        try:
            n, (opcode, _, _) = next(operations)
        except (StopIteration, ValueError):  # its end; what is no pickle, torch.load refuses
            return
        tuples += opcode.name.startswith("TUPLE")
        if max(tuples, n / 16) > MAX_TUPLES:
            raise WeightsError(f"got {path} with too many objects; save its state_dict()")


def describe_failure(error: Exception) -> str:
    """The reason why `load_torch` or safetensors cannot read a file, in one line."""
    if isinstance(error, pickle.UnpicklingError):  # its message advises to load it unsafely
        return "it holds other things than tensors, or is damaged"
    return first_line(error)[:300]


def require_tensors(state: Any, path: Path) -> None:
    """Raise a `WeightsError` unless a state dict from a file has finite tensors only.

    Tensors may be views that repeat few stored values any number of times; they are refused, too.
    """
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) and v.layout == torch.strided and v.is_cpu
        for k, v in state.items()
    ):
        raise WeightsError(f"got {path} with more than named tensors; save its state_dict()")
    if (
        len(state) > MAX_TENSORS
        or sum(v.nbytes for v in state.values()) > _LARGER * path.stat().st_size
    ):
        raise WeightsError(
            f"got {path}, whose {len(state)} tensors are more than a network has, or larger than "
            "the file; save clones of them"
        )
    require_finite(state, path)


def require_finite(state: Mapping[str, Tensor], source: object) -> None:
    """Raise a `WeightsError` if a tensor has NaN, infinity, or values of `MAX_WEIGHT` and more.

    So do variances below zero, whose square root is NaN.
    """
    for name, value in state.items():
        if value.is_floating_point() and value.numel():
            least, most = map(float, value.aminmax())  # NaN if one value is
            fault = "" if max(-least, most) < MAX_WEIGHT else "is not finite (NaN, or too large)"
            if not fault and least < 0 and name.endswith("running_var"):
                fault = "is a variance below zero"
            if fault:
                raise WeightsError(
                    f"got {source}, where {name[:60]} {fault}; the file is damaged or its training "
                    "run diverged: copy it again, or take an earlier checkpoint"
                )


def require_finite_output(what: str, *outputs: Tensor) -> None:
    """Raise a `WeightsError` if the outputs of a network have NaN or infinity."""
    if not all(output.isfinite().all() for output in outputs):
        raise WeightsError(
            f"got {what} with NaN or infinity from the network, whose weights are damaged or too "
            "large; copy them again, or train with lower learning rates"
        )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors, each in its own memory, so that each can be freed on its own."""
    with safe_open(path, framework="pt") as file:
        # popped from the end, in the order of the file
        names = list(file.keys())[::-1]
    if len(names) > MAX_TENSORS:
        raise ValueError(f"it has {len(names)} tensors, more than {MAX_TENSORS}")
    tensors: dict[str, Tensor] = {}
    while names:  # a file that stays open stays in memory as far as it was read
        with safe_open(path, framework="pt") as file:
            read = 0
            while names and read < 64 * MIB:
                name = names.pop()
                tensors[name] = file.get_tensor(name).clone()
                read += tensors[name].nbytes
    return tensors


def quantize(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Filters as int8 with one fp32 scale for each output channel; the rest as it is."""
    stored = dict(tensors)
    for name, layer in model.named_modules():
        filters = isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
        if not filters or isinstance(layer, Interpolation):  # small, and exact where bilinear
            continue
        weight = tensors[f"{name}.weight"]
        axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
        rest = [d for d in range(weight.dim()) if d != axis]
        scale = (weight.abs().amax(rest, keepdim=True) / 127).clamp_min(1e-12)
        stored[f"{name}.weight"] = (weight / scale).round().to(torch.int8)
        stored[f"{name}.weight{_SCALE}"] = scale
    return stored


def _dequantize(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        k: v.float() * tensors[k + _SCALE].expand_as(v) if k + _SCALE in tensors else v
        for k, v in tensors.items()
        if not k.endswith(_SCALE)
    }
