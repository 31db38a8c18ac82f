import os

import pytest

from tests.data.plain import LABELS, photo
from unpool.data import VOC_CLASSES, open_data
from unpool.data.layouts import class_names, find_files, read_names
from unpool.errors import DataError
from unpool.vision.images import write_image, write_mask


@pytest.mark.parametrize(
    "name", ["Unlabelled", "unlabeled", "VOID", "ignore", "Ignored", "Unlabelled (ignore, id 2)"]
)
def test_a_last_line_of_void_is_no_class(tmp_path, name):
    (tmp_path / "classes.txt").write_text(f"sky\nsea\n{name}\n\n")
    assert read_names(tmp_path / "classes.txt")[:2] == (["sky", "sea"], 2)


@pytest.mark.parametrize("name", ["voids", "unlabelled things", "ignorance", "avoid"])
def test_other_names_are_classes(tmp_path, name):
    text = f"sky\nsea\n{name}\n" if " " not in name else f"{name}\nsky\nsea\n"
    (tmp_path / "classes.txt").write_text(text)
    names = read_names(tmp_path / "classes.txt")
    assert (len(names.classes), names.void) == (3, 255)


def test_void_and_one_class_are_too_few(tmp_path):
    (tmp_path / "classes.txt").write_text("sky\nvoid\n")
    with pytest.raises(DataError, match=r"got 1 names in .*; wanted 2 to 255, one per line"):
        read_names(tmp_path / "classes.txt")


def test_255_classes_beside_void_fit(tmp_path):
    lines = [*(f"thing {i}" for i in range(255)), "void"]
    (tmp_path / "classes.txt").write_text("\n".join(lines))
    assert read_names(tmp_path / "classes.txt")[:2] == (lines[:-1], 255)


PLAIN = "background\ncat\ndog\n"
FILES = {
    "classes.txt": PLAIN,
    "class_names.txt": PLAIN,
    "labels.txt": "__ignore__\n" + PLAIN,  # labelme's
    "obj.names": PLAIN,
    "Classes.TXT": "\ufeff" + PLAIN.replace("\n", "\r\n"),
    "labelmap.txt": "# label:color\nbackground:0,0,0::\ncat:8,0,9::\ndog:1,2,3::\n",
    "label_colors.txt": "0 0 0\tbackground\n8 0 9\tcat\n1 2 3\tdog\n",
    "class_dict.csv": "name,r,g,b\nbackground, 0, 0, 0\ncat, 8, 0, 9\ndog, 1, 2, 3\n",
    "classes.json": '["background", "cat", "dog"]',
}
COLORS = {0: (0, 0, 0), 1: (8, 0, 9), 2: (1, 2, 3)}


@pytest.mark.parametrize("layout", ["images/ masks/", "JPEGImages/ SegmentationClass/"])
@pytest.mark.parametrize("file", FILES)
def test_files_that_name_the_classes(tmp_path, file, layout):
    images, masks = layout.split()
    write_image(tmp_path / images / "a.png", photo(0))
    write_mask(tmp_path / masks / "a.png", LABELS)
    (tmp_path / file).write_text(FILES[file], newline="")
    assert open_data(tmp_path, "all").classes == ["background", "cat", "dog"]
    names = read_names(tmp_path / file)
    assert (names.void, names.file) == (255, tmp_path / file)
    assert names.colors == (COLORS if "8" in FILES[file] else {})


@pytest.mark.parametrize(
    ("name", "text", "classes", "void"),
    [
        ("a.txt", "0: background\n1: cat\n2: dog\n", ["background", "cat", "dog"], 255),
        ("a.txt", "0 sky\n1 sea\n2 void\n", ["sky", "sea"], 2),
        ("a.txt", "1 = cat\n3 = dog\n\n", ["background", "cat", "class 2", "dog"], 255),
        ("a.txt", "0,sky\n1,sea\n255,void\n", ["sky", "sea"], 255),
        ("a.txt", "2 wheels\ncar\n", ["2 wheels", "car"], 255),
        ("a.txt", "a: x\nb: y\n", ["a: x", "b: y"], 255),
        ("a.txt", "sky:::\nsea:1,1,1:a,b:c\nvoid:2,2,2::\n", ["sky", "sea"], 2),
        ("a.txt", "sky:1,1,1\nignored:2,2,2\nsea:3,3,3\n", ["sky", "ignored", "sea"], 1),
        ("a.json", '{"0": "sky", "2": "sea"}', ["sky", "class 1", "sea"], 255),
        ("a.json", '{"sea": 1, "sky": 0}', ["sky", "sea"], 255),
    ],
)
def test_numbers_colors_and_void(tmp_path, name, text, classes, void):
    (tmp_path / name).write_text(text)
    assert read_names(tmp_path / name)[:2] == (classes, void)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "0: a\n0: b\n", "a number twice"),
        ("a.txt", "0: a\n300: b\n", "got the class 300 .* from 0 to 254"),
        ("a.txt", "a:0,0,0::\nb:0,0,256::\n", "got the color 0,0,256"),
        ("a.txt", "cat\n", "got 1 names .* the first of which is the background"),
        ("a.json", '{"a": 1.5}', "does not name classes"),
        ("a.json", '["a", 1]', "does not name classes"),
        ("a.json", "{", "is not JSON"),
    ],
)
def test_names_that_cannot_be_used(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_names(tmp_path / name)


def test_names_that_the_layout_assumes(tmp_path):
    write_image(tmp_path / "JPEGImages/a.png", photo(0))
    write_mask(tmp_path / "SegmentationClass/a.png", LABELS)
    assert open_data(tmp_path, "all").classes == VOC_CLASSES


def test_colors_of_a_second_file(tmp_path):
    write_image(tmp_path / "images/a.png", photo(0))
    write_mask(tmp_path / "masks/a.png", LABELS)
    (tmp_path / "classes.txt").write_text("background\ncat\ndog\nvoid\n")
    (tmp_path / "labelmap.txt").write_text("Dog:9,9,9::\nbackground:0,0,0::\nvoid:7,7,7::\n")
    names = class_names(find_files(tmp_path))
    assert names[:3] == (
        *(["background", "cat", "dog"], 3),
        {0: (0, 0, 0), 2: (9, 9, 9), 3: (7, 7, 7)},
    )
    (tmp_path / "labelmap.txt").write_text("tree:9,9,9::\nhouse:0,0,0::\n")
    with pytest.raises(DataError, match=r"labelmap.txt with none of the classes of .*classes.txt"):
        open_data(tmp_path, "all")


@pytest.mark.parametrize("name", ["classes.txt", "labelmap.txt", "classes.json", "train.txt"])
@pytest.mark.parametrize("kind", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_device_in_the_place_of_a_list_is_no_missing_list(tmp_path, name, kind):
    write_image(tmp_path / "images/a.png", photo(0))
    write_mask(tmp_path / "masks/a.png", LABELS)
    kind(tmp_path / name)
    with pytest.raises(DataError, match=f"{name}, which is a pipe, device or socket"):
        open_data(tmp_path, "train")
