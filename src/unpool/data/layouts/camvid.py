"""The classes of CamVid, as SegNet has it."""

from unpool.data.layouts.layout import Names

CAMVID_CLASSES = (  # noqa: SIM905
    "Sky Building Pole Road Pavement Tree SignSymbol Fence Car Pedestrian Bicyclist"
).split()

CAMVID = Names(CAMVID_CLASSES, len(CAMVID_CLASSES), assumed="CamVid")
