"""Pooling and unpooling in torch.export and torch.compile."""

import pytest
import torch

from tests.ops.test_switches import maps, same
from unpool.ops import pool, unpool


class PoolUnpool(torch.nn.Module):
    def __init__(self, form, window=(2, 2, 0), ceil=True):
        super().__init__()
        self.form, self.window, self.ceil = form, window, ceil

    def forward(self, x):
        y, switches = pool(x, *self.window, ceil=self.ceil, form=self.form)
        return unpool(y * 2, switches), y


FORMS = pytest.mark.parametrize(
    ("form", "window"), [("flat", (2, 2, 0)), ("phase", (2, 2, 0)), ("flat", (3, 2, 1))]
)


@FORMS
@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_export(form, window, ceil, dynamic):
    sizes = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC) if dynamic else None
    module = PoolUnpool(form, window, ceil)
    program = torch.export.export(module, (maps((2, 3, 9, 8)),), dynamic_shapes=(sizes,))
    shapes = [(2, 3, 9, 8), (1, 3, 5, 12), (3, 3, 8, 7)] if dynamic else [(2, 3, 9, 8)]
    for shape in shapes:
        x = maps(shape, 9)
        for got, expected in zip(program.module()(x), module(x), strict=True):
            assert same(got, expected)
            assert got.shape == expected.shape


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own imports
@FORMS
def test_compile(form, window):
    """Of finite values: where NaN meets NaN, the compiler's pooling chooses otherwise (2.13)."""
    module = PoolUnpool(form, window)
    compiled = torch.compile(module, fullgraph=True)
    for shape in [(2, 3, 9, 8), (1, 3, 5, 12)]:
        x = maps(shape, 9, special=False)
        for got, expected in zip(compiled(x), module(x), strict=True):
            assert same(got, expected)


def test_compile_traces_without_breaks():
    module = PoolUnpool("flat")
    x = maps((2, 3, 9, 8), 9)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    for got, expected in zip(compiled(x), module(x), strict=True):
        assert same(got, expected)


@pytest.mark.parametrize("form", ["flat", "phase"])
def test_without_data(form):
    y, switches = pool(torch.zeros(2, 3, 9, 8, device="meta"), ceil=True, form=form)
    assert unpool(y, switches).shape == (2, 3, 9, 8)
