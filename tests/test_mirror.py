"""The tests mirror the package: `tests/ops/test_crf.py` tests `src/unpool/ops/crf.py`.

The exceptions are listed with the test that covers the module instead, or with the reason why a
test file belongs to no single module.
"""

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "src/unpool"

COVERED_ELSEWHERE = {
    "data/layouts/drawn.py": "data/layouts/test_coco.py",
    "data/layouts/layout.py": "data/test_datasets.py",
    "models/caffe/blobs.py": "models/caffe/test_deconvnet.py",
    "ops/compiled/kernels.py": "ops/compiled/test_mean_field.py",
    "ops/compiled/lattice.py": "ops/compiled/test_mean_field.py",
    "recipes/coder.py": "coding/test_train.py",
    "recipes/overrides.py": "recipes/test_segment.py",
    "recipes/restore.py": "restore/test_train.py",
    "rendering/accessors.py": "rendering/test_gltf.py",
    "rendering/triangles.py": "rendering/test_meshes.py",
    "serve/protocols/messages.py": "serve/protocols/test_hugging_face.py",
    "serve/refusals.py": "serve/test_guard.py",
    "serve/service.py": "serve/test_app.py",
    "vision/png.py": "vision/test_stacks.py",
    "segment/task.py": "segment/test_train.py",
}
"""Modules without a test file of their own, and the one that covers them."""

WIDER_THAN_A_MODULE = {
    "cli/test_layouts.py": "training and evaluating on folders of every layout",
    "cli/test_cli.py": "the program: usage, help, interrupts",
    "cli/test_formats.py": "`unpool segment --format` and the files of other tools",
    "cli/test_videos.py": "`unpool segment` and videos",
    "cli/test_killed.py": "a folder of images whose run is killed and resumed",
    "cli/test_networks.py": "`unpool segment` and networks of several kinds",
    "data/test_sbd.py": "a format, from its files to objects; it needs SciPy",
    "data/test_soft_labels.py": "soft labels, from crops to batches",
    "fuzz/test_fuzz.py": "all that reads files",
    "formats/test_round_trip.py": "each format, written and read again",
    "export/test_networks.py": "networks exported by torch alone",
    "models/caffe/test_released.py": "files of all formats, at full size",
    "serve/studio/test_browser_access.py": "all pages by keyboard and on a phone",
    "serve/studio/test_browser_draw.py": "the page Draw in a browser",
    "serve/studio/test_browser_look.py": "the page Look inside in a browser",
    "serve/studio/test_browser_restore.py": "the page Restore in a browser",
    "serve/studio/test_browser_results.py": "the page Results in a browser",
    "serve/studio/test_browser_segment.py": "the page in a browser",
    "ops/test_export.py": "operators in exported and compiled graphs",
    "test_contract.py": "every network and operator",
    "test_docs.py": "the pages",
    "test_front_door.py": "the package itself",
    "test_hubconf.py": "a file beside the package",
    "test_layers.py": "the direction of all imports",
    "test_mirror.py": "the tests themselves",
    "test_names.py": "all public names",
    "test_prose.py": "the words of code and pages",
    "test_readme.py": "the front page",
    "serve/test_one_truth.py": "command line, Python and service, byte for byte",
    "training/test_killed.py": "a run that is killed and resumed",
    "training/test_processes.py": "training by two processes",
    "visualize/test_foreign.py": "networks from a user's file",
}
"""Test files that are about more than one module, and why."""

MODULES = sorted(
    path.relative_to(PACKAGE).as_posix()
    for path in PACKAGE.rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)
FILES = sorted(
    path.relative_to(TESTS).as_posix()
    for path in TESTS.rglob("test_*.py")
    if path.relative_to(TESTS).parts[0] not in ("benchmarks", "experiments")
)


def mirror(module: str) -> str:
    """The test file of a module."""
    room, _, name = module.rpartition("/")
    return f"{room}/test_{name}" if room else f"test_{name}"


@pytest.mark.parametrize("module", MODULES)
def test_each_module_has_its_tests(module):
    test = COVERED_ELSEWHERE.get(module, mirror(module))
    assert (TESTS / test).exists(), f"{module} has no {test}"


@pytest.mark.parametrize("file", FILES)
def test_each_test_file_belongs_to_a_module(file):
    tested = {mirror(module) for module in MODULES} | set(WIDER_THAN_A_MODULE)
    assert file in tested, f"{file} tests no module"


def test_the_exceptions_are_needed():
    for module in COVERED_ELSEWHERE:
        assert module in MODULES, f"{module} is gone"
        assert not (TESTS / mirror(module)).exists(), f"{module} has tests of its own"
    for file in WIDER_THAN_A_MODULE:
        assert file in FILES, f"{file} is gone"
        assert file not in {mirror(module) for module in MODULES}, f"{file} mirrors a module"
