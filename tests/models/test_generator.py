"""The generative networks: shapes and counts as published, and first weights."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from unpool.errors import OptionError, ShapeError
from unpool.models import GenerativeNet, encode_view, save_pretrained
from unpool.models.generator import initialize, orthogonalize

SMALL = {"code": 8, "shared": 16, "widths": (12, 8, 6, 4, 4), "mask_widths": (8, 6, 4, 4, 4)}


def count(module):
    return sum(p.numel() for p in module.parameters())


def published(*arguments, **named):
    """A network of full size whose tensors take no memory."""
    with torch.device("meta"):
        return GenerativeNet(*arguments, **named)


def maps(net, styles):
    """The shapes after fc5 and each stage, by stream, and of the output."""
    found = {}
    for name, module in net.named_modules():
        if name.endswith("fc5") or name.rpartition(".")[0].endswith("stages"):
            keep = found.setdefault(name.partition(".")[0], [])
            module.register_forward_hook(lambda m, i, y, keep=keep: keep.append(tuple(y.shape[1:])))
    with torch.device("meta"):
        images = net(torch.zeros(2, styles), torch.zeros(2, 4), torch.zeros(2, net.numbers))
    return found, [tuple(y.shape[1:]) for y in images]


def test_two_streams_at_128():
    net = published()
    assert count(net) == 31_893_092
    assert sum(count(getattr(net, n)) for n in ("style", "view", "transformation", "shared")) == (
        3_860_992
    )
    assert count(net.rgb) == 19_239_300
    assert count(net.mask) == 8_792_800
    found, images = maps(net, 843)
    assert found["rgb"] == [(256, 8, 8), (256, 16, 16), (92, 32, 32), (92, 64, 64), (3, 128, 128)]
    assert found["mask"] == [(128, 8, 8), (92, 16, 16), (32, 32, 32), (32, 64, 64), (3, 128, 128)]
    assert images == [(3, 128, 128)] * 2


def test_two_streams_at_64():
    found, images = maps(published(size=64), 843)
    assert found["rgb"] == [(256, 8, 8), (256, 16, 16), (92, 32, 32), (3, 64, 64)]
    assert found["mask"] == [(128, 8, 8), (92, 16, 16), (32, 32, 32), (3, 64, 64)]
    assert images == [(3, 64, 64)] * 2


def test_256_pixels_are_one_stage_more():
    large, small = (maps(published(size=size), 843)[0] for size in (256, 128))
    for stream in ("rgb", "mask"):
        assert large[stream][:4] == small[stream][:4]
        assert large[stream][-1] == (3, 256, 256)
        assert len(large[stream]) == len(small[stream]) + 1


def test_one_stream():
    net = published(809, streams=1)
    assert count(net) == 22_815_660
    found, images = maps(net, 809)
    assert found["stream"] == [(256, 8, 8), (256, 16, 16), (92, 32, 32), (48, 64, 64)]
    assert images == [(3, 128, 128), (1, 128, 128)]
    assert [type(layer) for layer in net.stream.stages[0]] == [
        nn.ConvTranspose2d,
        nn.ReLU,
        nn.Conv2d,
        nn.ReLU,
    ]


def test_the_last_layer_is_not_rectified():
    for streams in (1, 2):
        net = GenerativeNet(3, 32, streams, **SMALL)
        rgb, mask = net(torch.randn(64, 3), torch.randn(64, 4), torch.randn(64, net.numbers))
        assert min(rgb.min(), mask.min()) < 0


@pytest.mark.parametrize("streams", [1, 2])
def test_each_part_counts_and_learns(streams):
    torch.manual_seed(0)
    net = GenerativeNet(3, 32, streams, mask_maps=1, **SMALL)
    codes = [torch.randn(4, n) for n in (3, 4, net.numbers)]
    rgb, mask = net(*codes)
    (rgb.square().sum() + mask.square().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    for changed in range(3):
        others = [c + (i == changed) for i, c in enumerate(codes)]
        assert not torch.allclose(net(*others)[0], rgb)
    alone = net(*(c[:1] for c in codes))
    assert torch.allclose(alone[0], rgb[:1], atol=1e-5)


def test_view():
    azimuth, elevation = torch.tensor([0.0, 40.0, 400.0]), torch.tensor([0.0, 20.0, 20.0])
    found = encode_view(azimuth, elevation)
    assert found.dtype == torch.float32
    assert found[0].tolist() == [0, 1, 0, 1]
    wanted = [f(math.radians(a)) for a in (20, 40) for f in (math.sin, math.cos)]
    assert np.allclose(found[1], wanted, atol=1e-7)
    assert torch.allclose(found[1], found[2])


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (64, 64), (1, 3)])
def test_orthogonalize(shape):
    """W W^T = I up to 1e-3 for a wide matrix; and W is the orthogonal factor of the draw's SVD."""
    draw = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    w = orthogonalize(draw)
    small = w @ w.T if shape[0] <= shape[1] else w.T @ w
    assert float((small - torch.eye(min(shape))).abs().max()) < 1e-3
    u, _, v = np.linalg.svd(draw.double().numpy(), full_matrices=False)
    assert np.abs(w.numpy() - u @ v).max() < 2e-2


def test_orthogonalize_refuses_what_does_not_converge():
    for draw in (torch.ones(3, 5), torch.randn(4, 4) * 100):
        with pytest.raises(OptionError, match=r"not orthogonal after 30 iterations; wanted small"):
            orthogonalize(draw)


def test_initializations():
    net = GenerativeNet(5, 32, **SMALL)
    initialize(net, "orthogonal")
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.ConvTranspose2d):
            w = layer.weight.detach().flatten(1)
            w = w if len(w) <= w.shape[1] else w.T
            assert float((w @ w.T - torch.eye(len(w))).abs().max()) < 1e-3
        if isinstance(layer, nn.Linear):
            assert (layer.bias == 0.1).all()
    wide = GenerativeNet(5, 32, code=300, shared=400, widths=(40, 40), mask_widths=(8, 8))
    initialize(wide, "xavier")
    uconv, last = wide.rgb.stages[0].uconv, wide.rgb.stages[-1].uconv
    for layer, deviation in (
        (wide.style.fc1, 1),
        (wide.shared.fc3, math.sqrt(2 / 900)),
        (uconv, math.sqrt(8 / (40 * 25))),
        (last, math.sqrt(0.1 / (40 * 25))),
    ):
        assert float(layer.weight.detach().std()) == pytest.approx(deviation, rel=0.1)
    with pytest.raises(OptionError, match=r"'zero'; the choices are orthogonal, xavier, he"):
        initialize(net, "zero")


def test_xavier_keeps_the_size_of_maps():
    """Which is what the factor of 8 is for: a uconv's map is made of a quarter of its inputs."""
    torch.manual_seed(0)
    net = GenerativeNet(5, 128, code=64, shared=128, widths=(64,) * 4, mask_widths=(8,) * 4)
    found = []
    for stage in net.rgb.stages[:-1]:
        stage.register_forward_hook(lambda m, i, y: found.append(float(y.detach().square().mean())))
    net.rgb(torch.randn(4, 128).relu())
    assert max(found) / min(found) < 3


def test_int8_is_a_quarter(tmp_path):
    net = GenerativeNet(3, 64, code=64, shared=128, widths=(64, 64, 64), mask_widths=(32, 32, 32))
    for int8 in (False, True):
        save_pretrained(net, tmp_path / str(int8), {}, int8=int8)
    size = {i: (tmp_path / str(i) / "model.safetensors").stat().st_size for i in (False, True)}
    assert size[True] < 0.27 * size[False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 100}, r"got size 100; wanted 16, 32, 64, 128, 256"),
        ({"size": 8}, r"got size 8;"),
        ({"streams": 3}, r"got streams=3; it is 2, or 1 for the deep variant"),
        ({"widths": (8, 4)}, r"got widths \[8, 4\] for 128 pixels; wanted 4 of 1 or more"),
        ({"code": 0}, r"'code': 0.*; wanted 1 or more of each"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(OptionError, match=message):
        published(5, **arguments)


def test_codes_of_another_length():
    net = GenerativeNet(5, 16, **SMALL)
    with pytest.raises(ShapeError, match=r"wanted \(N, 5\) for the style, \(N, 4\) for the view"):
        net(torch.zeros(1, 4), torch.zeros(1, 4), torch.zeros(1, 28))
