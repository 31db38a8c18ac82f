"""Layouts of two folders, one of images and one of masks, with or without folders of splits."""

from functools import partial

from unpool.data.layouts.layout import Format, Layout, Names, Request
from unpool.data.layouts.listing import IMAGES, MASKS, find_splits, list_tree
from unpool.data.layouts.splits import group_ids


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
