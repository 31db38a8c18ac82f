"""A split written in each format and read back by our own readers: the same masks."""

from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from tests.formats.scenes import CLASSES, SCENES, known
from unpool.data.datasets import open_data, read_labels
from unpool.formats.objects import find_objects
from unpool.formats.write import write_folder, write_image

SPLIT = {name.replace(" ", "-"): labels for name, labels in SCENES.items()}


def results(output: Path, images: Path, key: str, **options: float) -> None:
    """Photos of the split, and its label maps as results in one format."""
    images.mkdir(parents=True, exist_ok=True)
    for name, labels in SPLIT.items():
        file = images / f"{name}.png"
        Image.new("RGB", labels.shape[::-1]).save(file)
        objects = find_objects(labels, CLASSES)
        write_image(output, PurePosixPath(name), [key], objects, file, file.name, **options)
    write_folder(output, [PurePosixPath(name) for name in SPLIT], [key], CLASSES)


def read(root: Path) -> dict[str, np.ndarray]:
    data = open_data(root, "all")
    assert data.classes == CLASSES
    return {
        sample.name.rpartition("/")[2]: read_labels(sample, len(CLASSES)) for sample in data.samples
    }


@pytest.mark.parametrize(
    ("key", "output", "images"),
    [
        ("coco", "annotations", "images"),
        ("coco", ".", "."),
        ("labelme", ".", "."),
        ("yolo", "labels", "images"),
        ("labelstudio", ".", "images"),
    ],
)
def test_the_masks_are_the_same(tmp_path, key, output, images):
    root = tmp_path / "data"
    results(root / output, root / images, key)
    if key == "yolo":  # its place is beside both folders
        (root / output / "data.yaml").rename(root / "data.yaml")
    if key == "labelstudio":  # which names its classes by what is drawn
        (root / "classes.txt").write_text("\n".join(CLASSES))
    found = read(root)
    assert found.keys() == SPLIT.keys()
    for name, labels in SPLIT.items():
        assert (found[name] == known(labels)).all(), name
