"""Lists of images: their lines, and where they lie."""

import os

import pytest

from tests.data.test_datasets import names, plain
from unpool.data import open_data
from unpool.errors import DataError


def test_texts_that_list_nothing_are_no_splits(tmp_path):
    plain(tmp_path, *"abcde")
    (tmp_path / "README.txt").write_text("\nImages of\na\nb\n")
    (tmp_path / "LICENSE.txt").write_bytes("d\xe9j\xe0".encode("latin-1"))
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    assert names(tmp_path, "val") == ["e"]
    with pytest.raises(DataError, match="there are train, val, all: pass"):
        open_data(tmp_path, "classes")


def test_lists_in_folders_that_are_links(tmp_path):
    plain(tmp_path / "elsewhere", "a")
    root = plain(tmp_path / "data", "b")
    for part in ("images", "masks"):
        os.symlink(tmp_path / "elsewhere" / part, root / part / "train")
    assert names(root, "train") == ["train/a"]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("photo.v2", "photo.v2"),
        ("photo.v2.jpg", "photo.v2"),
        ("photo.v2.JPG", "photo.v2"),
        ("photo", "photo"),
        ("photo.jpg", "photo"),
        ("photo 1", "photo"),  # as in VOC's lists of a class
        ("  photo\t-1", "photo"),
        ("my photo", "my photo"),
        ("my photo.jpg", "my photo"),
        ("scan.png", "scan.png"),  # the image is scan.png.jpg
    ],
)
def test_a_line_of_a_list_names_a_image_with_or_without_suffix(tmp_path, line, name):
    plain(tmp_path, "photo.v2", "photo", "my photo", "scan.png")
    (tmp_path / "train.txt").write_text(f"{line}\r\n", "utf-8-sig")
    assert names(tmp_path, "train") == [name]
    assert open_data(tmp_path, "train").samples[0].image.name == f"{name}.jpg"


def test_names_with_dots_differ_without_a_list(tmp_path):
    plain(tmp_path, "photo.v1", "photo.v2")
    assert names(tmp_path, "all") == ["photo.v1", "photo.v2"]
