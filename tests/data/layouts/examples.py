"""A small data set in every layout, with the same images and masks: a cat before a dog.

Images are 24 x 32. Half of a pixel does not occur, so that all formats hold the masks exactly. The
names of images are those that the tools leave in their files: absolute, with backslashes ...
"""

import base64
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from unpool.formats.rle import encode, encode_brush
from unpool.vision.images import write_image, write_mask

HEIGHT, WIDTH = 24, 32
CLASSES = ["background", "cat", "dog"]
SPLITS = {"train": range(5), "val": range(5, 7)}


def boxes(i: int) -> dict[str, tuple[int, int, int, int]]:
    """The rectangles of an image as x0, y0, x1, y1; the cat covers a part of the dog."""
    return {"dog": (8, 4, 28, 20), "cat": (2 + i, 2, 12 + i, 10)}


def mask_of(i: int, name: str) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    x0, y0, x1, y1 = boxes(i)[name]
    mask[y0:y1, x0:x1] = True
    return mask


def labels_of(i: int) -> np.ndarray:
    labels = np.where(mask_of(i, "dog"), 2, 0)
    return np.where(mask_of(i, "cat"), 1, labels).astype(np.uint8)


def photo(path: Path, i: int) -> None:
    coarse = np.random.default_rng(i).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    write_image(path, np.kron(coarse, np.ones((4, 4, 1), np.uint8)))


def corners(i: int, name: str) -> list[list[int]]:
    x0, y0, x1, y1 = boxes(i)[name]
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def write(path: Path, values: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(values if isinstance(values, str) else json.dumps(values), "utf-8")


def pairs(root: Path, images: str, masks: str, names: dict[str, str]) -> None:
    for split, numbers in SPLITS.items():
        for i in numbers:
            photo(root / images.replace("SPLIT", names[split]) / f"{i}.jpg", i)
            write_mask(root / masks.replace("SPLIT", names[split]) / f"{i}.png", labels_of(i))


SAME = {split: split for split in SPLITS}


def voc(root: Path) -> None:
    for split, numbers in SPLITS.items():
        write(root / f"ImageSets/Segmentation/{split}.txt", "\n".join(map(str, numbers)))
    write(root / "class_names.txt", "\n".join(CLASSES))
    pairs(root, "JPEGImages", "SegmentationClass", SAME)


def plain(root: Path) -> None:
    pairs(root, "images/SPLIT", "masks/SPLIT", SAME)
    write(root / "classes.txt", "\n".join(CLASSES))


def kaggle(root: Path) -> None:
    pairs(root, "SPLIT/images", "SPLIT/masks", SAME)


def ade(root: Path) -> None:
    named = {"train": "training", "val": "validation"}
    pairs(root, "images/SPLIT", "annotations/SPLIT", named)


def mmseg(root: Path) -> None:
    pairs(root, "img_dir/SPLIT", "ann_dir/SPLIT", SAME)


def fiftyone_masks(root: Path) -> None:
    pairs(root, "data", "labels", SAME)


def camvid(root: Path) -> None:
    pairs(root, "SPLIT", "SPLITannot", SAME)
    write(root / "classes.txt", "\n".join(CLASSES))


def coco_file(numbers: range, name: str, *, first: int = 1, brush: bool = False) -> dict:
    """A COCO file; a `{}` in the name stands for the number of the image."""
    found = []
    for i in numbers:
        for k, label in enumerate(CLASSES[1:]):
            outline = [np.ravel(corners(i, label)).tolist()]
            if brush:
                outline = {"size": [HEIGHT, WIDTH], "counts": encode(mask_of(i, label))}
            found.append(
                {
                    "id": len(found) + 1,
                    "image_id": i,
                    "category_id": first + k,
                    "iscrowd": int(brush),
                    "segmentation": outline,
                }
            )
    return {
        "images": [
            {"id": i, "file_name": name.format(i), "height": HEIGHT, "width": WIDTH}
            for i in numbers
        ],
        "annotations": found,
        "categories": [{"id": first + k, "name": label} for k, label in enumerate(CLASSES[1:])],
    }


def coco(root: Path) -> None:
    for split, numbers in SPLITS.items():
        write(root / f"annotations/instances_{split}2017.json", coco_file(numbers, "{}.jpg"))
        for i in numbers:
            photo(root / f"{split}2017/{i}.jpg", i)


def photos(root: Path, folder: str, name: str = "{}.jpg") -> None:
    for i in range(7):
        photo(root / folder / name.format(i), i)


def cvat_coco(root: Path) -> None:
    photos(root, "images/default")
    write(root / "annotations/instances_default.json", coco_file(range(7), "{}.jpg", brush=True))


def roboflow(root: Path) -> None:
    for split, folder in {"train": "train", "val": "valid"}.items():
        content = coco_file(SPLITS[split], "{}_jpg.rf.0123.jpg")
        for category in content["categories"]:
            category["supercategory"] = "pets"
        content["categories"].insert(0, {"id": 0, "name": "pets", "supercategory": "none"})
        write(root / folder / "_annotations.coco.json", content)
        for i in SPLITS[split]:
            photo(root / folder / f"{i}_jpg.rf.0123.jpg", i)


def label_studio_coco(root: Path) -> None:
    photos(root, "images", "0a1b2c3d-{}.jpg")
    write(root / "result.json", coco_file(range(7), "images\\0a1b2c3d-{}.jpg", first=0))


def fiftyone_coco(root: Path) -> None:
    photos(root, "data")
    write(root / "labels.json", coco_file(range(7), "{}.jpg"))


def labelme2coco(root: Path) -> None:
    photos(root, "JPEGImages")
    write(root / "annotations.json", coco_file(range(7), "JPEGImages/{}.jpg"))


def other_coco(root: Path) -> None:
    photos(root, "images")
    write(root / "export/my project.json", coco_file(range(7), "/home/me/{}.jpg"))


def labelme(root: Path) -> None:
    for i in range(7):
        photo(root / f"{i}.jpg", i)
        shapes = [
            {"label": name, "points": corners(i, name), "shape_type": "polygon", "group_id": None}
            for name in ("dog", "cat")
        ]
        if i % 2:
            x0, y0, x1, y1 = boxes(i)["cat"]
            shapes[1] |= {"points": [[x1, y1], [x0, y0]], "shape_type": "rectangle"}
        elif i % 4:
            x0, y0, x1, y1 = boxes(i)["cat"]
            file = io.BytesIO()
            Image.new("1", (x1 - x0, y1 - y0), 1).save(file, "PNG")
            code = base64.b64encode(file.getvalue()).decode()
            shapes[1] |= {
                "points": [[x0, y0], [x1 - 1, y1 - 1]],
                "shape_type": "mask",
                "mask": code,
            }
        content = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": f"..\\photos\\{i}.jpg",
            "imageData": None,
            "imageHeight": HEIGHT,
            "imageWidth": WIDTH,
        }
        write(root / f"{i}.json", content)


def regions(i: int) -> list[dict]:
    """The regions of Label Studio: a brush and a polygon or a rectangle in percent."""
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    brush = {"format": "rle", "rle": encode_brush(mask_of(i, "dog")), "brushlabels": ["dog"]}
    percent = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in corners(i, "cat")]
    (x, y), _, (x1, y1), _ = percent
    if i % 2:
        cat = {"points": percent, "polygonlabels": ["cat"]}
    else:
        cat = {"x": x, "y": y, "width": x1 - x, "height": y1 - y, "rotation": 0}
        cat |= {"rectanglelabels": ["cat"]}
    return [{"id": k, "value": value} | size for k, value in (("a", brush), ("b", cat))]


def label_studio(root: Path) -> None:
    photos(root, "images")
    tasks = [
        {
            "id": 100 + i,
            "data": {"image": f"/data/upload/1/0a1b2c3d-{i}.jpg"},
            "annotations": [{"id": i, "was_cancelled": False, "result": regions(i)}],
        }
        for i in range(7)
    ]
    write(root / "project-1-at-2025-01-01.json", tasks)


def label_studio_min(root: Path) -> None:
    photos(root, "images")
    tasks = []
    for i in range(7):
        brush, cat = (each.pop("value") | each for each in regions(i))
        image = f"http://localhost:8080/data/local-files/?d=images/{i}.jpg"
        tasks.append({"id": i, "image": image, "tag": [brush], "label": [cat], "annotator": 1})
    write(root / "project.json", tasks)


def brushes(root: Path) -> None:
    photos(root, "images", "task-{}.jpg")
    for i in range(7):
        for label in ("dog", "cat"):  # dogs are covered by cats
            name = f"task-{i}-annotation-3-by-1-tag-{label}-0.png"
            path = root / "masks" / name
            path.parent.mkdir(exist_ok=True)
            visible = mask_of(i, label) & ((label == "cat") | ~mask_of(i, "cat"))
            Image.fromarray(visible.astype(np.uint8) * 255).save(path)


def yolo_lines(i: int) -> str:
    rows = []
    for name in ("cat", "dog"):  # the smaller one covers the larger one
        numbers = [f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in corners(i, name)]
        rows.append(f"{CLASSES.index(name) - 1} {' '.join(numbers)}")
    return "\n".join(rows) + "\n"


def yolo(root: Path) -> None:
    for split, numbers in SPLITS.items():
        for i in numbers:
            photo(root / f"images/{split}/{i}.jpg", i)
            write(root / f"labels/{split}/{i}.txt", yolo_lines(i))
    names = "names:\n  0: cat\n  1: dog\n"
    write(root / "data.yaml", f"path: ../data\ntrain: images/train\nval: images/val\n{names}")


def yolo_roboflow(root: Path) -> None:
    for split, folder in {"train": "train", "val": "valid"}.items():
        for i in SPLITS[split]:
            photo(root / f"{folder}/images/{i}.jpg", i)
            write(root / f"{folder}/labels/{i}.txt", yolo_lines(i))
    write(root / "data.yaml", "train: ../train/images\nnc: 2\nnames: ['cat', 'dog']\n")


def yolo_label_studio(root: Path) -> None:
    photos(root, "images")
    for i in range(7):
        write(root / f"labels/{i}.txt", yolo_lines(i))
    write(root / "classes.txt", "cat\ndog\n")


def cvat_masks(root: Path) -> None:
    """Segmentation mask 1.1: colors of the labels, which labelmap.txt has."""
    colors = np.array([[0, 0, 0], [250, 50, 83], [51, 221, 255]], np.uint8)
    lines = [f"{name}:{','.join(map(str, c))}::" for name, c in zip(CLASSES, colors, strict=True)]
    write(root / "labelmap.txt", "# label:color_rgb:parts:actions\n" + "\n".join(lines) + "\n")
    write(root / "ImageSets/Segmentation/default.txt", "\n".join(map(str, range(7))))
    photos(root, "JPEGImages")
    for i in range(7):
        write_image(root / f"SegmentationClass/{i}.png", colors[labels_of(i)])


FOLDERS = {  # by the name of the layout and, after a comma, what is particular
    "VOC": voc,
    "VOC, CVAT's colors": cvat_masks,
    "plain": plain,
    "plain by splits": kaggle,
    "ADE20K": ade,
    "mmsegmentation": mmseg,
    "FiftyOne": fiftyone_masks,
    "CamVid": camvid,
    "COCO": coco,
    "COCO, CVAT's brush masks": cvat_coco,
    "COCO, of any name": other_coco,
    "COCO of Roboflow": roboflow,
    "COCO of Label Studio": label_studio_coco,
    "COCO of FiftyOne": fiftyone_coco,
    "COCO of labelme2coco": labelme2coco,
    "labelme": labelme,
    "Label Studio": label_studio,
    "Label Studio, JSON_MIN": label_studio_min,
    "brush masks of Label Studio": brushes,
    "YOLO": yolo,
    "YOLO, of Roboflow": yolo_roboflow,
    "YOLO, of Label Studio": yolo_label_studio,
}
