"""SBD, the Semantic Boundaries Dataset: MATLAB files."""

from unpool.data.layouts.layout import Layout, Names, Request
from unpool.data.layouts.listing import IMAGES, list_folder, list_objects
from unpool.data.layouts.voc import VOC_CLASSES


def read_sbd(request: Request) -> Layout:
    """The files of a folder in the layout of SBD, possibly all in dataset/."""
    root = request.root
    root = next(base for base in (root, root / "dataset") if (base / "img").is_dir())
    images, masks = list_folder(root / "img", IMAGES), list_folder(root / "cls", (".mat",))
    objects = list_objects(root / "inst", (".mat",))
    return Layout(root, images, masks, objects, lists=root, names=Names(list(VOC_CLASSES)))
