"""Classification networks: as published, layer by layer, and against functions written by hand."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unpool.errors import OptionError, ShapeError
from unpool.models import MODELS, VGG, AlexNet, SqueezeNet, ZFNet, load_tensors, prepare
from unpool.models.classifiers import initialize, renormalize
from unpool.vision.boxes import Crops
from unpool.vision.images import read_image

WEIGHTS = Path(__file__).parents[2].parent / "shared/data/weights/squeezenet1_1.pth"
WIDTHS = (4, 6, 8, 8, 6)
SMALL = {
    "AlexNet": lambda: AlexNet(5, WIDTHS, code=7, size=67),
    "ZFNet": lambda: ZFNet(5, WIDTHS, code=7, size=64),
    "VGG": lambda: VGG(5, ((1, 4), (2, 6)), code=7, size=16),
    "SqueezeNet": lambda: SqueezeNet(5, 6, (((2, 4),), ((3, 5), (2, 6))), size=40),
}


def layers(net):
    """Name and output size (C, H, W) of each layer, from an empty image."""
    found, x = {}, torch.zeros(1, 3, net.size, net.size, device="meta")
    for name, layer in [*net.features.named_children(), *net.classifier.named_children()]:
        x = layer(x)
        found[name] = tuple(x.shape[1:])
    return found


def built(kind, *args, **options):
    with torch.device("meta"):
        return kind(*args, **options)


def count(net):
    return sum(p.numel() for p in net.parameters())


# ---- as published --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "parameters"),
    [
        (lambda: built(AlexNet), 60_965_224),
        (lambda: built(ZFNet), 62_357_608),
        (lambda: built(SqueezeNet), 1_235_496),
        (lambda: built(VGG, trunk="vgg11"), 132_863_336),
        (lambda: built(VGG, trunk="vgg13"), 133_047_848),
        (lambda: built(VGG), 138_357_544),
        (lambda: built(VGG, trunk="vgg19"), 143_667_240),
    ],
)
def test_parameters_are_as_many_as_published(net, parameters):
    assert count(net()) == parameters


def test_the_layers_of_alexnet_are_those_of_the_paper():
    found = layers(built(AlexNet))
    assert found == {
        **dict.fromkeys(["conv1", "relu1", "norm1"], (96, 55, 55)),
        "pool1": (96, 27, 27),
        **dict.fromkeys(["conv2", "relu2", "norm2"], (256, 27, 27)),
        "pool2": (256, 13, 13),
        **dict.fromkeys(["conv3", "relu3", "conv4", "relu4"], (384, 13, 13)),
        **dict.fromkeys(["conv5", "relu5"], (256, 13, 13)),
        "pool5": (256, 6, 6),
        "flatten": (9216,),
        **dict.fromkeys(["fc6", "relu6", "drop6", "fc7", "relu7", "drop7"], (4096,)),
        "fc8": (1000,),
    }
    assert list(found)[:4] == ["conv1", "relu1", "norm1", "pool1"]  # first normalized, then pooled


def test_the_layers_of_zfnet_are_those_of_figure_3():
    net = built(ZFNet)
    found = layers(net)
    assert found == {
        **dict.fromkeys(["conv1", "relu1"], (96, 110, 110)),
        **dict.fromkeys(["pool1", "norm1"], (96, 55, 55)),
        **dict.fromkeys(["conv2", "relu2"], (256, 26, 26)),
        **dict.fromkeys(["pool2", "norm2"], (256, 13, 13)),
        **dict.fromkeys(["conv3", "relu3", "conv4", "relu4"], (384, 13, 13)),
        **dict.fromkeys(["conv5", "relu5"], (256, 13, 13)),
        "pool5": (256, 6, 6),
        "flatten": (9216,),
        **dict.fromkeys(["fc6", "relu6", "drop6", "fc7", "relu7", "drop7"], (4096,)),
        "fc8": (1000,),
    }
    assert list(found)[:4] == ["conv1", "relu1", "pool1", "norm1"]
    parameters = {
        name: sum(p.numel() for p in layer.parameters())
        for name, layer in [*net.features.named_children(), *net.classifier.named_children()]
    }
    assert {name: n for name, n in parameters.items() if n} == {
        **{"conv1": 14_208, "conv2": 614_656, "conv3": 885_120, "conv4": 1_327_488},
        **{"conv5": 884_992, "fc6": 37_752_832, "fc7": 16_781_312, "fc8": 4_097_000},
    }


def test_the_stages_of_vgg_have_the_published_sizes():
    found = layers(built(VGG))
    assert [found[f"pool{i}"] for i in range(1, 6)] == [
        (64, 112, 112), (128, 56, 56), (256, 28, 28), (512, 14, 14), (512, 7, 7),
    ]  # fmt: skip
    names = [name for name in found if name.startswith("conv")]
    assert names == [
        f"conv{i}_{j}" for i, n in enumerate((2, 2, 3, 3, 3), 1) for j in range(1, n + 1)
    ]
    assert [found[name] for name in ("fc6", "fc7", "fc8")] == [(4096,), (4096,), (1000,)]


def test_first_weights_are_those_of_the_papers():
    torch.manual_seed(0)
    alex, zf = AlexNet(10, (32, 64, 32, 32, 32), 64, 67), ZFNet(10, (32, 64, 32, 32, 32), 64, 64)
    for net in (alex, zf):
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                assert layer.weight.std().item() == pytest.approx(0.01, rel=0.1)
                assert abs(layer.weight.mean().item()) < 1e-3
    biases = {k: v for k, v in alex.state_dict().items() if k.endswith("bias")}
    ones = {name.split(".")[1] for name, bias in biases.items() if (bias == 1).all()}
    assert ones == {"conv2", "conv4", "conv5", "fc6", "fc7"}
    assert all((v == (k.split(".")[1] in ones)).all() for k, v in biases.items())
    assert not any(v.any() for k, v in zf.state_dict().items() if k.endswith("bias"))


def test_initial_maps_of_narrow_networks_keep_their_scale():
    torch.manual_seed(0)
    net = VGG(10, ((2, 16), (2, 16), (2, 16)), code=32, size=32)
    initialize(net, None)
    x = 60 * torch.randn(4, 3, 32, 32)  # as strong as pixels are
    strengths = []
    for layer in net.features:
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            strengths.append(x.square().mean().sqrt().item())
    assert min(strengths) > 1
    assert max(strengths) < 10
    assert net.classifier(x).std() < 1  # so that no class is favored
    ends = net.features.conv1_1, net.classifier.fc8
    assert [layer.weight.std().item() for layer in ends] == pytest.approx([0.01, 0.01], rel=0.15)


# ---- what they compute ---------------------------------------------------------------------------


def normalized(x, n=5, k=2.0, alpha=1e-4, beta=0.75):
    """Krizhevsky's equation, written down: alpha is not divided by n."""
    x = x.detach().double().numpy()
    y = np.empty_like(x)
    for i in range(x.shape[1]):
        low, high = max(0, i - n // 2), min(x.shape[1] - 1, i + n // 2)
        y[:, i] = x[:, i] / (k + alpha * (x[:, low : high + 1] ** 2).sum(1)) ** beta
    return torch.from_numpy(y).float()


@pytest.mark.parametrize("kind", ["AlexNet", "ZFNet"])
def test_response_normalization_is_that_of_the_paper(kind):
    x = 100 * torch.randn(2, 9, 4, 3)
    norms = [m for m in SMALL[kind]().features if isinstance(m, nn.LocalResponseNorm)]
    assert len(norms) == 2
    for norm in norms:
        torch.testing.assert_close(norm(x), normalized(x), rtol=1e-5, atol=1e-5)


def pooled(x, kernel=3, stride=2):
    """Windows beyond the border count as far as they reach; a loop over cells."""
    height, width = (-(-(side - kernel) // stride) + 1 for side in x.shape[2:])
    y = torch.empty(*x.shape[:2], height, width)
    for i in range(height):
        for j in range(width):
            part = x[..., stride * i : stride * i + kernel, stride * j : stride * j + kernel]
            y[..., i, j] = part.amax((2, 3))
    return y


def alexnet(w, x):
    def conv(i, x, **options):
        return F.conv2d(x, w[f"features.conv{i}.weight"], w[f"features.conv{i}.bias"], **options)

    def halves(i, x, pad):
        """Two groups, one after the other."""
        out = []
        for group in (0, 1):
            half = x.chunk(2, 1)[group], w[f"features.conv{i}.weight"].chunk(2)[group]
            out.append(F.conv2d(*half, w[f"features.conv{i}.bias"].chunk(2)[group], padding=pad))
        return torch.cat(out, 1)

    x = pooled(normalized(conv(1, x, stride=4).relu()))
    x = pooled(normalized(halves(2, x, 2).relu()))
    x = conv(3, x, padding=1).relu()
    return connected(w, pooled(halves(5, halves(4, x, 1).relu(), 1).relu()))


def zfnet(w, x):
    def conv(i, x, **options):
        return F.conv2d(x, w[f"features.conv{i}.weight"], w[f"features.conv{i}.bias"], **options)

    x = normalized(pooled(conv(1, x, stride=2, padding=1).relu()))
    x = normalized(pooled(conv(2, x, stride=2).relu()))
    for i in (3, 4, 5):
        x = conv(i, x, padding=1).relu()
    return connected(w, pooled(x))


def vgg(w, x, table=((1, 4), (2, 6))):
    for stage, (number, _) in enumerate(table, 1):
        for i in range(1, number + 1):
            name = f"features.conv{stage}_{i}"
            x = F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=1).relu()
        x = pooled(x, 2)
    return connected(w, x)


def connected(w, x):
    x = x.flatten(1)
    for i in (6, 7):
        x = (x @ w[f"classifier.fc{i}.weight"].t() + w[f"classifier.fc{i}.bias"]).relu()
    return x @ w["classifier.fc8.weight"].t() + w["classifier.fc8.bias"]


def squeezenet(w, x):
    def conv(name, x, **options):
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], **options).relu()

    x = conv("features.0", x, stride=2)
    for before, stage in ((2, (3,)), (4, (5, 6))):
        x = pooled(x)
        assert before + 1 == stage[0]
        for i in stage:
            x = conv(f"features.{i}.squeeze", x)
            small, large = (conv(f"features.{i}.expand{k}x{k}", x, padding=k // 2) for k in (1, 3))
            x = torch.cat([small, large], 1)
    return conv("classifier.1", x).mean((2, 3))


@pytest.mark.parametrize(
    ("kind", "oracle"),
    [("AlexNet", alexnet), ("ZFNet", zfnet), ("VGG", vgg), ("SqueezeNet", squeezenet)],
)
def test_scores_are_those_of_functions_written_by_hand(kind, oracle):
    torch.manual_seed(0)
    net = SMALL[kind]().eval()
    initialize(net, None)
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)
    x = 50 * torch.randn(2, 3, net.size, net.size)
    wanted = oracle(net.state_dict(), x)
    assert wanted.std() > 1e-3
    torch.testing.assert_close(net(x), wanted, rtol=1e-4, atol=1e-4)


# ---- renormalization -----------------------------------------------------------------------------


def test_filters_are_scaled_to_the_limit_and_others_keep_their_bits():
    torch.manual_seed(0)
    filters = torch.randn(32, 3, 7, 7) * torch.logspace(-3, 0, 32).view(-1, 1, 1, 1)
    before = filters.clone()
    renormalize(filters)
    for found, old in zip(filters.numpy(), before.numpy(), strict=True):
        rms = np.sqrt(np.mean(old.astype(np.float64) ** 2))
        if rms <= 0.1:
            assert (found == old).all()
        else:
            np.testing.assert_allclose(found, old * 0.1 / rms, rtol=1e-5)
    assert filters.square().mean((1, 2, 3)).sqrt().max() <= 0.1 + 1e-6
    assert 5 < (filters != before).flatten(1).any(1).sum() < 27


def test_filters_of_nothing_stay_so_and_the_limit_may_be_another():
    filters = torch.stack([torch.zeros(2, 3, 3), torch.full((2, 3, 3), 5.0)])
    renormalize(filters, 2.5)
    assert filters[:, 0, 0, 0].tolist() == [0, 2.5]


# ---- saved and loaded ----------------------------------------------------------------------------


def test_arguments_are_copies():
    net = SMALL["ZFNet"]()
    net.arguments["classes"] = 3
    assert net.arguments["classes"] == 5
    assert built(VGG).arguments["trunk"] == "vgg16"
    assert VGG(2, ((1, 4),), None, 8).arguments["trunk"] == [[1, 4]]


# ---- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["AlexNet", "ZFNet"])
def test_the_smallest_images_leave_one_cell(kind):
    least = SMALL[kind]().least
    net = MODELS[kind](5, WIDTHS, 7, least)
    assert net(torch.zeros(1, 3, least, least)).shape == (1, 5)
    assert net.features(torch.zeros(1, 3, least, least)).shape[2:] == (1, 1)
    with pytest.raises(OptionError, match=f"got size={least - 1}, .* wanted {least} or more"):
        MODELS[kind](5, WIDTHS, 7, least - 1)
    with pytest.raises(RuntimeError):  # PyTorch's own opinion
        net.features(torch.zeros(1, 3, least - 1, least - 1))


@pytest.mark.parametrize(
    "shape", [(1, 3, 64, 63), (1, 3, 224, 224), (1, 1, 64, 64), (3, 64, 64), (64,)]
)
def test_other_images_than_the_network_is_made_for_are_refused(shape):
    with pytest.raises(
        ShapeError, match=r"this ZFNet takes \(N, 3, H, W\) with H = W = 64: resize"
    ):
        SMALL["ZFNet"]()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ZFNet(0), "got classes=0"),
        (lambda: ZFNet(dropout=1), "a dropout from 0 to below 1"),
        (lambda: ZFNet(code=0), "code=0"),
        (lambda: ZFNet(widths=(1, 2, 3)), r"got widths \[1, 2, 3\]; wanted 5"),
        (lambda: ZFNet(widths=(1, 2, 3, 0, 5)), r"widths=\[1, 2, 3, 0, 5\]"),
        (lambda: AlexNet(widths=(2, 4, 6, 7, 2)), "those of an AlexNet are even numbers"),
        (lambda: VGG(trunk="vgg15"), "got trunk 'vgg15'"),
        (lambda: SqueezeNet(stages=(((1, 2, 3),),)), "pairs of widths"),
        (lambda: SqueezeNet(stages=((),)), "pairs of widths"),
        (lambda: SqueezeNet(size=16), "got size=16, .* wanted 17 or more"),
    ],
)
def test_arguments_that_cannot_be_built_are_refused(make, message):
    with pytest.raises(OptionError, match=message):
        make()


# ---- SqueezeNet ----------------------------------------------------------------------------------


def test_the_layers_of_squeezenet_are_those_of_release_1_1():
    x, found = torch.zeros(1, 3, 227, 227, device="meta"), []
    for layer in built(SqueezeNet).features:
        x = layer(x)
        found.append(tuple(x.shape[1:]))
    assert found == [
        (64, 113, 113), (64, 113, 113), (64, 56, 56), (128, 56, 56), (128, 56, 56),
        (128, 28, 28), (256, 28, 28), (256, 28, 28),
        (256, 14, 14), (384, 14, 14), (384, 14, 14), (512, 14, 14), (512, 14, 14),
    ]  # fmt: skip


def test_squeezenet_has_the_names_of_torchvision():
    fires = [3, 4, 6, 7, 9, 10, 11, 12]
    parts = [
        f"features.{i}.{name}" for i in fires for name in ("squeeze", "expand1x1", "expand3x3")
    ]
    wanted = {
        f"{name}.{kind}"
        for name in ["features.0", *parts, "classifier.1"]
        for kind in ("weight", "bias")
    }
    assert set(built(SqueezeNet).state_dict()) == wanted
    assert len(wanted) == 52


@pytest.mark.skipif(not WEIGHTS.exists(), reason="the weights of SqueezeNet 1.1 are not at hand")
@pytest.mark.parametrize(("name", "label"), [("chelsea", 285), ("coffee", 967)])
def test_squeezenet_knows_cats_and_cups(name, label):
    """By their numbers in ImageNet: Egyptian cat and espresso."""
    net = SqueezeNet().eval()
    load_tensors(net, WEIGHTS)
    image = read_image(str(resources.files("skimage") / f"data/{name}.png"))
    crop = Crops(227, 227).center(image)
    scores = net(prepare(torch.from_numpy(crop[None]), net.mean))
    assert scores.argmax().item() == label


def test_squeezenet_takes_any_image_that_is_large_enough():
    net = SqueezeNet(5, 6, (((2, 4),), ((3, 5), (2, 6))), size=40).eval()
    assert net(torch.zeros(1, 3, net.least, 50)).shape == (1, 5)
    with pytest.raises(ShapeError, match=rf"takes \(N, 3, H, W\) with H and W from {net.least} up"):
        net(torch.zeros(1, 3, net.least - 1, 50))
    with pytest.raises(RuntimeError):
        net.features(torch.zeros(1, 3, net.least - 1, 50))
