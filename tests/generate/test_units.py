"""Units, cells and filters, against a forward pass written out by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.generate.by_hand import code_of, dense, stream
from unpool.errors import OptionError
from unpool.generate import (
    PATTERNS,
    Generator,
    activate_units,
    count_units,
    filter_sheet,
    find_zoom_unit,
    intervene,
    list_filters,
    list_layers,
    mask_cells,
    pattern,
    push_unit,
)
from unpool.generate.units import VALUES
from unpool.models import encode_view

NAMES = ["armchair", "bar_stool", "folding_chair", "stool"]


@torch.no_grad()
def by_hand(net, layer, unit, value):
    """The output for one unit, by the arithmetic of this file."""
    none = torch.zeros(1, 28)
    code = torch.zeros(1, 12 if layer.startswith("shared") else 8)
    if unit is not None:
        code[0, unit] = value
    if layer.startswith("style"):
        if layer.endswith("fc1"):
            code = dense(code, net.style.fc2)
        view = encode_view(torch.tensor([310.0]), torch.tensor([30.0]))
        others = [
            dense(dense(x, branch.fc1), branch.fc2)
            for branch, x in ((net.view, view), (net.transformation, none))
        ]
        code = dense(dense(torch.cat([code, *others], 1), net.shared.fc3), net.shared.fc4)
    elif layer == "shared.fc3":
        code = dense(code, net.shared.fc4)
    return stream(code, net.rgb), stream(code, net.mask)


@pytest.mark.parametrize("layer", ["style.fc1", "style.fc2", "shared.fc3", "shared.fc4"])
def test_units_without_maps(generator, layer):
    found = activate_units(generator, layer, [3, 0])
    value = VALUES[layer.partition(".")[2]]
    for row, unit in enumerate([None, 3, 0]):
        rgb, mask = by_hand(generator.model, layer, unit, value)
        torch.testing.assert_close(found.rgb[row], rgb[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.mask[row], mask[0], atol=1e-4, rtol=1e-4)
    assert found.images().shape == (2, 32, 32, 3)
    assert not found.maps
    again = activate_units(generator, layer, [3], 2 * value)
    assert not torch.equal(again.rgb[1], found.rgb[1])


@pytest.mark.parametrize(("layer", "skip", "side"), [("rgb.fc5", 0, 8), ("rgb.stages.0", 1, 16)])
def test_units_of_maps(generator, layer, skip, side):
    net = generator.model
    found = activate_units(generator, layer, [2, 4], position=(5, 3))
    maps = torch.zeros(3, net.rgb.stages[skip].uconv.in_channels, side, side)
    maps[1, 2, 5, 3] = maps[2, 4, 5, 3] = {0: 0.1, 1: 10.0}[skip]
    with torch.no_grad():
        torch.testing.assert_close(found.rgb, stream(None, net.rgb, maps, skip))
        code = code_of(net, torch.eye(4)[:1], 310.0, 30.0)
        torch.testing.assert_close(
            found.mask[1:2], stream(code, net.mask), atol=1e-4, rtol=1e-4
        )  # the other stream is unaffected
    reach = {0: 13, 1: 5}[skip]
    assert found.images().shape == (2, reach, reach, 3)
    middle = activate_units(generator, layer, [0])
    assert middle.rgb.shape == (2, 3, 32, 32)
    wanted = side // 2 - 1  # counted from 1: (4, 4) of 8 x 8, (8, 8) of 16 x 16
    same = activate_units(generator, layer, [0], position=(wanted, wanted))
    assert torch.equal(middle.rgb, same.rgb)


def test_amounts_are_added_to_a_unit(generator):
    net = generator.model
    images = push_unit(generator, "stool", 7, [0, 10], azimuth=50, elevation=20)
    assert np.array_equal(images[0].rgba, generator.view(3, azimuth=50).rgba)
    with torch.no_grad():
        code = code_of(net, torch.eye(4)[3:], 50.0, 20.0)
        code[0, 7] += 10
        rgb, mask = (stream(code, part)[0].clamp(0, 1) for part in (net.rgb, net.mask))
    wanted = torch.cat([rgb, mask.mean(0, keepdim=True)]).permute(1, 2, 0).numpy() * 255
    assert np.abs(images[1].rgba - wanted).max() < 0.6
    with pytest.raises(OptionError, match=r"got unit 12 of shared\.fc4"):
        push_unit(generator, 0, 12)


class Zooming(nn.Module):
    """Generates a disk whose size grows with unit 5 of FC-4 and which unit 2 moves."""

    def __init__(self):
        super().__init__()
        self.styles, self.size, self.numbers = 2, 64, 28
        self.shared = nn.Sequential()
        self.shared.fc4 = nn.Linear(4, 8)

    def forward(self, style, view, transformation):
        code = self.shared(torch.zeros(len(style), 4)) * 0
        code = self.shared.fc4(torch.zeros(len(style), 4)) - self.shared.fc4.bias
        radius, x = 0.3 * 2 ** (code[:, 5] / 20), 0.2 * code[:, 2] / 10
        where = torch.linspace(-1, 1, 64)
        distance = (
            (where[None, :, None]) ** 2 + (where[None, None] - x[:, None, None]) ** 2
        ) ** 0.5
        disk = ((radius[:, None, None] - distance) * 16 + 0.5).clamp(0, 1)[:, None]
        return disk.expand(-1, 3, -1, -1), disk


def test_the_zoom_unit_is_found():
    generator = Generator(Zooming(), ["a", "b"], device="cpu")
    reports = []
    found = find_zoom_unit(
        generator, ["a", "b"], 10.0, progress=lambda *report: reports.append(report)
    )
    assert found.unit == 5
    assert found.factor == pytest.approx(2**0.5, rel=0.01)
    assert found.explained > 0.9
    assert reports[-1] == (8, 8, "units")
    assert find_zoom_unit(generator, ["a"], 10.0, units=[1, 2]).explained < 0.9


def test_every_layer_can_be_activated(any_generator):
    for layer in list_layers(any_generator.model):
        count = count_units(any_generator, layer)
        assert activate_units(any_generator, layer, [count - 1]).rgb.isfinite().all()
        with pytest.raises(OptionError, match=f"got unit {count} of {layer}; wanted 0 to"):
            activate_units(any_generator, layer, [count])
    assert not any(module._forward_hooks for module in any_generator.model.modules())


def test_refusals_leave_no_hooks(generator):
    with pytest.raises(OptionError, match=r"got layer 'fc9'; .*choices are style\.fc1, style\.fc2"):
        activate_units(generator, "fc9", [0])
    with pytest.raises(OptionError, match=r"got position=\(8, 0\) .* inside its maps of 8 x 8"):
        activate_units(generator, "rgb.fc5", [0], position=(8, 0))
    with pytest.raises(OptionError, match="which has no maps"):
        activate_units(generator, "shared.fc4", [0], position=(1, 1))
    with (
        pytest.raises(OptionError, match="got layer"),
        intervene(generator.model, {"rgb.fc5": torch.neg, "nothing": torch.neg}),
    ):
        pass
    assert not any(module._forward_hooks for module in generator.model.modules())


def test_patterns_are_the_published_ones():
    kept = {name: pattern(name) for name in PATTERNS}
    for k in (2, 4, 6, 8):
        square = np.zeros((8, 8), bool)
        square[4 - k // 2 : 4 + k // 2, 4 - k // 2 : 4 + k // 2] = True
        assert np.array_equal(kept[f"center-{k}"], square)
    border = np.ones((8, 8), bool)
    border[1:7, 1:7] = False  # 2:7, counted from 1
    assert np.array_equal(kept["border"], border)
    assert np.array_equal(kept["checkerboard"], ~kept["other"])
    assert kept["checkerboard"][0, 0]
    assert kept["checkerboard"][0].sum() == 4
    with pytest.raises(OptionError, match="got the pattern 'ring'; the choices are center-2"):
        pattern("ring")


def test_only_the_kept_cells_contribute(any_generator):
    net = any_generator.model
    cells = [pattern("border"), pattern("center-8"), pattern("center-2")]
    whole = any_generator.view("stool", azimuth=301)
    seen = []
    layers = [name for name in list_layers(net) if name.endswith("fc5")]
    before = net.get_submodule(layers[0]).register_forward_hook(lambda m, x, y: seen.append(y))
    images = mask_cells(any_generator, "stool", cells)
    before.remove()
    assert np.abs(images[1].rgba.astype(int) - whole.rgba).max() <= 1
    if net.streams == 2:
        code = code_of(net, torch.eye(4)[3:], 301.0, 20.0)
        with torch.no_grad():
            parts = []
            for part in (net.rgb, net.mask):
                maps = dense(code, part.fc5).view(1, -1, 8, 8)
                maps = maps * torch.from_numpy(cells[0])
                parts.append(stream(None, part, maps)[0].clamp(0, 1))
            wanted = torch.cat([parts[0], parts[1].mean(0, keepdim=True)]).permute(1, 2, 0) * 255
        assert np.abs(images[0].rgba - wanted.numpy()).max() < 0.6
        # the middle four cells do not reach the border
        assert not images[2].rgba[:4].any()
        assert not images[2].rgba[:, -4:].any()
    with pytest.raises(OptionError, match=r"got cells of \(4, 4\); wanted 8 x 8"):
        mask_cells(any_generator, 0, [pattern("border", 4)])


def test_filters_are_shown_with_one_contrast_per_layer(any_generator):
    names = list_filters(any_generator)
    two = any_generator.model.streams == 2
    assert names == (
        ["rgb.stages.0", "rgb.stages.1", "mask.stages.0", "mask.stages.1"]
        if two
        else ["stream.stages.0", "rgb", "mask"]
    )
    first, last = (names[0], names[1])
    side = 5 if two else 4
    sheet = filter_sheet(any_generator, first, 3)
    assert sheet.shape == (3 * (side + 2) - 2, 3 * (side + 2) - 2, 3)
    colors = filter_sheet(any_generator, last)
    assert colors.shape == (2 * (side + 2) - 2, 3 * (side + 2) - 2, 3)  # five inputs
    module = any_generator.model.get_submodule(last)
    weight = next(p for p in module.parameters() if p.dim() == 4)
    strongest = weight.detach().abs().max()
    shown = weight.detach()[1].permute(1, 2, 0).numpy() / float(strongest)
    tile = colors[:side, side + 2 : 2 * side + 2] / 255
    assert np.abs(tile - (0.5 + shown / 2)).max() < 0.01
    with pytest.raises(OptionError, match="got layer 'fc1'; the choices are"):
        filter_sheet(any_generator, "fc1")
    with pytest.raises(OptionError, match="got most=0; wanted 1 or more"):
        filter_sheet(any_generator, first, 0)
