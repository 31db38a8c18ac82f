"""Loading models of every origin, and their preprocessing."""

import dataclasses
import importlib
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from unpool.errors import OptionError, WeightsError
from unpool.models import DeconvNet, GenerativeNet, ZFNet, prepare, save_pretrained
from unpool.models.deblur import IRDNet
from unpool.visualize.preprocessing import PREPROCESSINGS, LoadedModel, Preprocessing, load_model

FACTORIES = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())

class Zoo:
    made = nn.Sequential(nn.ReLU())

def number():
    return 3

def small():
    from unpool.visualize import Preprocessing
    return build(), Preprocessing(size=28, mean=(0.5,), std=(0.5,))

def transformed():
    class Transforms:
        crop_size, resize_size, mean, std = [64], [72], [0.1, 0.2, 0.3], [1.0, 1.0, 1.0]
    return build(), Transforms()

def called():
    return build(), print

def broken():
    return 1 / 0
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A folder with factories; the name of their module, of which each test has another."""
    name = f"nets_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return name


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def test_a_foreign_model_sees_what_torchvision_would_show_it(nets, image):
    loaded = load_model(torch_model=f"{nets}:build", size=28, device="cpu")
    assert loaded.preprocessing.enlarged == 32
    (seen,) = loaded.prepare([loaded.preprocessing.crop(image)])
    resized = Image.fromarray(image).resize((48, 32), Image.Resampling.BILINEAR)
    cut = np.asarray(resized.crop((10, 2, 38, 30)), np.float32) / 255
    wanted = (cut - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    # the same but for the order of resizing and cropping
    assert np.abs(seen.numpy().transpose(1, 2, 0) - wanted).mean() < 0.05
    assert not loaded.model.training


def test_caffe_is_the_preprocessing_of_our_networks(image):
    crop = image[:32, :32]
    caffe = dataclasses.replace(PREPROCESSINGS["caffe"], size=32, enlarged=32)
    wanted = prepare(torch.from_numpy(crop[None]))
    assert torch.equal(caffe.prepare([crop]), wanted)
    # and the same in units of 0..1
    mean = tuple(v / 255 for v in caffe.mean)
    again = Preprocessing(32, 32, mean, (1 / 255,) * 3, "BGR").prepare([crop])
    assert torch.allclose(again, wanted, atol=1e-3)


def test_none_leaves_pixels_between_0_and_1(image):
    crop = image[:32, :32]
    found = PREPROCESSINGS["none"].resized(32).prepare([crop])
    assert np.allclose(found[0].permute(1, 2, 0), crop / 255)


def test_sources_of_the_preprocessing(nets):
    spec = f"{nets}:build"
    assert load_model(torch_model=spec).preprocessing == Preprocessing(224, 256)
    assert load_model(torch_model=spec, preprocess="none").preprocessing.mean == (0.0,) * 3
    own = load_model(torch_model=f"{nets}:small").preprocessing
    assert (own.size, own.enlarged, own.mean) == (28, 32, (0.5,) * 3)
    assert load_model(torch_model=f"{nets}:small", preprocess="caffe").preprocessing.size == 224
    seen = load_model(torch_model=f"{nets}:transformed").preprocessing
    assert seen == Preprocessing(64, 72, (0.1, 0.2, 0.3), (1.0,))
    assert load_model(torch_model=f"{nets}:Zoo.made").preprocessing.size == 224
    with pytest.raises(OptionError, match=r"got a builtin_function_or_method as preprocessing; wa"):
        load_model(torch_model=f"{nets}:called")


def test_preprocessing_of_cards(tmp_path):
    given = {"mean": [1, 2, 3], "size": 32, "enlarged": 40}
    learned = {**given, "size": 64, "enlarged": 70}
    save_pretrained(
        ZFNet(3, (4,) * 5, 8, 64), tmp_path / "a", {"input": learned, "mode": "classify"}
    )
    save_pretrained(ZFNet(3, (4,) * 5, 8, 56), tmp_path / "b", {})
    save_pretrained(DeconvNet(2, ((1, 4), (1, 6)), None, 32), tmp_path / "c", {"input": given})
    zf = load_model(tmp_path / "a").preprocessing
    assert (zf.size, zf.enlarged, zf.mean, zf.order, zf.range) == (64, 70, (1, 2, 3), "BGR", 255)
    assert load_model(tmp_path / "b").preprocessing.enlarged == 64
    larger = load_model(tmp_path / "c", size=64).preprocessing
    assert (larger.size, larger.enlarged) == (64, 80)
    card = json.loads((tmp_path / "b/card.json").read_text()) | {"input": {"size": "big"}}
    (tmp_path / "b/card.json").write_text(json.dumps(card))
    with pytest.raises(WeightsError, match="got size big in the card"):
        load_model(tmp_path / "b")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("NETS", "wanted package.module:factory, such as nets:build"),
        (":build", "wanted package.module:factory"),
        ("NETS:bild", "has no 'bild': did you mean 'build'"),
        ("no_such_nets:build", "there is no module 'no_such_nets', neither installed nor in"),
        ("NETS.inner:build", "there is no module"),
        ("NETS:number", "gives a int; wanted a function without arguments that returns"),
        ("NETS:broken", r"broken\(\) fails: ZeroDivisionError: .* line 27\); correct it"),
        ("needy:build", "needs not_installed_here: install it"),
        ("bad:build", r"bad fails: SyntaxError"),
    ],
)
def test_invalid_factories(nets, tmp_path, spec, message):
    (tmp_path / "needy.py").write_text("import not_installed_here\n")
    (tmp_path / "bad.py").write_text("def build(:\n")
    with pytest.raises(OptionError, match=message):
        load_model(torch_model=spec.replace("NETS", nets))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": (104, 117, 123)}, r"got mean=\(104, 117, 123\) and std=.* set range=255"),
        ({"mean": (1, 2)}, r"got mean=\(1, 2\); wanted three numbers, or one"),
        ({"std": (0.0,)}, r"got std=\(0\.0, 0\.0, 0\.0\); wanted numbers above 0"),
        ({"mean": (float("nan"),)}, r"got mean=\(nan,\)"),
        ({"size": -1}, "got size=-1, enlarged=-1; wanted 1 or more"),
    ],
)
def test_invalid_preprocessings(options, message):
    with pytest.raises(OptionError, match=message):
        Preprocessing(**options)


def test_weights_have_their_preprocessing_in_the_card(tmp_path, nets):
    save_pretrained(DeconvNet(2, ((1, 4),), None, 32), tmp_path, {})
    with pytest.raises(OptionError, match="got preprocess=caffe for weights, whose card has the"):
        load_model(tmp_path, preprocess="caffe")
    with pytest.raises(OptionError, match="got preprocess='cafe'; did you mean 'caffe'"):
        load_model(torch_model=f"{nets}:build", preprocess="cafe")


def test_generators_take_no_images(tmp_path):
    net = GenerativeNet(2, 16, code=4, shared=4, widths=(4,), mask_widths=(4,))
    save_pretrained(net, tmp_path / "drawer", {"mode": "generate"})
    with pytest.raises(WeightsError, match="generates images and takes none; pass weights"):
        load_model(tmp_path / "drawer")


def test_networks_that_restore_have_no_classes(tmp_path):
    save_pretrained(IRDNet(width=4, blocks=1), tmp_path / "sharp", {})
    with pytest.raises(WeightsError, match="restores blurred images, which has no classes; pass"):
        load_model(tmp_path / "sharp")


def test_classes_by_name_and_number(tmp_path, nets):
    net = DeconvNet(3, ((1, 4),), None, 32)
    save_pretrained(net, tmp_path / "named", {"classes": ["ground", "cat", "7"]})
    loaded = load_model(tmp_path / "named")
    assert loaded.classes == ("ground", "cat", "7")
    assert [loaded.find_class(name) for name in ("cat", "1", "7", "12")] == [1, 1, 2, 12]
    assert [loaded.class_name(n) for n in (1, 12)] == ["cat", "12"]
    with pytest.raises(OptionError, match=r"got class 'cats' for .*; did you mean 'cat'\?"):
        loaded.find_class("cats")
    with pytest.raises(OptionError, match=r"got class 'zebra' .* the choices are ground, cat, 7"):
        loaded.find_class("zebra")
    with pytest.raises(OptionError, match="its classes have no names: give a number"):
        load_model(torch_model=f"{nets}:build").find_class("cat")


def test_the_digest_of_a_model_is_that_of_all_that_counts(tmp_path, monkeypatch):
    code = (
        "from torch import nn\nclass Own(nn.Module):\n    def forward(self, x):\n        return x"
    )
    (tmp_path / "own_layer.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    own = importlib.import_module("own_layer").Own()

    def digest(weight=1.0, extra=(), preprocess="none", classes=(), dtype=torch.float32):
        model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), *extra, own).to(dtype)
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data.fill_(weight)
        return LoadedModel(model, "any", PREPROCESSINGS[preprocess], classes=classes).digest()

    found = [
        digest(),
        digest(weight=2.0),
        digest(extra=(nn.ReLU(),)),
        digest(preprocess="imagenet"),
        digest(classes=("cat", "dog")),
        digest(dtype=torch.bfloat16),
    ]
    (tmp_path / "own_layer.py").write_text(code + " + 1")
    found.append(digest())
    assert len(set(found)) == len(found)
    assert digest() == found[-1]
