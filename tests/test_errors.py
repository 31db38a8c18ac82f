"""The tree of errors is the one that its docstring draws, and the library raises no other."""

import ast
import re
from pathlib import Path

import pytest

import unpool
from unpool import errors
from unpool.errors import suggest

ROOT = Path(unpool.__file__).parent
LIBRARY = sorted(path for path in ROOT.rglob("*.py") if "cli" not in path.relative_to(ROOT).parts)
OTHERS = {
    "__init__.py": {"AttributeError"},
    "generate/__init__.py": {"AttributeError"},  # what Python asks of a module without the name
    "batch/engines.py": {"RuntimeError"},  # in place of errors that cannot be pickled
    "batch/ledger.py": {"OSError"},  # a full disk, as of the system
    "data/layouts/drawn.py": {"KeyError"},  # what Python asks of a mapping without the name
    "data/pieces.py": {"ValueError"},  # a DataError by the time it is seen
    "vision/tiff.py": {"ValueError"},  # an ImageError by the time it is seen
    "export/runtime.py": {"ValueError"},  # caught where an engine starts
    "models/tensors.py": {"ValueError"},  # caught by all who read files of tensors
    "serve/protocols/label_studio.py": {"ParseError"},  # caught in the same function
    "training/loop.py": {"ValueError"},  # caught in the same function
    "training/run.py": {"ValueError"},  # caught in the same function
    "vision/opening.py": {"DecompressionBombError"},  # an ImageError by the time it is seen
    "vision/arrays.py": {"ValueError"},  # caught by all who read arrays
    "visualize/__init__.py": {"AttributeError"},  # what Python asks of a module without the name
}
WAITING: set[str] = set()  # still name options


def tree():
    found = [getattr(errors, name) for name in dir(errors)]
    found = [e for e in found if isinstance(e, type) and issubclass(e, BaseException)]
    return {e for e in found if not issubclass(e, Warning)}


NAMES = {error.__name__ for error in tree()}


def test_the_tree_is_that_of_the_docstring():
    drawn = dict(re.findall(r"[├└]─ (\w+) +\((\w+)\)", errors.__doc__))
    children = tree() - {errors.UnpoolError}
    assert {e.__name__ for e in children} == set(drawn)
    for error in children:
        assert [base.__name__ for base in error.__bases__] == ["UnpoolError", drawn[error.__name__]]
    assert errors.UnpoolError.__bases__ == (Exception,)
    assert unpool.UnpoolError is errors.UnpoolError


def calls(path):
    """The exceptions that a file makes: name and arguments as source, and line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in NAMES or (name[0].isupper() and name.endswith("Error")):
                yield name, [ast.unparse(argument) for argument in node.args], node.lineno


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_library_raises_these_alone(path):
    """With one message each, which names arguments, not options of the command line."""
    place = path.relative_to(ROOT).as_posix()
    for name, arguments, line in calls(path):
        assert name in NAMES | OTHERS.get(place, set()), f"{place}:{line} raises {name}"
        if name not in NAMES:
            continue
        assert len(arguments) == 1, f"{place}:{line}: one message"
        if path.relative_to(ROOT).parts[0] not in WAITING:
            option = re.search(r"--[a-z]+", arguments[0])
            assert not option, f"{place}:{line}: {option} is for the command line to say"


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        (
            "edgeboxs",
            ["edgeboxes", "grid"],
            "did you mean 'edgeboxes'? The choices are edgeboxes, grid",
        ),
        ("voc", ["objects", "chairs"], "the choices are objects, chairs"),
        (5, ["1", "2"], "the choices are 1, 2"),
        ("any", [], "the choices are none"),
        ("lr", iter(["lrr", "batch"]), "did you mean 'lrr'? The choices are lrr, batch"),
        ("Batch", ["batch", "lr"], "did you mean 'batch'? The choices are batch, lr"),
    ],
)
def test_suggestions(name, known, expected):
    assert suggest(name, known) == expected


def test_only_suggest_looks_for_near_names():
    users = {path for path in LIBRARY if "difflib" in path.read_text(encoding="utf-8")}
    others = {path.relative_to(ROOT).parts[0] for path in users} - WAITING
    assert others == {"errors.py"}


def test_a_message_is_one_line_whatever_a_file_puts_into_it():
    damaged = "got 'a\r\n  b\0\x1b[31m\ud800\u202e\u2028c é'"
    for error in tree():
        text = str(error(damaged))
        assert text == r"got 'a b\x00\x1b[31m\ud800\u202e c é'"
        assert str(error(text)) == text  # what is clean stays so
    long = str(errors.DataError("got " + "x" * 10**6 + "; wanted less: export it again"))
    assert len(long) < 2000
    assert long.startswith("got xx")
    assert long.endswith("xx; wanted less: export it again")
    assert len(str(errors.DataError("\0" * 1900))) < 2000  # escapes are longer


def test_every_exception_to_the_rule_is_of_a_file():
    assert {place for place in OTHERS if not (ROOT / place).is_file()} == set()
