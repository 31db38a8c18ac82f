"""Recognize the layout of a data set: the one table of layouts."""

from pathlib import Path

from unpool.data.layouts.camvid import read_camvid
from unpool.data.layouts.coco import read_coco
from unpool.data.layouts.layout import Format, Layout
from unpool.data.layouts.listing import IMAGES, find_splits
from unpool.data.layouts.plain import read_plain
from unpool.data.layouts.sbd import read_sbd
from unpool.data.layouts.voc import read_voc
from unpool.errors import DataError

FORMATS = [  # the first whose tree is there is read
    Format("VOC", ("JPEGImages/",), read_voc),
    Format("plain", ("images/", "masks/"), read_plain),
    Format("COCO", ("annotations/instances_SPLIT.json",), read_coco),
    Format("SBD", ("img/", "cls/"), read_sbd),
    Format("SBD", ("dataset/img/", "dataset/cls/"), read_sbd),
    Format("CamVid", ("SPLIT/", "SPLITannot/"), read_camvid),
    Format("plain", ("images/",), read_plain),  # says that masks/ is missing
]


def find_files(root: str | Path, split: str | None = None) -> Layout:
    """Find the images and masks of a data set; they need not match.

    Only the annotations of `split` are read in COCO, if given.

    Raises:
        DataError: the folder has none of the layouts, or no image.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"got {root}, which is not a folder; pass the root of the data set")
    found = next((each for each in FORMATS if find_splits(root, each.tree)), None)
    if found is None:
        raise DataError(
            f"got {root}, which has neither JPEGImages/ (VOC) nor images/ (plain), nor img/ and "
            "cls/ (SBD), annotations/instances_*.json (COCO), or train/ and trainannot/ (CamVid): "
            "pass the folder that contains them, or move the images to images/ and the masks to "
            "masks/"
        )
    layout = found.read(root, split)._replace(format=found.name)
    if not layout.images.files and not layout.outlines:
        got = f"got {layout.images.path} without images"
        raise DataError(f"{got}; wanted files ending in {' '.join(IMAGES)}")
    return layout
