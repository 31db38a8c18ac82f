"""SqueezeNet, a small classification network (Iandola et al. 2016)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unpool.errors import OptionError
from unpool.models.classifiers import Classifier, check_arguments, initialize, require_size


class Fire(nn.Module):
    """A Fire module: a 1 x 1 convolution that squeezes, then 1 x 1 and 3 x 3 in parallel.

    Args:
        channels: number of input maps.
        squeeze: number of squeezed maps.
        expand: number of maps of each parallel convolution; the output has twice as many.

    Iandola et al. 2016, section 3.2; named as in torchvision.
    """

    def __init__(self, channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.squeeze_activation = nn.ReLU()
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand1x1_activation = nn.ReLU()
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)
        self.expand3x3_activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, 2 * expand, H, W), those of the 1 x 1 convolution first."""
        x = self.squeeze_activation(self.squeeze(x))
        small = self.expand1x1_activation(self.expand1x1(x))
        return torch.cat([small, self.expand3x3_activation(self.expand3x3(x))], 1)


class SqueezeNet(Classifier):
    """SqueezeNet 1.1, small and without fully connected layers; 1,235,496 parameters.

    Its state dict has torchvision's names; `load_tensors` loads trained weights.

    Args:
        classes: number of scores.
        width: number of maps of the first convolution.
        stages: a row per pooling: the (squeeze, expand) widths of the Fire modules after it.
        size: side of images in pixels; others are possible.
        dropout: dropout of the last maps in training.

    Raises:
        OptionError: an argument is out of range.

    Iandola et al. 2016, and the authors' release 1.1.

    >>> net = SqueezeNet(10, width=8, stages=(((4, 8), (4, 8)), ((4, 8),)), size=64).eval()
    >>> net(torch.zeros(2, 3, 64, 80)).shape
    torch.Size([2, 10])
    """

    mean = (103.939, 116.779, 123.68)

    def __init__(
        self,
        classes: int = 1000,
        width: int = 64,
        stages: Sequence[Sequence[Sequence[int]]] = (
            ((16, 64), (16, 64)),
            ((32, 128), (32, 128)),
            ((48, 192), (48, 192), (64, 256), (64, 256)),
        ),
        size: int = 227,
        dropout: float = 0.5,
    ) -> None:
        rows = [[[int(n) for n in fire] for fire in stage] for stage in stages]
        fires = [fire for stage in rows for fire in stage]
        if not all(rows) or any(len(fire) != 2 for fire in fires):
            raise OptionError(
                f"got the stages {rows}; each is one or more (squeeze, expand) pairs of widths"
            )
        widths = [width, *(n for fire in fires for n in fire)]
        check_arguments(classes, widths, None, size, dropout)
        arguments = {"classes": classes, "width": width, "stages": rows}
        arguments |= {"size": size, "dropout": dropout}
        features: list[nn.Module] = [nn.Conv2d(3, width, 3, stride=2), nn.ReLU()]
        channels = width
        for stage in rows:
            features.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            for squeeze, expand in stage:
                features.append(Fire(channels, squeeze, expand))
                channels = 2 * expand
        last = nn.Conv2d(channels, classes, 1)
        classifier = (nn.Dropout(dropout), last, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(
            nn.Sequential(*features), nn.Sequential(*classifier), size, arguments, fixed=False
        )
        require_size(self.least, size)
        initialize(self, None)
