"""Find the masks of images whose names differ by what programs usually add to them."""

import re
from collections import defaultdict
from pathlib import Path

from unpool.data.layouts.listing import IMAGES, Folder

_MASK = (
    "masks?|labels?|labelids|labeltrainids|gtfine_labelids|gtfine_labeltrainids|gt|ground_?truth|"
    "seg|segmap|segmentation|semantic|annotations?|annot|anno|ann|target|matte|l|p"
)
_IMAGE = "leftimg8bit|images?|img|im|rgb|sat|photo"


def pair_masks(images: Folder, masks: Folder) -> Folder:
    """The masks by the ids of their images: cat_mask.png, mask_cat.png and cat.jpg.png for cat.jpg.

    A mask of the very name of an image belongs to it. Others are paired where this is unambiguous;
    the rest keep their names. Letter case is ignored.
    """
    without: defaultdict[str, list[str]] = defaultdict(list)
    for name in images.files.keys() - masks.files.keys():
        for core in {name.lower(), _core(name, _IMAGE)}:
            without[core].append(name)
    files: dict[str, list[Path]] = {}
    for name, paths in masks.files.items():
        found = [] if name in images.files else without[name.lower()] or without[_core(name, _MASK)]
        owner = found[0] if len(found) == 1 else name
        files[owner] = [*files.get(owner, []), *paths]
    return masks._replace(files=files)


def _core(name: str, words: str) -> str:
    """An id in lower case, without image suffix, and without these words around its last part.

    >>> _core("Val/cat.jpg", _MASK), _core("val/cat_GT", _MASK), _core("mask-cat", _MASK)
    ('val/cat', 'val/cat', 'cat')
    """
    folder, slash, last = name.lower().rpartition("/")
    suffix = rf"({'|'.join(map(re.escape, IMAGES))})$"
    for pattern in (suffix, rf"(?<=.)[-_. ]({words})$|^({words})[-_. ](?=.)", suffix):
        last = re.sub(pattern, "", last, count=1)
    return folder + slash + last
