"""Where to compute, and at which precision."""

import os
import sys
import warnings
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import torch

from unpool.errors import OptionError, require_choice
from unpool.recipes.presets import PRECISIONS

_INT8_OPERATORS = ("qconv_prepack", "qconv2d_pointwise", "qlinear_prepack", "qlinear_pointwise")

_started = _forked = False  # threads of torch: in this process, or before it was forked


def find_device(name: str) -> torch.device:
    """The device of that name, or an `OptionError`; "auto" is the GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "cpu":
            return device
        if device.type == "cuda" and (device.index or 0) < torch.cuda.device_count():
            return device
    except (RuntimeError, TypeError):
        pass
    known = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    raise OptionError(
        f"got device {name!r}; this machine has {', '.join(known)}: set device={known[-1]!r}, or "
        "leave it out"
    )


def bf16_pays(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 faster than fp32.

    >>> bf16_pays(torch.device("cpu")) in (True, False)
    True
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    has = torch.cpu.get_capabilities()
    return bool(has.get("amx_bf16") or has.get("avx512_bf16"))


def training_layout(device: torch.device) -> torch.memory_format:
    """The memory layout in which convolutions are trained fastest.

    That is channels-last, except on x86 processors without AVX-512: there oneDNN takes three to
    five times as long for the gradients of filters in this layout.

    >>> training_layout(torch.device("cpu")) in (torch.channels_last, torch.contiguous_format)
    True
    """
    has = torch.cpu.get_capabilities()
    narrow = has.get("architecture") == "x86_64" and not has.get("avx512_f")
    slow = device.type == "cpu" and narrow
    return torch.contiguous_format if slow else torch.channels_last


def require_bf16(device: torch.device) -> None:
    """Raise an `OptionError` where the hardware cannot compute bfloat16 at all."""
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported()
    else:
        has = torch.cpu.get_capabilities()
        # oneDNN needs AVX-512 or its successors on x86
        wide = all(has.get(f"avx512_{part}") for part in ("bw", "vl", "dq"))
        able = has.get("architecture") != "x86_64" or wide or bool(has.get("avx_ne_convert"))
    if not able:
        raise OptionError(
            f"got precision bf16, which the {device.type} of this machine cannot compute; set "
            "precision='fp32', or leave it out"
        )


def find_int8_obstacle(device: torch.device) -> str | None:
    """Why int8 convolutions do not pay on a device, or None if they do.

    >>> find_int8_obstacle(torch.device("cuda"))
    'int8 is for the CPU, and the device is cuda'
    """
    if device.type != "cpu":
        return f"int8 is for the CPU, and the device is {device.type}"
    has = torch.cpu.get_capabilities()
    # without these, sums of two products would be cut off at 16 bits
    if not any(has.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8")):
        return "the processor has no instructions for int8 (VNNI)"
    if not all(hasattr(torch.ops.onednn, name) for name in _INT8_OPERATORS):
        return f"PyTorch {torch.__version__} has no int8 convolutions"
    return None


def find_dtype(precision: str, exact: bool, device: torch.device) -> torch.dtype:
    """The dtype of a network's arithmetic: float32, bfloat16, or int8.

    Args:
        precision: "fp32", "bf16", "int8", or "auto": bf16 where it pays, and not if `exact`.
        exact: whether the network is used as it is.
        device: to compute on. Where int8 does not pay, a warning says why, and it is "auto".

    Raises:
        OptionError: another precision, one that is not exact, or that the hardware lacks.

    >>> find_dtype("fp32", False, torch.device("cpu"))
    torch.float32
    """
    require_choice("precision", precision, PRECISIONS)
    if exact and precision in ("bf16", "int8"):
        raise OptionError(f"got precision {precision} and exact; leave one of them out")
    if precision == "bf16":
        require_bf16(device)
    if precision == "int8":
        obstacle = find_int8_obstacle(device)
        if obstacle is None:
            return torch.int8
        instead = "bf16" if bf16_pays(device) else "fp32"
        warnings.warn(f"got precision int8, but {obstacle}; using {instead}", stacklevel=4)
    bf16 = precision == "bf16" or (precision != "fp32" and not exact and bf16_pays(device))
    return torch.bfloat16 if bf16 else torch.float32


def autocast(device: torch.device, bf16: bool) -> AbstractContextManager[object]:
    """Compute in bfloat16 inside of a `with`, where it is wanted and the hardware has it.

    >>> with autocast(torch.device("cpu"), bf16=False):
    ...     (torch.ones(1, 1) @ torch.ones(1, 1)).dtype
    torch.float32
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16 and bf16_pays(device))


def require_threads() -> None:
    """Raise an `OptionError` in a forked process where the threads of PyTorch are missing.

    A fork has only the thread that called it. GNU's OpenMP, of PyTorch on Linux, does not know and
    waits for the others without end. What is known is whether this was called before the fork.
    """
    global _started
    if torch.get_num_threads() == 1:  # then it needs no others
        return
    if _forked:
        raise OptionError(
            "got a process that was forked after PyTorch had started its threads, which it would "
            "wait for without end; start workers by multiprocessing.get_context('spawn'), or call "
            "torch.set_num_threads(1) first in each"
        )
    _started = True


def _after_fork() -> None:
    global _forked
    if _started and sys.platform == "linux":
        with suppress(OSError):
            _forked = "libgomp" in Path("/proc/self/maps").read_text()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
