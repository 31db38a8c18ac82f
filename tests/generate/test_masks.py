"""Images from some cells of the first maps."""

import numpy as np
import pytest
import torch

from tests.generate.by_hand import code_of, dense, stream
from unpool.errors import OptionError
from unpool.generate import PATTERNS, list_layers, mask_cells, pattern


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
