"""Trained networks as methods of restoration."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unpool.errors import WeightsError
from unpool.models import from_pretrained
from unpool.models.deblur import Deblur, IRDNet

if TYPE_CHECKING:
    from unpool.recipes.presets import Edges


@dataclass(frozen=True)
class Network:
    """A trained network that restores images."""

    net: Deblur

    @classmethod
    def load(cls, weights: str | Path, device: torch.device) -> "Network":
        """Load weights by name or folder.

        Raises:
            WeightsError: no such weights, damaged ones, or those of a network of another kind.
        """
        net, card = from_pretrained(weights)
        if not isinstance(net, Deblur):
            raise WeightsError(
                f"got weights {str(weights)!r} of a {card.architecture}, which does not restore "
                "images; pass those of a training run by a recipe such as deblur-given"
            )
        return cls(net.to(device))

    @property
    def method(self) -> str:
        """The row of `METHODS`: "given" if it takes the PSF, or "blind"."""
        return "given" if isinstance(self.net, IRDNet) else "blind"

    def __call__(self, y: Tensor, psf: Tensor, sigma: float, edges: "Edges") -> Tensor:
        """Restore images (N, C, H, W), whose brightest parts are about 1.

        Args:
            y: images.
            psf: (h, w).
            sigma: standard deviation of the noise.
            edges: how the borders are extended, if the network takes the PSF.
        """
        found: Tensor
        if isinstance(self.net, IRDNet):
            found = self.net(y, psf, sigma, edges)
        # a network of colors is given gray in each of them
        elif self.net.channels > y.shape[1] == 1:
            found = self.net(y.expand(-1, self.net.channels, -1, -1)).mean(1, keepdim=True)
        else:
            found = self.net(y)
        return found
