"""Masks of some images and classes of others: which are used, and faults in the lists."""

from collections import Counter

import numpy as np
import pytest

from tests.data.plain import photo
from unpool.data.datasets import Sample
from unpool.data.weak import FILE, WeakImage, draw_strong, open_weak, read_image_classes
from unpool.errors import DataError
from unpool.vision.images import write_image, write_mask


@pytest.fixture
def folder(tmp_path):
    """Images a to h; a to e have masks, of the classes 1, 2, 1 and 2, 1, none."""
    for name, shown in zip("abcde", [[1], [2], [1, 2], [1], []], strict=True):
        labels = np.zeros((20, 24), np.uint8)
        for i, label in enumerate(shown):
            labels[2:9, 3 + 9 * i : 9 + 9 * i] = label
        write_mask(tmp_path / f"masks/{name}.png", labels)
    for i, name in enumerate("abcdefgh"):
        write_image(tmp_path / f"images/{name}.png", photo(i)[:20, :24])
    (tmp_path / "classes.txt").write_text("background\ncat\ndog\n")
    (tmp_path / "train.txt").write_text("\n".join("abcdefg"))
    (tmp_path / "few.txt").write_text("a\nb\nf")
    (tmp_path / FILE).write_text("f: dog\ng: dog, cat\na: cat, dog\n")
    return tmp_path


def names(weak):
    return "".join(sample.name for sample in weak.strong.samples)


def test_masks_where_there_are_some_and_classes_of_all(folder):
    weak = open_weak(folder, "train")
    assert names(weak) == "abcde"
    assert {image.name: image.shown for image in weak.images} == {
        "a": (1, 2),  # the list knows better
        "b": (2,),
        "c": (1, 2),
        "d": (1,),
        "e": (),
        "f": (2,),
        "g": (1, 2),
    }
    assert all(image.image.name == f"{image.name}.png" for image in weak.images)


def test_masks_of_a_list_alone(folder):
    weak = open_weak(folder, "train", "few")
    assert names(weak) == "ab"
    assert len(weak.images) == 7
    (folder / "other.txt").write_text("h")
    with pytest.raises(DataError, match=r"no image of train .* with a mask.*strong_split"):
        open_weak(folder, "train", "other")


def test_so_many_of_each_class(folder):
    for seed in range(5):
        weak = open_weak(folder, "train", per_class=1, seed=seed)
        assert len(weak.strong.samples) == 2
        shown = {image.name: image.shown for image in weak.images}
        first, second = (shown[name] for name in names(weak))
        assert 1 in first + second
        assert 2 in first + second
        assert names(open_weak(folder, "train", per_class=1, seed=seed)) == names(weak)
    assert len({names(open_weak(folder, "train", per_class=1, seed=s)) for s in range(9)}) > 1
    assert names(open_weak(folder, "train", per_class=9)) == "abcd"


def test_each_class_gets_images_of_its_own(tmp_path):
    """As in the paper, where 5 images of each of 20 classes are 100."""
    random = np.random.default_rng(0)
    shown = [tuple(np.flatnonzero(random.random(4) < 0.4) + 1) for _ in range(90)]
    images = [WeakImage(str(i), tmp_path, s) for i, s in enumerate(shown)]
    samples = [Sample(image.name, tmp_path, None) for image in images]
    chosen = draw_strong(samples, images, 5, 6, seed=1)
    assert len(chosen) == 24
    assert [s.name for s in chosen] == sorted((s.name for s in chosen), key=int)
    counts = Counter(label for s in chosen for label in shown[int(s.name)])
    assert min(counts.values()) >= 6
    assert draw_strong(samples, images, 5, 6, seed=2) != chosen


def test_an_image_without_mask_or_classes(folder):
    (folder / "train.txt").write_text("a\nh")
    with pytest.raises(DataError, match=rf"no file for 'h' .*or list its classes in .*{FILE}"):
        open_weak(folder, "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f dog", r"got 'f dog' in line 1 of .*; wanted IMAGE: CLASS, CLASS"),
        ("a: cat\na: dog", "got 'a: dog' in line 2"),
        (": cat", "got ': cat' in line 1"),
        ("f: dgo", "got 'dgo' in line 1 of .*dog"),
        ("f: background", "got 'background' in line 1"),
    ],
)
def test_lines_of_another_form(tmp_path, text, message):
    path = tmp_path / FILE
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_image_classes(path, ["background", "cat", "dog"])


def test_names_with_folders_and_colons(tmp_path):
    path = tmp_path / FILE
    path.write_text("train/a b: dog,\nC:x: cat\nz:\n")
    found = read_image_classes(path, ["background", "cat", "dog"])
    assert found == {"train/a b": (2,), "C:x": (1,), "z": ()}
    assert read_image_classes(tmp_path / "none.txt", []) == {}
