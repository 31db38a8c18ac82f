"""Mining against all activations, kept and sorted."""

import numpy as np
import pytest
import torch
from torch import nn

from unpool.errors import OptionError, ShapeError
from unpool.visualize import (
    ActivationRecorder,
    chain_fields,
    list_layers,
    measure_field,
    top_activations,
)


def sorted_all(net, batches, layer, count):
    """Every activation of every image, sorted in plain Python; of equal ones the first."""
    maps = [
        one
        for batch in batches
        for one in ActivationRecorder(net, [layer])(batch)[layer].detach().numpy()
    ]
    values, images, places = [], [], []
    for unit in range(len(maps[0])):
        peaks = []
        for number, one in enumerate(maps):
            flat = [float(v) for v in np.ravel(one[unit])]
            first = flat.index(max(flat))
            place = divmod(first, one.shape[-1]) if one.ndim == 3 else None
            peaks.append((-max(flat), number, place))
        best = sorted(peaks)[:count]
        values.append([-v for v, _, _ in best])
        images.append([n for _, n, _ in best])
        places.append([list(p) if p else None for _, _, p in best])
    return values, images, places


def same(found, wanted):
    values, images, places = wanted
    assert found.values.tolist() == values
    assert found.images.tolist() == images
    if found.places is not None:
        assert found.places.tolist() == places
    return True


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(n, 3, 31, 33, generator=generator) for n in (4, 1, 7, 3)]


def test_mining_is_sorting_everything(build, batches, style):
    net = build(style)
    layers = [la.name for la in list_layers(net, batches[0]) if len(la.shape) == 3]
    seen = []
    found = top_activations(net, iter(batches), layers[::2], 5, progress=seen.append)
    assert set(found) == set(layers[::2])
    assert seen == [4, 5, 12, 15]
    for layer, top in found.items():
        assert same(top, sorted_all(net, batches, layer, 5))
    assert list(found) == [layer for layer in layers if layer in found]


def test_of_equal_activations_the_first_image_wins():
    """Small whole numbers: most activations are equal to others."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2))
    net[0].weight.data = torch.randint(-1, 2, net[0].weight.shape, generator=generator).float()
    net[0].bias.data.fill_(-2)
    batches = [torch.randint(0, 2, (n, 3, 5, 6), generator=generator).float() for n in (3, 9, 1, 8)]
    found = top_activations(net, batches, ["0", "1", "2"], 6)
    for layer, top in found.items():
        values, *_ = wanted = sorted_all(net, batches, layer, 6)
        assert any(len(set(row)) < len(row) for row in values)
        assert same(top, wanted)


def test_how_images_are_batched_does_not_matter():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False))
    net[0].weight.data = torch.arange(108.0).view(4, 3, 3, 3) - 50
    images = torch.randint(0, 4, (20, 3, 6, 6), generator=torch.Generator().manual_seed(1)).float()
    whole = top_activations(net, [images], ["0"], 4)["0"]
    for size in (1, 3, 7):
        parts = top_activations(net, images.split(size), ["0"], 4)["0"]
        assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_images_of_several_sizes_and_data_loaders(build):
    net = build("vgg")
    batches = [torch.randn(2, 3, s, s + 3) for s in (16, 20, 12)]
    found = top_activations(net, [(images, torch.zeros(2)) for images in batches], ["8"], 4)["8"]
    assert same(found, sorted_all(net, batches, "8", 4))


def test_layers_without_maps_and_fewer_images_than_wanted():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 5)).eval()
    images = torch.randn(3, 3, 6, 6)
    found = top_activations(net, [images], ["2"])["2"]
    assert found.places is None
    assert same(found, sorted_all(net, [images], "2", 9))
    assert found.values.shape == (5, 3)


def test_the_model_runs_no_further_than_the_deepest_layer_and_stays_as_it_is(build, batches):
    class Never(nn.Module):
        def forward(self, x):
            raise AssertionError("ran on")

    net = nn.Sequential(*build("bn"), Never()).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    assert list(top_activations(net, batches, ["3", "1"])) == ["1", "3"]
    assert net.training
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("name", ["vgg", "overlapping"])
def test_a_winner_is_all_that_its_unit_sees(build, batches, name):
    """What lies outside the receptive field does not matter, whatever it is."""
    net = build(name)
    layer = str(len(net) - 1)
    field = measure_field(net, batches[0], layer)
    assert field == chain_fields(net)[layer]
    top = top_activations(net, batches, [layer], 3)[layer]
    images = torch.cat(batches)
    for unit in range(0, len(top.values), 3):
        for value, number, place in zip(*(part[unit] for part in top), strict=True):
            x0, y0, x1, y1 = field.box(*place.tolist())
            y, x = torch.meshgrid(torch.arange(31), torch.arange(33), indexing="ij")
            inside = (y >= y0) & (y < y1) & (x >= x0) & (x < x1)
            changed = torch.where(inside, images[number], 9 * torch.randn(3, 31, 33))
            maps = ActivationRecorder(net, [layer])(changed[None])[layer]
            assert torch.isclose(maps[0, unit, place[0], place[1]], value, rtol=1e-5)


def test_dead_units_are_counted():
    net = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU())
    net[0].weight.data.fill_(1)
    net[0].bias.data = torch.tensor([0.0, -99, 0, -99, -99, 1])
    assert top_activations(net, [torch.rand(4, 3, 3, 3)], ["1"])["1"].dead == 3


class Tokens(nn.Module):
    def forward(self, x):
        return x.flatten(2)


def test_errors():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), Tokens())
    images = torch.rand(2, 3, 8, 8)
    with pytest.raises(OptionError, match=r"count=0; wanted 1"):
        top_activations(net, [images], ["0"], 0)
    with pytest.raises(OptionError, match="got no images"):
        top_activations(net, [], ["0"])
    with pytest.raises(OptionError, match=r"layer '1' gives \(2, 4, 36\); wanted \(N, C, h, w\)"):
        top_activations(net, [images], ["1"])
    with pytest.raises(OptionError, match=r"'00', which the model does not have; did you mean '0'"):
        top_activations(net, [images], ["00"])
    with pytest.raises(OptionError, match="layer '0' gives values that are not finite"):
        top_activations(net, [images * torch.nan], ["0"])
    with pytest.raises(ShapeError, match="cannot be run on"):
        top_activations(net, [images[:, :2]], ["0"])
    flat = nn.Sequential(nn.Flatten())
    with pytest.raises(ShapeError, match="gives 27 maps, and gave 192 before; pass images of"):
        top_activations(flat, [images, images[:, :, :3, :3]], ["0"])


def test_how_maps_are_laid_out_does_not_matter(build):
    net, generator = build("overlapping"), torch.Generator().manual_seed(6)
    images = torch.randint(-1, 2, (12, 3, 31, 33), generator=generator).float()
    layers = [str(i) for i in range(len(net))]
    plain = top_activations(net, images.split(4), layers, 3)
    last = images.contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(a, b) for a, b in zip(images, last, strict=True))
    for layer, top in top_activations(net, last.split(4), layers, 3).items():
        wanted = sorted_all(net, last.split(4), layer, 3)
        assert same(top, wanted)
        assert torch.allclose(top.values, plain[layer].values, rtol=1e-5)
