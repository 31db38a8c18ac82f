"""Networks for `torch.hub.load(folder, name, source="local")`.

>>> deconvnet(classes=2, trunk=((1, 4),), code=None, size=32).classes
2
"""

import inspect
import sys
from pathlib import Path
from typing import Any

from torch import nn

# torch.hub adds the checkout to the path, not its `src`; the package need not be installed
sys.path.append(str(Path(__file__).parent / "src"))

dependencies = ["torch", "numpy", "PIL", "cv2", "safetensors"]


def deconvnet(**options: Any) -> nn.Module:
    """DeconvNet as published, without trained weights; options of `unpool.models.DeconvNet`."""
    from unpool.models import DeconvNet

    return _build(DeconvNet, options)


def fcn8s(**options: Any) -> nn.Module:
    """FCN-8s as published, without trained weights; options of `unpool.models.FCN`."""
    from unpool.models import FCN

    return _build(FCN, options)


def objects(**options: Any) -> Any:
    """A segmenter with the default weights; options of `unpool.load`. Research use."""
    import unpool

    return unpool.load("objects", **options)


def _build(kind: type[nn.Module], options: dict[str, Any]) -> nn.Module:
    from unpool.errors import require_known

    require_known(options, inspect.signature(kind).parameters)
    return kind(**options)
