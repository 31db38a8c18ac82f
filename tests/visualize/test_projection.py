"""Projections against published numbers, Captum, hooks, and plain gradients."""

import copy
import json
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.visualize.alike import Spelled, close, last
from unpool.errors import OptionError, ShapeError
from unpool.vision.images import read_image
from unpool.visualize import RULES, Rule, project

# ---- published numbers ---------------------------------------------------------------------------


class OneConv(nn.Module):
    """The network of Captum's own tests, whose expected values are quoted below."""

    def __init__(self):
        super().__init__()
        self.conv1, self.relu1 = nn.Conv2d(1, 2, 3), nn.ReLU()
        self.fc1, self.relu2 = nn.Linear(8, 4), nn.ReLU()
        self.conv1.weight = nn.Parameter(torch.ones(2, 1, 3, 3))
        self.conv1.bias = nn.Parameter(torch.tensor([-50.0, -75.0]))
        self.fc1.weight = nn.Parameter(torch.cat([torch.ones(4, 5), -torch.ones(4, 3)], 1))
        self.fc1.bias = nn.Parameter(torch.zeros(4))

    def forward(self, x, y=0.0):
        return self.relu2(self.fc1(self.relu1(self.conv1(x + y)).view(-1, 8)))


DECONV = [[2, 3, 3, 1], [3, 5, 5, 2], [3, 5, 5, 2], [1, 2, 2, 1]]
GUIDED = [[0, 1, 1, 1], [1, 3, 3, 2], [1, 3, 3, 2], [1, 2, 2, 1]]
GUIDED_SUMMED = [[1, 2, 2, 1], [2, 4, 4, 2], [2, 4, 4, 2], [1, 2, 2, 1]]


@pytest.mark.parametrize("layer", ["relu2", "fc1"])
@pytest.mark.parametrize(
    ("rule", "added", "expected"),
    [
        ("deconvnet", 0, DECONV),
        ("guided", 0, GUIDED),
        ("deconvnet", 1, DECONV),  # two inputs, summed
        ("guided", 1, GUIDED_SUMMED),
    ],
)
@pytest.mark.parametrize("unit", [0, 3])
def test_captums_published_numbers(layer, rule, added, expected, unit):
    images = torch.arange(16.0).view(1, 1, 4, 4) + added
    found = project(OneConv(), images, layer, unit, rule=rule, start="one")
    assert torch.equal(found.signal[0, 0], torch.tensor(expected).float())
    assert found.places is None


# ---- the same, computed otherwise ----------------------------------------------------------------


def by_hooks(net, images, unit, place, rule):
    """The gradient, with hooks on all ReLU modules of a copy that works nowhere in place."""
    net = copy.deepcopy(net)

    def change(module, grad_input, grad_output):
        signal = grad_output[0] if rule == "deconvnet" else grad_input[0]
        return (signal.clamp(min=0),)

    for module in net.modules():
        if isinstance(module, nn.ReLU | nn.ReLU6):
            module.inplace = False
            if rule != "saliency":
                module.register_full_backward_hook(change)
    x = images.clone().requires_grad_()
    return torch.autograd.grad(net(x)[:, unit, place[0], place[1]].sum(), x)[0]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("inplace", [False, True])
def test_every_style_of_network_against_hooks(style, inplace, rule, build, images):
    net = build(style, inplace)
    layer = last(net, images)
    for unit, place in [(0, (1, 2)), (2, (2, 0))]:
        found = project(net, images, layer, unit, place=place, rule=rule)
        expected = by_hooks(net, images, unit, place, rule)
        assert close(found.signal, expected * found.values.view(-1, 1, 1, 1))
        ones = project(net, images, layer, unit, place=place, rule=rule, start="one")
        assert close(ones.signal, expected)


def test_saliency_is_the_gradient_to_the_bit(style, build, images):
    net = build(style)
    x = images.clone().requires_grad_()
    maps = net(x)
    expected = torch.autograd.grad(maps[:, 1, 1, 1].sum(), x)[0]
    layer = last(net, images)
    found = project(net, images, layer, 1, place=(1, 1), rule="saliency", start="one")
    assert torch.equal(found.signal, expected)
    assert torch.equal(found.values, maps[:, 1, 1, 1].detach())


@pytest.mark.parametrize("rule", RULES)
def test_every_style_against_captum(style, rule, build, images):
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    if style == "mobilenet":
        pytest.skip("Captum knows nn.ReLU alone")
    net = build(style)
    layer, place = last(net, images), (1, 2)
    module = net.get_submodule(layer)
    x = images.clone().requires_grad_()
    with warnings.catch_warnings(action="ignore"):
        if rule == "saliency":
            whole = attr.Saliency(lambda x: net(x)[:, 1, place[0], place[1]])
            expected = whole.attribute(x, abs=False)
        else:
            kind = {"deconvnet": attr.NeuronDeconvolution, "guided": attr.NeuronGuidedBackprop}
            expected = kind[rule](net, module).attribute(x, (1, *place))
    found = project(net, images, layer, 1, place=place, rule=rule)
    assert close(found.signal, expected.detach() * found.values.view(-1, 1, 1, 1))


def test_captum_is_wrong_where_relu_is_a_function(build, images):
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    net, shadow = build("vgg"), Spelled(build("vgg"), F.relu)
    with warnings.catch_warnings(action="ignore"):
        theirs = attr.NeuronDeconvolution(shadow, shadow.convs[3]).attribute(
            images.clone().requires_grad_(), (0, 3, 3)
        )
    ours = project(shadow, images, "convs.3", 0, place=(3, 3), start="one").signal
    plain = project(shadow, images, "convs.3", 0, place=(3, 3), start="one", rule="saliency").signal
    assert close(theirs, plain)
    assert close(ours, project(net, images, "8", 0, place=(3, 3), start="one").signal)
    assert not close(ours, plain, 0.1)


# ---- units, places, seeds ------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_a_unit_for_each_image_in_one_pass(rule, build):
    net, count = build("overlapping"), 6
    images = torch.randn(count, 3, 40, 41, generator=torch.Generator().manual_seed(1))
    units = [5, 0, 3, 3, 7, 1]
    together = project(net, images, "7", units, rule=rule)
    for i, unit in enumerate(units):
        alone = project(net, images[i : i + 1], "7", unit, rule=rule)
        assert close(together.signal[i : i + 1], alone.signal, 1e-5)
        assert together.places[i].tolist() == alone.places[0].tolist()
        assert together.units[i] == unit


def test_the_strongest_unit_and_place(build, images):
    net = build("vgg")
    maps = net(images).detach()
    found = project(net, images, "9")
    assert torch.equal(found.values, maps.flatten(1).amax(1))
    for i, (unit, place) in enumerate(zip(found.units, found.places, strict=True)):
        assert maps[i, unit, place[0], place[1]] == maps[i].max()
    of_unit = project(net, images, "9", 4)
    assert torch.equal(of_unit.values, maps[:, 4].flatten(1).amax(1))


def test_the_first_of_equal_places(images):
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
    nn.init.zeros_(net[0].weight)
    assert project(net, images, "1", 1).places.tolist() == [[0, 0], [0, 0]]


def test_one_image_for_many_units_and_a_unit_at_many_places(build, images):
    net = build("vgg")
    one = images[:1]
    found = project(net, one, "9", range(8))
    assert found.signal.shape == (8, 3, 31, 33)
    assert close(found.signal[5:6], project(net, one, "9", 5).signal)
    places = torch.tensor([[0, 0], [2, 3], [6, 7]])
    found = project(net, one, "9", 2, place=places)
    assert torch.equal(found.places, places)
    maps = net(one).detach()
    assert close(found.values, maps[0, 2, places[:, 0], places[:, 1]])
    by_each = project(net, images, "9", [1, 2], place=places[:2])
    assert torch.equal(by_each.places, places[:2])


def test_a_whole_map_is_the_sum_of_its_places_where_all_is_linear(build, images):
    net = build("overlapping")
    maps = net(images).detach()
    whole = project(net, images, "8", 3, place="all", rule="saliency")
    assert whole.places is None
    assert close(whole.values, maps[:, 3].flatten(1).sum(1))
    parts = [
        project(net, images, "8", 3, place=(i, j), rule="saliency").signal
        for i in range(maps.shape[2])
        for j in range(maps.shape[3])
    ]
    assert close(whole.signal, sum(parts), 1e-5)
    region = torch.zeros(maps.shape[2:], dtype=torch.bool)
    region[0, 1] = region[1, 2] = True
    some = project(net, images, "8", 3, place=region, rule="saliency")
    expected = parts[1] + parts[maps.shape[3] + 2]
    assert close(some.signal, expected, 1e-5)
    each = torch.stack([region, ~region])
    assert close(
        project(net, images, "8", 3, place=each, rule="saliency").signal.sum(0),
        expected[0] + (sum(parts) - expected)[1],
        1e-5,
    )


@pytest.mark.parametrize("rule", ["deconvnet", "guided", "TTTFT", "FFF"])
def test_starting_with_the_activation_scales_the_projection(rule, build, images):
    net = build("resnet")
    layer = last(net, images)
    found = project(net, images, layer, 2, rule=rule)
    ones = project(net, images, layer, 2, rule=rule, start="one")
    assert (found.values > 0).all()
    assert close(found.signal, found.values.view(-1, 1, 1, 1) * ones.signal)


def test_nothing_goes_down_from_a_unit_that_is_zero(build, images):
    net = build("vgg")
    net[8].bias.data[1] = -100
    found = project(net, images, "9", 1)
    assert found.values.abs().max() == found.signal.abs().max() == 0


# ---- pooling, normalization ----------------------------------------------------------------------


def test_response_normalization_is_passed_over_or_differentiated(filled_net, images):
    def chain(*norm):
        return filled_net(
            nn.Sequential(nn.Conv2d(3, 6, 5, 2), nn.ReLU(), *norm, nn.Conv2d(6, 4, 3), nn.ReLU())
        )

    normed, bare = chain(nn.LocalResponseNorm(3, alpha=1.0)), chain()
    options = {"place": (2, 3), "start": "one"}
    found = project(normed, images, "3", 1, **options)
    assert close(found.signal, project(bare, images, "2", 1, **options).signal)  # is linear
    changed = project(normed, images, "3", 1, lrn="gradient", **options)
    assert not close(changed.signal, found.signal, 0.1)
    assert close(
        project(normed, images, "3", 1, rule="saliency", **options).signal,
        by_hooks(normed, images, 1, (2, 3), "saliency"),
    )
    hooked = by_hooks(normed, images, 1, (2, 3), "guided")
    assert close(project(normed, images, "3", 1, rule="TTTF", **options).signal, hooked)


def test_batch_norm_in_evaluation_goes_down_by_its_gain(filled_net, images):
    """Folded into the convolution, it gives the same."""
    net = filled_net(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    gain = net[1].weight / (net[1].running_var + net[1].eps).sqrt()
    folded = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    folded[0].weight.data = net[0].weight.data * gain.data.view(-1, 1, 1, 1)
    folded[0].bias.data = ((net[0].bias - net[1].running_mean) * gain + net[1].bias).data
    found, expected = (project(n, images, k, 1) for n, k in ((net, "2"), (folded, "1")))
    assert close(found.signal, expected.signal)


def test_only_positive_weights(images, filled_net):
    net = filled_net(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.ReLU()))
    found = project(net, images, "3", 1, rule=Rule(True, True, excite=True), place=(5, 6))
    assert torch.equal(found.values, net(images)[:, 1, 5, 6])
    positive = copy.deepcopy(net)
    maps = net[:2](images)
    for layer in (positive[0], positive[2]):
        layer.weight.data.clamp_(min=0)
    signal = torch.zeros_like(net(images))
    signal[:, 1, 5, 6] = found.values
    down = F.conv_transpose2d(signal, positive[2].weight) * (maps > 0)
    down = F.conv_transpose2d(down, positive[0].weight)
    assert close(found.signal, down.detach())


# ---- messages ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layer": "stage.1"}, OptionError, r"got layer 'stage.1', which the model does not have"),
        ({"layer": "10"}, OptionError, "did you mean '1'"),
        ({"unit": 8}, OptionError, r"got unit 8 of layer '9', which has 8; wanted 0 to 7"),
        ({"unit": -1}, OptionError, r"got unit -1 of layer '9'"),
        ({"unit": 1.5}, OptionError, r"got unit=1.5; wanted whole numbers"),
        ({"unit": [1, 2, 3]}, ShapeError, r"got 2 images, 3 units, 1 places; wanted one for each"),
        ({"place": (7, 0)}, OptionError, r"\(7, 0\) .* \(7, 8\); wanted \(0, 0\) to \(6, 7\)"),
        ({"place": "top"}, OptionError, r"got place='top'; wanted 'max', 'all', \(row, column\)"),
        ({"place": torch.ones(3, 3, dtype=torch.bool)}, ShapeError, r"got a region of \(3, 3\)"),
        ({"place": torch.zeros(3, 2, dtype=torch.int64)}, ShapeError, r"1 units, 3 places"),
        ({"rule": "zeiler"}, OptionError, r"got rule 'zeiler'; the rules are deconvnet, guided"),
        ({"start": "2"}, OptionError, r"got start='2'; wanted 'activation' or 'one'"),
        ({"overlap": "add"}, OptionError, r"got overlap 'add'; it is one of sum, overwrite"),
        ({"lrn": "none"}, OptionError, r"got lrn 'none'; it is 'identity' or 'gradient'"),
        ({"activations": "off"}, OptionError, r"got activations='off'; name 'relu', 'gradient'"),
        ({"activations": {"silu": "x"}}, OptionError, r"for example activations=\{'silu':"),
    ],
)  # fmt: skip
def test_messages(options, error, message, build, images):
    with pytest.raises(error, match=message):
        project(build("vgg"), images, **{"layer": "9", "unit": 1, **options})


def test_values_that_are_not_finite_are_refused(build, images):
    net = build("vgg")
    broken = images.clone()
    broken[1, 0, 3, 3] = torch.inf
    with pytest.raises(OptionError, match=r"layer '9' gives values that are not finite"):
        project(net, broken, "9", 1)


def test_a_negative_activation_sends_down_the_other_half(build, images):
    """It is no factor: as by a ReLU of its own for signals with the other sign."""
    net = nn.Sequential(build("vgg"), nn.Conv2d(8, 1, 1))
    nn.init.zeros_(net[1].weight)
    nn.init.constant_(net[1].bias, -2.0)
    with torch.no_grad():
        net[1].weight[0, 0], net[1].weight[0, 1] = 1e-6, -1e-6
    found, ones = (
        project(net, images, "1", 0, place=(2, 2), start=s) for s in ("activation", "one")
    )
    assert (found.values < 0).all()
    net[1].weight.data.neg_()
    other = project(net, images, "1", 0, place=(2, 2), start="one")
    assert close(found.signal, other.signal * -found.values.view(-1, 1, 1, 1), 1e-4)
    assert not close(found.signal, ones.signal * found.values.view(-1, 1, 1, 1), 0.1)


def test_messages_about_images(build, images):
    net = build("vgg")
    with pytest.raises(ShapeError, match=r"the model cannot be run on \(2, 2, 31, 33\) float32"):
        project(net, images[:, :2], "9", 1)
    with pytest.raises(ShapeError, match=r"got images of \(2, 3, 31, 33\) torch.uint8; wanted"):
        project(net, images.byte(), "9", 1)
    sized = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))
    assert project(sized, torch.rand(1, 3, 8, 8), "3", 1).places is None
    with pytest.raises(ShapeError, match=r"mat1 and mat2 .* pass images of the size"):
        project(sized, images, "3", 1)
    assert project(sized, images, "1", 1).signal.shape == images.shape
    with pytest.raises(OptionError, match="got a place in layer '3', which has no maps"):
        project(sized, torch.rand(1, 3, 8, 8), "3", 1, place=(0, 0))


def test_a_layer_below_which_there_is_no_gradient(images):
    class Still(nn.Module):
        @torch.no_grad()
        def forward(self, x):
            return x.mean(1, keepdim=True)

    with pytest.raises(OptionError, match=r"no signal can go down .* turns gradients off"):
        project(nn.Sequential(Still()), images, "0", 0)


def test_layers_are_named_or_given_as_modules():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)))
    image = torch.rand(1, 3, 9, 9)
    named = project(model, image, "1.0", 2)
    given = project(model, image, model[1][0], 2)
    assert (given.layer, torch.equal(given.signal, named.signal)) == ("1.0", True)
    with pytest.raises(OptionError, match="got a ReLU as the layer, which is not part"):
        project(model, image, nn.ReLU(), 2)
    with pytest.raises(OptionError, match="got layer 3; wanted its name, or the module"):
        project(model, image, 3, 2)
    with pytest.raises(OptionError, match="got a Sequential as the layer"):
        project(model, image, model, 2)


def test_a_projection_is_saved_and_shows_itself(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    found = project(model, torch.rand(1, 3, 9, 9), "1", [0, 1, 2, 3, 0])
    path = found.save(tmp_path / "units.png")
    assert (read_image(path) == found.figure()).all()
    assert found.figure().shape == (9 * 2 + 2, 9 * 4 + 2 * 3, 3)
    assert (read_image(found._repr_png_()) == found.figure()).all()
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["units"] == [0, 1, 2, 3, 0]
    assert plain["places"] == found.places.tolist()
    with pytest.raises(ShapeError, match="got a ndarray for the images"):
        project(model, np.zeros((1, 3, 9, 9)), "1")
