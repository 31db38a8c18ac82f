"""DeconvNet against the table of the released prototxt, and against plain functions."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unpool.errors import OptionError, ShapeError
from unpool.models import TRUNKS, DeconvNet

GOLDEN = Path(__file__).parents[1] / "golden"

# name, output C x H x W, weight, parameters; of DeconvNet_inference_deploy.prototxt
TABLE = [
    ("conv1_1", (64, 224, 224), (64, 3, 3, 3), 1_792),
    ("conv1_2", (64, 224, 224), (64, 64, 3, 3), 36_928),
    ("pool1", (64, 112, 112)),
    ("conv2_1", (128, 112, 112), (128, 64, 3, 3), 73_856),
    ("conv2_2", (128, 112, 112), (128, 128, 3, 3), 147_584),
    ("pool2", (128, 56, 56)),
    ("conv3_1", (256, 56, 56), (256, 128, 3, 3), 295_168),
    ("conv3_2", (256, 56, 56), (256, 256, 3, 3), 590_080),
    ("conv3_3", (256, 56, 56), (256, 256, 3, 3), 590_080),
    ("pool3", (256, 28, 28)),
    ("conv4_1", (512, 28, 28), (512, 256, 3, 3), 1_180_160),
    ("conv4_2", (512, 28, 28), (512, 512, 3, 3), 2_359_808),
    ("conv4_3", (512, 28, 28), (512, 512, 3, 3), 2_359_808),
    ("pool4", (512, 14, 14)),
    ("conv5_1", (512, 14, 14), (512, 512, 3, 3), 2_359_808),
    ("conv5_2", (512, 14, 14), (512, 512, 3, 3), 2_359_808),
    ("conv5_3", (512, 14, 14), (512, 512, 3, 3), 2_359_808),
    ("pool5", (512, 7, 7)),
    ("fc6", (4096, 1, 1), (4096, 512, 7, 7), 102_764_544),
    ("fc7", (4096, 1, 1), (4096, 4096, 1, 1), 16_781_312),
    ("fc6-deconv", (512, 7, 7), (4096, 512, 7, 7), 102_760_960),
    ("unpool5", (512, 14, 14)),
    ("deconv5_1", (512, 14, 14), (512, 512, 3, 3), 2_359_808),
    ("deconv5_2", (512, 14, 14), (512, 512, 3, 3), 2_359_808),
    ("deconv5_3", (512, 14, 14), (512, 512, 3, 3), 2_359_808),
    ("unpool4", (512, 28, 28)),
    ("deconv4_1", (512, 28, 28), (512, 512, 3, 3), 2_359_808),
    ("deconv4_2", (512, 28, 28), (512, 512, 3, 3), 2_359_808),
    ("deconv4_3", (256, 28, 28), (512, 256, 3, 3), 1_179_904),
    ("unpool3", (256, 56, 56)),
    ("deconv3_1", (256, 56, 56), (256, 256, 3, 3), 590_080),
    ("deconv3_2", (256, 56, 56), (256, 256, 3, 3), 590_080),
    ("deconv3_3", (128, 56, 56), (256, 128, 3, 3), 295_040),
    ("unpool2", (128, 112, 112)),
    ("deconv2_1", (128, 112, 112), (128, 128, 3, 3), 147_584),
    ("deconv2_2", (64, 112, 112), (128, 64, 3, 3), 73_792),
    ("unpool1", (64, 224, 224)),
    ("deconv1_1", (64, 224, 224), (64, 64, 3, 3), 36_928),
    ("deconv1_2", (64, 224, 224), (64, 64, 3, 3), 36_928),
    ("seg-score-voc", (21, 224, 224), (21, 64, 1, 1), 1_365),
]
LAYERS = [row for row in TABLE if len(row) == 4]
WITH_WEIGHTS = nn.Conv2d | nn.ConvTranspose2d

NARROW = ((1, 4), (2, 6), (1, 8), (1, 8), (1, 8))  # five stages, as VGG


def published(**options):
    with torch.device("meta"):
        return DeconvNet(**options)


def count(module):
    return sum(p.numel() for p in module.parameters())


def layers(net, kinds=WITH_WEIGHTS):
    return {
        name.rpartition(".")[2]: layer
        for name, layer in net.named_modules()
        if isinstance(layer, kinds)
    }


# ---- the published network -----------------------------------------------------------------------


def test_parameters():
    assert count(published()) == 251_805_653
    assert count(published(eps=None)) == 251_772_245
    assert sum(row[3] for row in LAYERS) == 251_772_245


def test_layers_are_the_tables():
    """The 30 layers in order, the shapes of their blobs, and what kind each is."""
    found = layers(published())
    assert list(found) == [row[0] for row in LAYERS]
    assert len(found) == 30
    for name, _, weight, parameters in LAYERS:
        layer = found[name]
        assert tuple(layer.weight.shape) == weight, name
        assert count(layer) == parameters, name
        assert isinstance(layer, nn.ConvTranspose2d) == ("deconv" in name), name


def test_maps_are_the_tables():
    net, seen = published().eval(), {}
    for name, layer in layers(net).items():
        stage = name.removeprefix("deconv").split("_")
        unpooled = f"unpool{stage[0]}" if name.startswith("deconv") and stage[1] == "1" else ""

        def hook(module, inputs, output, name=name, unpooled=unpooled):
            if unpooled:
                seen[unpooled] = tuple(inputs[0].shape[1:])
            seen[name] = tuple(output.shape[1:])

        layer.register_forward_hook(hook)
    x = torch.zeros(1, 3, 224, 224, device="meta")
    assert net(x).shape == (1, 21, 224, 224)
    _, switches = net.trunk(x)
    for stage, s in enumerate(switches, start=1):
        seen[f"pool{stage}"] = tuple(s.index.shape[1:])
        assert (*s.index.shape[1:2], *s.size) == seen[f"unpool{stage}"]
    assert seen == {row[0]: row[1] for row in TABLE}


def test_blocks_are_layer_norm_relu():
    """Batch norm and ReLU after every layer but the last; names as in the prototxt."""
    net, order = published().eval(), []
    for name, module in net.named_modules():
        if not list(module.children()):
            module.register_forward_hook(
                lambda module, x, y, name=name: order.append((name.rpartition(".")[2], module))
            )
    net(torch.zeros(1, 3, 224, 224, device="meta"))
    names = [row[0] for row in LAYERS]
    assert [name for name, _ in order[::3]] == names
    norms = [
        {"fc6": "bnfc6", "fc7": "bnfc7", "fc6-deconv": "fc6-deconv-bn"}.get(
            name, name.replace("deconv", "debn").replace("conv", "bn")
        )
        for name in names[:-1]
    ]
    assert [name for name, _ in order[1::3]] == norms
    assert all(isinstance(m, nn.BatchNorm2d) and m.eps == 1e-9 for _, m in order[1::3])
    assert all(isinstance(m, nn.ReLU) for _, m in order[2::3])
    assert len(order) == 3 * 29 + 1


def test_state_dict_keys():
    golden = (GOLDEN / "deconvnet_keys.txt").read_text().split()
    assert list(published().state_dict()) == golden
    assert len(golden) == 2 * 30 + 5 * 29


def test_initial_values():
    torch.manual_seed(0)
    net = DeconvNet(trunk=((1, 64), (1, 64)), code=128, size=32)
    for name, layer in layers(net).items():
        fan = layer.weight[0].numel()
        expected = (2 / fan) ** 0.5 if name in ("conv1_1", "conv2_1", "fc6", "fc7") else 0.01
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.1), name
        assert not layer.bias.any()
    for norm in layers(net, nn.BatchNorm2d).values():
        assert norm.weight.eq(1).all()
        assert norm.bias.eq(torch.tensor(0.001)).all()


# ---- what it computes ----------------------------------------------------------------------------


def by_functions(net, x):
    """The figure of the paper, spelled out; reads the state dict by the published names alone."""
    state = {key.rpartition(".")[0].rpartition(".")[2] + "." + key.rpartition(".")[2]: value
             for key, value in net.state_dict().items()}  # fmt: skip

    def norm(x, name):
        if f"{name}.weight" not in state:
            return x.relu()
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        x = (x - mean.view(-1, 1, 1)) / (var + net.eps).sqrt().view(-1, 1, 1)
        return (
            x * state[f"{name}.weight"].view(-1, 1, 1) + state[f"{name}.bias"].view(-1, 1, 1)
        ).relu()

    stack = []
    for i, (count, _) in enumerate(net.trunk.table, start=1):
        for j in range(1, count + 1):
            x = F.conv2d(x, state[f"conv{i}_{j}.weight"], state[f"conv{i}_{j}.bias"], padding=1)
            x = norm(x, f"bn{i}_{j}")
        size = x.shape[-2:]
        x, index = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
        stack.append((index, size))
    if net.code is not None:
        x = norm(F.conv2d(x, state["fc6.weight"], state["fc6.bias"]), "bnfc6")
        x = norm(F.conv2d(x, state["fc7.weight"], state["fc7.bias"]), "bnfc7")
        x = F.conv_transpose2d(x, state["fc6-deconv.weight"], state["fc6-deconv.bias"])
        x = norm(x, "fc6-deconv-bn")
    for i, (count, _) in reversed(list(enumerate(net.trunk.table, start=1))):
        index, size = stack.pop()
        x = F.max_unpool2d(x, index, 2, output_size=tuple(size))
        for j in range(1, count + 1):
            name = f"deconv{i}_{j}"
            x = F.conv_transpose2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)
            x = norm(x, f"debn{i}_{j}")
    return F.conv2d(x, state["seg-score-voc.weight"], state["seg-score-voc.bias"])


@pytest.mark.parametrize("eps", [1e-9, 1e-3, None])
@pytest.mark.parametrize("code", [12, None])
@torch.no_grad()
def test_is_the_papers_figure(filled, code, eps):
    net = filled(DeconvNet(4, ((2, 4), (1, 6), (2, 5)), code, 32, eps))
    x = torch.randn(2, 3, 37, 42, generator=torch.Generator().manual_seed(0))
    expected = by_functions(net, x)
    assert expected.std() > 0.01
    assert torch.allclose(net(x), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_golden_values(filled):
    net = filled(DeconvNet(3, ((1, 4), (2, 6)), 8, 16))
    x = torch.cos(0.37 * torch.arange(3 * 18 * 17)).view(1, 3, 18, 17) * 2
    y = net(x)[0]
    golden = torch.from_numpy(np.load(GOLDEN / "deconvnet.npy"))
    assert golden.shape == (3, 18, 17)
    assert golden.std() > 0.1
    assert torch.allclose(y, golden, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_layouts_agree(filled):
    net = filled(DeconvNet(4, NARROW, None, 32))
    x = torch.randn(2, 3, 45, 38, generator=torch.Generator().manual_seed(0))
    y = net(x)
    net.to(memory_format=torch.channels_last)
    z = net(x.contiguous(memory_format=torch.channels_last))
    assert z.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(y, z, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_decoding_with_fewer_switches_ends_early(filled):
    net = filled(DeconvNet(4, NARROW, 12, 32))
    maps, switches = net.trunk(torch.randn(1, 3, 40, 36))
    whole = net.decode(maps, switches)
    assert [tuple(y.shape[1:]) for y in whole] == [
        (8, 3, 3), (8, 5, 5), (6, 10, 9), (4, 20, 18), (4, 40, 36)
    ]  # fmt: skip
    for n in range(1, 5):
        part = net.decode(maps, switches[-n:])
        assert len(part) == n
        assert all(torch.equal(a, b) for a, b in zip(part, whole, strict=False))


@pytest.mark.parametrize("eps", [1e-9, None])
@pytest.mark.parametrize("code", [16, None])
def test_the_gradient_reaches_every_parameter(code, eps):
    torch.manual_seed(0)
    net = DeconvNet(3, NARROW, code, 32, eps).train()
    for layer in layers(net).values():
        nn.init.kaiming_normal_(layer.weight)
    scores = net(torch.randn(4, 3, 64, 64))
    F.cross_entropy(scores, torch.randint(0, 3, (4, 64, 64))).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # batch norm takes away what a bias before it adds
        if eps is None or not name.endswith("bias") or "bn" in name or "score" in name:
            assert parameter.grad.any(), name


# ---- sizes and arguments -------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(st.integers(32, 100), st.integers(32, 100))
def test_any_image_from_32_pixels_up(height, width):
    net = DeconvNet(3, ((1, 2),) * 5, None, 32).eval()
    with torch.no_grad():
        assert net(torch.randn(1, 3, height, width)).shape == (1, 3, height, width)


@settings(max_examples=8, deadline=None)
@given(st.integers(32, 256), st.integers(0, 40), st.integers(0, 40))
def test_any_design_size_from_32_pixels_up(size, more, wider):
    net = DeconvNet(2, ((1, 2),) * 5, 4, size).eval()
    assert net.side == -(-size // 32)
    for height, width in ((size, size), (size + more, size + wider)):
        with torch.no_grad():
            assert net(torch.randn(1, 3, height, width)).shape == (1, 2, height, width)


def test_the_published_design_takes_images_from_193_pixels():
    net = DeconvNet(2, ((1, 2),) * 5, 4).eval()
    assert net(torch.randn(1, 3, 193, 193)).shape == (1, 2, 193, 193)
    with pytest.raises(
        ShapeError,
        match="last pooled map is 7 x 6; the code layers of this network need 7 x 7: enlarge the "
        "image to 224 pixels, or build the network with a smaller size or code=None",
    ):
        net(torch.randn(1, 3, 193, 192))


@pytest.mark.parametrize("trunk", [*TRUNKS, ((1, 8), (3, 4), (2, 16))])
@pytest.mark.parametrize("code", [512, None])
def test_other_trunks_mirror_too(trunk, code):
    with torch.device("meta"):
        net = DeconvNet(5, trunk, code, 96).eval()
        assert net(torch.zeros(2, 3, 96, 128)).shape == (2, 5, 96, 128)
    found = layers(net)
    for name, layer in found.items():
        if name.startswith("deconv"):  # the same filters, read backwards, but for the image's
            stage, number = map(int, name.removeprefix("deconv").split("_"))
            count = net.trunk.table[stage - 1][0]
            mirror = found[f"conv{stage}_{count + 1 - number}"]
            if (stage, number) != (1, count):
                assert layer.weight.shape == mirror.weight.shape
    assert net.score.out_channels == 5
    assert ("fc6" in found) == (code is not None)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"classes": 2, "trunk": "vgg11", "code": None, "size": 32, "eps": None},
        {"classes": 60, "trunk": ((1, 8), (3, 4)), "code": 7, "size": 65, "eps": 1e-5},
        {"trunk": [[1, 8], [1, 8]], "size": 224},
    ],
)
def test_arguments_build_the_network_again(arguments):
    import json

    net = published(**arguments)
    plain = json.loads(json.dumps(net.arguments))
    again = published(**plain)
    assert [(k, v.shape) for k, v in again.state_dict().items()] == [
        (k, v.shape) for k, v in net.state_dict().items()
    ]
    assert again.arguments == net.arguments
    assert (again.eps, again.size, again.classes) == (net.eps, net.size, net.classes)


# ---- messages ------------------------------------------------------------------------------------


def test_one_sample_cannot_train_batch_norm():
    x = torch.randn(1, 3, 32, 32)
    net = DeconvNet(2, ((1, 2),) * 5, 4, 32).train()
    with pytest.raises(
        ShapeError, match=r"a single sample to train batch norm.*batch of two.*net\.code\.eval\(\)"
    ):
        net(x)
    assert net(x.repeat(2, 1, 1, 1)).shape == (2, 2, 32, 32)
    assert net(torch.randn(1, 3, 64, 40)).shape == (1, 2, 64, 40)
    net.code.eval()
    assert net(x).shape == (1, 2, 32, 32)
    assert DeconvNet(2, ((1, 2),) * 5, 4, 32, eps=None).train()(x).shape == (1, 2, 32, 32)
    assert DeconvNet(2, ((1, 2),) * 5, None, 32).train()(x).shape == (1, 2, 32, 32)


@pytest.mark.parametrize("shape", [(1, 3, 31, 64), (1, 3, 64, 31), (1, 4, 64, 64), (3, 64, 64)])
def test_refuses_images(shape):
    net = DeconvNet(2, ((1, 2),) * 5, None, 32)
    with pytest.raises(
        ShapeError, match=r"got input of shape .*takes \(N, 3, H, W\) with H and W from 32 up: enl"
    ):
        net(torch.zeros(shape))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 1}, "got classes=1; wanted 2 or more"),
        ({"classes": "a"}, "got classes='a'; wanted 2 or more, an integer"),
        ({"code": 0}, "got code=0; wanted 1 or more"),
        ({"size": 31}, "got size=31; wanted 32 or more"),
        ({"trunk": "resnet50"}, "got trunk 'resnet50'; the choices are vgg11, vgg13, vgg16, vgg19"),
        ({"trunk": ()}, r"got the trunk table \(\); each row is \(layers, channels\)"),
        ({"trunk": ((2, 64), (0, 64))}, "each row is"),
        ({"trunk": (64, 64)}, "each row is"),
        ({"trunk": ((1, 2, 3),)}, "each row is"),
        ({"trunk": 16}, "each row is"),
    ],
)
def test_refuses_arguments(arguments, message):
    with pytest.raises(OptionError, match=message):
        published(**arguments)
