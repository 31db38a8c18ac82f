"""The plain layout: images/ and masks/ with equal names."""

from unpool.data.layouts.layout import Layout, Request
from unpool.data.layouts.listing import IMAGES, MASKS, list_folder, list_objects, require_masks


def read_plain(request: Request) -> Layout:
    """The files of images/ and masks/."""
    root = request.root
    images, masks = (
        list_folder(root / "images", IMAGES),
        require_masks(list_folder(root / "masks", MASKS)),
    )
    groups: dict[str, list[str]] = {
        path.name: []
        for path in images.path.iterdir()
        if path.is_dir() and not path.name.startswith(".")
    }
    for name in sorted(images.files):
        if (first := name.split("/")[0]) != name:
            groups[first].append(name)
    return Layout(root, images, masks, list_objects(root / "instances"), lists=root, groups=groups)
