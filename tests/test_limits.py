"""Every limit says why it has its value, and is used."""

import ast
from pathlib import Path

import pytest

import unpool
from unpool import limits

ROOT = Path(unpool.__file__).parent
TREE = ast.parse(Path(limits.__file__).read_text())
NAMES = [name for name in vars(limits) if name.isupper() and name not in ("KIB", "MIB", "GIB")]


@pytest.mark.parametrize("name", NAMES)
def test_each_limit_gives_its_reason(name):
    for statement, following in zip(TREE.body, TREE.body[1:], strict=False):
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name:
            assert isinstance(following, ast.Expr)
            assert len(ast.literal_eval(following.value)) > 40
            return
    pytest.fail(f"{name} is not assigned")


@pytest.mark.parametrize("name", NAMES)
def test_each_limit_is_used(name):
    others = [path for path in ROOT.rglob("*.py") if path.name != "limits.py"]
    assert any(name in path.read_text() for path in others)
