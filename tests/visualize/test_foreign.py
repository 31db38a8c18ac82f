"""Networks in a user's file, written as torchvision writes them; their ReLUs replaced by hand."""

import hashlib
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import Function

from unpool.errors import OptionError, ShapeError
from unpool.visualize import ActivationRecorder, list_layers, load_model, project, top_activations

FILE = """
import torch
import torch.nn.functional as F
from torch import nn

class Block(nn.Module):
    def __init__(self, inside, outside, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(outside), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2, self.downsample = nn.BatchNorm2d(outside), None
        if stride != 1 or inside != outside:
            conv = nn.Conv2d(inside, outside, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outside))

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += identity
        return self.relu(out)

class ResNet(nn.Module):
    last = "layer2.1"

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Block(8, 8), Block(8, 8))
        self.layer2 = nn.Sequential(Block(8, 12, 2), Block(12, 12))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(12, 5)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.avgpool(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(x, 1))

class DenseLayer(nn.Module):
    def __init__(self, inside, growth):
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(inside), nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(inside, 4 * growth, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(4 * growth), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, 1, 1, bias=False)

    def forward(self, features):
        x = self.conv1(self.relu1(self.norm1(torch.cat(features, 1))))
        return self.conv2(self.relu2(self.norm2(x)))

class DenseBlock(nn.ModuleDict):
    def forward(self, x):
        features = [x]
        for layer in self.values():
            features.append(layer(features))
        return torch.cat(features, 1)

class DenseNet(nn.Module):
    last = "classifier"

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(3, 8, 7, 2, 3, bias=False))
        self.features.add_module("norm0", nn.BatchNorm2d(8))
        self.features.add_module("relu0", nn.ReLU(inplace=True))
        self.features.add_module("pool0", nn.MaxPool2d(3, 2, 1))
        layers = {f"denselayer{i + 1}": DenseLayer(8 + 4 * i, 4) for i in range(3)}
        self.features.add_module("denseblock1", DenseBlock(layers))
        transition = nn.Sequential(
            nn.BatchNorm2d(20), nn.ReLU(inplace=True), nn.Conv2d(20, 10, 1, bias=False),
            nn.AvgPool2d(2, 2),
        )
        self.features.add_module("transition1", transition)
        self.features.add_module("norm5", nn.BatchNorm2d(10))
        self.classifier = nn.Linear(10, 5)

    def forward(self, x):
        out = F.relu(self.features(x), inplace=True)
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(out, (1, 1)), 1))

class BasicConv2d(nn.Module):
    def __init__(self, inside, outside, **options):
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, bias=False, **options)
        self.bn = nn.BatchNorm2d(outside, eps=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)), inplace=True)

class Inception(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.branch1 = BasicConv2d(width, 4, kernel_size=1)
        self.branch2 = nn.Sequential(
            BasicConv2d(width, 4, kernel_size=1), BasicConv2d(4, 6, kernel_size=3, padding=1)
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, 1, 1, ceil_mode=True), BasicConv2d(width, 3, kernel_size=1)
        )

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch2(x), self.branch4(x)], 1)

class GoogLeNet(nn.Module):
    last = "inception3b"

    def __init__(self):
        super().__init__()
        self.conv1 = BasicConv2d(3, 8, kernel_size=7, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception3a, self.inception3b = Inception(8), Inception(13)
        self.dropout, self.fc = nn.Dropout(0.2), nn.Linear(13, 5)

    def forward(self, x):
        x = self.inception3b(self.inception3a(self.maxpool1(self.conv1(x))))
        return self.fc(self.dropout(x.mean((2, 3))))
"""
NAMES = ("ResNet", "DenseNet", "GoogLeNet")


@pytest.fixture(params=NAMES)
def loaded(request, tmp_path, monkeypatch, filled_net):
    """A model of the file, as `--torch-model nets:NAME` loads it."""
    home = f"nets_{tmp_path.name}"
    (tmp_path / f"{home}.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    found = load_model(torch_model=f"{home}:{request.param}", size=48, device="cpu")
    filled_net(found.model)
    yield found
    sys.modules.pop(home)


@pytest.fixture
def images():
    return torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(4))


def fingerprint(model):
    """Of every byte of the weights and statistics, and of what hangs on the modules."""
    found = hashlib.sha256()
    for name, value in model.state_dict().items():
        found.update(name.encode() + value.numpy().tobytes())
    for module in model.modules():
        hooks = [len(v) for k, v in vars(module).items() if k.endswith("_hooks")]
        found.update(repr((module.training, hooks)).encode())
    return found.hexdigest()


class Deconvnet(Function):
    @staticmethod
    def forward(ctx, x):
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, signal):
        return signal.clamp(min=0)


class Guided(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x > 0)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, signal):
        return signal.clamp(min=0) * ctx.saved_tensors[0]


def by_hand(model, images, unit, relu, monkeypatch):
    """The gradient of a map's largest value in the last layer, with another ReLU throughout."""
    with monkeypatch.context() as patch:
        home = sys.modules[type(model).__module__]
        patch.setattr(home.F, "relu", lambda x, inplace=False: relu(x))
        patch.setattr(nn.ReLU, "forward", lambda self, x: relu(x))
        kept = []
        handle = model.get_submodule(model.last).register_forward_hook(
            lambda m, i, o: kept.append(o)
        )
        x = images.clone().requires_grad_()
        model(x)
        handle.remove()
        peaks = kept[-1][:, unit].reshape(len(x), -1).amax(1)
        return torch.autograd.grad((peaks * peaks.detach()).sum(), x)[0], peaks.detach()


@pytest.mark.parametrize("rule", ["deconvnet", "guided", "saliency"])
def test_projections(loaded, images, rule, monkeypatch):
    model = loaded.model
    relu = {"deconvnet": Deconvnet.apply, "guided": Guided.apply, "saliency": torch.relu}[rule]
    wanted, peaks = by_hand(model, images, 2, relu, monkeypatch)
    before = fingerprint(model)
    found = project(model, images, model.last, 2, rule=rule)
    assert torch.allclose(found.values, peaks, rtol=1e-5)
    assert (found.signal - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert wanted.abs().max() > 0
    assert fingerprint(model) == before


def test_mining(loaded, images):
    model = loaded.model
    before = fingerprint(model)
    layers = [layer.name for layer in list_layers(model, images)]
    found = top_activations(model, images.split(2), layers, 2)
    assert list(found) == layers
    recorder = ActivationRecorder(model, layers)
    for layer, maps in recorder(images).items():
        peaks = maps.detach().reshape(3, maps.shape[1], -1).amax(2).numpy()
        order = np.argsort(-peaks, axis=0, kind="stable")[:2].T
        assert found[layer].images.tolist() == order.tolist()
    assert fingerprint(model) == before


def test_the_model_is_the_same_after_errors(loaded, images):
    model = loaded.model
    before = fingerprint(model)
    for error, call in (
        (OptionError, lambda: project(model, images, "layer9")),
        (OptionError, lambda: project(model, images, model.last, 99)),
        (ShapeError, lambda: project(model, images[:, :1], model.last)),
        (OptionError, lambda: top_activations(model, [images, images * torch.nan], [model.last])),
    ):
        with pytest.raises(error):
            call()
    assert fingerprint(model) == before
