"""The sparse coder: exact decoding, planted filters, parts, contrast."""

import numpy as np
import pytest
import torch

from unpool.errors import OptionError, ShapeError
from unpool.models import SparseCoder
from unpool.models.coder import (
    Code,
    coherence,
    initialize,
    learn_filters,
    normalize_contrast,
    strongest,
)
from unpool.ops.coding import chain, coding_cost, pool3, synthesis, unpooling


def coder(maps=(5, 6), seed=0, **more):
    torch.manual_seed(seed)
    more = {"kernel": 5, "lam": (0.3,) * len(maps), "steps": 12, **more}
    return SparseCoder(maps, **more).double()


def images(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@torch.no_grad()
def test_sizes_of_the_paper():
    """Sides of 156, 58, 26 and 15 for 150 x 150 images, and the number of filter parameters."""
    code = SparseCoder((2,) * 4, steps=1).encode(torch.randn(1, 1, 150, 150))
    sides = [switches.size[1] for switches in code.switches]
    assert [*sides, code.maps.shape[2]] == [156, 58, 26, 15]
    with torch.device("meta"):
        net = SparseCoder()
    counts = [net.filters(layer).numel() for layer in range(1, 5)]
    assert counts == [16 * 49, 50 * 8 * 49, 122_500, 367_500]


@pytest.mark.parametrize("layers", [1, 2, 3])
@torch.no_grad()
def test_decoding_follows_the_switches(layers):
    net = coder((5, 6, 4)[:layers])
    y = images(2, 1, 31, 26)
    code = net.encode(y)
    parts = [
        part
        for layer, switches in enumerate(code.switches, start=1)
        for part in (synthesis(net.filters(layer)), unpooling(switches))
    ]
    expected = chain(*parts, synthesis(net.filters(layers))).forward(code.maps)
    torch.testing.assert_close(net.decode(code), expected)
    torch.testing.assert_close(net(y), expected)
    assert 0 < float((code.maps != 0).double().mean()) < 0.9


@torch.no_grad()
def test_switches_are_those_of_the_codes_below():
    net, y = coder(), images(2, 1, 31, 26)
    below = net.encode(y, 1)
    _, switches = pool3(below.maps, 3, 2)
    assert torch.equal(net.encode(y).switches[0].index, switches.index)


@torch.no_grad()
def test_pooling_in_every_step_leaves_one_value_a_cell():
    net, y = coder(switches="every"), images(2, 1, 31, 26)
    for layer in (1, 2):
        maps = net.encode(y, layer).maps
        pooled, switches = pool3(maps, 3, 2)
        assert maps.any()
        assert torch.equal(unpooling(switches).forward(pooled), maps)


@torch.no_grad()
def test_more_steps_lower_the_cost_and_lam_sparsens():
    net, y = coder(), images(1, 1, 31, 26)
    codes = [net.encode(y, 1, steps=steps) for steps in (1, 5, 40)]
    costs = [float(coding_cost(y, net.operator(()), code.maps, 0.3)) for code in codes]
    assert costs == sorted(costs, reverse=True)
    counts = [int((net.encode(y, lam=lam).maps != 0).sum()) for lam in (0.1, 1.0, 1e9)]
    assert counts == sorted(counts, reverse=True)
    assert counts[2] == 0


@torch.no_grad()
def test_scale():
    net, y = coder(), images(2, 1, 20, 21)
    larger = net.encode(3 * y, lam=0.9)
    net.lam[0] *= 1 / 3  # that of the layer below stays with the image
    smaller = net.encode(y, lam=0.3)
    torch.testing.assert_close(larger.maps, 3 * smaller.maps)


@pytest.mark.parametrize("layer", [1, 2, 3])
@torch.no_grad()
def test_parts_are_what_an_activation_adds(layer):
    """Cut out of the decoded whole, inside, at the border and beyond it."""
    net, y = coder((5, 6, 4)), images(2, 1, 31, 26)
    code = net.encode(y, layer)
    used = code.maps.abs().sum((0, 1)).nonzero()
    for row, column in (used[0].tolist(), used[len(used) // 2].tolist(), used[-1].tolist()):
        n, unit = (int(v) for v in code.maps[:, :, row, column].nonzero()[0])
        alone = torch.zeros_like(code.maps)
        alone[n, unit, row, column] = code.maps[n, unit, row, column]
        expected = net.decode(code._replace(maps=alone))[n]
        part, (x0, y0, x1, y1) = net.part(code, (n, unit, row, column))
        assert part.shape == (1, y1 - y0, x1 - x0)
        canvas = torch.zeros(1, 31 + 200, 26 + 200, dtype=torch.float64)
        canvas[:, y0 + 100 : y1 + 100, x0 + 100 : x1 + 100] = part
        torch.testing.assert_close(canvas[:, 100:131, 100:126], expected)
    assert part.shape[1] == {1: 5, 2: 5 * 3 + 4, 3: 19 * 3 + 4}[layer]


@torch.no_grad()
def test_project_shows_the_strongest_activation():
    net, y = coder(), images(2, 1, 20, 21)
    code = net.encode(y)
    unit = int(code.maps.abs().sum((0, 2, 3)).argmax())
    found = net.project(code, unit)
    for n in range(2):
        place = int(code.maps[n, unit].abs().argmax())
        row, column = divmod(place, code.maps.shape[-1])
        part, _ = net.part(code, (n, unit, row, column))
        assert float(found[n].square().sum()) <= float(part.square().sum()) + 1e-9
        assert found[n].any()
    with pytest.raises(OptionError, match="got unit 6; wanted 0 to 5"):
        net.project(code, 6)


def test_the_strongest_are_kept():
    code = Code(images(2, 3, 5, 4), ())
    kept = strongest(code, 7).maps
    for one, whole in zip(kept, code.maps, strict=True):
        assert int((one != 0).sum()) == 7
        assert float(one.abs()[one != 0].min()) >= float(whole[one == 0].abs().max())
        assert torch.equal(one[one != 0], whole[one != 0])
    assert torch.equal(strongest(code, 1000).maps, code.maps)


# ---- learning ------------------------------------------------------------------------------------


def test_planted_filters_are_found():
    """Sparse codes times four known filters; found up to sign and shift for three of them."""
    rng = np.random.default_rng(0)
    planted = torch.from_numpy(rng.standard_normal((4, 1, 5, 5))).float()
    planted /= planted.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    z = rng.standard_normal((6, 4, 36, 36)) * (rng.random((6, 4, 36, 36)) < 0.005)
    data = synthesis(planted).forward(torch.from_numpy(z).float())
    torch.manual_seed(0)
    net = SparseCoder((4,), 9, lam=(0.3,))  # larger filters, so that no shift cuts one
    for _ in range(30):
        with torch.no_grad():
            code = net.encode(data, steps=15)
        learn_filters(net, data, code, 1)
    padded = torch.nn.functional.pad(planted, (2, 2, 2, 2))
    found = torch.nn.functional.conv2d(padded, net.filters(1).detach(), padding=8)
    assert int((found.abs().amax((1, 2, 3)) > 0.95).sum()) >= 3


@pytest.mark.parametrize("layer", [1, 2])
@torch.no_grad()
def test_learning_lowers_the_error_and_keeps_norms(layer):
    net, y = coder(), images(3, 1, 31, 26)
    code = net.encode(y, layer)
    other = net.filters(3 - layer).detach().clone()
    before = (net.decode(code) - y).square().sum()
    fitted = learn_filters(net, y, code, 3)
    after = (net.decode(fitted) - y).square().sum()
    assert float(after) < float(before)
    norms = net.filters(layer).flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    assert torch.equal(net.filters(3 - layer), other)


@pytest.mark.parametrize("layer", [1, 2])
@torch.no_grad()
def test_unused_filters_become_what_is_rebuilt_worst(layer):
    net, y = coder(), images(3, 1, 31, 26)
    code = net.encode(y, layer)
    code.maps[:, 2:4] = 0
    before = net.filters(layer).clone()
    fitted = learn_filters(net, y, code, 0)
    rest = net.below(code.switches).adjoint(y - net.decode(fitted))
    patches = torch.nn.functional.unfold(rest, 5).norm(dim=1)
    best = torch.nn.functional.unfold(rest, 5).transpose(1, 2)[patches == patches.max()]
    torch.testing.assert_close(net.filters(layer)[2].flatten(), best[0] / best[0].norm())
    assert not torch.equal(net.filters(layer)[3], before[3])
    assert not torch.allclose(net.filters(layer)[3], net.filters(layer)[2])
    torch.testing.assert_close(net.filters(layer)[:2], before[:2])


def test_nothing_to_learn_from_changes_nothing():
    net = coder()
    before = net.filters(1).detach().clone()
    y = torch.zeros(1, 1, 20, 20, dtype=torch.float64)
    with torch.no_grad():
        learn_filters(net, y, net.encode(y, 1), 3)
    torch.testing.assert_close(net.filters(1).detach(), before)


def test_initialization_has_unit_norms():
    net = coder()
    before = net.filters(2).detach().clone()
    initialize(net, 2)
    assert not torch.equal(net.filters(2), before)
    norms = net.filters(2).flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


# ---- measures and input --------------------------------------------------------------------------


def test_coherence_of_edges_spots_and_noise():
    y, x = torch.meshgrid(*[torch.arange(-3.0, 4)] * 2, indexing="ij")
    spot = torch.exp(-(x * x + y * y) / 4)
    found = coherence(torch.stack([x, x + y, torch.sin(x + 2 * y), spot, x * 0])[:, None])
    assert found[:2].tolist() == pytest.approx([1, 1], abs=1e-6)
    assert float(found[2]) > 0.7
    assert found[3:].tolist() == pytest.approx([0, 0], abs=1e-6)
    torch.manual_seed(0)
    assert float(coherence(torch.randn(200, 1, 7, 7)).quantile(0.95)) < 0.4


def test_contrast_against_scipy():
    ndimage = pytest.importorskip("scipy.ndimage")
    x = images(2, 1, 30, 41, seed=3).numpy() * np.linspace(0.05, 1, 41) + 0.5
    for image, found in zip(x[:, 0], normalize_contrast(torch.from_numpy(x))[:, 0], strict=True):

        def blur(a):
            return ndimage.gaussian_filter(a, 3, mode="mirror", radius=9)

        flat = image - blur(image)
        contrast = np.sqrt(blur(flat * flat))
        expected = flat / np.maximum(contrast, contrast.mean())
        expected /= np.sqrt((expected**2).mean())
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


def test_contrast_does_not_depend_on_gain_and_offset():
    x = torch.rand(1, 1, 30, 41, dtype=torch.float64)
    torch.testing.assert_close(normalize_contrast(0.3 * x + 0.5), normalize_contrast(x))
    with pytest.raises(ShapeError, match="each side 10 or more"):
        normalize_contrast(x[..., :9])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"maps": ()}, "wanted one or more layers"),
        ({"maps": (4,), "lam": (1.0, 2.0)}, "a weight of sparsity for each"),
        ({"maps": (4,), "lam": (-1.0,)}, "lam from 0 up"),
        ({"kernel": 0}, "wanted 1 or more of each"),
        ({"switches": "never"}, "once"),
    ],
)
def test_refused_arguments(values, message):
    with pytest.raises(OptionError, match=message):
        SparseCoder(**values)


def test_refused_images():
    net = coder()
    with pytest.raises(ShapeError, match=r"wanted \(N, 1, H, W\)"):
        net.encode(images(1, 3, 20, 20))
    with pytest.raises(OptionError, match="got layer 3; wanted 1 to 2"):
        net.encode(images(1, 1, 20, 20), 3)
