"""Filters: strength and frequencies by NumPy, and maps that never respond."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from unpool.errors import ImageError, OptionError, WeightsError
from unpool.visualize.filters import cover, filters_of, inspect_filters
from unpool.visualize.preprocessing import LoadedModel, Preprocessing

SIDE = 32


def grating(degrees, cycles, side=32):
    """Stripes that run in a direction, counterclockwise from level, with so many cycles a pixel."""
    down, across = np.mgrid[:side, :side] - (side - 1) / 2
    turned = np.deg2rad(degrees)
    wave = np.sin(2 * np.pi * cycles * (across * np.sin(turned) + down * np.cos(turned)))
    smooth = wave * np.exp(-(down**2 + across**2) / (2 * 5**2))
    return torch.from_numpy(np.tile(smooth, (1, 3, 1, 1)))


@pytest.fixture
def loaded(build):
    return LoadedModel(build("bn"), "small", Preprocessing(SIDE, SIDE))


@pytest.fixture
def files(write_images):
    return write_images(3)


def test_spectrum_against_the_sum():
    """The energy at each frequency from the definition of the transform."""
    filters = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    found = cover(filters)
    place = np.arange(5)
    frequency = np.arange(-32, 32) / 64
    waves = np.exp(-2j * np.pi * np.outer(frequency, place))
    energy = np.abs(np.einsum("ua,ocab,vb->ocuv", waves, filters.numpy(), waves)) ** 2
    energy = energy.sum(1)
    wanted = (energy / energy.sum((1, 2), keepdims=True)).mean(0)
    assert np.allclose(found.spectrum, wanted, atol=1e-9)
    radius = np.hypot(*np.meshgrid(frequency, frequency, indexing="ij"))
    assert found.low == pytest.approx(wanted[radius < 1 / 6].sum(), abs=1e-6)
    assert found.low + found.mid + found.high == pytest.approx(1)
    assert sum(found.orientations) == pytest.approx(1)


@pytest.mark.parametrize("degrees", range(0, 180, 15))
def test_stripes_are_found_by_direction(degrees):
    found = cover(grating(degrees, 0.25))
    assert int(np.argmax(found.orientations)) == degrees // 15
    assert found.mid > 0.99


@pytest.mark.parametrize(("cycles", "band"), [(0.08, "low"), (0.25, "mid"), (0.42, "high")])
def test_stripes_are_found_by_frequency(cycles, band):
    found = cover(grating(0, cycles))
    assert getattr(found, band) > 0.95
    assert found.aliased == 0
    assert (cover(grating(0, cycles), stride=2).aliased > 0.5) == (cycles >= 0.25)
    assert cover(grating(0, cycles), stride=4).aliased == pytest.approx(
        float(cycles > 0.125), abs=0.1
    )


def test_strength_and_death():
    net = nn.Sequential(nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.sign(torch.randn(8, 3, 5, 5)))
        net[0].weight[2] *= 12
        net[0].weight[[3, 6]] *= 0.05
        net[0].weight[7] = 0
    loaded = LoadedModel(net, "made", Preprocessing(SIDE, SIDE))
    report = inspect_filters(loaded)
    first, second = report.rows
    weights = net[0].weight.detach().numpy().reshape(8, -1)
    rms = np.sqrt((weights**2).mean(1))
    assert (first.median, first.largest) == pytest.approx((np.median(rms), 12))
    assert first.dominance == pytest.approx(12 / np.median(rms))
    assert first.dead == [3, 6, 7]
    assert (second.layer, second.filters, second.kernel, second.silent) == ("2", 4, (1, 1), None)
    assert inspect_filters(loaded, dead_below=0.04).rows[0].dead == [7]
    assert report.coverage.aliased > 0
    assert inspect_filters(loaded, "2").layer == "2"
    assert report.figure().shape[2] == 3


def test_maps_that_never_respond(loaded, files):
    """After batch norm and ReLU, which follow the convolution; not of the convolution itself."""
    net = loaded.model
    with torch.no_grad():
        net[1].bias[2] = -1e4
        net[6].running_mean[5] = 1e4
    report = inspect_filters(loaded, images=files, batch=2)
    assert [2 in report.rows[0].silent, 5 in report.rows[1].silent] == [True, True]
    crops = [loaded.preprocessing.crop(np.asarray(Image.open(path))) for path in files]
    with torch.no_grad():
        for row, end in zip(report.rows, (3, 8), strict=True):
            most = net[:end](loaded.prepare(crops)).amax((0, 2, 3))
            assert row.silent == (most <= 0).nonzero().flatten().tolist()


@pytest.mark.parametrize("groups", [1, 2])
def test_filters_of_a_deconvolution(groups):
    """Each is what one map gets of the maps below it: the response to single values."""
    layer = nn.ConvTranspose2d(4, 6, 3, groups=groups, bias=False)
    found = filters_of(layer)
    assert found.shape == (6, 4 // groups, 3, 3)
    for map_ in range(4):
        one = torch.zeros(1, 4, 1, 1)
        one[0, map_] = 1
        response = layer(one)[0]
        group, place = divmod(map_, 4 // groups)
        for out in range(6):
            own = found[out, place] if out // (6 // groups) == group else torch.zeros(3, 3)
            assert torch.equal(response[out], own)


def test_save(loaded, files, tmp_path):
    files[1].write_bytes(b"")
    seen = []
    report = inspect_filters(
        loaded, "0", files, batch=1, progress=lambda *now: seen.append(now[:2])
    )
    assert seen == [(1, 2), (2, 2)]
    image, text = report.save(tmp_path / "out")
    record = json.loads(text.read_text())
    assert list(record["failed"]) == [str(files[1])]
    assert [layer["layer"] for layer in record["layers"]] == ["0", "5"]
    assert "spectrum" not in record["coverage"]
    assert np.asarray(Image.open(image)).ndim == 3


def test_errors(loaded, files):
    for layer in ("1", "55"):
        with pytest.raises(OptionError, match=r"no two-dimensional convolution of the model; "):
            inspect_filters(loaded, layer)
    plain = LoadedModel(
        nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 4)), "none", Preprocessing(SIDE)
    )
    with pytest.raises(OptionError, match="got none, which has no two-dimensional convolutions"):
        inspect_filters(plain)
    files[0].write_bytes(b"")
    with pytest.raises(ImageError, match="none of 1"):
        inspect_filters(loaded, images=files[:1])
    with torch.no_grad():
        loaded.model[0].weight.zero_()
    with pytest.raises(OptionError, match="filters are all zero"):
        inspect_filters(loaded)


def test_weights_that_are_not_finite_are_refused(loaded):
    """One of them would make every filter of its layer dead."""
    with torch.no_grad():
        loaded.model[5].weight[1, 2, 0, 0] = float("nan")
    with pytest.raises(WeightsError, match="layer '5' has filters that are not finite"):
        inspect_filters(loaded)


def test_a_compiled_model_is_as_it_was(loaded):
    compiled = LoadedModel(
        torch.compile(loaded.model, backend="eager"), "compiled", loaded.preprocessing
    )
    found, wanted = inspect_filters(compiled), inspect_filters(loaded)
    assert found.rows == wanted.rows
    assert found.layer == "0"
