from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.plain import LABELS, ids, photo
from unpool.data import check_data, objects, open_data, read_instances, read_sample
from unpool.errors import DataError
from unpool.vision.images import write_image, write_mask


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
    for split, listed in {"train": "1", "val": "0", "trainaug": "1\n2"}.items():
        (lists / f"{split}.txt").write_text(listed)
    return tmp_path


def test_masks_of_sbd_stand_in_for_those_that_voc_lacks(voc):
    one, two = open_data(voc, "trainaug").samples
    assert one.mask == voc / "SegmentationClass/1.png"
    assert two.mask == voc / "SegmentationClassAug/2.png"
    np.testing.assert_array_equal(read_sample(two, 21)[1], LABELS * 3)
    assert ids(voc, "train") == ["1"]


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


def test_the_folder_of_older_versions_of_labelme(tmp_path):
    write_image(tmp_path / "JPEGImages/a.png", photo(0))
    write_mask(tmp_path / "SegmentationClassPNG/a.png", LABELS)
    (tmp_path / "class_names.txt").write_text("_background_\ncat\ndog\n")
    assert open_data(tmp_path, "all").samples[0].mask == tmp_path / "SegmentationClassPNG/a.png"
    (tmp_path / "SegmentationClass").mkdir()
    np.save(tmp_path / "SegmentationClass/a.npy", LABELS)
    (sample,) = open_data(tmp_path, "all").samples
    np.testing.assert_array_equal(read_sample(sample, 3)[1], LABELS)
