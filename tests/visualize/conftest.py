"""Small networks of common styles, with weights that are the same on every machine."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn


class Residual(nn.Module):
    """Two convolutions with a shortcut, and one ReLU module used twice, as in ResNet."""

    def __init__(self, width, inplace=False):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace)

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x
        return self.relu(out)


class Fire(nn.Module):
    """Two branches, concatenated, as in SqueezeNet and GoogLeNet."""

    def __init__(self, width, squeeze, inplace=False):
        super().__init__()
        self.squeeze = nn.Conv2d(width, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, width // 2, 1)
        self.expand3x3 = nn.Conv2d(squeeze, width // 2, 3, padding=1)
        self.relu, self.relu1, self.relu3 = nn.ReLU(inplace), nn.ReLU(inplace), nn.ReLU(inplace)

    def forward(self, x):
        x = self.relu(self.squeeze(x))
        return torch.cat([self.relu1(self.expand1x1(x)), self.relu3(self.expand3x3(x))], 1)


class Dense(nn.Module):
    """Batch norm and ReLU before the convolution, whose output is concatenated with the input."""

    def __init__(self, width, growth, inplace=False):
        super().__init__()
        self.norm, self.relu = nn.BatchNorm2d(width), nn.ReLU(inplace)
        self.conv = nn.Conv2d(width, growth, 3, padding=1)

    def forward(self, x):
        return torch.cat([x, self.conv(self.relu(self.norm(x)))], 1)


class Separable(nn.Module):
    """An inverted residual with ReLU6, as in MobileNetV2."""

    def __init__(self, width, inplace=False):
        super().__init__()
        self.block = nn.Sequential(
            *(nn.Conv2d(width, 2 * width, 1), nn.BatchNorm2d(2 * width), nn.ReLU6(inplace)),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width),
            *(nn.ReLU6(inplace), nn.Conv2d(2 * width, width, 1)),
        )

    def forward(self, x):
        return x + self.block(x)


def conv(*args, **kwargs):
    return nn.Conv2d(*args, **kwargs)


NETS = {
    "vgg": lambda i: nn.Sequential(
        *(conv(3, 6, 3, padding=1), nn.ReLU(i), conv(6, 6, 3, padding=1), nn.ReLU(i)),
        *(nn.MaxPool2d(2, 2), conv(6, 8, 3, padding=1), nn.ReLU(i), nn.MaxPool2d(2, 2)),
        *(conv(8, 8, 3, padding=1), nn.ReLU(i)),
    ),
    "overlapping": lambda i: nn.Sequential(
        *(conv(3, 6, 5), nn.ReLU(i), nn.MaxPool2d(3, 2)),
        *(conv(6, 8, 3, padding=1, groups=2), nn.ReLU(i), nn.MaxPool2d(3, 2, 1)),
        *(conv(8, 8, 3, padding=1), nn.ReLU(i), nn.MaxPool2d(3, 2, ceil_mode=True)),
    ),
    "bn": lambda i: nn.Sequential(
        *(conv(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(i), nn.MaxPool2d(2)),
        *(nn.Dropout2d(0.5), conv(6, 8, 3), nn.BatchNorm2d(8, affine=False), nn.ReLU(i)),
    ),
    "resnet": lambda i: nn.Sequential(
        *(conv(3, 6, 7, stride=2, padding=3), nn.BatchNorm2d(6), nn.ReLU(i)),
        *(nn.MaxPool2d(3, 2, 1), Residual(6, i), Residual(6, i)),
    ),
    "squeezenet": lambda i: nn.Sequential(
        *(conv(3, 8, 3, stride=2), nn.ReLU(i), nn.MaxPool2d(3, 2, ceil_mode=True)),
        *(Fire(8, 4, i), Fire(8, 4, i)),
    ),
    "densenet": lambda i: nn.Sequential(
        *(conv(3, 4, 3, padding=1), Dense(4, 3, i), Dense(7, 3, i)),
        *(nn.BatchNorm2d(10), nn.ReLU(i), conv(10, 6, 1), nn.AvgPool2d(2), nn.ReLU(i)),
    ),
    "mobilenet": lambda i: nn.Sequential(
        *(conv(3, 4, 3, stride=2), nn.ReLU6(i), Separable(4, i), Separable(4, i), nn.ReLU6(i))
    ),
}


def fill(net, seed=0):
    """Fill with random weights and statistics, and biases that keep most units active."""
    generator = torch.Generator().manual_seed(seed)
    for layer in net.modules():
        for name, tensor in [*layer.named_parameters(recurse=False)]:
            scale = tensor[0].numel() ** -0.5 if name == "weight" and tensor.dim() > 1 else 0.3
            noise = torch.randn(tensor.shape, generator=generator) * scale
            tensor.data = noise + (1 if name == "weight" and tensor.dim() == 1 else 0.05)
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.copy_(torch.randn(layer.num_features, generator=generator) / 4)
            layer.running_var.copy_(torch.rand(layer.num_features, generator=generator) + 0.5)
    return net.eval()


@pytest.fixture
def build():
    """Build one of `NETS` by name."""
    return lambda name, inplace=False: fill(NETS[name](inplace))


@pytest.fixture(scope="session")
def filled_net():
    """Fill any network with weights."""
    return fill


@pytest.fixture
def images():
    """Two images of 31 x 33."""
    return torch.randn(2, 3, 31, 33, generator=torch.Generator().manual_seed(7))


@pytest.fixture(params=NETS)
def style(request):
    """The name of each of `NETS`."""
    return request.param


@pytest.fixture
def write_images(tmp_path):
    """Write some images of 48 x 40 pixels into a folder, the same ones each time."""

    def write(count, folder="."):
        paths = [tmp_path / folder / f"{i}.png" for i in range(count)]
        paths[0].parent.mkdir(exist_ok=True)
        for i, path in enumerate(paths):
            coarse = np.random.default_rng(i).integers(0, 256, (5, 6, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((48, 40)).save(path)
        return paths

    return write
