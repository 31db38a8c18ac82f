"""Runs that are started, resumed or read."""

import dataclasses

import pytest

from experiments.train_once import train_once
from tests.segment.test_train import TINY
from unpool.errors import OptionError, WeightsError


def test_a_run_is_resumed_and_a_finished_one_is_read(data, tmp_path, stopped_at):
    whole = train_once(data, tmp_path / "whole", TINY)
    with stopped_at(3) as report:
        train_once(data, tmp_path / "run", TINY, report=report)
    other = dataclasses.replace(TINY, batch=3)
    with pytest.raises(OptionError, match="another recipe"):
        train_once(data, tmp_path / "run", other)
    found = train_once(data, tmp_path / "run", TINY)
    assert found["miou"] == whole["miou"]
    weights = tmp_path / "run/weights/model.safetensors"
    before = weights.stat().st_mtime_ns
    assert train_once(tmp_path / "no data", tmp_path / "run", TINY) == found
    assert weights.stat().st_mtime_ns == before
    (tmp_path / "run/eval/summary.json").write_text("{")
    with pytest.raises(WeightsError, match="not JSON"):
        train_once(data, tmp_path / "run", TINY)
