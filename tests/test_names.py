"""Public names: sorted, there, and described; and what an import loads."""

import importlib
import inspect
import pkgutil
import subprocess
import sys

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


@pytest.mark.parametrize("name", ["unpool", *MODULES])
def test_public_names(name):
    module = importlib.import_module(name)
    names = getattr(module, "__all__", [])
    assert list(names) == sorted(names, key=order)
    assert len(names) == len(set(names)) <= 30
    for public in names:
        thing = getattr(module, public)
        if inspect.isfunction(thing) or inspect.isclass(thing):
            assert (thing.__doc__ or "").strip(), f"{name}.{public} is not described"
            assert not (thing.__doc__ or "").startswith(f"{public}("), f"{name}.{public}"
    assert module.__doc__


@pytest.mark.parametrize("name", MODULES)
def test_public_functions_are_annotated(name):
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", []):
        thing = getattr(module, public)
        if inspect.isfunction(thing):
            signature = inspect.signature(thing)
            kinds = [p.annotation for p in signature.parameters.values()]
            assert inspect.Signature.empty not in [*kinds, signature.return_annotation], public


def test_the_package_gives_its_names_and_no_others():
    assert set(unpool.__all__) <= set(dir(unpool))
    assert unpool.Segmenter.__module__ == "unpool.segment.segmenter"
    with pytest.raises(AttributeError, match="module 'unpool' has no attribute 'Segmentor'"):
        _ = unpool.Segmentor


@pytest.mark.parametrize("name", ["unpool", "unpool.errors", "unpool.recipes", "unpool.cli"])
def test_what_an_import_loads(name):
    code = f"import sys, {name}; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = {module.partition(".")[0] for module in result.stdout.split()}
    heavy = {"torch", "cv2", "torchmetrics", "numpy", "PIL", "safetensors", "skimage"}
    assert loaded & heavy == set()
