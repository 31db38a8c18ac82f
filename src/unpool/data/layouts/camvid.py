"""CamVid as SegNet has it: a folder SPLIT and a folder SPLITannot for each split."""

from pathlib import Path

from unpool.data.layouts.layout import Folder, Layout, Names, Request
from unpool.data.layouts.listing import IMAGES, MASKS, find_splits, list_folder

CAMVID_CLASSES = (  # noqa: SIM905
    "Sky Building Pole Road Pavement Tree SignSymbol Fence Car Pedestrian Bicyclist"
).split()


def read_camvid(request: Request) -> Layout:
    """The files of a folder in the layout of CamVid."""
    root = request.root
    images: dict[str, list[Path]] = {}
    masks: dict[str, list[Path]] = {}
    groups = {}
    for split in find_splits(root, ("SPLIT/", "SPLITannot/")):
        found, annotated = (
            list_folder(root / split, IMAGES),
            list_folder(root / f"{split}annot", MASKS),
        )
        groups[split] = [f"{split}/{name}" for name in sorted(found.files)]
        for files, folder in ((images, found), (masks, annotated)):
            files.update((f"{split}/{name}", paths) for name, paths in folder.files.items())
    names = Names(list(CAMVID_CLASSES), len(CAMVID_CLASSES), assumed="CamVid")
    folders = Folder(root, IMAGES, images), Folder(root, MASKS, masks, "annot")
    return Layout(root, *folders, groups=groups, names=names)
