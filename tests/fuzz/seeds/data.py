"""Valid folders of labeled images."""

import io

import numpy as np

from tests.fuzz.seeds.common import JPG, LABELS, Files, as_json, index_png


def coco() -> list[Files]:
    """COCO folders: polygons, both run-length codes, crowds, and names as tools write them."""
    square = [2, 2, 14, 2, 14, 12, 2, 12]
    shapes = [
        [square],
        [square, [16.5, 3.5, 28, 4, 20, 18]],
        {"counts": [100, 50, 450], "size": [20, 30]},
        {"counts": "T3b1^>", "size": [20, 30]},
    ]
    found = []
    for folder, names, crowd, entries in (
        ("val/", ("0.jpg", "1.jpg"), 0, "annotations/instances_val2017.json"),
        ("images/", ("images/0.jpg", "images/1.jpg"), 1, "annotations/instances_val.json"),
        ("val/", ("0.jpg", "1.jpg"), 0, "val/_annotations.coco.json"),
    ):
        document = {
            "images": [
                {"id": i, "file_name": name, "width": 30, "height": 20}
                for i, name in enumerate(names)
            ],
            "annotations": [
                {
                    **{"id": 10 * i + j, "image_id": i, "category_id": 1 + j % 2, "area": 120.0},
                    **{"bbox": [2, 2, 12, 10], "iscrowd": int(crowd and j == 3)},
                    "segmentation": shape,
                }
                for i in range(2)
                for j, shape in enumerate(shapes)
            ],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        }
        photos = {folder + name.rpartition("/")[2]: JPG for name in names}
        found.append({**photos, entries: as_json(document)})
    return found


def sbd() -> list[Files]:
    """SBD folders with plain and with compressed annotations."""
    from scipy.io import savemat

    cells = np.empty((3, 1), object)
    cells[:, 0] = [np.zeros((20, 30))] * 3
    found = []
    for compressed in (False, True):
        files = {"train.txt": b"a\n", "val.txt": b"b\n"}
        for name in "ab":
            files[f"img/{name}.jpg"] = JPG
            for folder, key, listed in (
                ("cls", "GTcls", "CategoriesPresent"),
                ("inst", "GTinst", "Categories"),
            ):
                parts = {"Boundaries": cells, "Segmentation": LABELS, listed: [[1], [2]]}
                file = io.BytesIO()
                savemat(file, {key: parts}, do_compression=compressed)
                # the header has the date; text of the same length makes it the same every day
                content = b"MATLAB 5.0 MAT-file".ljust(116) + file.getvalue()[116:]
                files[f"{folder}/{name}.mat"] = content
        found.append(files)
    return found


def layouts() -> list[Files]:
    """The other layouts of labeled images, with all that is text in them."""
    mask, names = index_png(LABELS), b"background\ncat\ndog\n"
    voc = {"ImageSets/Segmentation/train.txt": b"a\n", "ImageSets/Segmentation/val.txt": b"b 1\n"}
    for name in "ab":
        voc |= {f"JPEGImages/{name}.jpg": JPG, f"SegmentationClass/{name}.png": mask}
        voc[f"SegmentationObject/{name}.png"] = mask
    plain = {"classes.txt": names, "train.txt": b"a\n", "val.txt": b"b.jpg\n"}
    for name in "ab":
        plain |= {f"images/{name}.jpg": JPG, f"masks/{name}.png": mask}
        plain[f"instances/{name}.png"] = mask
    camvid = {"classes.txt": names + b"void\n"}
    for split, name in (("train", "a"), ("val", "b")):
        camvid |= {f"{split}/{name}.jpg": JPG, f"{split}annot/{name}.png": mask}
    return [voc, plain, camvid]
