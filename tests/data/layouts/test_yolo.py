import numpy as np
import pytest

from tests.data.layouts import examples
from unpool.data import check_data, open_data, read_sample
from unpool.data.layouts.yolo import read_labels, read_yaml_names
from unpool.data.outlines import Outlines, rasterize
from unpool.errors import DataError


def draw(tmp_path, text, size=(10, 20)):
    (tmp_path / "a.txt").write_text(text)
    found = read_labels(tmp_path / "a.txt", size)
    return rasterize(Outlines(tmp_path / "a.txt", "", size, found, {0: 1, 1: 2}))


def test_fractions_of_width_and_height(tmp_path):
    labels = draw(tmp_path, "1 0.1 0.2 0.5 0.2 0.5 0.6 0.1 0.6\n\n").labels
    expected = np.zeros((10, 20), int)
    expected[2:6, 2:10] = 2
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2 0.2", "is a bounding box, not an outline; export polygons"),
        ("0", "is no polygon"),
        ("0 0.1 0.1 0.2 0.2 0.3", "is no polygon"),
        ("0 0.1 0.1 0.2 0.2 0.3 nan", "is no polygon"),
        ("0 0.1 0.1 0.2 0.2 0.3 1e999", "is no polygon"),
        ("cat 0.1 0.1 0.2 0.2 0.3 0.3", "is no list of numbers"),
        ("0 10 10 200 20 30 30", "has no fractions of the image's size"),
        ("2 0.1 0.1 0.2 0.2 0.3 0.1", "has the unknown category 2"),
        ("-1 0.1 0.1 0.2 0.2 0.3 0.1", "has the unknown category -1"),
        ("0.5 0.1 0.1 0.2 0.2 0.3 0.1", "has no category"),
        ("1e999 0.1 0.1 0.2 0.2 0.3 0.1", "has no category"),
    ],
)
def test_lines_that_are_no_polygon(tmp_path, line, message):
    with pytest.raises(DataError, match=f"a.txt: annotation (1|2) {message}"):
        draw(tmp_path, f"0 0.1 0.1 0.2 0.2 0.3 0.1\n{line}\n")


def test_a_file_that_is_no_text(tmp_path):
    examples.yolo(tmp_path)
    (tmp_path / "labels/train/1.txt").write_bytes(b"\xff\xfe\x00")
    (finding,) = [f for f in check_data(tmp_path).findings if f.kind == "annotation"]
    assert (finding.level, finding.where) == ("error", "labels/train/1.txt")
    assert "which is not text in UTF-8" in finding.message


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [a, 'b c', \"d, e\"]", {0: "a", 1: "b c", 2: "d, e"}),
        ("names: {0: a, 1: 'b'}", {0: "a", 1: "b"}),
        ("names: [a,\n  b,\n  c]\nnc: 3", {0: "a", 1: "b", 2: "c"}),
        ("nc: 2\nnames:\n- a\n- 'b'\ntrain: x", {0: "a", 1: "b"}),
        ("names:\n  # classes\n  0: a  # first\n\n  2: c\nval: x", {0: "a", 2: "c"}),
        ("names: # of classes\n  0: a", {0: "a"}),
        ("names: [\n  'a #1',  # first\n  # none\n  b\n]", {0: "a #1", 1: "b"}),
        ('"names": [a, b]', {0: "a", 1: "b"}),
        ("names:", {}),
        ("names: [", {}),
        ("path: x", {}),
        ("", {}),
    ],
)
def test_names_of_yaml(text, names):
    assert read_yaml_names([line.strip() for line in text.splitlines()]) == names


def test_images_without_text_file_are_background(tmp_path):
    examples.yolo(tmp_path)
    (tmp_path / "labels/train/1.txt").unlink()
    data = open_data(tmp_path, "train")
    assert read_sample(data.samples[1], 3)[1].max() == 0
    (finding,) = [f for f in check_data(tmp_path).findings if f.kind == "no-labels"]
    assert finding.message == "has no text file for 1 images, which are read as background alone"


def test_classes_without_names_are_numbered(tmp_path):
    examples.yolo(tmp_path)
    (tmp_path / "data.yaml").unlink()
    assert open_data(tmp_path, "train").classes == ["background", "class 1", "class 2"]


def test_a_list_with_a_background(tmp_path):
    examples.yolo_label_studio(tmp_path)
    (tmp_path / "classes.txt").write_text("background\ncat\n")
    data = open_data(tmp_path, "train")
    assert data.classes == ["background", "cat"]
    expected = (examples.labels_of(0) == 2).astype(int)  # class 1, and class 0 is the background
    np.testing.assert_array_equal(read_sample(data.samples[0], 2)[1], expected)


@pytest.mark.parametrize("text", ["names: &all [cat, dog]", "names: cat", "names:\n? 0\n: cat"])
def test_names_of_another_form_are_not_numbers(tmp_path, text):
    examples.yolo(tmp_path)
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=r"data.yaml with names of an unknown form; write names: "):
        open_data(tmp_path, "train")


def test_names_twice(tmp_path):
    examples.yolo(tmp_path)
    (tmp_path / "data.yaml").write_text("names: [cat, cat]")
    with pytest.raises(DataError, match=r"got 'cat' twice in .*data.yaml; give every class a name"):
        open_data(tmp_path, "train")
    (tmp_path / "data.yaml").write_text("names: {999999: cat}")
    with pytest.raises(DataError, match=r"got 1000000 classes in .*data.yaml; wanted 254 at most"):
        open_data(tmp_path, "train")
