"""Labeled pictures: finding and reading them, checking them before a training, random views.

`open_data` gives one split of a VOC folder or a plain folder; `check_data` reports whatever would
spoil a training on it; `batches` feeds one.
"""

from unpool.data.check import ClassCount, Finding, Report, check_data
from unpool.data.crops import Batch, Views, batches, class_balance
from unpool.data.voc import VOC_CLASSES, VOID, DataSet, Sample, open_data, read_sample

__all__ = [
    "VOC_CLASSES",
    "VOID",
    "Batch",
    "ClassCount",
    "DataSet",
    "Finding",
    "Report",
    "Sample",
    "Views",
    "batches",
    "check_data",
    "class_balance",
    "open_data",
    "read_sample",
]
