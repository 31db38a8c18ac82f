"""What the README shows, runs; what it names, exists."""

import re
import shutil
from importlib import resources
from pathlib import Path

import pytest

from unpool.cli import commands
from unpool.models import list_pretrained

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.skipif("objects" not in list_pretrained(), reason="the default weights are missing")
def test_the_code_blocks_run(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data.rename("own")
    for name in ("chelsea.png", "photo.jpg"):
        shutil.copy(str(resources.files("skimage") / "data/chelsea.png"), name)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 3
    names: dict[str, object] = {}
    short = "steps=5, batch=2, statistics_passes=1, validate_every=5"
    for block in blocks:
        block = block.replace("steps=300", short)
        exec(compile(block, "README.md", "exec"), names)
    for written in ("out/chelsea.png", "out/unit7.png", "out/chair.png", "runs/mine/weights"):
        assert (tmp_path / written).exists()


def test_code_comes_before_line_40():
    before = README[: README.index("```")]
    assert before.count("\n") < 40


def test_the_commands_are_those_of_the_program():
    named = set(re.findall(r"`unpool (\w+)`", README))
    assert named == set(commands.commands)
