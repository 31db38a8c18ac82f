import numpy as np
import pytest

from unpool.data import VOID, open_data, read_sample
from unpool.data.copy_paste import find_paster
from unpool.vision.images import write_image, write_mask


@pytest.fixture
def flat(tmp_path):
    """Images of one color, each with a block of another: class 1 in eight of them, 2 in one."""
    (tmp_path / "classes.txt").write_text("background\none\ntwo\n")
    for i in range(9):
        label = 2 if i == 8 else 1
        labels = np.zeros((60, 80), np.uint8)
        labels[20:50, 10:40] = label
        image = np.where(labels[..., None] > 0, 100 * label, 10).astype(np.uint8).repeat(3, 2)
        write_image(tmp_path / f"images/{i}.png", image)
        write_mask(tmp_path / f"masks/{i}.png", labels)
    return open_data(tmp_path, "all")


def test_pasted_objects_bring_their_labels_and_nothing_else(flat):
    paster = find_paster(flat, most=3)
    ground = np.full((64, 64, 3), 10, np.uint8), np.zeros((64, 64), np.uint8)
    changed = 0
    for seed in range(30):
        image, labels = paster.paste(*ground, np.random.default_rng(seed))
        np.testing.assert_array_equal(image[..., 0] > 55, labels > 0)
        assert set(np.unique(labels)) <= {0, 1, 2}
        assert (image[labels == 2] >= 190).all()  # edges are softened by the resize alone
        changed += bool(labels.any())
    assert not ground[1].any()  # what came stays as it is
    assert 10 < changed < 30


def test_void_is_pasted_over(flat):
    paster = find_paster(flat, most=3)
    ground = np.zeros((64, 64, 3), np.uint8), np.full((64, 64), VOID, np.uint8)
    for seed in range(10):
        image, labels = paster.paste(*ground, np.random.default_rng(seed))
        assert not image[labels == VOID].any()


def test_rare_classes_come_more_often(flat):
    shares = []
    for power in (0.0, 1.0):
        paster = find_paster(flat, most=1, power=power)
        rare = [found.label == 2 for _, found in paster.pool]
        shares.append(paster.chances[rare].sum())
    assert shares == pytest.approx([1 / 9, 1 / 2])


def test_chance_is_the_generators_alone(flat):
    paster = find_paster(flat, most=2)
    view = read_sample(flat.samples[0], 3)
    first, second = (paster.paste(*view, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])


def test_without_an_object_large_enough_there_is_nothing_to_paste(flat):
    for sample in flat.samples:
        write_mask(sample.mask, np.zeros((60, 80), np.uint8))
    assert find_paster(flat, 2) is None
