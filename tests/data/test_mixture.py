"""Several folders as one data set: parts, weights, taught masks, soft labels."""

from pathlib import Path

import numpy as np
import pytest

from unpool.data.crops import Views, draw_views
from unpool.data.datasets import objects, read_sample, read_soft
from unpool.data.frequencies import count_classes, draw_weights
from unpool.data.mixture import Part, open_parts, parse_part, validation_parts
from unpool.errors import DataError, OptionError
from unpool.vision.images import write_image, write_mask


def make(root, splits, classes="background\ncat\n"):
    """A plain folder with `count` images in each split, whose masks show class 1."""
    for split, count in splits.items():
        for i in range(count):
            write_image(root / f"images/{split}/{i}.png", np.full((6, 8, 3), i, np.uint8))
            write_mask(root / f"masks/{split}/{i}.png", np.ones((6, 8), np.uint8))
    (root / "classes.txt").write_text(classes)
    return root


@pytest.fixture
def own(tmp_path):
    return make(tmp_path / "own", {"train": 3, "val": 2})


@pytest.fixture
def more(tmp_path):
    return make(tmp_path / "more", {"train": 1, "pseudo": 4, "val": 1})


def test_parts_of_texts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a:b=1").mkdir()
    assert parse_part("own") == Part(Path("own"))
    assert parse_part("own:pseudo") == Part(Path("own"), "pseudo")
    assert parse_part("own:pseudo=0.3") == Part(Path("own"), "pseudo", 0.3)
    assert parse_part("own=2") == Part(Path("own"), None, 2.0)
    assert parse_part("a:b=1") == Part(Path("a:b=1"))
    assert parse_part("a:b=1:val=1e-1") == Part(Path("a:b=1"), "val", 0.1)
    assert parse_part("own:val").resolve() == Part(tmp_path / "own", "val")
    for text in ("own:pseudo=0.3", "own", "own=2", "a:b=1:val"):
        assert parse_part(str(parse_part(text))) == parse_part(text)
    for wrong in ("own=0", "own=-1", "own=nan", "own:val=x", "own=1e9"):
        with pytest.raises(OptionError, match=r"above 0, such as own:pseudo=0\.3"):
            parse_part(wrong)


def test_images_of_all_parts_with_their_weights(own, more):
    parts = [Part(own), Part(more), Part(more, "pseudo", 0.3)]
    data = open_parts(parts, "train")
    assert [sample.image.parent.name for sample in data.samples] == ["train"] * 4 + ["pseudo"] * 4
    assert [sample.weight for sample in data.samples] == [1.0] * 4 + [0.3] * 4
    assert data.title == (
        "own train + more train + more pseudo (masks made by a network, weight 0.3)"
    )
    assert data.classes == ["background", "cat"]
    np.testing.assert_allclose(draw_weights(data, 0), [1.0] * 4 + [0.3] * 4)
    assert draw_weights(open_parts(parts[:2], "train"), 0) is None
    assert open_parts(parts[:1], "val").title == "own val"


def test_what_is_validated_on(own, more):
    parts = [Part(own), Part(more), Part(more, "pseudo", 0.3)]
    assert validation_parts(parts, ["val"]) == [Part(own, "val"), Part(more, "val")]
    assert validation_parts(parts, ["pseudo"]) == [Part(more, "pseudo")]
    assert validation_parts(parts, [f"{own}:train"]) == [Part(own, "train")]
    assert validation_parts(parts, ["val", "val"]) == validation_parts(parts, ["val"])
    assert validation_parts(parts, ["all"]) == [Part(own, "all"), Part(more, "all")]
    with pytest.raises(DataError, match=r"got split 'test', which none of .* has; give FOLDER:SP"):
        validation_parts(parts, ["test"])


def test_other_classes_are_refused(own, tmp_path):
    other = make(tmp_path / "other", {"train": 1}, "background\ndog\n")
    with pytest.raises(DataError, match=r"other with other classes than .*own; write the same"):
        open_parts([Part(own), Part(other)], "train")


def test_soft_labels_by_the_name_of_the_image(own, tmp_path):
    soft = tmp_path / "soft"
    (soft / "train").mkdir(parents=True)
    logits = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float16)
    np.save(soft / "train/1.npy", logits)
    data = open_parts([Part(own)], "train", soft)
    assert [sample.soft is not None for sample in data.samples] == [False, True, False]
    assert read_soft(data.samples[0], 2) is None
    np.testing.assert_array_equal(read_soft(data.samples[1], 2), logits.astype(np.float32))
    with pytest.raises(DataError, match=r"no soft labels of these images; wanted .*val/0\.npy"):
        open_parts([Part(own)], "val", soft)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((3, 4, 4), np.float32), r"of \(3, 4, 4\); wanted finite logits \(2, h, w\)"),
        (np.zeros((2, 4), np.float32), r"of \(2, 4\)"),
        (np.full((2, 4, 4), np.nan), "some not finite"),
        (np.zeros((2, 0, 4)), r"of \(2, 0, 4\)"),
        (np.zeros((2, 3, 4), complex), "of complex128"),
        (np.array([[["a"]], [["b"]]]), "of <U1"),
        (np.array([{}, {}], object), "damaged"),
        (b"\x93NUMPY\x01\x00", "damaged"),
        (b"", "damaged"),
    ],
)
def test_soft_labels_that_cannot_be_used(own, tmp_path, array, reason):
    path = tmp_path / "soft/train/1.npy"
    path.parent.mkdir(parents=True)
    np.save(path, array) if isinstance(array, np.ndarray) else path.write_bytes(array)
    data = open_parts([Part(own)], "train", tmp_path / "soft")
    with pytest.raises(DataError, match=reason):
        read_soft(data.samples[1], 2)


def test_soft_labels_of_absurd_size_are_refused_unread(own, tmp_path):
    path = tmp_path / "soft/train/1.npy"
    path.parent.mkdir(parents=True)
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 100000, 100000), }"
    header = header.ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(DataError, match="soft labels"):
        read_soft(open_parts([Part(own)], "train", tmp_path / "soft").samples[1], 2)


def test_unlabeled_images_have_soft_labels_only(own, tmp_path):
    for name in ("a", "deep/b", "none"):
        write_image(tmp_path / f"photos/{name}.jpg", np.full((12, 16, 3), 90, np.uint8))
    for name in ("a", "deep/b", "0"):
        (tmp_path / f"soft/{name}").parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / f"soft/{name}.npy", np.ones((2, 3, 4), np.float32))
    photos = Part(tmp_path / "photos", "unlabeled", 0.5)
    data = open_parts([photos, Part(own)], "train", tmp_path / "soft")
    assert [sample.name for sample in data.samples[:2]] == ["a", "deep/b"]
    assert len(data.samples) == 5
    assert [sample.weight for sample in data.samples] == [0.5] * 2 + [1.0] * 3
    assert data.title == "photos unlabeled (soft labels only, weight 0.5) + own train"
    image, labels = read_sample(data.samples[0], 2)
    assert image.shape == (12, 16, 3)
    assert labels.shape == (12, 16)
    assert (labels == 255).all()
    assert objects(data.samples[0], 2) == []
    assert read_soft(data.samples[1], 2).shape == (2, 3, 4)
    assert count_classes(data).images.tolist() == [0, 3]
    view = draw_views(data, Views(8, (8, 16)), weights=draw_weights(data, 0.5))(0)
    assert view.labels.shape == (8, 8)
    assert validation_parts([photos, Part(own)], ["val"]) == [Part(own, "val")]
    with pytest.raises(DataError, match="whose 3 images have no soft labels; pass soft=FOLDER"):
        open_parts([photos, Part(own)], "train")
    with pytest.raises(DataError, match="and no labeled images; add a folder with masks"):
        open_parts([photos], "train", tmp_path / "soft")
