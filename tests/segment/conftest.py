"""What the tests of this application share."""

import pytest

from tests.segment.tiny import CLASSES, SIDE
from unpool.models import DeconvNet
from unpool.segment.segmenter import Segmenter


@pytest.fixture
def net(filled):
    return filled(DeconvNet(4, ((1, 6), (1, 8)), None, SIDE), seed=3)


@pytest.fixture
def segmenter(net):
    return Segmenter(net, CLASSES, device="cpu", precision="fp32", mode="instance")
