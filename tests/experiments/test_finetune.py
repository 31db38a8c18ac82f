"""Finetuning by minutes and images: the subsets, the runs of a tiny network, and the table."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from experiments import finetune
from tests.experiments.test_compare import TINY
from tests.experiments.test_decoupled import voc  # noqa: F401 (a fixture)
from unpool.data import open_data, read_sample
from unpool.recipes import find_recipe


def test_a_subset_is_a_folder_of_the_same_images_and_labels(voc, tmp_path):  # noqa: F811
    source = open_data(voc, "train")
    folder = finetune.write_subset(source, 1, tmp_path / "subset")
    found = open_data(folder, "all")
    assert found.classes == source.classes
    assert [sample.name for sample in found.samples] == [source.samples[0].name]
    pairs = zip(*(read_sample(one.samples[0], 3) for one in (found, source)), strict=True)
    for own, other in pairs:
        np.testing.assert_array_equal(own, other)


@pytest.fixture
def tiny(monkeypatch):
    """`fcn8s` with a tiny trunk in place of both recipes; one step is a minute."""
    made = find_recipe("fcn8s", **TINY, code=8)
    steps = []

    def find(name, **changes):
        steps.append(changes["steps"])
        return find_recipe(made, **changes)

    monkeypatch.setattr(finetune, "find_recipe", find)
    monkeypatch.setattr(finetune, "STEPS_A_MINUTE", {"finetune": 1, "finetune-fcn8s": 2})
    return steps


def test_each_cell_is_trained_once(tiny, voc, tmp_path):  # noqa: F811
    arguments = ["--data", str(voc), "--images", "0", "--minutes", "2"]
    arguments += ["--runs", str(tmp_path / "runs"), "-o", str(tmp_path)]
    for _ in range(2):
        done = CliRunner().invoke(finetune.main, arguments, catch_exceptions=False)
        assert done.exit_code == 0
    assert tiny == [2, 4]
    results = json.loads((tmp_path / "finetune.json").read_text())["results"]
    assert [*results] == ["finetune 0 2", "finetune-fcn8s 0 2"]
    for result in results.values():
        assert result["images"] == 6
        assert result["miou_interval"][0] <= result["miou"] <= result["miou_interval"][1]
    lines = (tmp_path / "finetune.md").read_text().splitlines()
    assert lines[2].startswith(f"| `finetune` | 6 | {100 * results['finetune 0 2']['miou']:.1f} (")
    assert lines[3].startswith("| `finetune-fcn8s` | 6 |")
