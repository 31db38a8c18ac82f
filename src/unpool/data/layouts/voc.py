"""PASCAL VOC, with the masks of SBD where it has none."""

from unpool.data.layouts.layout import Layout, Names, Request
from unpool.data.layouts.listing import IMAGES, MASKS, list_folder, list_objects, require_masks

VOC_CLASSES = (  # noqa: SIM905 - the formatter would put each name of a list on its own line
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor"
).split()


def read_voc(request: Request) -> Layout:
    """The files of a folder in the layout of VOC."""
    root = request.root
    masks, more = (list_folder(root / f"SegmentationClass{tail}", MASKS) for tail in ("", "Aug"))
    labelme = list_folder(root / "SegmentationClassPNG", MASKS)
    masks = next((one for one in (masks, more, labelme) if one.files), masks)
    masks = require_masks(masks)._replace(files={**more.files, **masks.files})
    images, objects = (
        list_folder(root / "JPEGImages", IMAGES),
        list_objects(root / "SegmentationObject"),
    )
    lists, names = root / "ImageSets/Segmentation", Names(list(VOC_CLASSES), assumed="PASCAL VOC")
    return Layout(root, images, masks, objects, lists=lists, names=names)
