"""A small network, and its saved weights."""

import pytest

from tests.models.saved import CARD, TABLE
from unpool.models import DeconvNet, save_pretrained


@pytest.fixture
def net(filled):
    return filled(DeconvNet(3, TABLE, 5, 16))


@pytest.fixture
def folder(net, tmp_path):
    return save_pretrained(net, tmp_path / "weights", CARD)
