"""Recognize the layout of a data set: the one table of layouts."""

from pathlib import Path
from typing import TYPE_CHECKING

from unpool.data.layouts.brushes import BRUSHES
from unpool.data.layouts.coco import OTHER_COCO, coco_format
from unpool.data.layouts.folders import CAMVID, pair_format, read_plain, read_sbd
from unpool.data.layouts.label_studio import LABEL_STUDIO
from unpool.data.layouts.labelme import LABELME
from unpool.data.layouts.layout import Format, Layout, Request
from unpool.data.layouts.listing import IMAGES, find_gaps, find_splits
from unpool.data.layouts.pairs import pair_masks
from unpool.data.layouts.splits import require_usual
from unpool.data.layouts.voc import read_voc
from unpool.data.layouts.yolo import yolo_format
from unpool.errors import DataError

if TYPE_CHECKING:
    from unpool.data.outlines import Crowd

LAYOUTS = [  # the first whose tree is there is read
    Format("VOC", ("JPEGImages/", "SegmentationClass/"), read_voc),
    Format("VOC", ("JPEGImages/", "SegmentationClassAug/"), read_voc),
    Format("VOC", ("JPEGImages/", "SegmentationClassPNG/"), read_voc),
    BRUSHES,
    Format("plain", ("images/", "masks/"), read_plain),
    coco_format("COCO", "annotations/instances_SPLIT.json"),
    coco_format("COCO of Roboflow", "SPLIT/_annotations.coco.json"),
    coco_format("COCO of FiftyOne", "labels.json", "data/"),
    coco_format("COCO of Label Studio", "result.json"),
    coco_format("COCO of labelme2coco", "annotations.json"),
    Format("SBD", ("img/", "cls/"), read_sbd),
    Format("SBD", ("dataset/img/", "dataset/cls/"), read_sbd),
    yolo_format("images/SPLIT/", "labels/SPLIT/"),
    yolo_format("SPLIT/images/", "SPLIT/labels/"),
    yolo_format("images/", "labels/"),
    pair_format("CamVid", "SPLIT/", "SPLITannot/", CAMVID),
    pair_format("mmsegmentation", "img_dir/SPLIT/", "ann_dir/SPLIT/"),
    pair_format("mmsegmentation", "img_dir/", "ann_dir/"),
    pair_format("ADE20K", "images/SPLIT/", "annotations/SPLIT/"),
    pair_format("plain by splits", "SPLIT/images/", "SPLIT/masks/"),
    pair_format("FiftyOne", "data/", "labels/"),
    LABELME,
    LABEL_STUDIO,
    OTHER_COCO,
    pair_format("images and annotations", "images/", "annotations/"),
    pair_format("images and labels", "images/", "labels/"),
]


def find_files(root: str | Path, split: str | None = None, crowd: "Crowd | None" = None) -> Layout:
    """Find the images and masks of a data set; they need not match.

    Only the annotations of `split` are read in COCO, if given; `crowd` is how `iscrowd=1` is read,
    see `unpool.data.coco.read_annotations`.

    Raises:
        DataError: the folder has none of the layouts, or no image.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"got {root}, which is not a folder; pass the root of the data set")
    found = recognize(root)
    if found is None:
        raise DataError(f"got {root}, whose layout is unknown; {_nearest(root)}")
    layout = found.read(Request(root, split, crowd))._replace(format=found.name)
    layout = layout._replace(masks=pair_masks(layout.images, layout.masks))
    if not layout.images.files and not layout.outlines:
        got = f"got {layout.images.path} without images"
        raise DataError(f"{got}; wanted files ending in {' '.join(IMAGES)}")
    return layout


def recognize(root: Path) -> Format | None:
    """The layout of a folder; None if it has none that is known."""
    for each in LAYOUTS:
        splits = require_usual(each.tree[0], find_splits(root, each.tree))
        if each.accepts(root) if each.accepts else splits:
            return each
    return None


def _nearest(root: Path) -> str:
    """What is missing from the nearest layout, or which folder below has one; and all layouts."""
    hint = ""
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if found := recognize(folder):
            hint = f"did you mean {folder} ({found.name})? "
            break
    else:
        every = [(form, gap) for form in LAYOUTS for gap in find_gaps(root, form.tree).values()]
        gaps = [(form, gap) for form, gap in every if gap]
        if gaps:
            form, gap = min(gaps, key=lambda found: len(found[1]) / len(found[0].tree))
            hint = (
                f"the nearest is {form.name}, from which {' and '.join(gap)} is missing: add it. "
            )
    known = ", ".join(f"{form.name} ({' '.join(form.tree)})" for form in LAYOUTS)
    return f"{hint}{'T' if hint else 't'}he layouts are {known}, where SPLIT is any name"
