"""The experiments on a network and variants a quarter as large."""

import dataclasses

import pytest

from experiments import capacity, transfer
from experiments.compact import COMPACT

SMALL = dataclasses.replace(COMPACT, size=16, widths=(12,), mask_widths=(8,), batch=8)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(transfer, "COMPACT", SMALL)
    monkeypatch.setattr(capacity, "COMPACT", SMALL)
    less = {"code": 8, "shared": 12, "widths": (6,), "mask_widths": (4,)}
    for name, changes in capacity.VARIANTS.items():
        fewer = {k: less[k] if v is not None and k in less else v for k, v in changes.items()}
        monkeypatch.setitem(capacity.VARIANTS, name, fewer)
