"""Frequencies of classes, and the published weights that follow from them."""

import numpy as np
import pytest

from unpool.data import DataSet, Sample, open_data
from unpool.data.datasets import read_sample
from unpool.data.frequencies import Frequencies, class_balance, count_classes, median_frequency
from unpool.errors import OptionError
from unpool.vision.images import write_image, write_mask

# CamVid's training part: 367 images of 360 x 480, void last
PIXELS = [10682767, 14750079, 623349, 20076880, 2845085, 6166762, 743859, 714595, 3719877]
PIXELS += [405385, 184967, 2503995]
IMAGES = [366, 365, 366, 367, 349, 319, 351, 173, 360, 317, 201, 367]
CAMVID = Frequencies(np.array(IMAGES), np.array(PIXELS), 360 * 480 * np.array(IMAGES))


WITHOUT_VOID = [0.2793, 0.2017, 4.7865, 0.1490, 1, 0.4217, 3.8467, 1.9736, 0.7889, 6.3747, 8.8587]
WITH_VOID = [0.2565, 0.1853, 4.3963, 0.1369, 0.9185, 0.3873, 3.5331, 1.8127, 0.7246, 5.855, 8.1365]


@pytest.mark.parametrize(("classes", "expected"), [(11, WITHOUT_VOID), (12, WITH_VOID)])
def test_weights_of_camvid(classes, expected):
    found = median_frequency(Frequencies(*(counts[:classes] for counts in CAMVID)))
    np.testing.assert_allclose(found[:11], expected, atol=5e-5)


def test_counts_are_those_of_the_masks(data):
    opened = open_data(data, "train")
    found = count_classes(opened)
    masks = [read_sample(sample, len(opened.classes))[1] for sample in opened.samples]
    for k in range(len(opened.classes)):
        own = [mask for mask in masks if (mask == k).any()]
        assert found.images[k] == len(own)
        assert found.pixels[k] == sum((mask == k).sum() for mask in own)
        assert found.area[k] == sum(mask.size for mask in own)


def test_powers_lie_between_none_and_all():
    full = median_frequency(CAMVID)
    np.testing.assert_allclose(median_frequency(CAMVID, 0), 1)
    np.testing.assert_allclose(median_frequency(CAMVID, 0.5) ** 2, full)


def test_classes_without_pixels_have_no_weight():
    counts = Frequencies(*np.array([[2, 0, 1], [60, 0, 20], [100, 0, 50]]))
    assert median_frequency(counts).tolist() == pytest.approx([5 / 6, 0, 1.25])
    with pytest.raises(OptionError, match="without a labeled pixel"):
        median_frequency(Frequencies(*np.zeros((3, 2), int)))


def test_an_image_with_a_rare_class_weighs_more(tmp_path):
    samples = []
    for i, ids in enumerate([(0, 0), (0, 1), (0, 255), (0, 1)]):
        samples.append(Sample(str(i), tmp_path / f"images/{i}.png", tmp_path / f"masks/{i}.png"))
        write_image(samples[-1].image, np.zeros((9, 12, 3), np.uint8))
        write_mask(samples[-1].mask, np.resize(ids, (9, 12)))
    data = DataSet(tmp_path, "train", samples, ["ground", "cat"])
    np.testing.assert_allclose(class_balance(data, 0.75), [1, 1.5**0.5, 1, 1.5**0.5])
    np.testing.assert_array_equal(class_balance(data, 0), np.ones(4))
