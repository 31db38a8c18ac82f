"""Weights with scales, made and used."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from unpool.devices import find_int8_obstacle
from unpool.errors import OptionError, WeightsError
from unpool.models import CRFRNN, save_pretrained
from unpool.segment import quantize as module
from unpool.segment.ensemble import EDeconvNet
from unpool.segment.quantize import quantize
from unpool.segment.segmenter import Segmenter

HAS_INT8 = pytest.mark.skipif(
    find_int8_obstacle(torch.device("cpu")) is not None, reason="the processor has no VNNI"
)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(5):
        small = random.integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(small).resize((48 + i, 40)).save(folder / f"{i}.png")
    return folder


@HAS_INT8
def test_weights_are_prepared_for_int8(pair, photos, tmp_path):
    found = quantize(pair, photos, tmp_path / "out", images=3, agreement=0.5)
    assert found.weights == str(tmp_path / "out")
    assert found.images == 3
    assert found.labels_equal >= 0.5
    assert (found.int8, found.floating_point) == (5, [])
    images = [np.asarray(Image.open(path)) for path in sorted(photos.iterdir())]
    fp32 = Segmenter.from_pretrained(pair, precision="fp32")
    int8 = Segmenter.from_pretrained(found.weights, precision="int8")
    assert int8.describe().split(", ")[-1] == "int8" or "int8" in int8.describe()
    equal = [(int8(image).labels == fp32(image).labels).mean() for image in images]
    assert np.mean(equal) > 0.8
    crops = [s(images[0], mode="instance", proposals=4).labels for s in (int8, fp32)]
    assert (crops[0] == crops[1]).mean() > 0.8
    with pytest.raises(WeightsError, match="unpool quantize"):
        Segmenter.from_pretrained(pair, precision="int8")


@HAS_INT8
def test_all_images_are_measured_if_there_are_few(pair, photos, tmp_path, monkeypatch):
    seen = []

    def calibrate(net, batches, **options):
        seen.extend(tuple(x.shape) for x in batches)
        raise OptionError("enough")

    monkeypatch.setattr(module, "calibrate", calibrate)
    with pytest.raises(OptionError, match="enough"):
        quantize(pair, photos, tmp_path / "out", images=9)
    assert sum(shape[0] == 1 for shape in seen) >= 5
    assert not (tmp_path / "out").exists()


@HAS_INT8
def test_both_networks_of_the_ensemble_can_be_int8(pair, photos, tmp_path):
    options = {"images": 2, "agreement": 0}
    first = quantize(pair, photos, tmp_path / "net", **options).weights
    card = json.loads((tmp_path / "net/card.json").read_text())
    fcn = f"{pair}/{card['partner']}"
    second = quantize(fcn, photos, tmp_path / "fcn", **options)
    assert "score.score_fr" in second.floating_point
    both = EDeconvNet.from_pretrained(first, second.weights, precision="int8")
    image = np.asarray(Image.open(photos / "0.png"))
    assert both(image, proposals=2).labels.shape == image.shape[:2]


def test_what_cannot_be_prepared(pair, photos, tmp_path, monkeypatch):
    net = CRFRNN(3, ((1, 4),) * 3, 8, stride=4, pad=1, window=3)
    folder = save_pretrained(net, tmp_path / "crf", {"classes": ["a", "b", "c"]})
    monkeypatch.setattr(module, "find_int8_obstacle", lambda device: None)
    with pytest.raises(OptionError, match="int8 for a CRFRNN; it is for DeconvNet, FCN, SegNet"):
        quantize(folder, photos, tmp_path / "out")
    with pytest.raises(OptionError, match="got images=0"):
        quantize(pair, photos, tmp_path / "out", images=0)
    monkeypatch.setattr(module, "find_int8_obstacle", lambda device: "no VNNI")
    with pytest.raises(OptionError, match="here: no VNNI; do it on another machine"):
        quantize(pair, photos, tmp_path / "out")


def test_without_int8_the_next_precision_is_used(pair, monkeypatch):
    has = torch.cpu.get_capabilities() | dict.fromkeys(("avx512_vnni", "avx_vnni", "amx_int8"))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    with pytest.warns(UserWarning, match=r"no instructions for int8 \(VNNI\); using"):
        found = Segmenter.from_pretrained(pair, precision="int8")
    assert found.dtype == Segmenter.from_pretrained(pair).dtype
