"""Deconvolution networks: from a code back to pixels, by unpooling with switches and deconvolution.

Names are loaded when they are first used, so that `import unpool` and `unpool --help` are quick:
neither torch nor OpenCV is imported before something needs it.
"""

import importlib
from collections.abc import Callable

__version__ = "0.1.0"

Progress = Callable[[int, int, str], None]
"""A progress callback: how much is done, the total, and what is being done."""

_HOME = {
    "EDeconvNet": "segment.ensemble",
    "Generator": "generate",
    "Segmentation": "segment.result",
    "Segmenter": "segment.segmenter",
    "UnpoolError": "errors",
}

__all__ = ["EDeconvNet", "Generator", "Segmentation", "Segmenter", "UnpoolError"]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(f"unpool.{_HOME[name]}"), name)
    raise AttributeError(f"module 'unpool' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
