"""Experiments: what they compare is what they say, and what was found is not worked out again."""

import dataclasses
import json
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from unpool.cli import main
from unpool.errors import DataError, OptionError
from unpool.generate import Generator, capacity, transfer
from unpool.generate.baselines import baselines, draw_views, errors, premultiplied
from unpool.generate.batches import load_views
from unpool.generate.capacity import VARIANTS, measure_capacity
from unpool.generate.experiments import COMPACT, Experiment
from unpool.generate.transfer import COUNTS, measure_transfer, seen_azimuths
from unpool.models import GenerativeNet, save_pretrained
from unpool.rendering.dataset import AZIMUTHS, open_chairs, view_name

SMALL = dataclasses.replace(COMPACT, size=16, widths=(12,), mask_widths=(8,), batch=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Five styles from all around: bars of a color of their own, which turn."""
    root = tmp_path_factory.mktemp("styles")
    y, x = np.mgrid[:16, :16] - 7.5
    for style in range(5):
        (root / f"bar_{style}" / "renders").mkdir(parents=True)
        for number, azimuth in enumerate(AZIMUTHS):
            angle = np.radians(azimuth)
            rgba = np.full((16, 16, 4), [50 * style, 100, 200, 0], np.uint8)
            rgba[..., 3] = 255 * (abs(np.cos(angle) * y + np.sin(angle) * x) < 2 + style / 2)
            path = root / f"bar_{style}" / "renders" / view_name(number, azimuth, 20.0)
            Image.fromarray(rgba).save(path)
    return root


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The same network and variants, a quarter as large."""
    monkeypatch.setattr(transfer, "COMPACT", SMALL)
    monkeypatch.setattr(capacity, "COMPACT", SMALL)
    for name, changed in VARIANTS.items():
        less = {"code": 8, "shared": 12, "widths": (6,), "mask_widths": (4,)}
        fewer = {k: less[k] if v is not None and k in less else v for k, v in changed.items()}
        monkeypatch.setitem(VARIANTS, name, fewer)


def test_azimuths_of_fewer_are_among_those_of_more():
    chosen = [set(seen_azimuths(count)) for count in COUNTS]
    assert [len(c) for c in chosen] == list(COUNTS)
    assert all(less < more for less, more in pairwise(chosen))
    assert not chosen[-1] & set(range(1, 31, 2))  # those on which all is measured


def test_transfer(data, tmp_path):
    told = []
    options = {"steps": 2, "targets": 2, "seeds": 2, "device": "cpu"}
    curves = measure_transfer(
        open_chairs(data), tmp_path, progress=lambda *now: told.append(now), **options
    )
    assert list(curves) == ["with transfer", "without transfer", "nearest", "blending"]
    assert all(list(curve) == list(COUNTS) for curve in curves.values())
    assert told[-1] == (40, 40, "without transfer, 16 views, seed 1")
    found = json.loads((tmp_path / "transfer.json").read_text())
    assert len(found["results"]) == 2 * len(COUNTS) * 3
    assert found["curves"]["blending"]["4"] == curves["blending"][4]
    for curve in curves.values():
        assert all(v[0] == pytest.approx((v[1] + v[2]) / 2) for v in curve.values())
    told.clear()
    again = measure_transfer(
        open_chairs(data), tmp_path, progress=lambda *now: told.append(now), **options
    )
    assert (again, told) == (curves, [])  # nothing is trained twice


def test_baselines_of_the_transfer_see_what_the_network_sees(data, tmp_path):
    chairs = open_chairs(data)
    curves = measure_transfer(chairs, tmp_path, steps=1, targets=1, seeds=1, device="cpu")
    [target] = np.random.default_rng(0).permutation(5)[:1]
    own = [i for i, view in enumerate(chairs.views) if view.style == target]
    images = load_views(chairs, 16).images
    seen, tested = own[::8][:4], own[1::2]
    made = baselines(chairs, images, seen, tested)
    truth = premultiplied(images[tested])
    for way in ("nearest", "blending"):
        assert curves[way][4] == pytest.approx([errors(made[way], truth).mean()] * 2)


def test_knowing_others_is_of_use(data, tmp_path):
    """One azimuth of a bar says nothing of how it turns; the other bars do."""
    chairs = open_chairs(data)
    curves = measure_transfer(chairs, tmp_path, steps=150, targets=1, seeds=1, device="cpu")
    assert curves["with transfer"][1][0] < 0.6 * curves["without transfer"][1][0]
    assert curves["with transfer"][1][0] < curves["blending"][1][0]


def test_capacity(data, tmp_path):
    chairs = open_chairs(data)
    found = measure_capacity(chairs, tmp_path, steps=2, styles=3, device="cpu")
    assert list(found) == list(VARIANTS)
    net = GenerativeNet(3, 16, 1, 28, 128, 256, (12,), None, 1)
    wanted = sum(p.numel() for p in net.parameters())
    assert found["one stream, deep"]["parameters"] == wanted
    assert all(0 <= own["iou"] <= 1 and own["mse"] > 0 for own in found.values())
    (tmp_path / "capacity.json").rename(tmp_path / "before.json")
    again = measure_capacity(chairs, tmp_path, steps=2, styles=3, device="cpu")
    assert again == found


def test_results_by_another_protocol_are_not_mixed(data, tmp_path):
    file = tmp_path / "results.json"
    Experiment(file, {"steps": 3}).keep("one", {"mse": 1.0})
    assert Experiment(file, {"steps": 3}).results == {"one": {"mse": 1.0}}
    with pytest.raises(OptionError, match="has results of steps 3, and these would be of steps 4"):
        Experiment(file, {"steps": 4})
    file.write_text('{"protocol": {}}')
    with pytest.raises(OptionError, match="is damaged; move it away"):
        Experiment(file, {"steps": 3})
    with pytest.raises(DataError, match="with 5 styles; wanted more than the 6 that are targets"):
        measure_transfer(open_chairs(data), tmp_path, targets=3, seeds=2)


def test_commands(data, tmp_path, capsys):
    common = ["--data", str(data), "-o", str(tmp_path), "--steps", "1"]
    assert main(["generate", "transfer", *common, "--targets", "1", "--seeds", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["azimuths", "seen", "1", "2", "4", "8", "16"]
    assert main(["generate", "capacity", *common, "--styles", "2", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["variants"]) == list(VARIANTS)
    for name in ("transfer", "capacity"):
        with Image.open(tmp_path / f"{name}.png") as figure:
            assert figure.format == "PNG"
    assert main(["generate", "capacity", *common, "--styles", "3"]) == 2
    assert "capacity.json has results of steps 1, styles 2" in capsys.readouterr().err


def test_compare(data, tmp_path, capsys):
    net = GenerativeNet(5, 16, 2, 28, 8, 12, (6,), (4,), 1)
    card = {"styles": [f"bar_{i}" for i in range(5)], "recipe": {"held_out": [4, 9]}}
    folder = save_pretrained(net, tmp_path / "tiny", card)
    arguments = ["generate", "compare", "--data", str(data), "--weights", str(folder)]
    sheet = tmp_path / "sheet.png"
    assert main([*arguments, "-o", str(sheet), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["views"] == 10
    chairs = open_chairs(data)
    hidden = [i for i, v in enumerate(chairs.views) if v.azimuth in (AZIMUTHS[4], AZIMUTHS[9])]
    images = load_views(chairs, 16).images
    seen = [i for i in range(len(images)) if i not in hidden]
    made = baselines(chairs, images, seen, hidden)["nearest"]
    each = errors(made, premultiplied(images[hidden]))
    assert told["mse"]["nearest"] == pytest.approx(each.mean())
    network = draw_views(
        Generator.from_pretrained(folder, device="cpu"),
        *zip(*(chairs.views[i][:3] for i in hidden), strict=True),
    )
    own = errors(network, premultiplied(images[hidden]))
    assert told["network_better"]["nearest"] == pytest.approx((own < each).mean())
    with Image.open(sheet) as found:
        assert found.size == (8 * 18 - 2, 4 * 18 - 2)  # 8 views: truth, network, two baselines
    for recipe in (None, {"held_out": []}, {"held_out": [99]}, {"held_out": "all"}, "chairs"):
        bare = save_pretrained(net, tmp_path / "bare", {**card, "recipe": recipe})
        assert main([*arguments[:-1], str(bare), "-o", str(sheet)]) == 2
        assert "names no azimuths that were held out" in capsys.readouterr().err
