"""Every layout, by a folder that is made by its rules."""

import numpy as np
import pytest

from tests.data.layouts import examples
from unpool.data import check_data, open_data, read_sample
from unpool.data.layouts import find_files
from unpool.data.layouts.find import LAYOUTS


@pytest.fixture(params=examples.FOLDERS)
def name(request):
    return request.param


def test_the_masks_of_each_layout(tmp_path, name):
    examples.FOLDERS[name](tmp_path)
    assert find_files(tmp_path).format == name.split(",")[0]
    seen = []
    for split in ("train", "val"):
        data = open_data(tmp_path, split)
        for sample in data.samples:
            image, labels = read_sample(sample, len(data.classes))
            number = int(sample.image.stem.partition("_")[0].rpartition("-")[2])
            assert image.shape == (examples.HEIGHT, examples.WIDTH, 3)
            np.testing.assert_array_equal(labels, examples.labels_of(number), str(sample.image))
            seen.append(number)
    assert sorted(seen) == list(range(7))
    numbered = ["background", "class 1", "class 2"]
    assert data.classes in (examples.CLASSES, numbered)
    assert (data.classes == numbered) == (
        name in ("plain by splits", "ADE20K", "mmsegmentation", "FiftyOne")
    )


def test_a_check_of_each_layout(tmp_path, name):
    examples.FOLDERS[name](tmp_path)
    report = check_data(tmp_path)
    assert report.to_dict()["layout"] == name.split(",")[0]
    assert report.ok
    assert sum(report.splits.values()) == 7
    kinds = {finding.kind for finding in report.findings}
    assert kinds <= {"crowds"}, report.findings
    assert ("crowds" in kinds) == (name == "COCO, CVAT's brush masks")


def test_each_layout_has_a_folder():
    assert {form.name for form in LAYOUTS} - {name.split(",")[0] for name in examples.FOLDERS} == {
        "SBD",  # in test_sbd.py
        "images and annotations",
        "images and labels",
    }
