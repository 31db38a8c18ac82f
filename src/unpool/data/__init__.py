"""Labeled images: data sets on disk, their checks, and random training crops.

`open_data` opens one split of a VOC, SBD, COCO, CamVid or plain folder; `read_sample` reads an
image with its labels, `read_instances` and `objects` its instances; `check_data` reports what would
spoil a training run; `batches` yields training batches.
"""

from unpool.data.check import ClassCount, Report, check_data
from unpool.data.crops import Batch, Views, batches, class_balance
from unpool.data.datasets import (
    DataSet,
    Object,
    Sample,
    objects,
    open_data,
    read_instances,
    read_sample,
)
from unpool.data.inspect import Finding
from unpool.data.layouts import VOC_CLASSES
from unpool.vision.images import VOID

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
