"""A scene with two objects, and a plain data set."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.plain import LABELS, photo
from unpool.data import VOID, open_data
from unpool.vision.images import write_image, write_mask

CLASSES = ["background", *(f"class {i}" for i in range(1, 8))]


@pytest.fixture
def scene(tmp_path):
    """An image of 60 x 40 with two objects: a bar of class 1, and a block of class 2 beside it."""
    labels = np.zeros((40, 60), np.uint8)
    objects = np.zeros((40, 60), np.uint8)
    labels[5:35, 8:18], objects[5:35, 8:18] = 1, 1
    labels[10:22, 18:42], objects[10:22, 18:42] = 2, 2
    labels[0:2], objects[0:2] = VOID, VOID
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets"):
        (tmp_path / folder).mkdir()
    (tmp_path / "ImageSets/Segmentation").mkdir()
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\n")
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    write_image(
        tmp_path / "JPEGImages/a.png",
        30 * np.where(labels == VOID, 0, labels)[..., None].repeat(3, 2),
    )
    write_mask(tmp_path / "SegmentationClass/a.png", labels)
    write_mask(tmp_path / "SegmentationObject/a.png", objects)
    return open_data(tmp_path, "train")


@pytest.fixture
def root(tmp_path) -> Path:
    """A plain data set without a flaw: train/0 ... train/4 and val/5 ... val/9."""
    for folder in ("images/train", "images/val", "masks/train", "masks/val"):
        (tmp_path / folder).mkdir(parents=True)
    for i in range(10):
        name = f"{'train' if i < 5 else 'val'}/{i}.png"
        Image.fromarray(photo(i)).save(tmp_path / "images" / name)
        Image.fromarray(LABELS).save(tmp_path / "masks" / name)
    (tmp_path / "classes.txt").write_text("background\ncat\ndog\n")
    return tmp_path


@pytest.fixture
def flat(tmp_path):
    """Images of one color, each with a block of another: class 1 in eight of them, 2 in one."""
    (tmp_path / "classes.txt").write_text("background\none\ntwo\n")
    for i in range(9):
        label = 2 if i == 8 else 1
        labels = np.zeros((60, 80), np.uint8)
        labels[20:50, 10:40] = label
        image = np.where(labels[..., None] > 0, 100 * label, 10).astype(np.uint8).repeat(3, 2)
        write_image(tmp_path / f"images/{i}.png", image)
        write_mask(tmp_path / f"masks/{i}.png", labels)
    return open_data(tmp_path, "all")
