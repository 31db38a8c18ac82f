from .check import ClassCount, Report, check_data
from .crops import Batch, Views, batches
from .datasets import VOID, DataSet, Object, Sample, objects, open_data, read_instances, read_sample
from .frequencies import class_balance
from .inspect import Finding
from .layouts import VOC_CLASSES

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
