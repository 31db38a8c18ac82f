"""Normalization as an option: every network with it, folded, saved, exported and looked into."""

import numpy as np
import pytest
import torch
from torch import nn

from unpool import project
from unpool.classify.train import build
from unpool.data.crops import Batch
from unpool.errors import OptionError, WeightsError
from unpool.export import write
from unpool.export.runtime import Exported
from unpool.models import (
    FCN,
    VGG,
    AlexNet,
    DeconvNet,
    DeepLab,
    SegNet,
    SegNetBasic,
    SqueezeNet,
    Trunk,
    ZFNet,
    from_pretrained,
    save_pretrained,
)
from unpool.models.fast import accelerate, fold
from unpool.models.norms import deconvolve, fold_whitening
from unpool.ops import Delinear, FastDeconv
from unpool.ops.whitening import Whitening
from unpool.recipes import find_recipe
from unpool.segment.fit import estimate_statistics
from unpool.visualize import list_layers
from unpool.visualize.filters import filters_of
from unpool.visualize.shadow import shadow_copy

TABLE = ((1, 4), (1, 6))
WIDTHS = (4, 6, 6, 6, 6)
CLASSIFIERS = {
    "AlexNet": lambda norm: AlexNet(3, WIDTHS, 8, 67, norm=norm),
    "ZFNet": lambda norm: ZFNet(3, WIDTHS, 8, 64, norm=norm),
    "VGG": lambda norm: VGG(3, TABLE, 8, 32, norm=norm),
    "SqueezeNet": lambda norm: SqueezeNet(3, 4, (((4, 8),), ((4, 8),)), 64, norm=norm),
}
NETWORKS = {
    "DeconvNet": lambda norm: DeconvNet(3, TABLE, None, 32, norm=norm),
    "FCN": lambda norm: FCN(3, TABLE, 8, 4, 1, 3, norm=norm),
    "SegNet": lambda norm: SegNet(3, TABLE, norm=norm),
    "SegNetBasic": lambda norm: SegNetBasic(3, 6, 3, 2, norm=norm),
    "DeepLab": lambda norm: DeepLab(3, ((1, 4),) * 3, 8, norm=norm),
}
EVERY = {**CLASSIFIERS, **NETWORKS}
CASES = [(name, "deconv") for name in EVERY] + [(name, "batch") for name in CLASSIFIERS]
every_case = pytest.mark.parametrize(("name", "norm"), CASES)


def images(net, count=4, seed=0):
    side = net.size or 40
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, side, side, generator=generator)
    return 30 * (x + x.roll(1, -1) + x.roll(1, -2) + x.roll(1, 1))


@torch.no_grad()
def trained(name, norm, steps=3):
    """A network in evaluation mode whose statistics are those of some images."""
    torch.manual_seed(0)
    net = EVERY[name](norm)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)  # no zero scores
    for seed in range(steps):
        net.train()(images(net, seed=seed))
    return net.eval()


# ---- building ------------------------------------------------------------------------------------


def test_classifiers_whiten_every_layer():
    net = CLASSIFIERS["ZFNet"]("deconv")
    kinds = {name: type(layer) for name, layer in net.named_modules() if hasattr(layer, "weight")}
    convolutions = [f"features.conv{n}" for n in range(1, 6)]
    connected = [f"classifier.fc{n}" for n in (6, 7, 8)]
    assert kinds == dict.fromkeys(convolutions, FastDeconv) | dict.fromkeys(connected, Delinear)
    first, second = net.features.conv1.whitening, net.features.conv2.whitening
    assert (first.steps, first.freeze, second.steps, second.freeze) == (15, 100, 5, None)


def test_batch_norm_follows_each_convolution():
    names = [name for name, _ in CLASSIFIERS["VGG"]("batch").features.named_children()]
    assert names[:4] == ["conv1_1", "bn1_1", "relu1_1", "pool1"]
    fire = CLASSIFIERS["SqueezeNet"]("batch").features[4]
    assert [*fire._modules][:3] == ["squeeze", "squeeze_norm", "squeeze_activation"]
    seen = []
    fire.squeeze_norm.register_forward_hook(lambda *_: seen.append("squeeze_norm"))
    fire(torch.zeros(2, 4, 5, 5))
    assert seen == ["squeeze_norm"]


@pytest.mark.parametrize("name", NETWORKS)
def test_trunks_have_no_batch_norm_left(name):
    trunk = NETWORKS[name]("deconv").trunk
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in trunk.modules())
    layers = [layer for layer in trunk.modules() if isinstance(layer, nn.Conv2d)]
    assert all(isinstance(layer, FastDeconv) for layer in layers)


@pytest.mark.parametrize("name", EVERY)
def test_by_default_nothing_changes(name):
    net = EVERY[name](None)
    assert "norm" not in net.arguments  # older cards say the same
    assert not any(isinstance(layer, Whitening) for layer in net.modules())


def test_the_first_layer_of_whitened_networks_is_no_special_case():
    torch.manual_seed(0)
    small = {"widths": (48, 4, 4, 4, 4), "code": 8, "size": 64}
    net = build(find_recipe("zfnet-small", **small, norm="deconv"), 5)
    plain = build(find_recipe("zfnet-small", **small), 5)
    assert net.features.conv1.weight.std().item() == pytest.approx((2 / 147) ** 0.5, rel=0.1)
    assert plain.features.conv1.weight.std().item() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("make", [*CLASSIFIERS.values(), *NETWORKS.values()])
def test_unknown_norms_are_refused(make):
    with pytest.raises(OptionError, match="got norm 'layer'"):
        make("layer")


# ---- any module ----------------------------------------------------------------------------------


class Residual(nn.Module):
    """A block as in torchvision, whose parts are attributes."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4)

    def forward(self, x):
        return (x + self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))).relu()


def chain(*parts):
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), *parts)


def test_deconvolve_takes_any_module():
    net = chain(Residual(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5))
    weight = net[3].conv1.weight
    assert deconvolve(net, block=2) == ["0", "3.conv1", "3.conv2"]
    assert deconvolve(net, linear=8) == ["6"]
    assert net[2].conv1.weight is weight  # the initial one, and batch norm is gone before it
    assert (net[2].conv1.block, net[2].conv2.groups, net[5].block) == (2, 2, 8)
    assert not net[2].conv1.bias.any()
    assert type(net[2].bn1) is nn.Identity
    x = torch.randn(6, 3, 17, 17)
    net(x).square().sum().backward()
    assert all(parameter.grad.any() for parameter in net.parameters())
    with torch.no_grad():
        y = net.eval()(x)
        torch.testing.assert_close(fold_whitening(net)(x), y)
    assert type(net[2].conv2) is nn.Conv2d


def test_batch_norm_without_a_convolution_is_refused():
    net = nn.Sequential(nn.BatchNorm2d(3), *chain())
    with pytest.raises(OptionError, match="got batch norm '0' that does not follow a convolution"):
        deconvolve(net)
    assert type(net[1]) is nn.Conv2d  # unchanged


def test_other_padding_than_with_zeros_is_refused():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(4))
    with pytest.raises(OptionError, match="wanted padding with zeros"):
        deconvolve(net)


# ---- folding, saving, export ---------------------------------------------------------------------


@every_case
@torch.no_grad()
def test_folded_networks_compute_the_same_and_are_plain(name, norm, tmp_path):
    net = trained(name, norm)
    x = images(net, seed=9)
    wanted, before = net(x), {key: value.clone() for key, value in net.state_dict().items()}
    atol = 1e-5 * float(wanted.abs().max())
    folded = fold(net)
    torch.testing.assert_close(folded(x), wanted, rtol=0, atol=atol)
    kinds = nn.BatchNorm2d | Whitening
    assert not any(isinstance(layer, kinds) for layer in folded.modules())
    again, card = from_pretrained(save_pretrained(folded, tmp_path / "folded", {}))
    assert "norm" not in card.arguments
    torch.testing.assert_close(again(x), wanted, rtol=0, atol=atol)
    torch.testing.assert_close(accelerate(net)(x), wanted, rtol=0, atol=10 * atol)
    assert all(value.equal(before[key]) for key, value in net.state_dict().items())


@every_case
@torch.no_grad()
def test_saved_networks_come_back_bit_for_bit(name, norm, tmp_path):
    net = trained(name, norm, steps=1)
    again, card = from_pretrained(save_pretrained(net, tmp_path / "weights", {}))
    assert card.arguments["norm"] == again.arguments["norm"] == norm
    assert torch.equal(again(images(net)), net(images(net)))


@torch.no_grad()
def test_exported_graphs_are_those_of_plain_networks():
    net = trained("FCN", "deconv")
    graph, plain = write.trace(net), write.trace(fold(net))
    kinds = [[node.target for node in program.graph.nodes] for program in (graph, plain)]
    assert kinds[0] == kinds[1]
    wanted = net(images(net))
    found = graph.module(check_guards=False)(images(net))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "suffix"), [("FCN", ".onnx"), ("DeconvNet", ".xml")])
def test_networks_are_exported_after_folding(name, suffix, tmp_path):
    for package in ("onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    net = trained(name, "deconv")
    weights = save_pretrained(net, tmp_path / "weights", {"classes": ["ground", "cat", "dog"]})
    written = write.export(weights, tmp_path / f"net{suffix}")  # compares labels with PyTorch's
    assert written.different <= 1e-4 * written.pixels
    x = images(net, 2, seed=9)
    found, wanted = Exported(written.file)(x), net(x).detach()
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.filterwarnings("ignore")  # of the exporter
@torch.no_grad()
def test_classifiers_run_in_onnx(tmp_path):
    onnx, _ = pytest.importorskip("onnx"), pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    net = trained("VGG", "deconv")
    x, path = images(net, seed=9), tmp_path / "net.onnx"
    torch.onnx.export(fold(net), (x,), path, dynamo=True, verbose=False)
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert operators <= {"Conv", "Relu", "MaxPool", "Reshape", "Flatten", "Gemm"}
    session = onnxruntime.InferenceSession(path)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    wanted = net(x).numpy()
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


# ---- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_a_training_step_lowers_the_loss(name):
    net = trained(name, "deconv").train()
    x = images(net)

    def loss():
        torch.manual_seed(0)
        return net(x).square().mean()

    before, learned = loss(), [p for p in net.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(before, learned)  # which refuses unused ones
    size = sum(gradient.square().sum() for gradient in gradients)
    with torch.no_grad():
        for parameter, gradient in zip(learned, gradients, strict=True):
            parameter -= 1e-3 * before / size * gradient
        assert loss() < before


def test_recomputed_maps_count_once():
    """Gradient checkpointing: the same gradients and statistics, also in frozen steps."""
    nets = [Trunk(TABLE, norm="deconv"), Trunk(TABLE, norm="deconv")]
    nets[1].load_state_dict(nets[0].state_dict())
    nets[1].checkpointing = True
    for net in nets:
        net.stages[0].conv1_1.whitening.freeze = 2
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        x = torch.randn(2, 3, 16, 16, generator=generator)
        for net in nets:
            net.zero_grad()
            net(x)[0].square().sum().backward()
        for ours, theirs in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad)
    state = nets[1].state_dict()
    assert all(torch.equal(value, state[key]) for key, value in nets[0].state_dict().items())


@torch.no_grad()
def test_statistics_are_estimated_anew_for_evaluation():
    net = trained("SegNet", "deconv").train()
    rng = np.random.default_rng(0)
    batches = [Batch(rng.integers(0, 255, (2, 40, 40, 3), dtype=np.uint8), None) for _ in range(3)]
    estimate_statistics(net, iter(batches), 3, bf16=False)
    whitening = net.trunk.stages[0].conv1_1.whitening
    assert (int(whitening.num_batches_tracked), whitening.momentum) == (3, 0.3)
    pixels = np.concatenate([batch.images.reshape(-1, 3) for batch in batches]).mean(0)[::-1]
    inner = whitening.mean.view(3, 9)[:, 4]  # of the central pixels of patches, BGR
    found = inner + torch.tensor([104.007, 116.669, 122.679])
    torch.testing.assert_close(found, torch.from_numpy(pixels.copy()).float(), rtol=0, atol=5)


def test_an_fcn_takes_no_whitened_filters():
    net = FCN(3, TABLE, 8, 4, 1, 3)
    with pytest.raises(WeightsError, match="with normalization, whose filters are not"):
        net.take(NETWORKS["DeconvNet"]("deconv"))
    assert "conv1_1" in net.take(fold(trained("FCN", "deconv")))


# ---- looking into whitened networks --------------------------------------------------------------


@torch.no_grad()
def test_analyses_see_the_folded_filters():
    net = trained("ZFNet", "deconv")
    shadow = shadow_copy(net)
    assert type(shadow.features.conv1) is nn.Conv2d
    assert not any(parameter.requires_grad for parameter in shadow.parameters())
    assert torch.equal(filters_of(shadow.features.conv1), net.features.conv1.folded().weight)
    assert [layer.kind for layer in list_layers(net, images(net, 1))][:2] == ["Conv2d", "ReLU"]
    assert type(net.features.conv1) is FastDeconv


def test_projections_are_those_of_the_folded_network():
    net = trained("ZFNet", "deconv")
    x = images(net, 1)
    found = project(net, x, "features.conv3", unit=2)
    wanted = project(fold(net), x, "features.conv3", unit=2)
    torch.testing.assert_close(found.signal, wanted.signal)
    assert found.signal.any()
