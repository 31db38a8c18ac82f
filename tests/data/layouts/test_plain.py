import numpy as np

from tests.data.plain import LABELS, ids, photo
from unpool.data import objects, open_data, read_instances, read_sample
from unpool.vision.images import write_image, write_mask


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
