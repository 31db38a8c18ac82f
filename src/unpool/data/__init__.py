"""Labeled images: finding and reading them, checking them before a training run, random views.

`open_data` gives one split of a VOC, SBD, COCO, CamVid or plain folder; `read_sample` an image and
its labels, `read_instances` and `objects` what stands in it; `check_data` reports whatever would
spoil a training run; `batches` feeds one. `open_folders` gives images of which each has one class;
`open_chairs` rendered objects, seen from around, and `read_views` their images.
"""

from unpool.classify.folders import ClassFolders, open_folders
from unpool.data.batches import Batch, batches
from unpool.data.check import ClassCount, Report, check_data
from unpool.data.classes import VOC_CLASSES, VOID
from unpool.data.crops import Views, class_balance
from unpool.data.datasets import DataSet, Sample, open_data, read_sample
from unpool.data.inspect import Finding
from unpool.data.instances import Object, objects, read_instances
from unpool.rendering.dataset import AZIMUTHS, ELEVATIONS, Chairs, View, open_chairs, read_views

__all__ = [
    "AZIMUTHS",
    "ELEVATIONS",
    "VOC_CLASSES",
    "VOID",
    "Batch",
    "Chairs",
    "ClassCount",
    "ClassFolders",
    "DataSet",
    "Finding",
    "Object",
    "Report",
    "Sample",
    "View",
    "Views",
    "batches",
    "check_data",
    "class_balance",
    "objects",
    "open_chairs",
    "open_data",
    "open_folders",
    "read_instances",
    "read_sample",
    "read_views",
]
