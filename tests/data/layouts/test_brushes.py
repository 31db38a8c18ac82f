import json

import numpy as np
import pytest
from PIL import Image

from tests.data.layouts import examples
from unpool.data import check_data, open_data, read_sample
from unpool.errors import DataError


def test_images_of_any_name_need_the_export_beside_the_masks(tmp_path):
    examples.brushes(tmp_path)
    for i in range(7):
        (tmp_path / f"images/task-{i}.jpg").rename(tmp_path / f"images/photo {i}.jpg")
    with pytest.raises(DataError, match=r"masks of task 0, whose image is unknown; put the JSON"):
        open_data(tmp_path, "all")
    tasks = [{"id": i, "data": {"image": f"/x/photo {i}.jpg"}, "annotations": []} for i in range(7)]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    for i, sample in enumerate(open_data(tmp_path, "all").samples):
        np.testing.assert_array_equal(read_sample(sample, 3)[1], examples.labels_of(i))


def test_the_first_of_several_annotations(tmp_path):
    examples.brushes(tmp_path)
    mask = np.full((examples.HEIGHT, examples.WIDTH), 255, np.uint8)
    Image.fromarray(mask).save(tmp_path / "masks/task-2-annotation-11-by-2-tag-cat-0.png")
    (finding,) = check_data(tmp_path).findings
    assert finding.kind == "several-annotations"
    data = open_data(tmp_path, "all")
    np.testing.assert_array_equal(read_sample(data.samples[2], 3)[1], examples.labels_of(2))


def test_faint_strokes_and_labels_with_dashes(tmp_path):
    mask = np.zeros((6, 8), np.uint8)
    mask[2, 3] = 1
    Image.fromarray(mask).save(tmp_path / "task-12-annotation-3-by-a@b.c-tag-my-cat-0.png")
    Image.new("RGB", (8, 6)).save(tmp_path / "12.jpg")
    data = open_data(tmp_path, "all")
    assert data.classes == ["background", "my-cat"]
    np.testing.assert_array_equal(read_sample(data.samples[0], 2)[1], mask)


def test_masks_that_cannot_be_used(tmp_path):
    examples.brushes(tmp_path)
    (tmp_path / "masks/task-2-annotation-3-by-1-tag-cat-0.png").write_bytes(b"nothing")
    Image.new("L", (3, 3)).save(tmp_path / "masks/task-4-annotation-3-by-1-tag-dog-0.png")
    findings = [f for f in check_data(tmp_path).findings if f.kind == "annotation"]
    assert len(findings) == 2
    assert all(finding.level == "error" for finding in findings)
