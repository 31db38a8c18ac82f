"""The table of estimated PSFs, on small images."""

import pytest
from click.testing import CliRunner

from experiments import restore
from experiments.estimate import is_near, main
from unpool.vision.psf import find_psf


@pytest.mark.parametrize(
    ("found", "true", "near"),
    [
        ("motion:11,40", "motion:13,30", True),
        ("motion:10,30", "motion:13,30", False),
        ("motion:13,170", "motion:13,5", True),  # 165 degrees, or 15
        ("motion:13,50", "motion:13,30", False),
        ("disk:4.1", "disk:3.5", True),
        ("disk:4.3", "disk:3.5", False),
    ],
)
def test_near(found, true, near):
    assert is_near(find_psf(found), find_psf(true)) == near


def test_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(restore, "SIDE", 160)
    monkeypatch.setattr(restore, "OWN", ("camera", "astronaut"))
    out = CliRunner().invoke(main, [str(tmp_path), "--psf", "disk:2"], catch_exceptions=False)
    row = out.output.splitlines()[2].split(" | ")
    assert row[:2] == ["| disk:2", "2 of 2"]
    assert float(row[4]) > float(row[3]) + 1
