"""Images that are held out, and what is left of each class."""

import random
from collections import Counter

import numpy as np
import pytest
from click.testing import CliRunner

from experiments.hold_out import hold_out, main
from tests.experiments.test_results import data  # noqa: F401 (a fixture)
from unpool.data import open_data


@pytest.mark.parametrize("seed", range(5))
def test_enough_of_each_class_is_left(seed):
    rng = np.random.default_rng(seed)
    frequent = [0.5, 0.2, 0.05, 0.01]
    classes = {str(i): {k for k, p in enumerate(frequent) if rng.random() < p} for i in range(300)}
    held = hold_out(classes, 40, 0.1, random.Random(seed))
    assert 10 < len(held) <= 40
    assert held == sorted(set(held))
    total = Counter(k for own in classes.values() for k in own)
    taken = Counter(k for name in held for k in classes[name])
    for k, n in total.items():
        assert taken[k] <= max(n > 4, 0.1 * n)
    assert held == hold_out(classes, 40, 0.1, random.Random(seed))


def test_both_splits_are_data_sets(data, tmp_path):  # noqa: F811
    given = ["--data", str(data), "1", "0.5", "-o", str(tmp_path / "held")]
    assert CliRunner().invoke(main, given, catch_exceptions=False).exit_code == 0
    out = tmp_path / "held" / data.name
    every = {sample.name for sample in open_data(data, "train").samples}
    splits = [open_data(out, split) for split in ("fit", "tune")]
    names = [{sample.name for sample in split.samples} for split in splits]
    assert [len(own) for own in names] == [1, 1]
    assert names[0] | names[1] == every
    assert all(sample.image.exists() for split in splits for sample in split.samples)
    assert len(open_data(out, "val").samples) == 2
