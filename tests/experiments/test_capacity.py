"""Network capacity: every variant is trained once and measured."""

import pytest
from click.testing import CliRunner
from PIL import Image

from experiments.capacity import VARIANTS, main, measure_capacity
from unpool.errors import OptionError
from unpool.models import GenerativeNet
from unpool.rendering.dataset import open_chairs

pytestmark = pytest.mark.usefixtures("small")


def test_every_variant_is_measured_and_runs_repeat(turning_bars, tmp_path):
    chairs = open_chairs(turning_bars)
    results = measure_capacity(chairs, tmp_path, steps=2, styles=3, device="cpu")
    assert list(results) == list(VARIANTS)
    net = GenerativeNet(3, 16, 1, 28, 128, 256, (12,), None, 1)
    wanted = sum(p.numel() for p in net.parameters())
    assert results["one stream, deep"]["parameters"] == wanted
    assert all(0 <= own["iou"] <= 1 and own["mse"] > 0 for own in results.values())
    (tmp_path / "capacity.json").rename(tmp_path / "before.json")
    again = measure_capacity(chairs, tmp_path, steps=2, styles=3, device="cpu")
    assert again == results


def test_script(turning_bars, tmp_path):
    arguments = ["--data", str(turning_bars), "-o", str(tmp_path), "--steps", "1"]
    done = CliRunner().invoke(main, [*arguments, "--styles", "2"])
    assert done.exit_code == 0, done.output
    assert [line.split("  ")[0] for line in done.output.splitlines()[1:]] == list(VARIANTS)
    with Image.open(tmp_path / "capacity.png") as figure:
        assert figure.format == "PNG"
    refused = CliRunner().invoke(main, [*arguments, "--styles", "3"])
    assert isinstance(refused.exception, OptionError)
    assert "has results of steps 1, styles 2" in str(refused.exception)
