"""Find the files of a data set: the supported layouts and their splits.

    VOC      JPEGImages/ID.jpg  SegmentationClass/ID.png  ImageSets/Segmentation/SPLIT.txt
             SegmentationClassAug/ID.png is used where SegmentationClass has no mask, as in the
             list trainaug; SegmentationObject/ID.png has the objects
    SBD      img/ID.jpg  cls/ID.mat  inst/ID.mat  SPLIT.txt, possibly all in dataset/
             (Hariharan et al., Semantic contours from inverse detectors, ICCV 2011)
    COCO     annotations/instances_SPLIT2017.json, with images in SPLIT2017/, images/SPLIT2017/ or
             images/; also as Roboflow (SPLIT/_annotations.coco.json), FiftyOne (data/,
             labels.json), Label Studio (result.json) and labelme2coco (annotations.json) write it
    labelme  JSON files with shapes, beside the images or elsewhere
    Label Studio  its own JSON, with images in images/; brush masks task-12-annotation-3-...png
    YOLO     images/SPLIT/ID.jpg  labels/SPLIT/ID.txt  data.yaml, or SPLIT/images/ SPLIT/labels/
    CamVid   SPLIT/ID.png  SPLITannot/ID.png
    plain    images/...  masks/...  with equal names, optionally instances/... for the objects;
             splits are lists (SPLIT.txt beside them) or folders (images/SPLIT/...); with neither,
             every fifth image is "val" and the others are "train"
    Also SPLIT/images/ SPLIT/masks/, mmsegmentation's img_dir/ ann_dir/, ADE20K's images/SPLIT/
    annotations/SPLIT/, FiftyOne's data/ labels/.

A list has one id per line: the path of an image below the images folder, with or without suffix.
Layouts with masks may have a list of names, see `read_names`. Splits may be called training,
validation or valid. The table of all is `unpool.data.layouts.find.LAYOUTS`.
"""

from unpool.data.layouts.find import find_files
from unpool.data.layouts.layout import Layout, Names
from unpool.data.layouts.listing import Folder
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
