"""Convert a whole image to a single network input, and logits back to the size of the image."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from unpool.segment import timings
from unpool.vision.boxes import Crop, resize

if TYPE_CHECKING:
    from unpool.export.runtime import Exported
    from unpool.models import Network
    from unpool.vision.images import Pixels


class WholeView:
    """A whole image as a single input of a network.

    A network with code layers (fully connected layers) has a fixed input size and sees the square
    around the image; any other network sees the image resized to `long_side`.

    Args:
        model: determines the kind and size of the input.
        image: (H, W, 3) uint8, RGB.
        long_side: length of the longer side in pixels.
    """

    def __init__(self, model: "Network | Exported", image: "Pixels", long_side: int) -> None:
        self.size = height, width = image.shape[:2]
        self._crop: Crop | None = None
        with timings.stage("resizing"):
            # code layers are fully connected, so they need their design size
            if model.size is not None and model.fc is not None:
                side = max(height, width)
                x, y = (width - side) // 2, (height - side) // 2
                self._crop = Crop((x, y, x + side, y + side), model.size)
                self.batch = self._crop.take(image)[None]  #: (1, h, w, 3)
            else:
                self.batch = resize(image, long_side, least=2 ** len(model.trunk.table))[None]

    def paste(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Resize logits (1, K, h, w) of `batch` to the image, (K, H, W)."""
        with timings.stage("resizing"):
            if self._crop is not None:
                # pasting takes the maximum, which is then that of the crop alone
                whole = np.full((logits.shape[1], *self.size), -np.inf, np.float32)
                self._crop.paste(logits[0], whole)
                return whole
            small = torch.from_numpy(logits)
            large = F.interpolate(small, size=self.size, mode="bilinear", antialias=True)
            return np.asarray(large[0].numpy())
