"""The explicit deconvnet equals `project`, and the steps of the paper written out."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unpool.errors import OptionError
from unpool.visualize import attach_deconvnet, project


def alexnet_like():
    """Overlapping windows, groups, strides that skip pixels, response normalization."""
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 5, stride=3), nn.ReLU(inplace=True), nn.LocalResponseNorm(3, alpha=0.5)),
        *(nn.MaxPool2d(3, 2), nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.ReLU(inplace=True)),
        *(nn.Dropout(), nn.MaxPool2d(3, 2, ceil_mode=True)),
        nn.Sequential(nn.Conv2d(8, 6, (1, 3), padding=(0, 2), dilation=2), nn.ReLU()),
    )


CHAINS = ["vgg", "overlapping", "bn", "alexnet"]


@pytest.fixture
def chain(build, filled_net):
    return lambda name: filled_net(alexnet_like()) if name == "alexnet" else build(name)


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("overlap", ["sum", "overwrite"])
def test_explicit_equals_project(name, overlap, chain):
    images = torch.randn(3, 3, 49, 50, generator=torch.Generator().manual_seed(2))
    trunk = chain(name)
    deconvnet = attach_deconvnet(trunk.train(), overlap)
    maps, kept = deconvnet.up(images)
    assert torch.equal(maps, trunk.eval()(images))
    units = [0, 3, 5]
    last = [n for n, m in trunk.named_modules() if n and not isinstance(m, nn.Sequential)][-1]
    found = project(trunk, images, last, units, overlap=overlap)
    signal = torch.zeros_like(maps)
    for i, (unit, (row, column)) in enumerate(zip(units, found.places.tolist(), strict=True)):
        signal[i, unit, row, column] = maps[i, unit, row, column]
    down = deconvnet(signal, kept)
    assert found.signal.abs().max() > 0
    assert (down - found.signal).abs().max() <= 1e-6 * found.signal.abs().max()


def test_against_the_paper_step_by_step(images, filled_net):
    """Unpool, rectify, and convolve with the flipped filters."""
    trunk = filled_net(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)))
    maps, index = F.max_pool2d(trunk[:2](images), 2, return_indices=True)
    signal = torch.zeros_like(maps)
    signal[:, 2, 5, 6] = maps[:, 2, 5, 6]
    unpooled = F.max_unpool2d(signal, index, 2, output_size=images.shape[-2:])
    flipped = trunk[0].weight.transpose(0, 1).flip(2, 3)
    expected = F.conv2d(F.relu(unpooled), flipped, padding=1).detach()
    deconvnet = attach_deconvnet(trunk)
    assert torch.allclose(deconvnet(signal, deconvnet.up(images)[1]), expected, atol=1e-6)
    assert torch.allclose(project(trunk, images, "2", 2, place=(5, 6)).signal, expected, atol=1e-6)


def test_a_layer_used_twice(images):
    relu = nn.ReLU()
    trunk = nn.Sequential(nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 4, 3), relu)
    assert len(attach_deconvnet(trunk).layers) == 4
    assert attach_deconvnet(trunk).up(images)[0].shape == trunk(images).shape


@pytest.mark.parametrize(
    "layer",
    [
        nn.SiLU(),
        nn.Linear(3, 3),
        nn.Conv2d(3, 3, 3, padding="same"),
        nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"),
        nn.MaxPool2d((2, 3)),
        nn.MaxPool2d(2, dilation=2),
        nn.BatchNorm2d(3, track_running_stats=False),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_without_a_mirror_image(layer):
    with pytest.raises(OptionError, match=rf"got {type(layer).__name__}\(.*use project\(\)"):
        attach_deconvnet(nn.Sequential(nn.ReLU(), layer))
