"""Public names: sorted, there, and described; and what an import loads."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import unpool

MODULES = [
    module.name
    for module in pkgutil.walk_packages(unpool.__path__, "unpool.")
    if not module.name.endswith("__main__")
]


def order(name):
    """Constants, then classes, then functions, each by the alphabet."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def public(module):
    """The functions and classes that a module defines under names of their own."""
    for name, thing in vars(module).items():
        named = not (name.startswith("_") or name.isupper())
        kind = inspect.isfunction(thing) or inspect.isclass(thing)
        if named and kind and thing.__module__ == module.__name__:
            yield name, thing


def described(thing):
    """Whether it has a docstring of its own, not the one that `NamedTuple` or `dataclass` make."""
    doc = (thing.__doc__ or "").strip()
    return doc and not doc.startswith(f"{thing.__name__}(")


@pytest.mark.parametrize("name", ["unpool", *MODULES])
def test_public_things_are_described_and_annotated(name):
    module = importlib.import_module(name)
    assert described(module)
    for public_name, thing in public(module):
        assert described(thing), f"{name}.{public_name}"
        is_class = inspect.isclass(thing)
        for member, value in vars(thing).items() if is_class else [(public_name, thing)]:
            function = getattr(value, "fget", value)  # of a property
            if not member.startswith("_") and inspect.isfunction(function):
                where = f"{name}.{public_name}.{member}"
                assert described(function), where
                signature = inspect.signature(function)
                inputs = [p.annotation for p in signature.parameters.values()][is_class:]
                assert signature.empty not in [*inputs, signature.return_annotation], where


@pytest.mark.parametrize("name", ["unpool", *MODULES])
def test_packages_alone_list_their_names(name):
    module = importlib.import_module(name)
    names = getattr(module, "__all__", [])
    assert not names or hasattr(module, "__path__"), f"{name} is no package"
    stub = Path(module.__file__).with_suffix(".pyi")  # of packages that load their names lazily
    written = list(names)
    if stub.exists():
        written = ast.literal_eval(stub.read_text(encoding="utf-8").partition("__all__ = ")[2])
        assert set(written) == set(names)
    assert written == sorted(set(names), key=order)
    assert all(hasattr(module, name) for name in names)
    assert len(names) <= 30


def test_the_package_gives_its_names_and_no_others():
    assert set(unpool.__all__) <= set(dir(unpool))
    assert unpool.Segmenter.__module__ == "unpool.segment.segmenter"
    with pytest.raises(AttributeError, match="module 'unpool' has no attribute 'Segmentor'"):
        _ = unpool.Segmentor


def test_the_names_of_visualize_are_its_own():
    visualize = importlib.import_module("unpool.visualize")
    assert set(visualize.__all__) <= set(dir(visualize))
    assert visualize.project.__module__ == "unpool.visualize.projection"
    with pytest.raises(AttributeError, match=r"No unpool\.visualize attribute projct"):
        _ = visualize.projct


@pytest.mark.parametrize(
    "name", ["unpool", "unpool.errors", "unpool.recipes", "unpool.cli", "unpool.visualize"]
)
def test_what_an_import_loads(name):
    code = f"import sys, {name}; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = {module.partition(".")[0] for module in result.stdout.split()}
    heavy = {"torch", "cv2", "torchmetrics", "numpy", "PIL", "safetensors", "skimage"}
    assert loaded & heavy == set()
