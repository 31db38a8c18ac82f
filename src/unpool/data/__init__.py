"""Labeled pictures: finding and reading them, checking them before a training, random views.

`open_data` gives one split of a VOC, SBD, COCO, CamVid or plain folder; `read_sample` a picture and
its labels, `read_instances` and `objects` what stands in it; `check_data` reports whatever would
spoil a training; `batches` feeds one.
"""

from unpool.data.batches import Batch, batches
from unpool.data.check import ClassCount, Finding, Report, check_data
from unpool.data.crops import Views, class_balance
from unpool.data.instances import Object, objects, read_instances
from unpool.data.voc import VOC_CLASSES, VOID, DataSet, Sample, open_data, read_sample

__all__ = [
    "VOC_CLASSES",
    "VOID",
    "Batch",
    "ClassCount",
    "DataSet",
    "Finding",
    "Object",
    "Report",
    "Sample",
    "Views",
    "batches",
    "check_data",
    "class_balance",
    "objects",
    "open_data",
    "read_instances",
    "read_sample",
]
