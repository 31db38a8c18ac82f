from pathlib import Path

import numpy as np
import pytest

from tests.data.plain import LABELS, ids, photo
from unpool.data import check_data, objects, open_data, read_instances, read_sample
from unpool.errors import DataError
from unpool.vision.images import write_image, write_mask


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
    assert len(ids(camvid, "all")) == 10


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
    assert ids(tmp_path, "all") == ["a"]
