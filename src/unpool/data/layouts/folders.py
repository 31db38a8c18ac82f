"""Layouts of a folder of images and one of masks, with or without folders of splits."""

from functools import partial

from unpool.data.layouts.layout import Format, Layout, Names, Request
from unpool.data.layouts.listing import (
    IMAGES,
    MASKS,
    find_splits,
    list_folder,
    list_objects,
    list_tree,
    require_masks,
)
from unpool.data.layouts.splits import group_ids
from unpool.data.layouts.voc import VOC_CLASSES

CAMVID_CLASSES = (  # noqa: SIM905
    "Sky Building Pole Road Pavement Tree SignSymbol Fence Car Pedestrian Bicyclist"
).split()

CAMVID = Names(CAMVID_CLASSES, len(CAMVID_CLASSES), assumed="CamVid")
"""The classes of CamVid, as SegNet has it."""


def pair_format(name: str, images: str, masks: str, names: Names | None = None) -> Format:
    """A layout of two folders; either both have SPLIT in their names, or none, see `find_splits`.

    Masks have class ids, and 0 is the background: in ADE's layout, too, where it means "other".
    """
    read = partial(read_pairs, images=images, masks=masks, names=names)
    return Format(name, (images, masks), read)


def read_pairs(request: Request, images: str, masks: str, names: Names | None) -> Layout:
    """The files of both folders."""
    root = request.root
    splits = find_splits(root, (images, masks))
    found, labeled = list_tree(root, images, splits, IMAGES), list_tree(root, masks, splits, MASKS)
    if "SPLIT" not in images:
        return Layout(root, found, labeled, lists=root, names=names)
    groups = group_ids(found, splits)
    return Layout(root, found, labeled, groups=groups, names=names)


def read_plain(request: Request) -> Layout:
    """The files of images/ and masks/."""
    root = request.root
    images = list_folder(root / "images", IMAGES)
    masks = require_masks(list_folder(root / "masks", MASKS))
    groups: dict[str, list[str]] = {
        path.name: []
        for path in images.path.iterdir()
        if path.is_dir() and not path.name.startswith(".")
    }
    for name in sorted(images.files):
        if (first := name.split("/")[0]) != name:
            groups[first].append(name)
    return Layout(root, images, masks, list_objects(root / "instances"), lists=root, groups=groups)


def read_sbd(request: Request) -> Layout:
    """The files of SBD, the Semantic Boundaries Dataset, whose masks are MATLAB files."""
    root = request.root
    root = next(base for base in (root, root / "dataset") if (base / "img").is_dir())
    images, masks = list_folder(root / "img", IMAGES), list_folder(root / "cls", (".mat",))
    objects = list_objects(root / "inst", (".mat",))
    return Layout(root, images, masks, objects, lists=root, names=Names(list(VOC_CLASSES)))
