"""Occlusion against Captum, its published numbers, and a loop over positions."""

import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from unpool.errors import OptionError, ShapeError
from unpool.models import VGG
from unpool.visualize import occlude, project
from unpool.visualize.occlusion.occlude import Naive

basic = pytest.importorskip("captum.testing.helpers.basic_models")


class Flat(nn.Module):
    """A model of rows of numbers, for images of one row."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x.flatten(1))


@pytest.mark.parametrize(
    ("row", "window", "stride", "baseline", "wanted"),
    [
        ([20.0, 50.0, 30.0], 1, 1, 0.0, [80.0, 200.0, 120.0]),
        ([20.0, 50.0, 30.0], 2, 1, 10.0, [200.0, 220.0, 240.0]),
        ([20.0, 50.0, 30.0], 2, 2, 0.0, [280.0, 280.0, 120.0]),
        ([2.0, 10.0, 3.0], 1, 1, 0.0, [8.0, 35.0, 12.0]),
    ],
)
@pytest.mark.parametrize("batch", [1, 3, 7])
def test_captums_numbers_for_rows(row, window, stride, baseline, wanted, batch):
    model = Flat(basic.BasicModel_MultiLayer(inplace=True))
    image = torch.tensor(row).view(1, 1, 1, 3)
    found = occlude(
        model,
        image,
        target=0,
        window=(1, window),
        stride=(1, stride),
        baseline=baseline,
        value="score",
        batch=batch,
    )
    assert found.drop.flatten().tolist() == pytest.approx(wanted, rel=1e-5)


class Half(nn.Module):
    """Captum's network of two images, as one of the first or of the second."""

    def __init__(self, model, other, first):
        super().__init__()
        self.model, self.other, self.first = model, other, first

    def forward(self, x):
        other = self.other.expand(len(x), -1, -1, -1)
        return self.model(*((x, other) if self.first else (other, x)))


def test_captums_numbers_for_images():
    model = basic.BasicModel_ConvNet_One_Conv()
    x, ones = torch.arange(16.0).view(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    first, second = Half(model, ones, True), Half(model, x, False)
    options = {"target": 0, "value": "score"}
    assert occlude(first, x, window=4, **options).drop.unique().tolist() == [67.0]
    assert occlude(second, ones, window=4, **options).drop.unique().tolist() == [13.0]
    found = occlude(first, x, window=(2, 3), stride=(2, 1), **options).drop
    assert found.tolist() == [[17.0] * 4] * 2 + [[64.0, 65.5, 65.5, 67.0]] * 2
    found = occlude(second, ones, window=(1, 2), stride=(1, 2), **options).drop
    assert found.tolist() == [[3.0] * 4] * 3 + [[0.0] * 4]


@pytest.mark.parametrize(
    ("window", "stride"),
    [((7, 5), (3, 5)), ((4, 9), (1, 4)), ((30, 3), (11, 3)), ((1, 31), (1, 8))],
)
@pytest.mark.parametrize("name", ["vgg", "overlapping", "resnet"])
def test_equals_captum(name, window, stride, build, images, filled_net):
    from captum.attr import Occlusion

    # in double precision: differences of scores lose digits, on some processors more than on others
    trunk, image = build(name).double(), images[:1].double()
    shape = trunk(image).shape
    head = filled_net(nn.Sequential(nn.Flatten(), nn.Linear(shape[1:].numel(), 5)))
    model = nn.Sequential(trunk, head.double()).eval()
    options = {"target": 3, "baselines": 0.5, "perturbations_per_eval": 8}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        attributed = Occlusion(model).attribute(
            image, (3, *window), strides=(3, *stride), **options
        )
    found = occlude(
        model, image, target=3, window=window, stride=stride, baseline=0.5, value="score"
    )
    assert found.incremental == (name != "resnet")
    wanted = attributed[0, 0].double()
    rounding = torch.finfo(torch.float32).eps * found.values.abs().max()  # in which scores are kept
    assert (found.drop - wanted).abs().max() <= rounding


@pytest.mark.slow
def test_equals_captum_on_vgg16():
    from captum.attr import Occlusion

    torch.manual_seed(0)
    with torch.no_grad():  # in double precision: differences of scores lose digits, Captum's too
        net = VGG(20, "vgg16", code=64).eval()
        image = 50 * torch.randn(1, 3, 224, 224)
        wanted = Occlusion(net.double()).attribute(
            image.double(), (3, 75, 90), (3, 75, 60), target=4, perturbations_per_eval=4
        )[0, 0]
        net.float()
    for method in ("incremental", "naive"):
        found = occlude(
            net, image, target=4, window=(75, 90), stride=(75, 60), value="score", method=method
        )
        assert (found.drop - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.fixture
def net(filled_net):
    return filled_net(VGG(6, ((1, 4), (1, 6)), None, 24))


@pytest.fixture
def image():
    return torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("method", ["incremental", "naive"])
def test_all_maps_in_one_pass_against_a_loop(method, net, image):
    color = torch.tensor([0.5, -1.0, 0.2])
    found = occlude(
        net,
        image,
        layer="features.relu2_1",
        window=(8, 5),
        stride=(4, 5),
        baseline=color,
        method=method,
        batch=4,
    )
    assert (found.incremental, found.note) == (
        (True, "") if method == "incremental" else (False, "not asked for")
    )
    with torch.no_grad():
        maps = net.features[:5](image)
        scores = net(image).softmax(1)
        assert (found.label, found.target) == (int(scores.argmax()),) * 2
        assert found.value == pytest.approx(float(scores.max()), rel=1e-5)
        assert found.unit == int(maps.sum((0, 2, 3)).argmax())
        assert found.total == pytest.approx(float(maps[0, found.unit].sum()), rel=1e-5)
        for n, (x0, y0, x1, y1) in enumerate(found.windows.boxes()):
            hidden = image.clone()
            hidden[0, :, y0:y1, x0:x1] = color[:, None, None]
            place = divmod(n, found.windows.shape[1])
            scores = net(hidden).softmax(1)[0]
            assert found.values[place] == pytest.approx(float(scores[found.target]), rel=1e-4)
            assert found.labels[place] == int(scores.argmax())  # what MONAI maps
            total = net.features[:5](hidden)[0, found.unit].sum()
            assert float(found.totals[place]) == pytest.approx(float(total), rel=1e-5)
    projection = project(net, image, "features.relu2_1", found.unit, place="all")
    assert torch.equal(found.projection.signal, projection.signal)


def test_of_a_layer_that_runs_again_and_of_one_after_the_chain(image, filled_net):
    relu = nn.ReLU(inplace=True)
    model = filled_net(
        nn.Sequential(
            *(nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 4, 3), relu, nn.AdaptiveAvgPool2d(3)),
            *(nn.Flatten(), nn.Linear(36, 3)),
        )
    )
    for layer in ("1:2", "4", "0"):
        options = {"layer": layer, "window": 10}
        quick = occlude(model, image, method="incremental", **options)
        plain = occlude(model, image, method="naive", **options)
        assert quick.unit == plain.unit
        assert torch.allclose(quick.totals, plain.totals, rtol=1e-5)
        assert plain.totals.unique().numel() > 3
        assert torch.allclose(quick.values, plain.values, rtol=1e-4)


def test_models_that_are_no_chains_fall_back_and_say_why(build, images):
    model = nn.Sequential(build("resnet"), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = occlude(model, images[:1], layer="0.4", window=9)
    assert not found.incremental
    assert found.note.startswith("the model is not a chain of layers: ")
    record = found.to_dict()
    assert (record["exact incremental"], record["note"]) == ("no", found.note)
    with pytest.raises(OptionError, match=r"not a chain of layers: .*; use method='naive'"):
        occlude(model, images[:1], window=9, method="incremental")
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


def test_a_layer_inside_of_another_class_falls_back(net, image):
    wrapped = nn.Sequential(net, nn.Identity())
    assert occlude(wrapped, image, layer="0.features", window=8).incremental
    shared = Naive(net, image, torch.zeros(3, 24, 24), ("features.pool2", 0), batch=5)
    assert shared([(0, 0, 3, 3)] * 7)[1].unique().numel() == 1


def test_save(net, image, tmp_path):
    found = occlude(net, image, layer="features.pool2", window=8, stride=4)
    photo = np.full((24, 24, 3), 90, np.uint8)
    figure, facts = found.save(tmp_path / "a.b", photo, ["cat", "dog"], "BGR")
    assert (figure.name, facts.name) == ("a.b.png", "a.b.json")
    assert np.array(Image.open(figure)).ndim == 3
    record = json.loads(facts.read_text())
    assert record["values"] == found.values.tolist()
    assert record["labels"] == found.labels.tolist()
    assert record["totals"] == found.totals.tolist()
    assert record["lowest"] == pytest.approx(float(found.values.min()))
    x0, y0, *_ = record["lowest_box"]
    row, column = divmod(int(found.values.argmin()), found.windows.shape[1])
    assert (y0, x0) == (4 * row, 4 * column)
    captions = [caption for _, caption in found.panels(photo)]
    assert len(captions) == 6
    assert captions[3].startswith(f"class {found.target}: ")
    without = occlude(net, image, window=8)
    assert (len(without.panels(photo)), without.to_dict()["totals"]) == (4, None)
    with pytest.raises(ShapeError, match=r"an image of \(3, 3, 3\) for maps of \(24, 24\)"):
        found.panels(np.zeros((3, 3, 3), np.uint8))


class Several(nn.Module):
    """A model that gives more than scores."""

    def __init__(self, model, made):
        super().__init__()
        self.model, self.made = model, made

    def forward(self, x):
        return self.made(self.model(x))


@pytest.mark.parametrize("made", [lambda y: {"out": y, "n": 3}, lambda y: (y, y * 2)])
def test_the_first_of_several_outputs_is_taken(made, net, image):
    wanted = occlude(net, image, layer="features.pool2", window=12)
    found = occlude(Several(net, made), image, layer="model.features.pool2", window=12)
    assert torch.allclose(found.values, wanted.values, rtol=1e-5)
    assert torch.allclose(found.totals, wanted.totals, rtol=1e-5)
    assert (found.unit, found.incremental) == (wanted.unit, False)
    assert found.total == pytest.approx(wanted.total)


@pytest.mark.parametrize("method", ["incremental", "naive"])
def test_a_softmax_of_the_model_is_not_taken_twice(method, net, image):
    options = {"window": 8, "method": method}
    wanted = occlude(net, image, **options)
    found = occlude(nn.Sequential(net.features, net.classifier, nn.Softmax(1)), image, **options)
    assert torch.allclose(found.values, wanted.values, rtol=1e-4)
    assert found.value == pytest.approx(wanted.value, rel=1e-4)


def test_without_a_rule_there_is_no_projection(image, filled_net):
    model = filled_net(nn.Sequential(nn.Conv2d(3, 4, 5), nn.GELU(), nn.Flatten()))
    found = occlude(model, image, layer="1", window=12)
    assert found.projection is None
    assert found.unprojected.startswith("the model calls gelu, which this rule does not cover")
    assert found.total == pytest.approx(
        float(model[:2](image).detach()[0, found.unit].sum()), rel=1e-5
    )
    assert len(found.panels(np.zeros((24, 24, 3), np.uint8))) == 5  # of 6
    assert found.to_dict()["unprojected"] == found.unprojected
    for options in ({"rule": "saliency"}, {"activations": {"gelu": "relu"}}):
        shown = occlude(model, image, layer="1", window=12, **options)
        wanted = project(model, image, "1", found.unit, place="all", **options)
        assert torch.equal(shown.projection.signal, wanted.signal)
        assert shown.unprojected == ""


@pytest.mark.parametrize("layer", [None, "features.pool2"])
def test_values_that_are_not_finite_are_refused(layer, net, image):
    with torch.no_grad():
        next(net.parameters())[0] = torch.nan
    for shown in (image, 0 * image):
        with pytest.raises(OptionError, match="values that are not finite; the weights are damag"):
            occlude(net, shown, layer=layer, window=12)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": 6}, OptionError, "class 6; the model has 0 to 5"),
        ({"layer": "features.relu3"}, OptionError, "did you mean 'features.relu2_1'"),
        ({"layer": "classifier.fc8"}, OptionError, r"gives \(6,\) .* wanted maps"),
        ({"baseline": torch.zeros(4)}, ShapeError, r"baseline of \(4, 1, 1\) .* one a channel"),
        ({"value": "logit"}, OptionError, "value='logit'"),
        ({"method": "fast"}, OptionError, "method='fast'"),
        ({"batch": 0}, OptionError, "batch=0; wanted 1 or more"),
        ({"rule": "zeiler"}, OptionError, "got rule 'zeiler'"),
        ({"activations": "off"}, OptionError, "got activations='off'"),
        ({"window": 25}, OptionError, "an occluder of 25 x 25"),
    ],
)
def test_invalid_arguments(net, image, options, error, message):
    with pytest.raises(error, match=message):
        occlude(net, image, **options)


def test_images_and_outputs_that_do_not_fit_are_refused(net, image):
    with pytest.raises(ShapeError, match=r"an image of \(2, 3, 24, 24\) .*; wanted one"):
        occlude(net, image.repeat(2, 1, 1, 1))
    with pytest.raises(ShapeError, match=r"gives \(1, 6, 6, 6\); wanted class scores"):
        occlude(net.features, image)
    for method in ("auto", "naive"):
        with pytest.raises(ShapeError, match=r"the model cannot be run on \(1, 3, 24, 24\)"):
            occlude(nn.Sequential(nn.Conv2d(4, 2, 3), nn.Flatten()), image, method=method)
    with pytest.raises(ShapeError, match="this VGG takes"):
        occlude(net, image[..., :20], layer="features.pool2")


def test_progress(net, image):
    calls = []
    occlude(net, image, window=3, stride=1, progress=lambda *now: calls.append(now))
    assert calls == [(256, 484, "occluding"), (484, 484, "occluding")]


class Splitting(nn.Module):
    """A layer that gives its maps, and something else."""

    def forward(self, x):
        maps = x.relu()
        return maps, maps.mean()


class Choosing(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.split, self.head = nn.Conv2d(3, 4, 3), Splitting(), nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.split(self.conv(x))[0].mean((2, 3)))


def test_a_layer_that_gives_several_values_is_watched_by_its_maps():
    torch.manual_seed(0)
    model, image = Choosing().eval(), torch.rand(1, 3, 12, 12)
    found = occlude(model, image, window=4, stride=4, layer="split")
    with torch.no_grad():
        for box, total in zip(found.windows.boxes(), found.totals.flatten(), strict=True):
            hidden = image.clone()
            hidden[:, :, box[1] : box[3], box[0] : box[2]] = 0
            wanted = model.conv(hidden).relu()[0, found.unit].sum()
            assert float(total) == pytest.approx(float(wanted), rel=1e-5, abs=1e-5)
