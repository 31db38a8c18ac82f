"""The maps of decoders, against hooks on the networks."""

import numpy as np
import pytest
import torch
from torch import nn

from unpool.errors import OptionError, ShapeError
from unpool.models import CRFRNN, FCN, DeconvNet, DecoupledNet, SegNet, SegNetBasic
from unpool.models.segnet import brightness_norm
from unpool.visualize import decode

TABLE = ((1, 6), (2, 8))


@pytest.fixture
def image():
    return torch.randn(1, 3, 30, 33, generator=torch.Generator().manual_seed(2)) * 40


def largest_region(net, image):
    labels = net(image)[0].argmax(0)
    label = max(set(labels.flatten().tolist()) - {0}, key=lambda n: int((labels == n).sum()))
    return label, labels == label


@pytest.mark.parametrize("code", [None, 8])
def test_the_maps_of_a_deconvnet(filled, image, code):
    net = filled(DeconvNet(4, TABLE, code=code, size=28))
    seen = []
    for stage in net.decoder:
        stage.register_forward_hook(lambda m, i, o: seen.extend([i[0].clone(), o.clone()]))
    label, region = largest_region(net, image)
    before, after, last_before, last_after = seen
    found = decode(net, image)
    assert found.label == label
    assert torch.equal(found.region, region)
    assert torch.equal(found.scores, net(image)[0, label].detach())
    (a, b), (c, d) = found.stages
    names = [one.layer for one in (a, b, c, d)]
    assert names == ["unpool2", "deconv2_2", "unpool1", "deconv1_1"]
    for one, maps in zip((a, b, c, d), (before, after, last_before, last_after), strict=True):
        assert torch.equal(one.values, maps[0, one.unit])
    # the maps of the last layer are as large as the region, so the choice is a plain difference
    maps = last_after[0].detach().numpy()
    inside = region.numpy()
    difference = [m[inside].mean() - m[~inside].mean() for m in maps]
    assert d.unit == int(np.argmax(difference))
    named = decode(net, image, label, unit=1)
    assert [one.unit for pair in named.stages for one in pair] == [1, 1, 1, 1]
    assert torch.equal(named.stages[0][1].values, after[0, 1])


@pytest.mark.parametrize(
    ("make", "layers"),
    [
        (
            lambda: SegNet(4, ((2, 6), (2, 8)), dropout=0.5),
            ["unpool2", "conv2_1_D", "unpool1", "conv1_2_D"],
        ),
        (lambda: SegNet(4, TABLE), ["unpool2", "conv2_1_D", "unpool1", "unpool1"]),
        (lambda: SegNetBasic(4, 6, 3, 2), ["unpool2", "conv_decode2", "unpool1", "conv_decode1"]),
    ],
    ids=["SegNet", "a stage without layers", "SegNet-Basic"],
)
def test_the_maps_of_a_segnet(filled, image, make, layers):
    """By its own parts; unpooling leaves three of four values, or more at odd sides, at zero."""
    net = filled(make()).eval()
    maps, switches = net.trunk(image if isinstance(net, SegNet) else brightness_norm(image))
    after = net.decode(maps, switches)
    found = decode(net, image)
    assert [one.layer for pair in found.stages for one in pair] == layers
    assert found.label == largest_region(net, image)[0]
    for (above, below), y, s in zip(found.stages, after, reversed(switches), strict=True):
        assert torch.equal(below.values, y[0, below.unit].detach())
        assert above.values.shape == s.size
        places = torch.zeros(s.size).flatten()
        places[s.flat.index[0, above.unit].flatten()] = 1
        assert not above.values[places.view(s.size) == 0].any()
        assert above.values.any()


@pytest.mark.parametrize("pad", [1, 9])
def test_the_maps_of_an_fcn(image, pad):
    """A stage shows the two maps that the network adds, cropped to their overlap."""
    torch.manual_seed(0)
    net = FCN(3, ((1, 4), (1, 6), (1, 8)), None, stride=4, pad=pad).eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    seen = {}
    for name, layer in net.score.items():
        layer.register_forward_hook(lambda m, i, o, name=name: seen.update({name: o.clone()}))
    added = []
    net.score["upscore4"].register_forward_pre_hook(lambda m, i: added.append(i[0].clone()))
    label = largest_region(net, image)[0]
    found = decode(net, image, label)
    layers = [[one and one.layer for one in pair] for pair in found.stages]
    assert layers == [[None, "score_fr"], ["upscore2", "score_pool2"]]
    (_, deep), (enlarged, own) = found.stages
    assert torch.equal(deep.values, seen["score_fr"][0, label])
    assert enlarged.values.shape == own.values.shape
    assert torch.equal(enlarged.values + own.values, added[0][0, label])
    assert {one.unit for one in (deep, enlarged, own)} == {label}
    if pad == 1:
        assert enlarged.values.shape < seen["upscore2"].shape[2:]
    assert found.figure(np.zeros((30, 33, 3), np.uint8)).shape[2] == 3
    with pytest.raises(OptionError, match="got a unit for an FCN, which has one map a class"):
        decode(net, image, label, unit=1)
    crfrnn = CRFRNN(**{**net.arguments, "learned": False})
    crfrnn.net.load_state_dict(net.state_dict())
    assert decode(crfrnn.eval(), image, label).to_dict() == found.to_dict()


def test_the_figure(filled, image):
    net = filled(DeconvNet(4, TABLE, code=None, size=32))
    found = decode(net, image)
    photo = np.full((30, 33, 3), 200, np.uint8)
    figure = found.figure(photo, "dog")
    assert abs(figure.shape[1] - 4 * 224 / 0.95) < 2  # input, two stages, score
    plain = found.to_dict()
    assert plain["unit"] == found.label
    assert plain["fraction"] == pytest.approx(found.region.float().mean().item())
    assert [m["size"] for m in plain["maps"]] == [[15, 17], [15, 17], [30, 33], [30, 33]]
    assert figure.std() > 20


def test_the_model_is_not_changed(filled, image):
    net = filled(DeconvNet(4, TABLE, code=8, size=28)).train()
    before = {k: (v.clone(), v._version) for k, v in net.state_dict().items()}
    label = int(decode(net, image).label)
    for options in ({"label": 99}, {"label": label, "unit": 6}):
        with pytest.raises(OptionError):
            decode(net, image, **options)
    assert net.training
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name][0])
        assert value._version == before[name][1]


@torch.no_grad()
def test_the_maps_of_a_class_in_a_decoupled_net(filled, image):
    """Those of the pass in which it alone enters the bridge."""
    net = filled(DecoupledNet(4, TABLE, 7, 8, 36, 3, stages=1))
    net.classifier["cls-score-voc"].weight.div_(1000)
    net.classifier["cls-score-voc"].bias.copy_(torch.tensor([2.0, -2.0, 2.0]))
    assert net.shows(image).tolist() == [[True, False, True]]
    maps, switches = net.trunk(net._square(image))
    found = net.classify(maps)
    p = net(image).exp()[0]
    for label in {1, 3} & {*p.argmax(0).flatten().tolist()}:
        values = found.probabilities() * (torch.arange(3) == label - 1)
        seen = []
        hook = net.decoder[0].register_forward_hook(lambda m, i, o, to=seen: to.append(o.clone()))
        net.segment(maps, switches, net.bridge(found, values))
        hook.remove()
        trace = decode(net, image, label)
        ((above, below),) = trace.stages
        assert (above.layer, below.layer) == ("unpool2", "deconv2_2")
        torch.testing.assert_close(below.values, seen[0][0, below.unit], rtol=1e-3, atol=1e-3)
        assert below.values.shape == (18, 18)  # of the image as a square of 36 x 36
        assert trace.region.shape == (30, 33)
    assert {1, 3} & {*p.argmax(0).flatten().tolist()}
    assert decode(net, image, 0).label == 0


def test_messages(filled, image):
    net = filled(DeconvNet(4, TABLE, code=None, size=32))
    label = decode(net, image).label
    with pytest.raises(OptionError, match="got unit 7 of layer 'deconv2_2', which has 6; wanted"):
        decode(net, image, label, unit=7)
    with pytest.raises(OptionError, match=r"got class 9, which is predicted nowhere .* there is"):
        decode(net, image, 9)
    with pytest.raises(ShapeError, match="got 2 images; wanted one"):
        decode(net, image.expand(2, -1, -1, -1))
    with pytest.raises(OptionError, match="got a Conv2d, in which no decoder is known; wanted"):
        decode(nn.Conv2d(3, 4, 1), image)
    nn.init.zeros_(net.score.weight)
    net.score.bias.data = torch.tensor([1.0, 0, 0, 0])
    with pytest.raises(OptionError, match=r"sky is all that is predicted .* name it as the class"):
        decode(net, image, names=["sky"])
    assert decode(net, image, 0).region.all()
