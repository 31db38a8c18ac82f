from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn

from unpool.bench import segment
from unpool.bench.harness import yardsticks
from unpool.devices import find_int8_obstacle
from unpool.errors import OptionError
from unpool.models import TRUNKS, DeconvNet, SegNet, SqueezeNet, save_pretrained


def test_the_work_of_the_published_network():
    found = segment.operations(DeconvNet()) // 2
    assert round(found / 1e9, 2) == 32.75
    trunk, side, width = 0, 224, 3
    for layers, channels in TRUNKS["vgg16"]:
        widths = [width] + layers * [channels]
        trunk += 9 * side**2 * sum(a * b for a, b in pairwise(widths))
        side, width = side // 2, channels
    code = 512 * 49 * 4096 + 4096 * 4096 + 4096 * 49 * 512
    # the decoder mirrors the trunk, but its last layer has 64 channels and not 3
    decoder = trunk + 9 * 224**2 * 64 * (64 - 3)
    assert found == trunk + code + decoder + 224**2 * 64 * 21


BF16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="the processor cannot convolve in bf16"
)


@pytest.mark.parametrize("bf16", [False, pytest.param(True, marks=BF16)])
def test_ratios_and_fractions(weights, tiny, monkeypatch, bf16):
    monkeypatch.setattr(segment.harness, "yardsticks", partial(yardsticks, shrink=32))
    monkeypatch.setattr(segment, "bf16_pays", lambda device: bf16)
    found = segment.measure(5, weights, 2, memory=False)
    names = ["as written", "fp32", "bf16"][: 2 + bf16]
    assert list(found["seconds_per_crop"]) == names
    for spread in found["seconds_per_crop"].values():
        assert 0 < spread["low"] <= spread["median"] <= spread["high"]
    work = segment.operations(tiny)
    assert found["gflop_per_crop"] == round(work / 1e9, 2)
    medians = {k: v["median"] for k, v in found["seconds_per_crop"].items()}
    for name, key in {"fp32": "fraction_of_peak_fp32", "bf16": "fraction_of_peak"}.items():
        if name in medians:
            rate = found["peak"][f"convolution {name}"]["rate"]
            share = work / medians[name] / 1e9 / rate
            assert found[key] == pytest.approx(share, rel=1e-2, abs=1e-3)
    if not bf16:
        assert found["fraction_of_peak"] is None
        assert found["ratio"] == found["ratio_fp32"]
    assert found["ratio_range"][0] <= found["ratio"] <= found["ratio_range"][1]
    kinds = {f"{kind} {name}" for kind in ("convolution", "product") for name in names[1:]}
    assert set(found["peak"]) == {*kinds, "copy"}
    assert (found["crops"], found["crops_as_written"]) == (5, 3)


def test_all_crops_are_segmented_and_as_written_means_as_written(tiny, monkeypatch):
    seen = []
    infer = segment.Segmenter.infer

    def spy(self, images):
        seen.append(images.shape)
        return infer(self, images)

    monkeypatch.setattr(segment.Segmenter, "infer", spy)
    works = segment._works(tiny, ["fp32"], 9)
    assert works["fp32"]() > 0
    assert sum(shape[0] for shape in seen) == 9
    inputs = []
    tiny.register_forward_pre_hook(lambda net, args: inputs.append(args[0]))
    assert works["as written"]() > 0
    assert len(inputs) == 3
    for x in inputs:
        assert x.shape == (1, 3, 32, 32)
        assert x.is_contiguous()
        assert x.dtype == torch.float32
    assert any(isinstance(module, nn.BatchNorm2d) for module in tiny.modules())
    assert not tiny.training


@pytest.mark.parametrize("variant", ["as written", "fp32", pytest.param("bf16", marks=BF16)])
def test_memory_is_measured_before_and_after_segmenting(weights, monkeypatch, variant):
    """The generator that a process runs; `test_memory.py` tests the process."""
    calls = []
    call = segment.Segmenter.__call__

    def spy(self, image, **options):
        calls.append((str(self.dtype), options["proposals"]))
        return call(self, image, **options)

    monkeypatch.setattr(segment.Segmenter, "__call__", spy)
    parts = segment.segment_once(variant, weights, 5)
    next(parts)  # loaded
    assert calls == []
    assert list(parts) == []
    dtype = "torch.bfloat16" if variant == "bf16" else "torch.float32"
    assert calls == [(dtype, 3 if variant == "as written" else 5)]


def test_networks_for_whole_images_get_crops_of_224_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(segment.harness, "yardsticks", partial(yardsticks, shrink=32))
    monkeypatch.setattr(segment, "bf16_pays", lambda device: False)
    net = SegNet(3, ((1, 4), (1, 8)))
    folder = save_pretrained(net, tmp_path / "segnet", {"classes": ["a", "b", "c"]})
    found = segment.measure(2, str(folder), 1, memory=False)
    # conv1_1, conv2_1 at half the side, conv2_1_D, the scores
    work = 224**2 * (27 * 4 + 9 * 4 * 3) + 112**2 * (36 * 8 + 72 * 4)
    assert found["gflop_per_crop"] == round(2 * work / 1e9, 2)
    assert found["ratio"] > 0
    calls = []
    monkeypatch.setattr(
        segment.Segmenter, "__call__", lambda self, image, **options: calls.append(options)
    )
    assert len(list(segment.segment_once("fp32", str(folder), 2))) == 1
    assert calls == [{}]


def test_only_networks_that_segment(tmp_path):
    net = SqueezeNet(3, width=4, stages=(((4, 8),),), size=64)
    folder = save_pretrained(net, tmp_path / "squeeze", {"classes": ["a", "b", "c"]})
    with pytest.raises(OptionError, match="weights of SqueezeNet, which does not segment"):
        segment.measure(1, str(folder), 1, memory=False)


def test_numbers_below_one_are_refused():
    for options in ({"crops": 0}, {"rounds": 0}):
        with pytest.raises(OptionError, match=r"got \w+=0; wanted 1 or more"):
            segment.measure(**options)


@pytest.mark.skipif(
    find_int8_obstacle(torch.device("cpu")) is not None, reason="the processor has no VNNI"
)
def test_int8_is_compared_with_bf16(tiny, monkeypatch):
    monkeypatch.setattr(segment.harness, "yardsticks", partial(yardsticks, shrink=32))
    monkeypatch.setattr(segment, "_network", lambda weights: tiny)
    found = segment.measure(3, None, 2, precision="int8", memory=False)
    seconds = found["seconds_per_crop"]
    *_, last = seconds
    assert last == "int8"
    ratio = seconds["as written"]["median"] / seconds["int8"]["median"]
    assert found["ratio"] == pytest.approx(ratio, rel=0.5)
    rate = segment.operations(tiny) / 1e9 / seconds["int8"]["median"]
    largest = found["peak"]["convolution int8"]["rate"]
    assert found["fraction_of_peak"] == pytest.approx(rate / largest, rel=0.2, abs=1e-3)
    if "bf16" in seconds:
        low, high = found["ratio_to_bf16_range"]
        assert low <= found["ratio_to_bf16"] <= high
        assert found["ratio_bf16"] > 0


def test_int8_is_refused_where_it_does_not_pay(monkeypatch):
    monkeypatch.setattr(segment, "find_int8_obstacle", lambda device: "no VNNI")
    monkeypatch.setattr(segment, "_network", lambda weights: None)
    with pytest.raises(OptionError, match="cannot measure int8: no VNNI; leave the precision out"):
        segment.measure(3, precision="int8", memory=False)
