"""Shadow copies of awkward models give the same outputs, and leave the models alone."""

import copy
import threading
import warnings
from functools import partial

import pytest
import torch
from torch import nn

from tests.visualize.alike import close, last
from unpool.errors import OptionError, ShapeError
from unpool.models import DeconvNet
from unpool.visualize import RULES, list_layers, project
from unpool.visualize.shadow import shadow_copy


def names(model, images):
    return [layer.name for layer in list_layers(model, images)]


class Listed(nn.Module):
    """Keeps its layers in lists, dictionaries and bound methods, too."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)
        self.in_order = [("first", self.first), ("second", self.second)]
        self.by_name = {"drop": nn.Dropout(0.5)}
        self.drop = self.by_name["drop"]
        self.act = self.second.forward
        self.seen = []

    def forward(self, x):
        self.seen.append(len(x))
        x = self.in_order[0][1](x)
        return self.act(self.by_name["drop"](torch.relu(x)))


def test_layers_in_lists_and_methods(images):
    model = Listed().train()
    shadow = shadow_copy(model)
    assert shadow.in_order[1][1] is shadow.second is not model.second
    assert shadow.act.__self__ is shadow.second
    assert torch.equal(shadow(images), model.eval()(images))
    assert shadow.seen == [2] == model.seen  # a list of its own each
    assert names(model, images) == ["first", "drop"]


class Closed(nn.Module):
    """Calls its layers through functions that are closed over it, and that bind them."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.act = lambda x: torch.relu(self.norm(x))
        self.scale = partial(Closed.scaled, self, by=2)

    def scaled(self, x, by):
        return self.norm(x) * by

    def forward(self, x):
        return self.scale(self.act(self.conv(x)))


def test_layers_behind_functions(images):
    model = Closed().train()
    before = copy.deepcopy(model.state_dict())
    assert names(model, images) == ["conv", "norm", "norm:2"]
    project(model, images, "norm", 1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(shadow_copy(model)(images), model.eval()(images))


def test_weights_are_shared_and_buffers_copied(build):
    model = build("resnet")
    shadow = shadow_copy(model.train())
    for (name, ours), theirs in zip(shadow.named_parameters(), model.parameters(), strict=True):
        assert ours.data_ptr() == theirs.data_ptr(), name
        assert (ours.requires_grad, theirs.requires_grad) == (False, True)
    for ours, theirs in zip(shadow.buffers(), model.buffers(), strict=True):
        assert ours.data_ptr() != theirs.data_ptr()
        assert torch.equal(ours, theirs)
    assert model.training
    assert not any(m.training for m in shadow.modules())
    assert [name for name, _ in shadow.named_modules()] == [n for n, _ in model.named_modules()]


def test_shared_layers_and_tied_weights_stay_so():
    layer = nn.Linear(4, 4)
    model = nn.ModuleDict({"a": layer, "b": layer, "c": nn.Linear(4, 4)})
    model["c"].weight = layer.weight
    shadow = shadow_copy(model)
    assert shadow["a"] is shadow["b"]
    assert shadow["c"].weight is shadow["a"].weight
    assert dict(shadow.named_modules(remove_duplicate=False)).keys() == {"", "a", "b", "c"}


def parametrized():
    norm = nn.utils.parametrizations
    return nn.Sequential(
        norm.weight_norm(nn.Conv2d(3, 4, 3)), norm.spectral_norm(nn.Conv2d(4, 2, 1))
    )


def weight_normed():
    with warnings.catch_warnings(action="ignore"):  # the old way, by hooks, which models still use
        return nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 4, 3)), nn.Conv2d(4, 2, 1))


def traced():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1))
    return torch.fx.symbolic_trace(model)


def hooked():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    model[0].register_forward_hook(lambda module, inputs, output: output * 2)
    model[1].register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
    model[2].register_full_backward_hook(lambda module, grads, above: (grads[0] * 100,))
    return model


@pytest.mark.parametrize("make", [parametrized, weight_normed, traced, hooked])
def test_awkward_models(make, images):
    model = make().eval()
    assert torch.equal(shadow_copy(model)(images), model(images))
    last = names(model, images)[-1]
    found = project(model, images, last, 1, rule="saliency", place=(3, 4), start="one")
    x = images.clone().requires_grad_()
    if make is hooked:  # hooks of the gradient are about training
        model[2]._backward_hooks.clear()
    expected = torch.autograd.grad(model(x)[:, 1, 3, 4].sum(), x)[0]
    assert torch.equal(found.signal, expected)
    assert not any("parametrizations" in name for name in names(model, images))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["whole", "a part", "in place"])
def test_compiled_models_are_copied_uncompiled(how, build, images):
    model = build("vgg")
    expected = project(model, images, "9", [1, 2]).signal
    with warnings.catch_warnings(action="ignore"):  # PyTorch's own, on loading its compiler
        compiled = model
        if how == "in place":
            model.compile()
        else:
            compiled = torch.compile(model)
    compiled = nn.Sequential(compiled) if how == "a part" else compiled
    layer = "0.9" if how == "a part" else "9"
    assert layer in names(compiled, images)
    assert torch.equal(project(compiled, images, layer, [1, 2]).signal, expected)


def test_torchscript_is_refused(images):
    with warnings.catch_warnings(action="ignore"):  # it is on its way out
        scripted = torch.jit.trace(nn.Sequential(nn.Conv2d(3, 4, 3)), images)
    for model in (scripted, nn.Sequential(scripted)):
        with pytest.raises(OptionError, match=r"got a TorchScript model, .*; pass the Python"):
            list_layers(model, images)


def snapshot(model):
    """All that a model consists of, to the byte."""
    return {
        name: (
            module.training,
            {k: (id(v), v._version, v.detach().clone(), v.requires_grad, v.grad)
             for k, v in [*module._parameters.items(), *module._buffers.items()] if v is not None},
            {k: id(v) for k, v in module.__dict__.items()},
            [len(v) for k, v in module.__dict__.items() if k.endswith("_hooks")],
        )
        for name, module in model.named_modules()
    }  # fmt: skip


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_as_it_was(style, training, build, images):
    net = build(style, inplace=True).train(training)
    before, layer = snapshot(net), last(net, images)
    project(net, images, layer, 1)
    with pytest.raises(OptionError):
        project(net, images, layer, 1000)
    with pytest.raises(ShapeError):
        project(net, images[:, :2], layer, 1)
    with pytest.raises(OptionError):
        project(net, images, "nowhere", 1)
    assert equal(snapshot(net), before)


def test_the_model_is_left_as_it_was_when_it_fails_midway(images):
    class Fails(nn.Module):
        def forward(self, x):
            raise ZeroDivisionError

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), Fails())
    before = snapshot(net)
    with pytest.raises(ZeroDivisionError):
        project(net, images, "2", 0)
    assert project(net, images, "1", 0).signal.shape == images.shape  # it stops before
    assert equal(snapshot(net), before)


def test_images_and_the_gradient_mode_are_left_as_they_were(build, images):
    net = build("vgg", inplace=True)
    before = images.clone()
    expected = project(net, images, "9", 1).signal
    with torch.no_grad():
        assert torch.equal(project(net, images, "9", 1).signal, expected)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        made_here = images.clone()
        assert torch.equal(project(net, made_here, "9", 1).signal, expected)
    wanted = images.clone().requires_grad_()
    assert torch.equal(project(net, wanted, "9", 1).signal, expected)
    assert wanted.grad is None
    assert torch.equal(images, before)
    assert not expected.requires_grad


def test_a_model_that_works_on_its_input_in_place(images):
    before = images.clone()
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 2, 3))
    assert project(net, images, "1", 0).signal.shape == images.shape
    assert torch.equal(images, before)


def test_a_model_in_training_runs_as_in_evaluation(build, images):
    net = build("bn")
    expected = project(net, images, "7", 2).signal
    assert torch.equal(project(net.train(), images, "7", 2).signal, expected)


def test_maps_that_are_computed_again_for_the_gradient(filled):
    net = filled(DeconvNet(3, trunk=((1, 4), (2, 6)), code=8, size=32))
    images = torch.randn(2, 3, 32, 32)
    expected = project(net, images, "seg-score-voc", 1).signal
    net.checkpointing = net.trunk.checkpointing = True
    assert close(project(net, images, "seg-score-voc", 1).signal, expected)


def test_threads_do_not_disturb_one_another(build):
    net = build("resnet", inplace=True)
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    layer = last(net, images)
    expected = {rule: project(net, images, layer, 1, rule=rule).signal for rule in RULES}
    x = images.clone().requires_grad_()
    gradient = torch.autograd.grad(net(x).sum(), x)[0]
    wrong, barrier = [], threading.Barrier(4)

    def look(rule):
        barrier.wait()
        for _ in range(8):
            if rule is None:
                x = images.clone().requires_grad_()
                found, wanted = torch.autograd.grad(net(x).sum(), x)[0], gradient
            else:
                found, wanted = project(net, images, layer, 1, rule=rule).signal, expected[rule]
            if not torch.equal(found, wanted):
                wrong.append(rule)

    threads = [threading.Thread(target=look, args=(rule,)) for rule in (*RULES, None)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_double_precision(build, images):
    net = build("overlapping")
    single = project(net, images, "8", 1, place=(1, 1)).signal
    double = project(net.double(), images.double(), "8", 1, place=(1, 1)).signal
    assert double.dtype == torch.float64
    assert close(single.double(), double, 1e-5)


def test_no_images(build):
    found = project(build("vgg"), torch.zeros(0, 3, 32, 32), "9", 1)
    assert found.signal.shape == (0, 3, 32, 32)
    assert found.places.shape == (0, 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu(build, images):
    net = build("overlapping").double()
    expected = project(net, images.double(), "8", [1, 2]).signal
    found = project(net.cuda(), images.double().cuda(), "8", [1, 2])
    assert close(found.signal.cpu(), expected, 1e-9)
