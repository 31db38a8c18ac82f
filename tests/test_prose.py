"""Words that the field has better ones for are gone from the code, the docs and the README."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [
        *(ROOT / "src").rglob("*.py"),
        *(page for page in (ROOT / "docs").glob("*.md") if page.name != "log.md"),  # history
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
    ]
)
OLD = re.compile(
    r"\b(pictures?|told|share of)\b"
    r"|\ba training\b(?! (run|set|crop|step|image|batch|loop|loss|split|data))",
    re.IGNORECASE,
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_words_are_those_of_the_field(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    found = [
        f"{page.name}:{n}: {line.strip()}" for n, line in enumerate(lines, 1) if OLD.search(line)
    ]
    assert not found, "\n".join(found)
