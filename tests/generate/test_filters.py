"""The learned filters as images."""

import numpy as np
import pytest

from unpool.errors import OptionError
from unpool.generate import filter_sheet, list_filters


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
