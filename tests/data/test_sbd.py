from pathlib import Path

import numpy as np
import pytest

from unpool.data import check_data, objects, open_data, read_instances, read_sample
from unpool.errors import DataError
from unpool.vision.images import write_image

io = pytest.importorskip("scipy.io")

LABELS = np.kron([[0, 15], [15, 3]], np.ones((10, 15), int)).astype(np.uint8)  # 20 x 30
INSTANCES = np.kron([[0, 1], [2, 3]], np.ones((10, 15), int)).astype(np.uint8)


def photo(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.fixture(params=["", "dataset"])
def root(tmp_path, request) -> Path:
    """Five images as the data set has them: cell arrays and all."""
    base = tmp_path / request.param
    for folder in ("img", "cls", "inst"):
        (base / folder).mkdir(parents=True)
    cells = np.empty((3, 1), object)
    cells[:, 0] = [np.zeros((20, 30))] * 3
    for i in range(5):
        write_image(base / f"img/{i}.jpg", photo(i))
        found = {"Boundaries": cells, "Segmentation": LABELS, "CategoriesPresent": [[3], [15]]}
        io.savemat(base / f"cls/{i}.mat", {"GTcls": found})
        found = {"Boundaries": cells, "Segmentation": INSTANCES, "Categories": [[15], [15], [3]]}
        io.savemat(base / f"inst/{i}.mat", {"GTinst": found}, do_compression=True)
    (base / "train.txt").write_text("3\n1\n")
    (base / "val.txt").write_text("0\n2\n4\n")
    return tmp_path


def test_labels_and_objects(root):
    data = open_data(root, "train")
    assert [sample.name for sample in data.samples] == ["3", "1"]
    assert data.classes[15] == "person"
    image, labels = read_sample(data.samples[0], 21)
    assert image.shape == (20, 30, 3)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, LABELS)
    np.testing.assert_array_equal(read_instances(data.samples[0], 21), INSTANCES)
    assert objects(data.samples[0], 21) == [
        (15, (15, 0, 30, 10), 1, 150),
        (15, (0, 10, 15, 20), 2, 150),
        (3, (15, 10, 30, 20), 3, 150),
    ]


def test_a_check(root):
    report = check_data(root)
    assert {finding.kind for finding in report.findings} == {"rare-class", "empty-class"}
    assert report.classes[15].objects == {"train": 4, "val": 6}


def test_unknown_ids(root):
    with pytest.raises(DataError, match=r"\.mat has the ids 15; wanted 0 to 9"):
        read_sample(open_data(root, "train").samples[0], 10)


@pytest.mark.parametrize("part", ["cls", "inst"])
def test_broken_files(root, part):
    path = next(root.rglob(f"{part}/0.mat"))
    path.write_bytes(path.read_bytes()[:200])
    (finding,) = (f for f in check_data(root).findings if f.level == "error")
    assert finding[1:3] == ("unreadable", f"{part}/0.mat")
    assert finding.message.startswith("cannot be read (")
