"""Find the files of a data set: the supported layouts and their splits.

    VOC      JPEGImages/ID.jpg  SegmentationClass/ID.png  ImageSets/Segmentation/SPLIT.txt
             SegmentationClassAug/ID.png is used where SegmentationClass has no mask, as in the
             list trainaug; SegmentationObject/ID.png has the objects
    SBD      img/ID.jpg  cls/ID.mat  inst/ID.mat  SPLIT.txt, possibly all in dataset/
             (Hariharan et al., Semantic contours from inverse detectors, ICCV 2011)
    COCO     annotations/instances_SPLIT2017.json, with images in SPLIT2017/, images/SPLIT2017/ or
             images/
    CamVid   SPLIT/ID.png  SPLITannot/ID.png
    plain    images/...  masks/...  with equal names, optionally instances/... for the objects;
             splits are lists (SPLIT.txt beside them) or folders (images/SPLIT/...); with neither,
             every fifth image is "val" and the others are "train"

A list has one id per line: the path of an image below the images folder, with or without suffix.
All layouts except COCO may have a `classes.txt`, see `read_names`.
"""

from unpool.data.layouts.find import find_files
from unpool.data.layouts.layout import Folder, Layout, Names
from unpool.data.layouts.names import (
    assumption,
    class_names,
    names_file,
    numbered_classes,
    read_names,
)
from unpool.data.layouts.splits import list_splits, split_names, why_empty
from unpool.data.layouts.voc import VOC_CLASSES

__all__ = [
    "VOC_CLASSES",
    "Folder",
    "Layout",
    "Names",
    "assumption",
    "class_names",
    "find_files",
    "list_splits",
    "names_file",
    "numbered_classes",
    "read_names",
    "split_names",
    "why_empty",
]
