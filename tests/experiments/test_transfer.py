"""Knowledge transfer: fair comparisons, the published finding in small, and runs that continue."""

import json
from itertools import pairwise

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from experiments.transfer import COUNTS, main, measure_transfer, seen_azimuths
from unpool.errors import DataError
from unpool.generate.baselines import baselines, errors, premultiplied
from unpool.generate.batches import load_views
from unpool.rendering.dataset import open_chairs

pytestmark = pytest.mark.usefixtures("small")


def test_smaller_sets_of_azimuths_are_subsets_of_larger_ones():
    chosen = [set(seen_azimuths(count)) for count in COUNTS]
    assert [len(c) for c in chosen] == list(COUNTS)
    assert all(less < more for less, more in pairwise(chosen))
    assert not chosen[-1] & set(range(1, 31, 2))  # the azimuths at which errors are measured


def test_curves_are_means_over_seeds_and_nothing_is_trained_twice(turning_bars, tmp_path):
    reports = []
    chairs = open_chairs(turning_bars)
    options = {"steps": 2, "targets": 2, "seeds": 2, "device": "cpu"}
    curves = measure_transfer(
        chairs, tmp_path, progress=lambda *now: reports.append(now), **options
    )
    assert list(curves) == ["with transfer", "without transfer", "nearest", "blending"]
    assert all(list(curve) == list(COUNTS) for curve in curves.values())
    assert reports[-1] == (40, 40, "without transfer, 16 views, seed 1")
    written = json.loads((tmp_path / "transfer.json").read_text())
    assert len(written["results"]) == 2 * len(COUNTS) * 3
    assert written["curves"]["blending"]["4"] == curves["blending"][4]
    for curve in curves.values():
        assert all(v[0] == pytest.approx((v[1] + v[2]) / 2) for v in curve.values())
    reports.clear()
    again = measure_transfer(chairs, tmp_path, progress=lambda *now: reports.append(now), **options)
    assert (again, reports) == (curves, [])


def test_baselines_use_the_views_that_the_network_sees(turning_bars, tmp_path):
    chairs = open_chairs(turning_bars)
    curves = measure_transfer(chairs, tmp_path, steps=1, targets=1, seeds=1, device="cpu")
    [target] = np.random.default_rng(0).permutation(5)[:1]
    own = [i for i, view in enumerate(chairs.views) if view.style == target]
    images = load_views(chairs, 16).images
    seen, tested = own[::8][:4], own[1::2]
    made = baselines(chairs, images, seen, tested)
    truth = premultiplied(images[tested])
    for method in ("nearest", "blending"):
        assert curves[method][4] == pytest.approx([errors(made[method], truth).mean()] * 2)


def test_other_styles_help_when_a_target_is_seen_from_one_side(turning_bars, tmp_path):
    """One azimuth of a bar does not show how it turns; the other bars do."""
    chairs = open_chairs(turning_bars)
    curves = measure_transfer(chairs, tmp_path, steps=150, targets=1, seeds=1, device="cpu")
    assert curves["with transfer"][1][0] < 0.6 * curves["without transfer"][1][0]
    assert curves["with transfer"][1][0] < curves["blending"][1][0]


def test_too_few_styles_are_refused(turning_bars, tmp_path):
    with pytest.raises(DataError, match="with 5 styles; wanted more than the 6 targets"):
        measure_transfer(open_chairs(turning_bars), tmp_path, targets=3, seeds=2)


def test_script(turning_bars, tmp_path):
    arguments = ["--data", str(turning_bars), "-o", str(tmp_path), "--steps", "1"]
    done = CliRunner().invoke(main, [*arguments, "--targets", "1", "--seeds", "1"])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[0].split() == ["azimuths", "seen", "1", "2", "4", "8", "16"]
    with Image.open(tmp_path / "transfer.png") as figure:
        assert figure.format == "PNG"
