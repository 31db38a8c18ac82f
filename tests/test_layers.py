"""The layout of the package: which room may import from which.

The layers are those of the README's map, from the bottom to the top. Imports inside functions and
under `TYPE_CHECKING` count like all others.
"""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

import unpool

ROOT = Path(unpool.__file__).parent
LAYERS = [
    "errors limits files temporary distributed devices cards",
    "recipes",
    "ops vision",
    "formats",
    "models data rendering",
    "training export",
    "segment classify generate coding visualize restore",
    "batch",
    "bench serve",
    "cli __init__ __main__",
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms.split()}
SIDEWAYS = {  # the only imports between rooms of one layer
    ("models", "data"),  # the class names of networks that were trained on VOC
    ("visualize", "segment"),  # occlusion of a segmenter's labels
    ("__main__", "cli"),
}
WAITING: set[tuple[str, str]] = set()  # to be moved: nothing may be added
SUBROOMS = {  # a room inside another, and who may import from it besides itself
    "unpool.models.caffe": {"unpool.models.convert"},
    "unpool.ops.compiled": {"unpool.ops.meanfield"},
    "unpool.visualize.occlusion": {"unpool.visualize", "unpool.bench.occlusion"},
    "unpool.cli.generate": {"unpool.cli"},
    "unpool.cli.visualize": {"unpool.cli"},
}


def module_name(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imported(node):
    """The full names that an import statement makes available."""
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{ast.unparse(node)} is relative"
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


@cache
def imports(module, lazy=True):
    """The full names of all that a module imports; without `lazy`, only what loading it does."""
    names, statements = set(), ast.parse(FILES[module].read_text(encoding="utf-8")).body
    while statements:
        node = statements.pop()
        if lazy or not isinstance(node, ast.FunctionDef):
            names.update(imported(node))
            statements.extend(ast.iter_child_nodes(node))
    return frozenset(names)


def neighbors(module, lazy=True):
    """The modules of the package that a module imports."""
    names = {name for name in imports(module, lazy) if f"{name}.".startswith("unpool.")}
    return {name if name in FILES else name.rpartition(".")[0] for name in names} - {module}


def room(module):
    return [*module.split("."), "__init__"][1]


def packages(module, lazy=True):
    """The packages that a module imports, besides ours and the standard library."""
    names = {name.partition(".")[0] for name in imports(module, lazy)}
    return names - sys.stdlib_module_names - {"unpool"}


@pytest.mark.parametrize("module", FILES)
def test_imports_point_downwards(module):
    here = room(module)
    assert here in LEVEL, f"{here} is in no layer"
    for other in neighbors(module) - {"unpool"}:
        there = room(other)
        assert other in FILES, f"{module} imports {other}, which does not exist"
        below = LEVEL[there] < LEVEL[here] or LEVEL[here] == 0
        known = here == there or (here, there) in SIDEWAYS | WAITING
        assert below or known, f"{here} may not import from {there} ({module}: {other})"


@pytest.mark.parametrize("module", FILES)
def test_a_room_inside_another_is_entered_at_one_door(module):
    for other in neighbors(module):
        for inner, allowed in SUBROOMS.items():
            if f"{other}.".startswith(f"{inner}.") and not f"{module}.".startswith(f"{inner}."):
                commands = inner.startswith("unpool.visualize") and room(module) == "cli"
                assert module in allowed or commands, f"{module} may not import from {other}"


@pytest.mark.parametrize("module", [name for name in FILES if name.startswith("unpool.cli.")])
def test_commands_do_not_import_one_another(module):
    shared = {
        f"unpool.cli.{n}" for n in ("console", "images", "lazy", "messages", "options", "streams")
    }
    folder = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
    for other in {name for name in neighbors(module) if room(name) == "cli"}:
        inside = folder != "unpool.cli" and other.startswith(f"{folder}.")
        assert other in shared or inside, f"{module} may not import from {other}"


def test_there_are_no_cycles():
    # the front door is left out: it imports everything, and gives the others one type
    waiting = {module: neighbors(module) - {"unpool"} for module in FILES if module != "unpool"}
    while free := [module for module, others in waiting.items() if not others & set(waiting)]:
        for module in free:
            del waiting[module]
    assert not waiting, f"each of these imports another: {', '.join(waiting)}"


def test_the_front_door_is_for_users():
    for module in FILES:
        if room(module) not in ("cli", "__main__"):
            names = {name for name in imports(module) if name.count(".") == 1}
            names -= set(FILES) | {"unpool.Progress", "unpool.__version__"}
            assert not [name for name in names if name.startswith("unpool.")], module


def test_operators_need_only_torch():
    for module in (name for name in FILES if room(name) == "ops"):
        compiled = module.startswith("unpool.ops.compiled")
        fast = {"numpy", "numba", "llvmlite"} if compiled else set()
        assert packages(module) <= {"torch", "lazy_loader"} | fast, module
        if not compiled:
            loaded = neighbors(module, lazy=False)
            assert not any(name.startswith("unpool.ops.compiled") for name in loaded), module


def test_images_know_no_network_and_networks_no_image_file():
    for module in FILES:
        names = set(imports(module))
        if room(module) == "vision":
            assert not any(name.startswith("torch.nn") for name in names), module
        if room(module) == "models":
            assert names.isdisjoint({"PIL.Image", "cv2", "unpool.vision.images.read_image"}), module


def test_the_bottom_is_light():
    """Errors, files, cards and recipes are read before torch is."""
    heavy = {"torch", "numpy", "cv2", "PIL", "safetensors", "torchmetrics"}
    for module in FILES:
        if room(module) in (
            "__init__",
            "errors",
            "files",
            "temporary",
            "cards",
            "presets",
            "recipes",
        ):
            assert packages(module, lazy=False).isdisjoint(heavy), module
