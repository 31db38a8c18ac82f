"""SBD, the Semantic Boundaries Dataset: MATLAB files."""

from importlib.util import find_spec
from pathlib import Path

from unpool.data.layouts.layout import Layout, Names
from unpool.data.layouts.listing import IMAGES, list_folder, list_objects
from unpool.data.layouts.voc import VOC_CLASSES
from unpool.errors import DataError


def read_sbd(root: Path, split: str | None = None) -> Layout:
    """The files of a folder in the layout of SBD, possibly all in dataset/."""
    root = next(base for base in (root, root / "dataset") if (base / "img").is_dir())
    if find_spec("scipy") is None:
        raise DataError(f"got {root}, whose .mat files need SciPy; pip install 'unpool[sbd]'")
    images, masks = list_folder(root / "img", IMAGES), list_folder(root / "cls", (".mat",))
    objects = list_objects(root / "inst", (".mat",))
    return Layout(root, images, masks, objects, lists=root, names=Names(list(VOC_CLASSES)))
