from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unpool.data import check_data, objects, open_data, read_instances, read_sample
from unpool.data.layouts import Names, read_names
from unpool.errors import DataError
from unpool.vision.images import write_image, write_mask

LABELS = np.kron([[0, 1], [2, 0]], np.ones((10, 15), int)).astype(np.uint8)  # 20 x 30


def photo(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def names(root: Path, split: str) -> list[str]:
    return [sample.name for sample in open_data(root, split).samples]


# VOC with the masks of SBD


@pytest.fixture
def voc(tmp_path) -> Path:
    """Images 0 and 1 with masks and objects of VOC; 1 and 2 with masks of SBD."""
    for i in range(4):
        write_image(tmp_path / f"JPEGImages/{i}.jpg", photo(i))
    for i in (0, 1):
        write_mask(tmp_path / f"SegmentationClass/{i}.png", LABELS)
        write_mask(tmp_path / f"SegmentationObject/{i}.png", LABELS * 4)
    for i in (1, 2):
        Image.fromarray(LABELS * 3).save(tmp_path / "aug.png")
        path = tmp_path / f"SegmentationClassAug/{i}.png"
        path.parent.mkdir(exist_ok=True)
        (tmp_path / "aug.png").rename(path)
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for split, ids in {"train": "1", "val": "0", "trainaug": "1\n2"}.items():
        (lists / f"{split}.txt").write_text(ids)
    return tmp_path


def test_masks_of_sbd_stand_in_for_those_that_voc_lacks(voc):
    one, two = open_data(voc, "trainaug").samples
    assert one.mask == voc / "SegmentationClass/1.png"
    assert two.mask == voc / "SegmentationClassAug/2.png"
    np.testing.assert_array_equal(read_sample(two, 21)[1], LABELS * 3)
    assert names(voc, "train") == ["1"]


def test_objects_are_voc_s_or_connected_parts(voc):
    one, two = open_data(voc, "trainaug").samples
    np.testing.assert_array_equal(read_instances(one, 21), LABELS * 4)
    assert [found.instance for found in objects(one, 21)] == [4, 8]
    assert objects(two, 21) == [(3, (15, 0, 30, 10), 1, 150), (6, (0, 10, 15, 20), 2, 150)]
    (finding,) = (f for f in check_data(voc, ["trainaug"]).findings if f.kind == "no-object-mask")
    assert finding.message.startswith("has no object mask of 2; draw them")


def test_masks_of_sbd_alone(voc):
    for path in [*voc.glob("SegmentationClass/*")]:
        path.unlink()
    (voc / "SegmentationClass").rmdir()
    assert open_data(voc, "trainaug").samples[0].mask == voc / "SegmentationClassAug/1.png"
    with pytest.raises(DataError, match=r"found no file for '0' in .*SegmentationClassAug; wanted"):
        open_data(voc, "val")


def test_two_object_masks_of_a_image(voc):
    Image.fromarray(LABELS).save(voc / "SegmentationObject/1.bmp")
    with pytest.raises(DataError, match=r"found 2 files for '1' in .*SegmentationObject \(1.bmp, "):
        open_data(voc, "train")
    (finding,) = (f for f in check_data(voc, ["train"]).findings if f.level == "error")
    assert finding[1:3] == ("ambiguous-name", "SegmentationObject/1")


# CamVid


@pytest.fixture
def camvid(tmp_path) -> Path:
    for i in range(10):
        split = "train" if i < 5 else "val"
        write_image(tmp_path / f"{split}/{i}.png", photo(i))
        write_mask(tmp_path / f"{split}annot/{i}.png", np.resize(np.arange(12), (20, 30)))
    return tmp_path


def test_camvid_has_its_classes_and_its_void(camvid):
    data = open_data(camvid, "val")
    assert [sample.name for sample in data.samples] == [f"val/{i}" for i in range(5, 10)]
    assert (len(data.classes), data.classes[0], data.classes[-1]) == (11, "Sky", "Bicyclist")
    labels = read_sample(data.samples[0], 11)[1]
    assert labels.ravel()[:13].tolist() == [*range(11), 255, 0]
    report = check_data(camvid)
    assert report.findings == []
    assert report.splits == {"train": 5, "val": 5}
    assert sum(count.pixels["val"] for count in report.classes) == 5 * 550
    assert len(names(camvid, "all")) == 10


def test_the_layout_with_other_classes(camvid):
    lines = [f"thing {i}" for i in range(11)]
    (camvid / "classes.txt").write_text("\n".join([*lines, "Unlabelled"]))
    data = open_data(camvid, "train")
    assert data.classes == lines
    assert read_sample(data.samples[0], 11)[1].max() == 255
    (camvid / "classes.txt").write_text("\n".join([*lines, "thing 11"]))
    data = open_data(camvid, "train")
    assert read_sample(data.samples[0], 12)[1].max() == 11


def test_a_split_without_annotations_is_none(camvid):
    write_image(camvid / "test/1.png", photo(0))
    with pytest.raises(DataError, match=r"got split 'test' of .*; there are train, val, all: pass"):
        open_data(camvid, "test")


def test_a_mask_that_is_missing(camvid):
    (camvid / "valannot/7.png").rename(camvid / "valannot/seven.png")
    with pytest.raises(
        DataError, match=r"found no file for 'val/7' in .*valannot; wanted that name"
    ):
        open_data(camvid, "val")
    findings = check_data(camvid).findings
    assert findings[0][:3] == ("error", "missing-mask", "valannot/7")
    assert findings[-1][:3] == ("warning", "extra-mask", "valannot/seven.png")


# plain


def test_a_plain_folder_with_object_masks_and_void(tmp_path):
    write_image(tmp_path / "images/a.png", photo(0))
    write_mask(tmp_path / "masks/a.png", LABELS)
    write_mask(tmp_path / "instances/a.png", LABELS * 5)
    (tmp_path / "classes.txt").write_text("ground\ncat\nvoid\n")
    (sample,) = open_data(tmp_path, "all").samples
    assert np.unique(read_sample(sample, 2)[1]).tolist() == [0, 1, 255]
    assert objects(sample, 2) == [(1, (15, 0, 30, 10), 5, 150)]
    assert np.unique(read_instances(sample, 2)).tolist() == [0, 5, 255]


def test_a_plain_folder_may_have_annotations_beside_it(tmp_path):
    write_image(tmp_path / "images/a.png", photo(0))
    write_mask(tmp_path / "masks/a.png", LABELS)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_train.json").write_text("{}")
    assert names(tmp_path, "all") == ["a"]


# classes


@pytest.mark.parametrize(
    "name", ["Unlabelled", "unlabeled", "VOID", "ignore", "Ignored", "Unlabelled (ignore, id 2)"]
)
def test_a_last_line_of_void_is_no_class(tmp_path, name):
    (tmp_path / "classes.txt").write_text(f"sky\nsea\n{name}\n\n")
    assert read_names(tmp_path / "classes.txt") == Names(["sky", "sea"], 2)


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
    assert read_names(tmp_path / "classes.txt") == Names(lines[:-1], 255)
