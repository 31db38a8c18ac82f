"""Transformations against SciPy and a pixel-by-pixel transcription of the published layer."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from unpool.errors import OptionError, ShapeError
from unpool.generate.transformations import (
    LENGTH,
    Ranges,
    Transformation,
    random_transformations,
    spread_at,
    transform_images,
)

signed = st.floats(-0.5, 0.5)
factor = st.floats(0.5, 2)
TRANSFORMATIONS = st.builds(Transformation, signed, signed, signed, *[factor] * 5, st.floats(-3, 3))


def images(count=1, side=24, seed=0):
    """Smooth RGB times mask, and mask, (N, 4, S, S)."""
    rng = np.random.default_rng(seed)
    x = ndimage.gaussian_filter(rng.random((count, 4, side, side)), (0, 0, 2, 2))
    x = (x - x.min()) / (x.max() - x.min())
    x[:, :3] *= x[:, 3:]
    return torch.from_numpy(x).float()


def moved(image, t):
    """An image (C, S, S) in space: rotated about the center, moved, divided; by SciPy."""
    side = image.shape[-1]
    center = (side - 1) / 2
    y, x = np.mgrid[:side, :side] - center
    x, y = (
        math.cos(t.angle) * x - math.sin(t.angle) * y,
        math.sin(t.angle) * x + math.cos(t.angle) * y,
    )
    x, y = (x + t.dx * side) / t.zoom_x, (y + t.dy * side) / t.zoom_y
    places = [y + center, x + center]
    return np.stack(
        [ndimage.map_coordinates(c, places, order=1, mode="grid-constant") for c in image]
    )


def recolored(rgb, t):
    """One color as the published layer changes it, before clipping."""
    basis = np.array([[0.51, 0.56, 0.65], [0.79, 0.01, -0.62], [0.35, -0.83, 0.44]])
    cube = np.array(list(itertools.product([0, 1], repeat=3)))
    largest = np.abs(cube @ basis.T).max(0)
    eigen = basis @ rgb / largest
    cos, sin = math.cos(t.hue), math.sin(t.hue)
    eigen[1], eigen[2] = cos * eigen[1] - sin * eigen[2], sin * eigen[1] + cos * eigen[2]
    eigen *= largest
    before = np.linalg.norm(eigen)
    eigen *= [1, t.saturation_1, t.saturation_2]
    after = np.linalg.norm(eigen)
    if after > 1e-6:
        eigen *= before / after * t.brightness
    return np.linalg.solve(basis, eigen)


def test_the_identity_is_the_zero_vector():
    vector = Transformation().encode()
    assert vector.shape == (28,)
    assert not vector.any()
    assert Transformation.decode(torch.zeros(28)) == Transformation()
    x = images(2)
    assert torch.allclose(transform_images(x, torch.zeros(2, 28)), x, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(TRANSFORMATIONS)
def test_round_trip(t):
    vector = t.encode()
    assert np.allclose(Transformation.decode(vector), t, atol=1e-6)
    assert torch.allclose(Transformation.decode(vector).encode(), vector, atol=1e-6)


def test_indices_of_the_published_fields():
    """Fields 2 to 6, 23, 24, 27, 28, from 1; logarithms where the identity is 1."""
    t = Transformation(0.1, 0.2, 0.3, 1.4, 1.5, 1.6, 1.7, 1.8, 0.9)
    wanted = dict(zip([2, 3, 4, 28], [0.1, 0.2, 0.3, 0.9], strict=True))
    logs = dict(zip([5, 6, 23, 24, 27], [1.4, 1.5, 1.6, 1.7, 1.8], strict=True))
    wanted |= {field: math.log(v) for field, v in logs.items()}
    found = t.encode()
    for field in range(1, 29):
        assert float(found[field - 1]) == pytest.approx(wanted.get(field, 0.0)), field


def test_factors_must_be_positive():
    with pytest.raises(OptionError, match=r"got zoom_x=0 in a transformation; wanted more than 0"):
        Transformation(zoom_x=0).encode()


@settings(max_examples=40, deadline=None)
@given(signed, signed, signed, factor, factor)
def test_space_against_scipy(dx, dy, angle, zoom_x, zoom_y):
    t = Transformation(dx, dy, angle, zoom_x, zoom_y)
    x = images()
    found = transform_images(x, t.encode()[None])[0].numpy()
    assert np.abs(found - moved(x[0].numpy(), t)).max() < 2e-4


@settings(max_examples=40, deadline=None)
@given(factor, factor, factor, st.floats(-3, 3))
def test_color_against_a_transcription(first, second, brightness, hue):
    t = Transformation(saturation_1=first, saturation_2=second, brightness=brightness, hue=hue)
    x = images(side=6)
    found = transform_images(x, t.encode()[None])[0].numpy()
    for i, j in itertools.product(range(6), repeat=2):
        rgb, mask = x[0, :3, i, j].numpy().astype(float), float(x[0, 3, i, j])
        assert np.allclose(found[:3, i, j], recolored(rgb, t).clip(0, mask), atol=2e-4)
        assert found[3, i, j] == pytest.approx(mask, abs=1e-6)


def test_brightness_scales_colors():
    x = images()
    found = transform_images(x, Transformation(brightness=0.5).encode()[None])
    assert torch.allclose(found[:, :3], x[:, :3] / 2, atol=1e-5)
    assert torch.allclose(found[:, 3], x[:, 3], atol=1e-6)


def test_a_full_hue_rotation_is_the_identity_and_no_saturation_is_gray():
    x = images()
    around = transform_images(x, Transformation(hue=2 * math.pi).encode()[None])
    assert torch.allclose(around, x, atol=1e-5)
    dull = transform_images(x, Transformation(saturation_1=1e-6, saturation_2=1e-6).encode()[None])
    colors = dull[0, :3].flatten(1).T
    kept = colors[colors.sum(1) > 0.1]
    assert float((kept / kept.norm(dim=1, keepdim=True)).std(0).max()) < 1e-3  # all of one color


def test_directions():
    """As `Transformation` documents: left, up, counterclockwise, larger."""
    x = torch.zeros(1, 4, 32, 32)
    x[:, :, 14:18, 24:28] = 1  # right of the center

    def center(**change):
        mask = transform_images(x, Transformation(**change).encode()[None])[0, 3]
        places = torch.nonzero(mask > 0.5).float().mean(0) - 15.5
        return [round(v) for v in places.tolist()]  # down, right

    assert center() == [0, 10]
    assert center(dx=0.25) == [0, 2]
    assert center(dy=0.25) == [-8, 10]
    assert center(angle=math.pi / 2) == [-10, 0]
    assert center(zoom_x=0.5, zoom_y=0.5) == [0, 5]


def test_ranges_of_random_transformations():
    x = random_transformations(4000, 1.0, inside=False, generator=torch.Generator().manual_seed(0))
    assert x.shape == (4000, LENGTH)
    live = [1, 2, 3, 4, 5, 22, 23, 26, 27]
    assert set(torch.nonzero(x.any(0)).flatten().tolist()) == set(live)
    reach = x.abs().amax(0)
    wanted = [0.1, 0.1, 0.2, 0.4, 0.4, 0.7, 0.7, 0.7, 1.5]
    for place, most in zip(live, wanted, strict=True):
        assert 0.94 * most < float(reach[place]) <= most
        assert abs(float(x[:, place].mean())) < 0.05 * most
    assert torch.equal(x[:, 22], x[:, 23])
    assert float(((x[:, 4] + x[:, 5]) / 2).abs().max()) <= 0.3 + 1e-6
    assert float(((x[:, 4] - x[:, 5]) / 2).abs().max()) <= 0.1 + 1e-6


def test_spread_scales_the_ranges():
    for spread in (0.0, 0.25):
        x = random_transformations(500, spread, inside=False)
        assert float(x[:, 27].abs().max()) <= 1.5 * spread


def test_corners_stay_inside():
    """All of the output shows the inside of the input."""
    rng = torch.Generator().manual_seed(0)
    x = random_transformations(300, 1.0, Ranges(zoom_mean=0.1), generator=rng)
    changed = x[:, 1:6].any(1)
    assert 0.5 < float(changed.float().mean()) <= 1
    full = torch.ones(len(x), 4, 40, 40)
    for vector, image in zip(x, transform_images(full, x), strict=True):
        assert float(image[3].min()) > 0.49, vector  # half of a border pixel is outside
    assert x[~changed][:, 22:].abs().sum() > 0 or bool(changed.all())


def test_only_colors_change_if_no_sample_fits():
    x = random_transformations(50, 1.0, Ranges(zoom=0.0, zoom_mean=-1.0, squeeze=0.0))
    assert not x[:, 1:6].any()
    assert x[:, 26].all()


def test_spread():
    assert spread_at(0, 0.0, 1.0, 1e-5) == 0
    assert spread_at(0, 0.2, 1.0, 1e-5) == pytest.approx(0.2)
    assert spread_at(10**7, 0.1, 1.0, 1e-5) == pytest.approx(1)
    assert spread_at(100_000, 0.0, 1.0, 1e-5) == pytest.approx(2 / (1 + math.exp(-1)) - 1)


def test_no_color_outside_the_mask():
    x = images(8)
    found = transform_images(x, random_transformations(8, 1.0))
    assert float(found.min()) >= 0
    assert bool((found[:, :3] <= found[:, 3:]).all())


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (4, 8, 8)])
def test_other_shapes(shape):
    with pytest.raises(ShapeError, match=r"wanted \(N, 4, S, S\) and \(N, 28\)"):
        transform_images(torch.zeros(shape), torch.zeros(1, 28))
