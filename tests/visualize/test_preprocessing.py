"""Models to look into: where they come from, and how they take images."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from unpool.errors import OptionError, WeightsError
from unpool.models import DeconvNet, GenerativeNet, ZFNet, prepare, save_pretrained
from unpool.visualize.preprocessing import Inputs, load_subject

FACTORIES = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())

class Zoo:
    made = nn.Sequential(nn.ReLU())

def number():
    return 3

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
    subject = load_subject(torch_model=f"{nets}:build", size=28, device="cpu")
    assert subject.inputs.enlarged == 32
    (seen,) = subject.prepare([subject.inputs.crop(image)])
    resized = Image.fromarray(image).resize((48, 32), Image.Resampling.BILINEAR)
    cut = np.asarray(resized.crop((10, 2, 38, 30)), np.float32) / 255
    wanted = (cut - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    # the same but for the order of resizing and cropping
    assert np.abs(seen.numpy().transpose(1, 2, 0) - wanted).mean() < 0.05
    assert not subject.model.training


def test_caffe_preparation_is_that_of_our_networks(image):
    crop = image[:32, :32]
    inputs = Inputs(32, 32, (104.0, 117.0, 123.0), (1.0,) * 3, "BGR", 255)
    wanted = prepare(torch.from_numpy(crop[None]), (104.0, 117.0, 123.0))
    assert torch.equal(inputs.prepare([crop]), wanted)
    # and the same in units of 0..1
    shares = tuple(v / 255 for v in inputs.mean)
    again = Inputs(32, 32, shares, (1 / 255,) * 3, "BGR").prepare([crop])
    assert torch.allclose(again, wanted, atol=1e-3)


def test_defaults_follow_order_and_range(nets):
    spec = f"{nets}:build"
    found = load_subject(torch_model=spec, order="bgr", range=255).inputs
    assert found.mean == pytest.approx((103.53, 116.28, 123.675))
    assert found.std == pytest.approx((57.375, 57.12, 58.395))
    assert load_subject(torch_model=spec, mean=[0.5], std=[1, 2, 3]).inputs.mean == (0.5,) * 3
    assert load_subject(torch_model=f"{nets}:Zoo.made").inputs.size == 224


def test_cards_say_how_images_are_taken(tmp_path):
    given = {"mean": [1, 2, 3], "size": 32, "enlarged": 40}
    learned = {**given, "size": 64, "enlarged": 70}
    save_pretrained(
        ZFNet(3, (4,) * 5, 8, 64), tmp_path / "a", {"input": learned, "mode": "classify"}
    )
    save_pretrained(ZFNet(3, (4,) * 5, 8, 56), tmp_path / "b", {})
    save_pretrained(DeconvNet(2, ((1, 4), (1, 6)), None, 32), tmp_path / "c", {"input": given})
    zf = load_subject(tmp_path / "a").inputs
    assert (zf.size, zf.enlarged, zf.mean, zf.order, zf.range) == (64, 70, (1, 2, 3), "BGR", 255)
    assert load_subject(tmp_path / "b").inputs.enlarged == 64
    larger = load_subject(tmp_path / "c", size=64).inputs
    assert (larger.size, larger.enlarged) == (64, 80)
    save_pretrained(DeconvNet(2, ((1, 4),), None, 32), tmp_path / "d", {"input": {"size": "big"}})
    with pytest.raises(WeightsError, match="got size big and enlarged big in the card"):
        load_subject(tmp_path / "d")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("NETS", "wanted package.module:factory, such as nets:build"),
        (":build", "wanted package.module:factory"),
        ("NETS:bild", r"has no 'bild' \(near it: build"),
        ("no_such_nets:build", "there is no module 'no_such_nets', neither installed nor in"),
        ("NETS.inner:build", "there is no module"),
        ("NETS:number", "gives a int; wanted a function without arguments that returns"),
        ("NETS:broken", r"broken\(\) fails: ZeroDivisionError: .* line 15\); correct it"),
        ("needy:build", "needs not_installed_here: install it"),
        ("bad:build", r"bad fails: SyntaxError"),
    ],
)
def test_factories_that_cannot_be_used(nets, tmp_path, spec, message):
    (tmp_path / "needy.py").write_text("import not_installed_here\n")
    (tmp_path / "bad.py").write_text("def build(:\n")
    with pytest.raises(OptionError, match=message):
        load_subject(torch_model=spec.replace("NETS", nets))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": [104, 117, 123]}, "of pixels 0 to 1; pass --range 255"),
        ({"mean": [1, 2]}, "got mean 1,2; wanted three numbers, or one for all"),
        ({"std": [0.0]}, "got std 0,0,0; wanted numbers above 0"),
        ({"mean": [float("nan")]}, "got mean nan"),
    ],
)
def test_preparations_that_cannot_be(nets, options, message):
    with pytest.raises(OptionError, match=message):
        load_subject(torch_model=f"{nets}:build", **options)


def test_weights_prepare_images_as_their_card_says(tmp_path):
    save_pretrained(DeconvNet(2, ((1, 4),), None, 32), tmp_path, {})
    with pytest.raises(OptionError, match="got --mean and --order with weights"):
        load_subject(tmp_path, mean=[1], order="rgb")


def test_what_draws_sees_nothing(tmp_path):
    net = GenerativeNet(2, 16, code=4, shared=4, widths=(4,), mask_widths=(4,))
    save_pretrained(net, tmp_path / "drawer", {"mode": "generate"})
    with pytest.raises(WeightsError, match="draws images and sees none; look into it with"):
        load_subject(tmp_path / "drawer")


def test_classes_by_name_and_number(tmp_path, nets):
    net = DeconvNet(3, ((1, 4),), None, 32)
    save_pretrained(net, tmp_path / "named", {"classes": ["ground", "cat", "7"]})
    subject = load_subject(tmp_path / "named")
    assert subject.classes == ("ground", "cat", "7")
    assert [subject.find_class(name) for name in ("cat", "1", "7", "12")] == [1, 1, 2, 12]
    assert [subject.class_name(n) for n in (1, 12)] == ["cat", "12"]
    with pytest.raises(OptionError, match=r"got class 'cats', .* does not know; near it: cat"):
        subject.find_class("cats")
    with pytest.raises(OptionError, match=r"not know; there are ground, cat, 7 \.\.\."):
        subject.find_class("zebra")
    with pytest.raises(OptionError, match="the model tells no names: give a number"):
        load_subject(torch_model=f"{nets}:build").find_class("cat")
