"""DecoupledNet from Caffe files, against plain functions of the blobs."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.models.caffe.files import save
from tests.models.caffe.nets import STAGES, add_decoder, add_layer, ones, values
from unpool.cards import read_card
from unpool.errors import OptionError, WeightsError
from unpool.models import DecoupledNet
from unpool.models.convert import convert
from unpool.models.fast import accelerate

NARROW = {"widths": (4, 5, 6, 7, 8), "code": 9, "seg_code": 10, "side": 2, "classes": 5}
BP = "cls-score-voc-bp"


def decouplednet(widths, code, seg_code, side, classes):
    """Name: (kind, shapes of blobs) of every layer but the bridge's, by the prototxt."""
    net, below = {}, 3

    add = partial(add_layer, net)
    for stage, width in enumerate(widths, start=1):
        for i in range(1, STAGES[stage - 1] + 1):
            add("Convolution", f"conv{stage}_{i}", below, width, 3)
            below = width
    add("Convolution", "fc6", below, code, side)
    add("Convolution", "fc7", code, code, 1)
    add("Convolution", "cls-score-voc", code, classes - 1, 1)
    for norm in ("pool5-bn", "pool5-bp-bn"):
        net[norm] = ("BN", (1, below, 1, 1), (1, below, 1, 1))
    add("Convolution", "fc6-seg", 2 * below, seg_code, side, "bnfc6-seg")
    add("Convolution", "fc7-seg", seg_code, seg_code, 1, "bnfc7-seg")
    add("Deconvolution", "fc6-deconv", seg_code, below, side, "fc6-deconv-bn")
    add_decoder(net, widths)
    add("Convolution", "seg-score-voc", widths[0], 2, 1)
    return net


def layers(more=(), sizes=NARROW, **changes):
    """A narrow file; a change replaces a layer's blobs, None removes it."""
    found = {
        name: (kind, values(name, kind, *shapes))
        for name, (kind, *shapes) in decouplednet(**sizes).items()
    }
    score, fc7, fc6 = (found[name][1][0] for name in ("cls-score-voc", "fc7", "fc6"))
    bias = found["cls-score-voc"][1][1]
    bias[:] = -2
    bias[..., :4] = [1, -1, 2, -2]  # two classes are there, the others are not
    score /= 50
    code, below = fc6.shape[:2]
    zero = np.zeros((1, 1, 1, code), np.float32)
    found[BP] = ("Convolution", [score.transpose(1, 0, 2, 3), zero])
    found["fc7-bp"] = ("Deconvolution", [fc7, zero])
    found["fc6-bp"] = ("Deconvolution", [fc6, np.zeros((1, 1, 1, below), np.float32)])
    result = []
    for name, (kind, blobs) in found.items():
        blobs = changes.get(name.replace("-", "_"), blobs)
        result += [] if blobs is None else [(name, kind, blobs)]
    return [*result, *more]


def evaluate(blobs, x):
    """The released script by the layers of the prototxt, bridge included, for a square image."""

    def tensors(name):
        return [torch.from_numpy(np.ascontiguousarray(array)).double() for array in blobs(name)]

    def layer(name, operation, x, padding=0):
        weight, bias = tensors(name)
        return operation(x, weight, bias.flatten(), 1, padding)

    def norm(name, x):
        scale, shift = tensors(name)
        return x * scale + shift

    masks = []
    for stage in (1, 2, 3, 4, 5):
        for i in range(1, STAGES[stage - 1] + 1):
            x = layer(f"conv{stage}_{i}", F.conv2d, x, 1).clamp(min=0)
        x, mask = F.max_pool2d(x, 2, 2, return_indices=True)
        masks.append(mask)
    fc6 = layer("fc6", F.conv2d, x)
    fc7 = layer("fc7", F.conv2d, fc6.clamp(min=0))
    score = layer("cls-score-voc", F.conv2d, fc7.clamp(min=0))
    window = score.shape[-1]
    s = F.avg_pool2d(score, window).sigmoid()
    _, place = F.max_pool2d(score, window, return_indices=True)

    def run(v):
        back = layer(BP, F.conv2d, F.max_unpool2d(v, place, window)) * (fc7 > 0)
        back = layer("fc7-bp", F.conv_transpose2d, back) * (fc6 > 0)
        back = layer("fc6-bp", F.conv_transpose2d, back)
        y = torch.cat([norm("pool5-bn", x), norm("pool5-bp-bn", back)], 1)
        for name, how, bn in (
            ("fc6-seg", F.conv2d, "bnfc6-seg"),
            ("fc7-seg", F.conv2d, "bnfc7-seg"),
            ("fc6-deconv", F.conv_transpose2d, "fc6-deconv-bn"),
        ):
            y = norm(bn, layer(name, how, y)).clamp(min=0)
        for stage in (5, 4, 3, 2, 1):
            y = F.max_unpool2d(y, masks[stage - 1], 2, 2)
            for i in range(1, STAGES[stage - 1] + 1):
                y = layer(f"deconv{stage}_{i}", F.conv_transpose2d, y, 1)
                y = norm(f"debn{stage}_{i}", y).clamp(min=0)
        return layer("seg-score-voc", F.conv2d, y).softmax(1)

    p = [run(s * (s > 0.5))[:, :1]]
    for c in range(s.shape[1]):
        alone = torch.zeros_like(s)
        alone[:, c] = s[:, c]
        shown = s[:, c : c + 1] > 0.5
        p.append(run(alone)[:, 1:] * shown if shown.any() else torch.zeros_like(p[0]))
    p = torch.cat(p, 1)
    return p / p.sum(1, keepdim=True)


@torch.no_grad()
def test_a_folded_file_is_the_net_of_caffe(load):
    model, ready, note = load(layers(), "folded")
    assert (ready, model.training) == (True, False)
    assert note == "DecoupledNet for 5 classes, batch norm folded: for use, not for training"
    assert model.arguments["size"] == 320
    assert not any("-bp." in name for name, _ in model.named_parameters() if "bn" not in name)
    small = DecoupledNet(**{**model.arguments, "size": 96}).double().eval()
    small.load_state_dict(model.state_dict())
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, 96, 96)))
    blobs = {name: blobs for name, _, blobs in layers()}
    expected = evaluate(blobs.__getitem__, x).clamp_min(1e-6)
    expected = expected / expected.sum(1, keepdim=True)
    assert len(expected.argmax(1).unique()) > 1
    torch.testing.assert_close(small(x).exp(), expected, rtol=1e-6, atol=1e-7)
    fast = accelerate(small.float())
    torch.testing.assert_close(fast(x.float()).exp(), expected.float(), rtol=1e-2, atol=1e-3)


def test_a_file_of_the_solver_is_for_training(load):
    model, ready, note = load(layers(), "training")
    assert (ready, model.training, model.eps) == (False, True, 1e-9)
    assert "estimate the statistics of batch norm" in note
    with pytest.raises(OptionError, match="batch_norm='folded' for a file made for inference"):
        load(layers())


def test_it_converts_to_a_folder_of_weights(tmp_path):
    path = tmp_path / "net_inference.caffemodel"
    path.write_bytes(save(layers()))
    done = convert(path, tmp_path / "weights")
    assert done.ready
    card = read_card(tmp_path / "weights")
    assert card.long_side == 320
    assert card.license.endswith("DecoupledNet's (POSTECH): individual research use only")


def blobs_of(name):
    return next(blobs for found, _, blobs in layers() if found == name)


WRONG = {
    "missing": (layers(fc7_seg=None), "lacks weights and biases of fc7-seg; give a complete file"),
    "no bridge": (layers(fc6_bp=None), "does not fit DecoupledNet: fc6-bp is missing;"),
    "another bridge": (
        layers(fc7_bp=[2 * blobs_of("fc7-bp")[0], blobs_of("fc7-bp")[1]]),
        "fc7-bp is not tied to fc7; give a file",
    ),
    "not transposed": (
        layers(cls_score_voc_bp=[blobs_of("cls-score-voc")[0], ones(1, 1, 1, 4)]),
        "cls-score-voc-bp is not tied to cls-score-voc",
    ),
    "a bias in the bridge": (
        layers(fc6_bp=[blobs_of("fc6-bp")[0], ones(1, 1, 1, 8)]),
        "fc6-bp has a bias",
    ),
    "of other width": (
        layers(fc6_seg=[ones(10, 8, 2, 2), ones(1, 1, 1, 10)]),
        r"the weight of fc6-seg is \(10, 8, 2, 2\), not \(10, 16, 2, 2\)",
    ),
    "not finite": (
        layers(pool5_bn=[np.nan * ones(1, 8, 1, 1), ones(1, 8, 1, 1)]),
        "the weight of pool5-bn is not finite",
    ),
    "of three outputs": (
        layers(seg_score_voc=[ones(3, 4, 1, 1), ones(1, 1, 1, 3)]),
        r"seg-score-voc is \(3, 4, 1, 1\), not \(2, 4, 1, 1\)",
    ),
    "of DeconvNet, too": (
        layers(more=[("bn1_1", "BN", [ones(1, 4, 1, 1)] * 2)]),
        "a layer 'bn1_1' after conv1_1",
    ),
    "twice": (layers(more=layers()[:1]), "a second layer 'conv1_1' after conv1_1, conv1_2"),
}


@pytest.mark.parametrize(("found", "message"), WRONG.values(), ids=WRONG)
def test_damaged_files_are_refused(load, found, message):
    with pytest.raises(WeightsError, match=message):
        load(found, "folded")


def test_every_cut_between_layers_is_noticed(load):
    for count in range(16, len(layers())):  # fewer are VGG-16's
        with pytest.raises(WeightsError, match=r"lacks weights and biases|is missing|an FCN"):
            load(layers()[:count], "folded")
