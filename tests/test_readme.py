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
DOCS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


@pytest.mark.skipif("objects" not in list_pretrained(), reason="the default weights are missing")
def test_the_code_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("chelsea.png", "photo.jpg"):
        shutil.copy(str(resources.files("skimage") / "data/chelsea.png"), name)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "out/chelsea.png").exists()


def test_code_comes_before_line_40():
    before = README[: README.index("```")]
    assert before.count("\n") < 40


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_commands_are_those_of_the_program():
    named = set(re.findall(r"`unpool (\w+)`", README))
    assert named == set(commands.commands)


@pytest.mark.parametrize(
    ("name", "columns", "least"),
    [
        ("paper-deconvnet", 6, 20),
        ("paper-fcn", 5, 7),
        ("paper-densecrf", 5, 5),
        ("paper-visualize", 5, 20),
    ],
)
def test_the_parity_pages_point_to_code_and_tests(name, columns, least):
    page = (ROOT / f"docs/{name}.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.count("|") == columns + 1]
    assert len(rows) > least
    for *_, code, test, _ in rows[2:]:
        for path in re.findall(r"`([\w/]+\.py)", code):
            assert (ROOT / "src/unpool" / path).exists(), path
        for path, name in re.findall(r"`([\w/]+\.py): ([\w.]+)", code):
            for part in name.split("."):
                source = (ROOT / "src/unpool" / path).read_text(encoding="utf-8")
                assert re.search(rf"(def|class) {part}\b|^{part} ?=", source, re.MULTILINE), name
        for path in re.findall(r"`([\w/]+\.py)", test):
            assert (ROOT / "tests" / path).exists(), path
