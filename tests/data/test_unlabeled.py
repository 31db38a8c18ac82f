"""Finding images to train on; those that cannot be used are named."""

import numpy as np
import pytest
from PIL import Image

from unpool.data.unlabeled import find_training_images, hold_out, reduced_size
from unpool.errors import DataError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "more").mkdir()
    for name, side in (("b.png", 30), ("more/a.jpg", 40)):
        Image.fromarray(np.zeros((side, 50, 3), np.uint8)).save(tmp_path / name)
    return tmp_path


def test_images_are_found_in_subfolders(folder):
    assert [p.name for p in find_training_images(folder, 30)] == ["b.png", "a.jpg"]


def test_too_small_after_reduction(folder):
    with pytest.raises(DataError, match=r"b\.png of 50 x 30 pixels; crops need 31"):
        find_training_images(folder, 31)
    with pytest.raises(DataError, match="crops need 30"):
        find_training_images(folder, 30, long_side=40)


def test_no_folder_and_no_images(tmp_path):
    with pytest.raises(DataError, match="which is not a folder"):
        find_training_images(tmp_path / "none", 8)
    with pytest.raises(DataError, match="holds no images"):
        find_training_images(tmp_path, 8)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.png"):
        find_training_images(tmp_path, 8)


def test_held_out_images_are_spread_and_few(tmp_path):
    images = [tmp_path / str(i) for i in range(12)]
    train, held = hold_out(images, 3)
    assert held == [images[0], images[4], images[8]]
    assert sorted(train + held) == sorted(images)
    assert len(hold_out(images, 100)[1]) == 3
    assert hold_out(images[:3], 8) == (images[:3], [])


def test_sizes_are_never_enlarged():
    assert reduced_size((100, 300), 400) == (100, 300)
    assert reduced_size((1, 300), 30) == (1, 30)
