"""Files as released, at full size: they convert to the nets of Caffe, and damaged ones are refused.

The layers of the authors' files with random blobs, written by protobuf. The narrow nets of the
other tests of this folder have the same layers.
"""

import os
import shutil

import numpy as np
import pytest
import torch

from tests.models.caffe import test_decouplednet as decoupled
from tests.models.caffe.files import field, save_large
from tests.models.caffe.nets import FULL, values
from tests.models.caffe.test_crfrnn import mean_field
from tests.models.caffe.test_deeplab import deeplab_layers
from tests.models.caffe.test_deeplab import evaluate as evaluate_deeplab
from tests.models.caffe.test_fcn import evaluate_fcn, fcn
from tests.models.caffe.test_segnet import basic_layers, segnet_layers
from tests.models.caffe.test_segnet import evaluate as evaluate_segnet
from unpool.errors import WeightsError
from unpool.models import DecoupledNet, from_pretrained
from unpool.models.convert import convert

pytestmark = pytest.mark.slow


def crfrnn_layers():
    """`TVG_CRFRNN_COCO_VOC.caffemodel`: FCN-8s of 2014, and three matrices of 21 classes."""
    net = fcn(FULL["widths"], FULL["code"], FULL["classes"])
    layers = [(name, kind, values(name, kind, *shapes)) for name, (kind, *shapes) in net.items()]
    matrices = [values(name, "", (1, 1, 21, 21))[0] for name in ("spatial", "bilateral", "penalty")]
    matrices[2] -= np.eye(21, dtype=np.float32)
    return [*layers, ("inference1", "MultiStageMeanfield", matrices)]


def evaluate_crfrnn(layers, x):
    blobs = dict(zip(fcn(old=False), (blobs for *_, blobs in layers[:-1]), strict=True))
    scores = evaluate_fcn(blobs.__getitem__, x, 8)
    return torch.stack(
        [mean_field(s, image, 10, layers[-1][2]) for s, image in zip(scores, x, strict=True)]
    )


def evaluate_decouplednet(layers, x):
    p = decoupled.evaluate({name: blobs for name, _, blobs in layers}.__getitem__, x)
    p = p.clamp_min(1e-6)
    return (p / p.sum(1, keepdim=True)).log()


FILES = {  # layers, parameters, the evaluation, and the size of an image
    "segnet_pascal": (
        lambda: segnet_layers(widths=FULL["widths"], classes=21),
        29_455_125,
        evaluate_segnet,
        (75, 62),
    ),
    "segnet_basic_camvid": (
        lambda: basic_layers(width=64, classes=11),
        1_416_587,
        evaluate_segnet,
        (90, 120),
    ),
    "deeplab_largefov": (
        lambda: deeplab_layers(sizes={**FULL, "code": 1024}),
        20_505_429,
        lambda layers, x: evaluate_deeplab(layers, x, 3, False),
        (65, 81),
    ),
    "TVG_CRFRNN_COCO_VOC": (crfrnn_layers, 134_491_082, evaluate_crfrnn, (30, 41)),
    "DecoupledNet_Full_anno_inference": (
        lambda: decoupled.layers(sizes={**FULL, "seg_code": 2048}),
        134_342_484 + 173_107_906,
        evaluate_decouplednet,
        (224, 224),
    ),
}


@pytest.fixture(scope="module", params=FILES)
def file(request, tmp_path_factory):
    """A file, its layers, and where each begins in it."""
    path = tmp_path_factory.mktemp("released") / f"{request.param}.caffemodel"
    layers, begins = FILES[request.param][0](), {}
    with path.open("wb") as target:
        for layer in layers:
            begins[layer[0]] = target.tell()
            target.write(save_large(layer))
    yield path, layers, begins
    path.unlink()


@torch.no_grad()
def test_it_converts_to_the_net_of_caffe(file, tmp_path):
    path, layers, _ = file
    _, parameters, evaluate, size = FILES[path.stem]
    done = convert(path, tmp_path / "weights")
    model, _ = from_pretrained(tmp_path / "weights")
    shutil.rmtree(tmp_path / "weights")
    assert done.ready
    assert done.parameters == parameters
    if isinstance(model, DecoupledNet):  # for 320 x 320, where the evaluation takes minutes
        small = DecoupledNet(**{**model.arguments, "size": size[0]}).eval()
        small.load_state_dict(model.state_dict(), assign=True)
        model = small
    x = torch.from_numpy(30 * np.random.default_rng(0).standard_normal((1, 3, *size)))
    found = model.double()(x)
    expected = evaluate(layers, x)
    assert expected.std() > 0.05
    assert len(expected.argmax(1).unique()) > 1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


CUT = r"byte \d+: a field of \d+ bytes where \d+ remain; .*: copy or download the file again"
MISSING = r"lacks weights and biases of|an FCN-\d+s has|has none of fc8|fc6-bp is missing"


def test_a_cut_file_is_refused(file, tmp_path):
    path, layers, begins = file
    middle, end = begins[layers[len(layers) // 2][0]], path.stat().st_size
    copy = tmp_path / path.name
    shutil.copyfile(path, copy)
    for length, message in (
        (end - 1, CUT),
        (begins[layers[-1][0]], MISSING),
        (middle + 1000, CUT),
        (middle, MISSING),
    ):
        if length == begins.get("fc8_voc12", begins.get("inference1")):
            continue  # the whole VGG-16, or FCN-8s, of which the network is made
        os.truncate(copy, length)
        with pytest.raises(WeightsError, match=message):
            convert(copy, tmp_path / "weights")
        assert not (tmp_path / "weights").exists()


DAMAGES = {
    "missing": (lambda layer: b"", MISSING),
    "without biases": (
        lambda layer: save_large((*layer[:2], layer[2][:1])),
        "lacks weights and biases of {name}; give a complete file",
    ),
    "a row less": (
        lambda layer: save_large((*layer[:2], [layer[2][0][:, :, 1:], layer[2][1]])),
        r"the weight of {name} is \(\d+, \d+, [26], [37]\), not",
    ),
    "transposed": (
        lambda layer: save_large((*layer[:2], [layer[2][0].transpose(2, 3, 0, 1), layer[2][1]])),
        r"the weight of {name} is \([37], [37], \d+, \d+\), not",
    ),
    "NaN": (
        lambda layer: save_large((*layer[:2], [layer[2][0], np.nan * layer[2][1]])),
        "the bias of {name} is not finite",
    ),
    "infinite": (
        lambda layer: save_large((*layer[:2], [-np.inf * abs(layer[2][0]), layer[2][1]])),
        "the weight of {name} is not finite",
    ),
    "numbers instead of blobs": (
        lambda layer: field(2, 2, field(4, 2, layer[0].encode()) + field(6, 0, b"\1")),
        r"byte \d+: field 6 is of wire type 0",
    ),
    "twice": (lambda layer: 2 * save_large(layer), "a second layer '{name}' after conv1"),
    "of another name": (
        lambda layer: save_large(("res2a_branch1", *layer[1:])),
        "a layer 'res2a_branch1' after conv1",
    ),
    "the prototxt": (lambda layer: b'layers { name: "conv" }', r"byte \d+: .*not a \.prototxt"),
}


@pytest.mark.parametrize(("damaged", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_layer_is_refused(file, tmp_path, damaged, message):
    path, layers, begins = file
    number = next(n for n, layer in enumerate(layers) if layer[0] in ("conv3_2", "conv3"))
    name, end = layers[number][0], begins[layers[number + 1][0]]
    new = tmp_path / path.name
    with path.open("rb") as source, new.open("wb") as target:
        target.write(source.read(begins[name]))
        target.write(damaged(layers[number]))
        source.seek(end)
        shutil.copyfileobj(source, target)
    with pytest.raises(WeightsError, match=message.replace("{name}", name)) as error:
        convert(new, tmp_path / "weights")
    assert str(new) in str(error.value)
    assert len(str(error.value)) < 600
    new.unlink()
    assert not (tmp_path / "weights").exists()
