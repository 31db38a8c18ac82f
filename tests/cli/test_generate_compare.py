"""`unpool generate compare`: held-out views, the network, and baselines."""

import json

import pytest
from PIL import Image

from unpool.cli import main
from unpool.generate import Generator
from unpool.generate.baselines import baselines, errors, generate_views, premultiplied
from unpool.generate.batches import load_views
from unpool.models import GenerativeNet, save_pretrained
from unpool.rendering.dataset import AZIMUTHS, open_chairs

CARD = {"styles": [f"bar_{i}" for i in range(5)], "recipe": {"held_out": [4, 9]}}


@pytest.fixture
def net():
    return GenerativeNet(5, 16, 2, 28, 8, 12, (6,), (4,), 1)


def test_errors_on_held_out_views(net, turning_bars, tmp_path, capsys):
    folder = save_pretrained(net, tmp_path / "tiny", CARD)
    arguments = ["generate", "compare", "--data", str(turning_bars), "--weights", str(folder)]
    sheet = tmp_path / "sheet.png"
    assert main([*arguments, "-o", str(sheet), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["views"] == 10
    chairs = open_chairs(turning_bars)
    hidden = [i for i, v in enumerate(chairs.views) if v.azimuth in (AZIMUTHS[4], AZIMUTHS[9])]
    images = load_views(chairs, 16).images
    seen = [i for i in range(len(images)) if i not in hidden]
    made = baselines(chairs, images, seen, hidden)["nearest"]
    each = errors(made, premultiplied(images[hidden]))
    assert printed["mse"]["nearest"] == pytest.approx(each.mean())
    network = generate_views(
        Generator.from_pretrained(folder, device="cpu"),
        *zip(*(chairs.views[i][:3] for i in hidden), strict=True),
    )
    own = errors(network, premultiplied(images[hidden]))
    assert printed["network_better"]["nearest"] == pytest.approx((own < each).mean())
    with Image.open(sheet) as found:
        assert found.size == (8 * 18 - 2, 4 * 18 - 2)  # 8 views: truth, network, two baselines


@pytest.mark.parametrize(
    "recipe", [None, {"held_out": []}, {"held_out": [99]}, {"held_out": "all"}, "chairs"]
)
def test_weights_without_held_out_azimuths_are_refused(recipe, net, turning_bars, tmp_path, capsys):
    bare = save_pretrained(net, tmp_path / "bare", {**CARD, "recipe": recipe})
    arguments = ["generate", "compare", "--data", str(turning_bars), "--weights", str(bare)]
    assert main([*arguments, "-o", str(tmp_path / "sheet.png")]) == 2
    assert "names no azimuths that were held out" in capsys.readouterr().err
