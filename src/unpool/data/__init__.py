"""Labeled images: data sets on disk, their checks, and random training crops.

`open_data` opens one split of a folder in one of the layouts of `unpool.data.layouts`;
`read_sample` reads an image with its labels, `read_instances` and `objects` its instances;
`check_data` reports what would spoil a training run; `batches` yields training batches.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
