"""Projections of class scores, against autograd and against a deconvnet written out."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unpool.errors import OptionError, ShapeError
from unpool.models import FCN, DeconvNet
from unpool.visualize import RULES, measure_field, occlude_region, project, project_scores
from unpool.visualize.activations import SCORE, score_layer
from unpool.visualize.class_scores import score_maps

TABLE = ((1, 6), (2, 8))


@pytest.fixture
def net(filled):
    return filled(DeconvNet(4, TABLE, code=None, size=32))


@pytest.fixture
def image():
    return torch.randn(1, 3, 30, 33, generator=torch.Generator().manual_seed(2)) * 40


def gradient(net, image, label):
    """The gradient of the sum of a class's scores where it is predicted, by autograd."""
    x = image.clone().requires_grad_()
    scores = net(x)
    region = scores.argmax(1)[0] == label
    return torch.autograd.grad(scores[0, label][region].sum(), x)[0], region, scores.detach()


def classes(net, image):
    return net(image).argmax(1).unique().tolist()


def close(a, b, tolerance=1e-5):
    assert a.shape == b.shape
    return (a - b).abs().max() <= tolerance * b.abs().max()


@pytest.mark.parametrize("code", [None, 8])
def test_saliency_is_the_gradient(filled, image, code):
    """Also through unpooling, whose adjoint reads the values at the switches."""
    net = filled(DeconvNet(4, TABLE, code=code, size=28))
    there = classes(net, image)
    assert len(there) > 1
    found = project_scores(net, image, there, rule="saliency", start="one")
    for i, label in enumerate(there):
        expected, region, scores = gradient(net, image, label)
        assert torch.equal(found.regions[i], region)
        assert close(found.signal[i : i + 1], expected)
        assert close(found.values[i], scores[0, label][region].sum())


def by_hand(net, image, label, rule):
    """The backward pass through every layer of a network of one stage, written out."""
    conv, norm = net.trunk.stages[0].conv1_1, net.trunk.stages[0].bn1_1
    back, renorm = net.decoder[0].deconv1_1, net.decoder[0].debn1_1
    a = norm(conv(image))
    pooled, switches = F.max_pool2d(a.relu(), 2, ceil_mode=True, return_indices=True)
    sparse = F.max_unpool2d(pooled, switches, 2, output_size=a.shape[2:])
    b = renorm(back(sparse))
    scores = net.score(b.relu())

    def rectify(signal, x):
        signal = signal if rule == "saliency" else signal.relu()
        return signal if rule == "deconvnet" else signal * (x > 0)

    def gain(layer):
        return (layer.weight / (layer.running_var + layer.eps).sqrt()).view(-1, 1, 1, 1)

    region = scores.argmax(1)[0] == label
    start = torch.zeros_like(scores)
    start[0, label][region] = scores[0, label][region]
    signal = rectify(F.conv_transpose2d(start, net.score.weight), b)
    signal = F.conv2d(
        signal, (back.weight.transpose(0, 1) * gain(renorm)).transpose(0, 1), None, 1, 1
    )
    flat = signal.flatten(2).gather(2, switches.flatten(2))  # pooling, at the switches of the trunk
    signal = torch.zeros_like(a).flatten(2).scatter(2, switches.flatten(2), flat).view(a.shape)
    return F.conv_transpose2d(rectify(signal, a), conv.weight * gain(norm), None, 1, 1)


@pytest.mark.parametrize("rule", RULES)
def test_against_the_backward_pass_written_out(filled, image, rule):
    net = filled(DeconvNet(3, ((1, 8),), code=None, size=32))
    for label in classes(net, image):
        found = project_scores(net, image, [label], rule=rule)
        with torch.no_grad():
            assert close(found.signal, by_hand(net, image, label, rule))


def seen(place, table):
    """A mask of the pixels on which scores may depend; each layer widens it."""

    def widened(mask, layers):
        return F.max_pool2d(mask, 2 * layers + 1, 1, layers)

    mask, sizes = place[None, None].float(), []
    for layers, _ in table:  # the decoder, and every cell that an unpooled value may come from
        sizes.append(mask.shape[2:])
        mask = F.max_pool2d(widened(mask, layers), 2, ceil_mode=True)
    for (layers, _), (height, width) in zip(reversed(table), reversed(sizes), strict=True):
        cells = mask.repeat_interleave(2, 2).repeat_interleave(2, 3)
        mask = widened(cells[..., :height, :width], layers)
    return mask[0, 0] > 0


@pytest.mark.parametrize("rule", RULES)
def test_a_signal_stays_within_what_the_scores_see(filled, rule):
    net = filled(DeconvNet(4, TABLE, code=None, size=32))
    image = torch.randn(1, 3, 47, 50, generator=torch.Generator().manual_seed(5)) * 40
    place = torch.zeros(47, 50, dtype=torch.bool)
    place[4:6, 41] = True
    support = project(score_layer(net), image, SCORE, 1, place=place, rule=rule).signal[0].any(0)
    inside = seen(place, TABLE)
    assert 0 < inside.float().mean() < 0.5
    assert support.any()
    assert not (support & ~inside).any()
    field = measure_field(score_layer(net), image, SCORE)
    x0, y0, x1, y1 = field.box(4, 41)
    boxed = torch.zeros_like(inside)
    boxed[max(y0, 0) : y1, max(x0, 0) : x1] = True
    assert not (inside & ~boxed).any()


def test_default_classes_exclude_background_and_specks(image):
    class Flags(nn.Module):
        """Stripes of classes: 300 places of class 0, then 500 of 3, 195 of 1, and 5 of 2."""

        def forward(self, x):
            labels = torch.tensor([0] * 300 + [3] * 500 + [1] * 195 + [2] * 5)
            scores = F.one_hot(labels, 4).T.reshape(1, 4, 25, 40).float()
            return {"out": scores + 0 * x.mean((1, 2, 3), keepdim=True), "aux": x}

    found = project_scores(Flags(), image)
    assert found.units.tolist() == [3, 1]
    assert found.regions.flatten(1).sum(1).tolist() == [500, 195]
    assert found.values.tolist() == [500, 195]
    assert found.places is None


def test_an_fcn(filled, image):
    net = FCN(3, ((1, 4), (1, 6), (1, 8)), None, stride=4, pad=1).eval()
    torch.manual_seed(1)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    label = classes(net, image)[0]
    found = project_scores(net, image, [label], rule="saliency", start="one")
    assert close(found.signal, gradient(net, image, label)[0])


def test_the_model_is_not_changed_and_threads_are_independent(net, image):
    net.train()
    before = {k: (v.clone(), v._version) for k, v in net.state_dict().items()}
    label = int(score_maps(net, image).argmax(1).flatten()[0])
    expected = {rule: project_scores(net, image, [label], rule=rule).signal for rule in RULES}
    found = {rule: [] for rule in RULES}

    def look(rule):
        for _ in range(8):
            found[rule].append(project_scores(net, image, [label], rule=rule).signal)

    threads = [threading.Thread(target=look, args=(rule,)) for rule in RULES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rule in RULES:
        assert len(found[rule]) == 8
        assert all(torch.equal(signal, expected[rule]) for signal in found[rule])
    with pytest.raises(OptionError):
        project_scores(net, image, [9])
    with pytest.raises(ShapeError):
        project_scores(net, image[:, :2])
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name][0])
        assert value._version == before[name][1]


class Named(nn.Module):
    """Gives scores by name, as torchvision's segmentation models do, the auxiliary ones first."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        scores = self.model(x)
        return {"aux": -scores, "out": scores}


def test_scores_in_a_dictionary_as_of_torchvision(net, image):
    label = classes(net, image)[-1]
    named = Named(net)
    assert torch.equal(score_maps(named, image), score_maps(net, image))
    one, other = (project_scores(model, image, [label]) for model in (named, net))
    assert torch.equal(one.signal, other.signal)
    options = {"target": label, "window": 16, "stride": 16}
    one, other = (occlude_region(model, image, **options) for model in (named, net))
    assert torch.equal(one.iou, other.iou)


class Constant(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape

    def forward(self, x):
        scores = torch.zeros(1, *self.shape)
        scores[:, 0] = 1
        return scores + 0 * x.mean()


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((3, 4, 4), {}, "hardly anything but sky is predicted in this image"),
        ((3, 4, 4), {"classes": [2]}, "got class tree, which is .* nowhere .*; there is sky: name"),
        ((4, 4, 4), {"classes": [3]}, "got class 3, which is predicted nowhere"),
        ((3,), {}, r"the model gives \(3,\) for .*; wanted a model that segments"),
        ((1, 4, 4), {}, r"the model gives \(1, 4, 4\)"),
    ],
)
def test_messages(image, shape, options, message):
    with pytest.raises(OptionError, match=message):
        project_scores(Constant(shape), image, names=["sky", "bird", "tree"], **options)
