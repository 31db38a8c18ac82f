"""Maps of positions as images."""

import numpy as np
import pytest
import torch

from unpool.visualize.occlusion.result import heat_panel, kind_panels, outline_panel, sheet
from unpool.visualize.occlusion.window import occluder_windows

WINDOWS = occluder_windows((6, 9), 3, 3)


def test_heat_is_dark_where_low_and_gray_where_there_is_none():
    values = torch.tensor([[0.0, 0.5, 1.0], [torch.nan, 0.25, 0.0]])
    shown, caption = heat_panel(values, WINDOWS, "p")
    assert (shown.shape, caption) == ((6, 9, 3), "p: 0 (dark) to 1")
    light = shown.mean(2)
    assert light[0, 0] < light[4, 4] < light[1, 4] < light[2, 8]
    assert (shown[4, 1] == 128).all()
    for flat in (torch.ones(2, 3), torch.full((2, 3), torch.nan)):
        assert len(np.unique(heat_panel(flat, WINDOWS, "p")[0].reshape(-1, 3), axis=0)) == 1


def test_kinds_have_colors_of_their_own_and_a_legend():
    labels = torch.tensor([[7, 7, 1], [7, 2, 1]])
    (shown, _), (legend, _) = kind_panels(labels, WINDOWS, ["a", "b"])
    colors = {
        tuple(map(int, shown[3 * r, 3 * c])): int(labels[r, c]) for r in (0, 1) for c in (0, 1, 2)
    }
    assert sorted(colors.values()) == [1, 2, 7]
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) == 3
    swatches = [tuple(map(int, legend[23 + round(31.2 * i), 20])) for i in range(4)]
    assert [colors.get(s) for s in swatches] == [7, 1, 2, None]  # the most frequent first


def test_many_kinds_share_the_last_color():
    windows = occluder_windows((12, 12), 3, 3)
    (shown, _), (legend, _) = kind_panels(torch.arange(16).view(4, 4), windows, [])
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) == 9
    assert (legend[23 + round(31.2 * 8), 20] == shown[-1, -1]).all()


def test_figures():
    image = np.zeros((6, 9, 3), np.uint8)
    shown, _ = outline_panel(image, WINDOWS)
    assert not image.any()
    assert (shown[:, :, 0] > 0).sum() == 8
    assert (shown[0:3, 3:6, 0].sum(), shown[1, 4, 0]) == (8 * 255, 0)
    assert sheet([(image, "a")] * 4).shape[1] == pytest.approx(1200)
