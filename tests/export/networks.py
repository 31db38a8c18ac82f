"""Small networks to export, and images for them."""

from pathlib import Path

import numpy as np
from PIL import Image

from unpool.models import FCN, DeconvNet, DeepLab, SegNet, SegNetBasic

ENDINGS = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2"}
CARD = {
    "classes": ["background", "cat", "dog", "cow"],
    "palette": [[0, 0, 0], [1, 2, 3], [4, 5, 6], [7, 8, 9]],
    "input": {"mean": [90.0, 100.0, 110.0]},
    "long_side": 60,
    "mode": "whole",
    "aggregate": "mean",
    "presence_threshold": 0.01,
    "license": "none",
}
NETS = {
    "free": lambda: DeconvNet(4, ((1, 4), (1, 6)), None, 32),
    "code": lambda: DeconvNet(4, ((1, 4), (2, 6)), 8, 16),
    "fcn": lambda: FCN(4, ((1, 4), (1, 8), (1, 8)), 16, stride=4, pad=1, window=3),
    "segnet": lambda: SegNet(4, ((1, 4), (2, 6)), dropout=0.5),
    "segnet-basic": lambda: SegNetBasic(4, 6, 7, 2),
    "deeplab": lambda: DeepLab(4, ((1, 4), (1, 8), (1, 8)), 16, dilation=2, fine=True),
    "deeplab-noup": lambda: DeepLab(4, ((1, 4),) * 4, 16, 4, 4, kernel=2, average=False),
}


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blurred noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    resized = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.array(resized)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
