"""Incremental occlusion equals a loop over the whole network, to rounding, at every position."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unpool.errors import OptionError
from unpool.models import VGG, AlexNet, ZFNet
from unpool.visualize.occlusion.chain import trace_chain
from unpool.visualize.occlusion.incremental import Incremental, Line
from unpool.visualize.occlusion.window import occluder_windows

NETS = {
    "vgg": lambda: (VGG(10, ((2, 6), (2, 8), (3, 12)), 24, 64), "features.relu3_3"),
    "alexnet": lambda: (AlexNet(10, (8, 12, 16, 16, 12), 24, 83), "features.norm2"),
    "zfnet": lambda: (ZFNet(10, (8, 12, 16, 16, 12), 24, 79), "features.conv4"),
}


@torch.no_grad()
def looped(model, image, baseline, boxes):
    """One position after the other, the whole network each time."""
    outputs = []
    for x0, y0, x1, y1 in boxes:
        hidden = image.clone()
        hidden[0, :, y0:y1, x0:x1] = baseline[:, y0:y1, x0:x1]
        outputs.append(model(hidden))
    return torch.cat(outputs)


def difference(found, wanted):
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("window", "stride"), [((13, 9), (6, 5)), (16, 8)])
def test_equals_a_loop_at_all_positions(name, window, stride, filled_net):
    net, layer = NETS[name]()
    net, size = filled_net(net), (net.size, net.size)
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    kept, gray = image.clone(), torch.full((3, *size), 0.2)
    run = Incremental(trace_chain(net, image), image, gray, (layer, 3))
    boxes = occluder_windows(size, window, stride).boxes()
    outputs, totals = run(boxes)
    assert difference(outputs, looped(net, image, gray, boxes)) < 1e-5
    assert difference(run.output, net(image).detach()) < 1e-5
    up_to = net.features[: [n for n, _ in net.features.named_children()].index(layer[9:]) + 1]
    wanted = looped(up_to, image, gray, boxes)[:, 3].sum((1, 2), dtype=torch.float64)
    assert difference(totals, wanted) < 1e-5
    assert wanted.unique().numel() > 9
    assert torch.equal(image, kept)


@st.composite
def chains(draw):
    """Chains of windows of every kind with elementwise layers between them."""
    two = st.tuples(st.integers(1, 4), st.integers(1, 4))
    layers, channels = [], 4
    for _ in range(draw(st.integers(1, 3))):
        kernel, stride, dilation = draw(two), draw(two), draw(two)
        stride, dilation = tuple(min(s, 3) for s in stride), tuple(min(d, 2) for d in dilation)
        pad = tuple(min(p, k) // 2 for p, k in zip(draw(two), kernel, strict=True))
        ceil = draw(st.booleans())
        kind = draw(st.sampled_from(["conv", "conv", "same", "max", "mean"]))
        if kind == "conv":
            groups, wider = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([4, 8]))
            pad = draw(two)
            layers.append(nn.Conv2d(channels, wider, kernel, stride, pad, dilation, groups))
            channels = wider
        elif kind == "same":
            mode = draw(st.sampled_from(["zeros", "zeros", "reflect"]))
            layers.append(nn.Conv2d(channels, channels, kernel, padding="same", padding_mode=mode))
        elif kind == "max":
            layers.append(nn.MaxPool2d(kernel, stride, pad, dilation, ceil_mode=ceil))
        else:
            counted = draw(st.booleans())
            layers.append(nn.AvgPool2d(kernel, stride, pad, ceil, counted))
        between = [nn.ReLU(inplace=True), nn.BatchNorm2d(channels), nn.LocalResponseNorm(3, 0.5)]
        layers += draw(st.sampled_from([[], between, between[:1], [nn.SiLU()], [nn.Dropout()]]))
    return nn.Sequential(*layers)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(max_examples=60, deadline=None)
@given(chains(), st.data())
def test_equals_a_loop_for_any_chain(filled_net_for_all, chain, data):
    trunk = filled_net_for_all(chain)
    image = torch.randn(1, 4, 23, 26, generator=torch.Generator().manual_seed(3))
    try:
        with torch.no_grad():
            shape = trunk(image).shape
    except RuntimeError:  # nothing is left of the maps, or a padding is too large
        return
    head = filled_net_for_all(nn.Sequential(nn.Flatten(), nn.Linear(shape.numel(), 5)))
    end = data.draw(st.sampled_from(["head", "pooled", "maps"]))
    if end == "pooled":
        head = nn.Sequential(nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten())
    model = nn.Sequential(trunk, *([] if end == "maps" else [head])).eval()
    window = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    boxes = occluder_windows((23, 26), window, tuple(-(-w // 2) for w in window)).boxes()
    boxes = boxes[:: max(len(boxes) // 30, 1)]
    black = torch.zeros(4, 23, 26)
    if trunk[0].__dict__.get("padding_mode") == "reflect" or _divides_otherwise(trunk[0]):
        with pytest.raises(OptionError, match="nothing can be saved"):
            Incremental(trace_chain(model, image), image, black)
        return
    run = Incremental(trace_chain(model, image), image, black)
    assert difference(run(boxes)[0], looped(model, image, black, boxes)) < 1e-5


def _divides_otherwise(layer):
    if not isinstance(layer, nn.AvgPool2d):
        return False
    return layer.ceil_mode or not (layer.count_include_pad or layer.padding == (0, 0))


@pytest.fixture(scope="module")
def filled_net_for_all(filled_net):
    return filled_net


@given(
    st.builds(
        Line,
        st.integers(1, 5),
        st.integers(1, 4),
        st.integers(0, 3),
        st.integers(1, 3),
        st.integers(1, 9),
    ),
    st.integers(0, 20),
    st.integers(1, 9),
)
def test_reached_are_the_windows_that_see_a_value(line, start, length):
    """All that do are reached; and without dilation, at least, no others."""
    seen = [
        i
        for i in range(line.outputs)
        if any(
            start <= i * line.stride - line.pad + j * line.dilation < start + length
            for j in range(line.kernel)
        )
    ]
    first, last = line.reached(start, start + length)
    if seen:
        assert first <= seen[0]
        assert seen[-1] < last
    if line.dilation == 1:
        reached = [
            i
            for i in range(first, last)
            if start < i * line.stride - line.pad + line.needed(1)
            and i * line.stride - line.pad < start + length
        ]
        assert reached == list(range(first, last)) == seen


def test_less_is_computed(monkeypatch):
    """Convolutions run on the changed patches only, of the sizes that arithmetic gives."""
    conv = nn.Conv2d(1, 1, 3, padding=1)
    net = nn.Sequential(conv, nn.Conv2d(1, 1, 3, padding=1), nn.Flatten(), nn.Linear(400, 2)).eval()
    image, sizes = torch.rand(1, 1, 20, 20), []
    run = Incremental(trace_chain(net, image), image, torch.zeros(1, 20, 20))
    plain = torch.nn.functional.conv2d

    def counted(x, *args):
        sizes.append(tuple(x.shape))
        return plain(x, *args)

    monkeypatch.setattr("torch.nn.functional.conv2d", counted)
    run([(8, 8, 12, 12), (4, 9, 8, 13), (0, 0, 4, 4)])
    assert sizes == [(2, 1, 8, 8), (1, 1, 7, 7), (2, 1, 10, 10), (1, 1, 8, 8)]


def test_a_model_that_begins_with_something_else_is_refused():
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    image = torch.zeros(1, 3, 4, 4)
    with pytest.raises(OptionError, match=r"nothing can be saved: the model begins with Flatten"):
        Incremental(trace_chain(net, image), image, torch.zeros(3, 4, 4))


def test_hooks_of_the_user_and_other_classes_run_as_they_are(filled_net):
    class Doubled(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    net = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), Doubled(4, 4, 3, padding=1)),
        *(nn.Conv2d(4, 4, 3, padding=1), nn.Flatten(), nn.Linear(400, 3)),
    )
    net = filled_net(net)
    net[3].register_forward_hook(lambda module, inputs, output: output + 1)
    image, gray = torch.rand(1, 3, 10, 10), torch.zeros(3, 10, 10)
    boxes = occluder_windows((10, 10), 4, 3).boxes()
    run = Incremental(trace_chain(net, image), image, gray)
    assert difference(run(boxes)[0], looped(net, image, gray, boxes)) < 1e-5
