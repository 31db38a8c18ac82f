"""CRF-RNN from the authors' file and from the port's, against plain functions of the blobs."""

import numpy as np
import pytest
import torch

from tests.models.caffe.files import save
from tests.models.caffe.nets import ones, values
from tests.models.caffe.test_fcn import evaluate_fcn, fcn, fcn_layers
from unpool.cards import read_card
from unpool.errors import WeightsError
from unpool.models import CRFRNN, from_pretrained
from unpool.models.caffe import load_caffemodel
from unpool.models.convert import convert
from unpool.ops import Kernel, kernel_filter

SQUARE = (1, 1, 5, 5)
CRF = [values(name, "", SQUARE)[0] for name in ("spatial", "bilateral", "compatibility")]
CRF[2] = CRF[2] - np.eye(5, dtype=np.float32)  # a penalty: negative where a label is favored


def crfrnn_layers(crf=None, without=()):
    crf = [("inference1", "MultiStageMeanfield", CRF if crf is None else crf)]
    return [layer for layer in fcn_layers() + crf if layer[0] not in without]


def port(path, **changes):
    """Write the port's file: its names, and the sign of its compatibility. None leaves out."""
    state = {}
    for name, (_, _, arrays) in zip(fcn(old=False), fcn_layers(), strict=True):
        shapes = arrays[0], *(bias.ravel() for bias in arrays[1:])
        for part, array in zip(("weight", "bias"), shapes, strict=False):
            state[f"{name}.{part}"] = torch.from_numpy(array)
    kinds = ("spatial_ker_weights", "bilateral_ker_weights", "compatibility_matrix")
    for kind, sign, matrix in zip(kinds, (1, 1, -1), CRF, strict=True):
        state[f"crfrnn.{kind}"] = sign * torch.from_numpy(matrix[0, 0])
    state |= {name.replace("__", "."): value for name, value in changes.items()}
    torch.save({name: value for name, value in state.items() if value is not None}, path)
    return path


def mean_field(scores, image, iterations, matrices=None):
    """Caffe's layer written out: labels by pixels, and a penalty that is subtracted."""
    size = scores.shape[1:]
    near, alike = (
        kernel_filter(kernel, size, image.movedim(0, -1), like=scores)
        for kernel in (Kernel(3, 1), Kernel(160, 1, 3))
    )
    spatial, bilateral, penalty = (torch.from_numpy(m[0, 0]).double() for m in matrices or CRF)
    unary = current = scores.flatten(1)
    for _ in range(iterations):
        q = current.softmax(0).t().contiguous()
        message = spatial @ near(q).t() + bilateral @ alike(q).t()
        current = unary - penalty @ message
    return current.view(scores.shape)


@torch.no_grad()
def test_crf_rnn_is_the_net_of_caffe(load):
    layers = crfrnn_layers()
    model, ready, note = load(layers)
    assert (ready, note) == (True, "CRF-RNN for 5 classes: for use")
    assert isinstance(model, CRFRNN)
    assert not model.training
    assert (model.iterations, model.crf.theta) == ((5, 10), (160, 3, 3))
    assert (model.net.stride, model.net.pad, model.net.window) == (8, 100, 7)
    fixed = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert fixed == ["net.score.upscore8.weight"]
    blobs = dict(zip(fcn(old=False), (blobs for *_, blobs in layers[:-1]), strict=True))
    assert len(blobs["upscore2"]) == 2  # a bias, which is added to that of score_pool4
    x = torch.from_numpy(30 * np.random.default_rng(0).standard_normal((2, 3, 30, 41)))
    scores = evaluate_fcn(blobs.__getitem__, x, 8)
    expected = torch.stack([mean_field(s, image, 10) for s, image in zip(scores, x, strict=True)])
    torch.testing.assert_close(model.double()(x), expected, rtol=1e-5, atol=1e-6)
    assert (expected - scores).abs().max() > 0.5


@pytest.mark.parametrize("name", ["crfasrnn_weights.pth", "CRF.PTH", "weights.pt"])
def test_the_file_of_the_port_gives_the_same(load, tmp_path, name):
    model, _, note = load_caffemodel(port(tmp_path / name))
    expected = load(crfrnn_layers(), version=1)
    assert note == expected.note
    for name, value in expected.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_converted_weights_segment_at_500_pixels(tmp_path):
    path = tmp_path / "TVG_CRFRNN_COCO_VOC.caffemodel"
    path.write_bytes(save(crfrnn_layers()))
    convert(path, tmp_path / "weights")
    card = read_card(tmp_path / "weights")
    assert (card.architecture, card.long_side, card.mode) == ("CRFRNN", 500, "whole")
    assert card.license == "that of the file's authors, CRF-RNN's or the port's"
    net, _ = from_pretrained(tmp_path / "weights")
    np.testing.assert_array_equal(net.crf.compatibility.detach(), -CRF[2][0, 0])


FLAT = [matrix.reshape(1, 1, 1, 25) for matrix in CRF]
WRONG = {
    "two matrices": (crfrnn_layers(CRF[:2]), r"inference1 has \(1, 1, 5, 5\), \(1, 1, 5, 5\), not"),
    "of other classes": (crfrnn_layers([ones(1, 1, 6, 6)] * 3), r"not three finite matrices \(5"),
    "flat": (crfrnn_layers(FLAT), "not three finite matrices"),
    "not finite": (crfrnn_layers([*CRF[:2], CRF[2] * np.nan]), "not three finite matrices"),
    "no score4": (crfrnn_layers(without=["score4"]), "an FCN-8s has score_fr"),
    "no fc7": (crfrnn_layers(without=["fc7"]), "lacks weights and biases of fc7"),
    "twice": (crfrnn_layers() + crfrnn_layers()[-1:], "a second layer 'inference1'"),
    "cut": (save(crfrnn_layers())[:-9], "a field of"),
}


@pytest.mark.parametrize(("layers", "message"), WRONG.values(), ids=WRONG)
def test_refuses_layers_of_another_network(load, layers, message):
    with pytest.raises(WeightsError, match=message):
        load(layers)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crfrnn__compatibility_matrix": None}, "lacks crfrnn.compatibility_matrix; of .pth"),
        ({"fc7__weight": None}, "lacks fc7.weight; of .pth files, that of the PyTorch port of CRF"),
        ({"fc7__bias": None}, "lacks weights and biases of fc7"),
        ({"fc8__weight": torch.ones(2, 2)}, "has fc8.weight; of .pth files"),
        ({"features__0__weight": torch.ones(2, 2)}, r"VGG weights \(features.* as trunk_weights$"),
        ({"fc7__running_mean": torch.ones(2)}, "has fc7.running_mean; of .pth files"),
        ({"fc7__weight": torch.ones(0, 9, 1, 1)}, "has fc7.weight; of .pth files"),
        ({"fc7__weight": torch.ones(())}, "has fc7.weight; of .pth files"),
        ({"fc7__weight": torch.ones(9, 9, 3, 3)}, r"the weight of fc7 is \(9, 9, 3, 3\)"),
        ({"fc7__bias": torch.full((9,), torch.nan)}, "where fc7.bias is not finite"),
        ({"crfrnn__spatial_ker_weights": torch.ones(4, 4)}, "not three finite matrices"),
        ({"fc7__bias": 3}, "more than named tensors"),
    ],
)
def test_refuses_other_tensors(tmp_path, changes, message):
    with pytest.raises(WeightsError, match=message):
        load_caffemodel(port(tmp_path / "crfasrnn_weights.pth", **changes))


def test_refuses_a_damaged_file_of_the_port(tmp_path):
    path = port(tmp_path / "crfasrnn_weights.pth")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(WeightsError, match="cannot read"):
        load_caffemodel(path)
