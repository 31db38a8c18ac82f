"""The architecture: a module imports from its own layer and those below, and some pairs never."""

import ast
from pathlib import Path

import pytest

import unpool

ROOT = Path(unpool.__file__).parent
LAYERS = [
    "errors files distributed devices cards",
    "ops vision recipes",
    "models data rendering",
    "training export",
    "segment classify generate visualize restore formats",
    "bench serve",
    "cli __init__ __main__",
]
BARRED = {
    ("serve", "data"),
    ("ops", "vision"),
    ("vision", "ops"),
    ("models", "vision"),
    ("vision", "models"),
    ("data", "models"),
}
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms.split()}


def room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path):
    """The rooms of the package that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "unpool":
                target = rest.partition(".")[0]
                yield target if target in LEVEL else "__init__"


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_downwards(path):
    here = room(path)
    assert here in LEVEL, f"{here} is in no layer"
    for there in imported(path):
        assert LEVEL[there] <= LEVEL[here] or there == "__init__", f"{here} may not import {there}"
        assert (here, there) not in BARRED, f"{here} may not import {there}"


def test_the_core_needs_torch_alone():
    for path in (ROOT / "ops").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                name = getattr(node, "module", None) or node.names[0].name
                plain = ("torch", "typing", "types", "unpool", "collections", "functools")
                assert name.partition(".")[0] in plain
    for path in (ROOT / "vision").glob("*.py"):
        assert "torch.nn" not in path.read_text(encoding="utf-8")
