"""Receptive fields against published figures, and against perturbed pixels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unpool.errors import OptionError, ShapeError
from unpool.models.classifiers import VGG, AlexNet, ZFNet
from unpool.models.vgg import TRUNKS
from unpool.visualize import CHAINS, Field, chain_fields, measure_field, project

# size, jump, left edge: tables of Zeiler and Fergus' network, and well-known values of others
PUBLISHED = {
    ("zfnet", "conv1"): (7, 2, -1),
    ("zfnet", "pool1"): (11, 4, -1),
    ("zfnet", "conv2"): (27, 8, -1),
    ("zfnet", "pool2"): (43, 16, -1),
    ("zfnet", "conv3"): (75, 16, -17),
    ("zfnet", "conv4"): (107, 16, -33),
    ("zfnet", "conv5"): (139, 16, -49),
    ("zfnet", "pool5"): (171, 32, -49),
    ("alexnet", "conv1"): (11, 4, 0),
    ("alexnet", "pool1"): (19, 8, 0),
    ("alexnet", "conv2"): (51, 8, -16),
    ("alexnet", "pool2"): (67, 16, -16),
    ("alexnet", "conv3"): (99, 16, -32),
    ("alexnet", "conv4"): (131, 16, -48),
    ("alexnet", "conv5"): (163, 16, -64),
    ("alexnet", "pool5"): (195, 32, -64),
    ("vgg16", "pool1"): (6, 2, -2),
    ("vgg16", "pool2"): (16, 4, -6),
    ("vgg16", "conv3_3"): (40, 4, -18),
    ("vgg16", "pool3"): (44, 8, -18),
    ("vgg16", "conv4_3"): (92, 8, -42),
    ("vgg16", "pool4"): (100, 16, -42),
    ("vgg16", "conv5_3"): (196, 16, -90),
    ("vgg16", "pool5"): (212, 32, -90),
}


@pytest.mark.parametrize(("name", "layer"), PUBLISHED)
def test_published_fields(name, layer):
    size, jump, left = PUBLISHED[name, layer]
    assert chain_fields(name)[layer] == Field((size, size), (jump, jump), (left, left))


def test_fields_of_the_caffe_variant():
    """The "ZF" of py-faster-rcnn has other paddings."""
    chain = [("conv1", 7, 2, 3), ("pool1", 3, 2, 1), ("conv2", 5, 2, 2), ("pool2", 3, 2, 1)]
    chain += [(f"conv{i}", 3, 1, 1) for i in (3, 4, 5)]
    assert [f.start[1] for f in chain_fields(chain).values()] == [-3, -5, -13, -21, -37, -53, -69]


def narrow(name):
    """A chain with the published windows and three maps in each layer."""
    model = nn.Sequential()
    for layer, kernel, stride, padding in CHAINS[name]:
        if layer.startswith("pool"):
            model.add_module(layer, nn.MaxPool2d(kernel, stride, padding, ceil_mode=True))
        else:
            model.add_module(layer, nn.Conv2d(3, 3, kernel, stride, padding))
            model.add_module(f"relu-{layer}", nn.ReLU(inplace=True))
    return model


@pytest.mark.parametrize(("name", "side"), [("alexnet", 227), ("zfnet", 224), ("vgg16", 224)])
def test_measured_is_computed(name, side):
    model = narrow(name)
    fields = chain_fields(model)
    assert {k: v for k, v in fields.items() if "relu" not in k} == chain_fields(name)
    upper = [k for k in fields if k in ("conv1", "conv2_2", "conv5", "conv5_3", "pool5")]
    for layer in upper:
        assert measure_field(model, torch.zeros(1, 3, side, side), layer) == fields[layer]


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("alexnet", lambda: AlexNet(2, widths=(2, 2, 2, 2, 2), code=4)),
        ("zfnet", lambda: ZFNet(2, widths=(2, 2, 2, 2, 2), code=4)),
        ("vgg16", lambda: VGG(2, [(n, 2) for n, _ in TRUNKS["vgg16"]], code=4)),
    ],
)
def test_the_networks_have_the_published_windows(name, model):
    fields = chain_fields(model().features)
    assert chain_fields(name).items() <= fields.items()


def seen(model, images, place):
    """The box of pixels that affect a unit, by changing each row and column; None if empty."""
    for weight in model.parameters():
        weight.data.copy_(torch.rand_like(weight) + 0.1)  # so that nothing cancels
    lines = []
    for axis in (3, 2):
        count = images.shape[axis]
        changed = images.repeat(count + 1, 1, 1, 1)  # the last one stays as it is
        for i in range(count):
            changed[i].select(axis - 1, i).add_(1)
        with torch.no_grad():
            values = model(changed)[:, :, place[0], place[1]]
        found = (values[:-1] != values[-1]).any(1).nonzero().flatten().tolist()
        if not found:
            return None
        lines.append((found[0], found[-1] + 1))
    (x0, x1), (y0, y1) = lines
    return x0, y0, x1, y1


windows = st.tuples(
    st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2), st.booleans()
)


@settings(max_examples=25, deadline=None)
@given(st.lists(windows, min_size=1, max_size=4), st.integers(20, 33), st.randoms())
def test_random_chains(rows, side, random):
    layers, channels = [], 1
    for kernel, stride, padding, dilation, pooled in rows:
        if pooled:  # a mean, which depends on every cell
            layers.append(nn.AvgPool2d(kernel, stride, min(padding, kernel // 2)))
        else:
            layers.append(nn.Conv2d(channels, 2, kernel, stride, padding, dilation))
            channels = 2
    model, images = nn.Sequential(*layers).double(), torch.rand(1, 1, side, side + 3).double()
    try:
        height, width = model(images).shape[-2:]
    except RuntimeError:  # the windows are larger than the image
        return
    last = str(len(layers) - 1)
    field = chain_fields(model)[last]
    place = random.randrange(height), random.randrange(width)
    x0, y0, x1, y1 = field.box(*place)
    inside = (max(x0, 0), max(y0, 0), min(x1, side + 3), min(y1, side))
    found = seen(model, images, place)
    if inside == (x0, y0, x1, y1):
        assert found == inside
    elif found is not None:  # near the border it may be smaller: padding has no pixels
        assert inside[0] <= found[0]
        assert inside[1] <= found[1]
        assert inside[2] >= found[2]
        assert inside[3] >= found[3]
    measured = measure_field(model, images, last)
    for line, true in zip(zip(*measured, strict=True), zip(*field, strict=True), strict=True):
        assert line == true or line[1] == 0


# ---- other models --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("style", "layer", "expected"),
    [
        ("resnet", "3", (11, 4, -5)),
        ("resnet", "4", (27, 4, -13)),
        ("resnet", "5", (43, 4, -21)),
        ("squeezenet", "2", (7, 4, 0)),
        ("squeezenet", "4", (23, 4, -8)),
        ("densenet", "2", (7, 1, -3)),
        ("densenet", "6", (8, 2, -3)),
        ("mobilenet", "4", (11, 2, -4)),
    ],
)
def test_fields_of_networks_with_branches(style, layer, expected, build, images):
    size, jump, start = expected
    images = nn.functional.interpolate(images, size=(61, 63))
    found = measure_field(build(style, inplace=True), images, layer)
    assert found == Field((size, size), (jump, jump), (start, start))


def test_a_field_larger_than_the_image():
    model = nn.Sequential(*(nn.Conv2d(3, 3, 9, padding=4, dilation=1) for _ in range(8)))
    assert measure_field(model, torch.zeros(1, 3, 20, 40), "7") == Field(
        (65, 65), (1, 1), (-32, -32)
    )


def test_different_rows_and_columns():
    model = nn.Sequential(
        nn.Conv2d(3, 4, (3, 5), stride=(1, 2), padding=(0, 2)), nn.MaxPool2d((2, 1), (2, 1))
    )
    expected = Field((4, 5), (2, 2), (0, -2))
    assert chain_fields(model)["1"] == expected
    assert measure_field(model, torch.zeros(1, 3, 24, 25), "1") == expected


class Gate(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


@pytest.mark.parametrize(
    "mix",
    [nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(6), Gate(), nn.Linear(4 * 20 * 22, 5)],
    ids=lambda mix: type(mix).__name__,
)
def test_the_whole_image_if_fields_are_irregular(mix):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Identity(), mix)
    if isinstance(mix, nn.Linear):
        model[1] = nn.Flatten()
    found = measure_field(model, torch.zeros(1, 3, 20, 22), "2")
    assert found == Field((20, 22), (0, 0), (0, 0))
    assert found.box(0, 0) == (0, 0, 22, 20)


def test_a_model_of_one_size_only(build):
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = build("vgg")

        def forward(self, x):
            if x.shape[-2:] != (32, 32):
                raise ShapeError("got another size")
            return self.features(x)

    images = torch.zeros(1, 3, 32, 32)
    assert measure_field(Fixed(), images, "features.9") == Field((20, 20), (4, 4), (-8, -8))


def test_zero_weights_and_deep_networks():
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(60)))
    for weight in model.parameters():
        nn.init.zeros_(weight)
    before = [p.clone() for p in model.parameters()]
    found = measure_field(model, torch.zeros(1, 3, 64, 64), "59")
    assert found == Field((121, 121), (1, 1), (-60, -60))
    assert all(map(torch.equal, before, model.parameters()))


def test_layers_that_do_not_see_the_image():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.ones(1, 2, 3, 3)

    with pytest.raises(OptionError, match="layer '0' does not depend on the images"):
        measure_field(nn.Sequential(Constant()), torch.zeros(1, 3, 9, 9), "0")


# ---- projections ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["deconvnet", "guided", "saliency", "FFF"])
@pytest.mark.parametrize("name", ["zfnet", "vgg16"])
def test_projections_vanish_outside_the_field(name, rule, filled_net):
    model = filled_net(narrow(name))
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    layer = "conv5" if name == "zfnet" else "conv4_2"
    field = chain_fields(model)[layer]
    places = torch.tensor([[0, 0], [5, 6], [12, 12]])
    found = project(model, images, layer, [0, 1, 2], place=places, rule=rule, start="one")
    for signal, (row, column) in zip(found.signal, places.tolist(), strict=True):
        x0, y0, x1, y1 = (max(v, 0) for v in field.box(row, column))
        outside = signal.clone()
        outside[:, y0:y1, x0:x1] = 0
        assert outside.abs().max() == 0
        assert signal.abs().max() > 0


def test_messages(build):
    with pytest.raises(OptionError, match="got chain 'resnet'; the chains are alexnet, zfnet, vgg"):
        chain_fields("resnet")
    with pytest.raises(OptionError, match=r"got Residual\([\s\S]*use measure_field\(model, images"):
        chain_fields(build("resnet"))
    with pytest.raises(OptionError, match="which the model does not have"):
        measure_field(build("vgg"), torch.zeros(1, 3, 32, 32), "conv1")
