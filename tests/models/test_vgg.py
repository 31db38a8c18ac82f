"""VGG's tables against the paper, and its weights against torchvision's layout, spelled out."""

import json
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from unpool.errors import OptionError, ShapeError, WeightsError
from unpool.models import FCN, TRUNKS, DeconvNet, Trunk, load_vgg, prepare
from unpool.models.vgg import trunk_table

# torchvision's `cfgs` A, B, D and E
CFGS = {
    "vgg11": [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
    "vgg13": [64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
    "vgg16": [64, 64, "M", 128, 128, "M", *[256] * 3, "M", *[512] * 3, "M", *[512] * 3, "M"],
    "vgg19": [64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"],
}
# of the convolutions, weights and biases; the paper's table 2 less the fully connected layers
CONVOLUTIONS = {"vgg11": 9_220_480, "vgg13": 9_404_992, "vgg16": 14_714_688, "vgg19": 20_024_384}
SMALL = ((1, 4), (2, 6))
SMALL_CFG = [4, "M", 6, 6, "M"]


def torchvisions(cfg, norm=False, classifier=None, seed=0):
    """`make_layers` of torchvision's vgg.py, and its classifier at (C * 7 * 7) -> ... -> ..."""
    layers, channels = [], 3
    for v in cfg:
        if v == "M":
            layers.append(nn.MaxPool2d(2, 2))
            continue
        layers.append(nn.Conv2d(channels, v, 3, padding=1))
        layers += [nn.BatchNorm2d(v)] if norm else []
        layers.append(nn.ReLU())
        channels = v
    parts = {"features": nn.Sequential(*layers)}
    if classifier:
        side, width = classifier
        parts["classifier"] = nn.Sequential(
            nn.Linear(channels * side * side, width), nn.ReLU(), nn.Dropout(),
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(), nn.Linear(width, 10),
        )  # fmt: skip
    net = nn.Sequential(OrderedDict(parts))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / 3)
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_var.abs_().add_(0.5)
    return net.eval()


@pytest.fixture
def saved(tmp_path):
    """Save a state dict as users do."""

    def save(state, suffix=".pth"):
        path = tmp_path / f"vgg{suffix}"
        if suffix == ".safetensors":
            save_file(state, path)
        else:
            torch.save(state, path)
        return path

    return save


# ---- tables and trunks ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", CFGS)
def test_tables_are_torchvisions(name):
    flat = [v for layers, width in TRUNKS[name] for v in [*[width] * layers, "M"]]
    assert flat == CFGS[name]
    with torch.device("meta"):
        trunk, norms = Trunk(name, eps=None), Trunk(name)
    assert sum(p.numel() for p in trunk.parameters()) == CONVOLUTIONS[name]
    channels = sum(v for v in CFGS[name] if v != "M")
    assert sum(p.numel() for p in norms.parameters()) == CONVOLUTIONS[name] + 2 * channels
    y, switches = trunk(torch.zeros(1, 3, 224, 224, device="meta"))
    assert y.shape == (1, 512, 7, 7)
    assert [s.size for s in switches] == [(n, n) for n in (224, 112, 56, 28, 14)]


def test_names_are_the_papers():
    with torch.device("meta"):
        names = [n for n, m in Trunk().named_modules() if isinstance(m, nn.Conv2d)]
    assert [name.rpartition(".")[2] for name in names] == [
        "conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3",
        "conv4_1", "conv4_2", "conv4_3", "conv5_1", "conv5_2", "conv5_3",
    ]  # fmt: skip


def test_a_trunk_of_other_channels():
    y, _ = Trunk(SMALL, channels=1)(torch.zeros(2, 1, 9, 8))
    assert y.shape == (2, 6, 3, 2)
    with pytest.raises(ShapeError, match=r"shape \(2, 3, 9, 8\); this trunk takes \(N, 1, H, W\)"):
        Trunk(SMALL, channels=1)(torch.zeros(2, 3, 9, 8))


@pytest.mark.parametrize("pad", [1, 2, 100])
@torch.no_grad()
def test_pooled_maps_and_padding(pad):
    """A padded trunk sees what an image with a border of zeros shows, less that of conv1_1."""
    trunk = Trunk(SMALL, eps=None, pad=pad)
    x = torch.randn(2, 3, 9, 14)
    maps = trunk.pooled(x)
    stage = F.pad(x, [pad] * 4)
    first, *rest = trunk.stages[0]
    stage = F.conv2d(stage, first.weight, first.bias)
    for layer in rest:
        stage = layer(stage)
    assert torch.allclose(maps[0], F.max_pool2d(stage, 2, ceil_mode=True), atol=1e-6)
    assert [m.shape[-2:] for m in maps] == [
        (-(-(7 + 2 * pad) // 2), 6 + pad),
        (-(-(7 + 2 * pad) // 4), -(-(6 + pad) // 2)),
    ]
    assert torch.equal(trunk(x)[0], maps[-1])
    least = max(1, 4 - 2 * (pad - 1))
    trunk.pooled(torch.zeros(1, 3, least, least))
    with pytest.raises(ShapeError, match=f"H and W from {least} up"):
        trunk.pooled(torch.zeros(1, 3, least, least - 1))


def test_trunk_table_takes_names_and_rows():
    assert trunk_table("vgg16") is TRUNKS["vgg16"]
    assert trunk_table(json.loads("[[1, 4], [2, 6]]")) == SMALL
    with pytest.raises(
        OptionError,
        match=r"got trunk 'vgg'; did you mean 'vgg19'. The choices are vgg11, vgg13, vgg16",
    ):
        trunk_table("vgg")
    with pytest.raises(OptionError, match=r"got the trunk table \[\[1\]\]; each row is"):
        trunk_table([[1]])


# ---- what goes in --------------------------------------------------------------------------------


def test_prepare_is_bgr_less_the_mean():
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    mean = np.array([104.00698793, 116.66876762, 122.67891434])  # of blue, green, red
    expected = (images[..., ::-1].astype(np.float64) - mean).transpose(0, 3, 1, 2)
    x = prepare(torch.from_numpy(images))
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert np.allclose(x, expected, atol=1e-5)
    other = prepare(torch.from_numpy(images), (1.0, 2.0, 3.0))
    assert np.allclose(other, expected + mean[:, None, None] - [[[1]], [[2]], [[3]]], atol=1e-4)


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(4, 5, 3, dtype=torch.uint8),
        torch.zeros(1, 3, 4, 5, dtype=torch.uint8),
        torch.zeros(1, 4, 5, 3),
    ],
)
def test_prepare_refuses(images):
    with pytest.raises(ShapeError, match=r"got images of .*; wanted \(N, H, W, 3\) uint8 RGB"):
        prepare(images)


# ---- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("eps", [1e-9, None])
@torch.no_grad()
def test_the_trunk_computes_what_vgg_computes(saved, suffix, eps):
    vgg, net = torchvisions(SMALL_CFG), DeconvNet(3, SMALL, None, 32, eps).eval()
    for norm in net.trunk.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.fill_(3)  # of other weights
            norm.weight.fill_(2)
    decoder = {k: v.clone() for k, v in net.decoder.state_dict().items()}
    names = load_vgg(net, saved(vgg.state_dict(), suffix))
    assert names == ["conv1_1", "conv2_1", "conv2_2"]
    x = torch.randn(2, 3, 16, 20)
    assert torch.allclose(net.trunk(x)[0], vgg.features(x), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(v, decoder[k]) for k, v in net.decoder.state_dict().items())


@torch.no_grad()
def test_half_precision_files_serve(saved):
    vgg, net = torchvisions(SMALL_CFG), DeconvNet(3, SMALL, None, 32)
    load_vgg(net, saved({k: v.half() for k, v in vgg.state_dict().items()}))
    weight = net.trunk.stages[0].conv1_1.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, vgg.features[0].weight.half().float())


@torch.no_grad()
def test_weights_for_normalized_rgb_are_converted(saved):
    """Away from the border, where zero padding is another color."""
    vgg, net = torchvisions([6, 6, "M"]), DeconvNet(3, ((2, 6),), None, 32, None)
    load_vgg(net, saved(vgg.state_dict()), inputs="torchvision")
    images = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (2, 24, 30, 3), dtype=np.uint8)
    )
    rgb = images.permute(0, 3, 1, 2) / 255
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    normalized = (rgb - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    expected = vgg.features(normalized)
    got, _ = net.trunk(prepare(images))
    assert expected.std() > 0.1
    inside = (..., slice(2, -2), slice(2, -2))
    assert torch.allclose(got[inside], expected[inside], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(got, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_weights_with_batch_norm(saved):
    vgg, net = torchvisions(SMALL_CFG, norm=True), DeconvNet(3, SMALL, None, 32, 1e-5).eval()
    names = load_vgg(net, saved(vgg.state_dict()))
    assert names == ["conv1_1", "bn1_1", "conv2_1", "bn2_1", "conv2_2", "bn2_2"]
    x = torch.randn(2, 3, 16, 20)
    assert torch.allclose(net.trunk(x)[0], vgg.features(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_code_layers_are_initialized_with_vggs_classifier(saved):
    vgg, net = torchvisions(SMALL_CFG, classifier=(3, 5)), DeconvNet(3, SMALL, 5, 12, None)
    names = load_vgg(net, saved(vgg.state_dict()))
    assert names == ["conv1_1", "conv2_1", "conv2_2", "fc6", "fc7"]
    x = torch.randn(2, 3, 12, 12)
    expected = vgg.classifier[:5](vgg.features(x).flatten(1))
    y = net.trunk(x)[0]
    for name in ("fc6", "fc7"):
        y = F.relu(net.code.get_submodule(name)(y))
    assert torch.allclose(y.flatten(1), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_an_fcn_is_initialized_with_vgg(saved):
    """Padded by what fc6 takes away, with a window of the classifier's size."""
    vgg, net = torchvisions(SMALL_CFG, classifier=(3, 5)), FCN(3, SMALL, 5, 4, 20, 3).eval()
    scores = {k: v.clone() for k, v in net.score.state_dict().items()}
    names = load_vgg(net, saved(vgg.state_dict()))
    assert names == ["conv1_1", "conv2_1", "conv2_2", "fc6", "fc7"]
    x = torch.randn(2, 3, 12, 12)
    maps = vgg.features(x)
    expected = vgg.classifier[:5](maps.flatten(1))
    assert torch.allclose(net.code(maps).flatten(1), expected, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(v, scores[k]) for k, v in net.score.state_dict().items())
    bare = FCN(3, SMALL, None, 4, 1)
    assert load_vgg(bare, saved(vgg.state_dict())) == ["conv1_1", "conv2_1", "conv2_2"]
    assert torch.allclose(bare.trunk.pooled(x)[-1], maps, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("code", [None, 6])
def test_a_classifier_of_other_widths_is_left_out(saved, code):
    vgg, net = torchvisions(SMALL_CFG, classifier=(3, 5)), DeconvNet(3, SMALL, code, 12)
    before = None if code is None else net.code.fc6.weight.clone()
    names = load_vgg(net, saved(vgg.state_dict()))
    assert names == ["conv1_1", "conv2_1", "conv2_2"]
    assert code is None or torch.equal(net.code.fc6.weight, before)


@pytest.mark.parametrize("inputs", ["caffe", "torchvision"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("features.0.bias"), r"\(conv1_1\) do not fit: bias is missing"),
        (lambda s: s.pop("features.0.weight"), r"\(conv1_1\) do not fit: weight is missing"),
        (
            lambda s: s.update({"features.5.weight": torch.zeros(6, 6, 5, 5)}),
            r"\(conv2_2\) do not fit: weight is \(6, 6, 5, 5\), wanted \(6, 6, 3, 3\)",
        ),
        (
            lambda s: s.update({"features.5.gamma": torch.zeros(6)}),
            r"\(conv2_2\) do not fit: gamma is not wanted",
        ),
        (
            lambda s: [s.pop(k) for k in list(s) if "features.5" in k],
            "got 2 VGG layers in .* has 3",
        ),
        (lambda s: [s.pop(k) for k in list(s)], "got 0 VGG layers in .*: pass the weights of"),
    ],
)
def test_misfits_change_nothing(saved, change, message, inputs):
    state, net = torchvisions(SMALL_CFG).state_dict(), DeconvNet(3, SMALL, None, 32)
    change(state)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        load_vgg(net, saved(state), inputs)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_refuses_other_configurations_and_inputs(saved):
    path = saved(torchvisions(SMALL_CFG, norm=True).state_dict())
    with pytest.raises(
        WeightsError, match=r"got 6 VGG layers in .*vgg\.pth; this trunk has 3: pass"
    ):
        load_vgg(DeconvNet(3, SMALL, None, 32, eps=None), path)
    with pytest.raises(OptionError, match="got inputs 'rgb'; the choices are caffe, torchvision"):
        load_vgg(DeconvNet(3, SMALL, None, 32), path, "rgb")
    with pytest.raises(WeightsError, match=r"none\.pth, which does not exist"):
        load_vgg(DeconvNet(3, SMALL, None, 32), path.with_name("none.pth"))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    ("own", "other", "first"),
    [
        # as printed in notebooks that load vgg16-397923af.pth, and in VGG_ILSVRC_16_layers
        ("torchvision", "caffe", [0.4034, 0.3778, 0.4644, -0.3228, 0.3940, -0.3953]),
        ("caffe", "torchvision", [0.7344, 0.0934, 0.0677, 0.8862, 0.2600, 0.6641]),
    ],
)
def test_well_known_weights_for_other_inputs_are_refused(saved, own, other, first, half):
    """Their filters are alike, so that nobody would notice before the figures are bad."""
    state, net = torchvisions([6, "M"]).state_dict(), DeconvNet(3, ((1, 6),), None, 32)
    state["features.0.bias"][:6] = torch.tensor(first)
    path = saved({k: v.half() for k, v in state.items()} if half else state)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(OptionError, match=rf"vgg\.pth, .* pass trunk_inputs={own}, or inputs="):
        load_vgg(net, path, other)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    load_vgg(net, path, own)
    state["features.0.bias"][3] += 0.01  # of a network of its own
    load_vgg(net, saved(state), other)


def kept_for_the_gradient(net, x):
    """Bytes by dtype that a pass keeps besides the parameters, and the network's gradients."""
    own = {t.untyped_storage().data_ptr() for t in (*net.parameters(), *net.buffers())}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = tensor.dtype, storage.nbytes(), tensor  # held: no reuse
        return tensor

    net.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = net(x).square().mean()
    total = Counter()
    for dtype, size, _ in kept.values():
        total[dtype] += size
    loss.backward(retain_graph=True)
    loss.backward()  # a third computation of the maps
    return total, {name: p.grad for name, p in net.named_parameters()}


def test_checkpointing_keeps_a_quarter_of_the_maps_and_an_eighth_of_the_switches():
    torch.manual_seed(0)
    table = tuple((layers, width // 8) for layers, width in TRUNKS["vgg16"])
    net = DeconvNet(21, table, 64, 64).train()
    x = torch.randn(2, 3, 64, 64)
    kept, gradients = kept_for_the_gradient(net, x)
    before = {k: v.clone() for k, v in net.named_buffers()}
    net.trunk.checkpointing = True
    kept_again, gradients_again = kept_for_the_gradient(net, x)
    assert sum(kept_again.values()) < sum(kept.values()) / 4
    assert kept_again[torch.int64] == 0
    assert kept_again[torch.uint8] == kept[torch.int64] / 8 > 0
    assert all(torch.equal(gradients_again[name], g) for name, g in gradients.items())
    for name, buffer in net.named_buffers():
        if name.endswith("num_batches_tracked"):
            assert (before[name], buffer) == (1, 2), name
    assert not net.eval()(x).isnan().any()
    with torch.no_grad():
        assert net.trunk(x)[1][0].index.dtype == torch.int64  # nothing is to be remembered
