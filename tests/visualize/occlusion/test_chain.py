"""Which models are chains of layers, and which are not."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unpool.errors import OptionError
from unpool.models import VGG
from unpool.visualize.occlusion.chain import trace_chain

IMAGE = torch.zeros(1, 3, 12, 12)


class Written(nn.Module):
    """Two layers and a head, with something written out by hand between them."""

    def __init__(self, between, flatten=lambda x: torch.flatten(x, 1)):
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)
        self.fc = nn.Linear(100, 5)
        self.between, self.flatten = between, flatten

    def forward(self, x):
        return self.fc(self.flatten(self.pool(self.between(self.conv(x)))))


@pytest.mark.parametrize(
    "flatten",
    [lambda x: torch.flatten(x, 1), lambda x: x.view(x.size(0), -1), lambda x: x.reshape(-1, 100)],
)
def test_flattening_by_hand_is_part_of_a_chain(flatten, filled_net):
    model = filled_net(Written(lambda x: x, flatten))
    links = trace_chain(model, IMAGE)
    assert [link.name for link in links] == ["conv", "pool", "", "fc"]
    x = images = torch.randn(2, 3, 12, 12)
    for link in links:
        x = link.layer(x)
    assert torch.equal(x, model(images))


def test_names_are_those_of_the_listing_and_of_what_ends_there():
    net = VGG(4, ((1, 3), (1, 4)), 6, 16).train()
    links = trace_chain(net, torch.zeros(1, 3, 16, 16))
    assert [link.name for link in links][:2] == ["features.conv1_1", "features.relu1_1"]
    ends = {alias: link.name for link in links for alias in link.aliases}
    assert ends == {"features": "features.pool2", "classifier": "classifier.fc8"}
    assert net.training
    assert not net.features[0]._forward_hooks
    relu = nn.ReLU()
    twice = nn.Sequential(nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 4, 3), relu)
    assert [link.name for link in trace_chain(twice, IMAGE)] == ["0", "1", "2", "1:2"]


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (F.relu, "pool does not take the output of conv, but something made of it"),
        (torch.relu_, "something changes the values between conv and pool"),
        (lambda x: x + 0, "pool does not take the output of conv"),
        (lambda x: x.transpose(2, 3), "pool does not take the output of conv"),
    ],
)
def test_computations_between_layers_break_a_chain(between, reason):
    with pytest.raises(OptionError, match=f"not a chain of layers: {reason}"):
        trace_chain(Written(between), IMAGE)


def test_computations_after_the_last_layer_and_dicts_break_a_chain(build, images):
    class Doubled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return 2 * self.conv(x)

    class InDict(Doubled):
        def forward(self, x):
            return {"out": self.conv(x)}

    with pytest.raises(OptionError, match="the output does not take the output of conv"):
        trace_chain(Doubled(), IMAGE)
    with pytest.raises(OptionError, match="it gives a dict, and no tensor"):
        trace_chain(InDict(), IMAGE)
    for name in ("resnet", "densenet", "mobilenet", "squeezenet"):
        with pytest.raises(OptionError, match="not a chain of layers"):
            trace_chain(build(name), images)


@torch.inference_mode()
def test_within_inference_mode():
    assert len(trace_chain(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)), IMAGE)) == 2
