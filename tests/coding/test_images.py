"""Training images of a coder: sizes, crops that depend on their number alone."""

import numpy as np
import pytest
import torch
from PIL import Image

from unpool.coding.images import center_crops, draw_crops, prepare, read, reduced
from unpool.data.unlabeled import find_training_images


def test_larger_images_are_reduced_by_averaging():
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    small = reduced(image, 6)
    assert small.shape == (4, 6, 3)
    blocks = image.reshape(4, 2, 6, 2, 3).mean((1, 3))
    assert np.abs(small - blocks).max() <= 1
    assert reduced(image, 12) is image


def test_input_is_gray_and_has_unit_variance():
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    y = prepare(image)
    assert y.shape == (1, 1, 30, 40)
    assert float(y.square().mean()) == pytest.approx(1, abs=1e-5)
    gray = np.array(Image.fromarray(image).convert("L").convert("RGB"))
    torch.testing.assert_close(prepare(gray), y)


def test_crops_depend_on_their_number_alone(photos):
    images = find_training_images(photos, 24, 60)
    assert len(images) == 9
    stream = draw_crops(images, 5, 24, each=2, long_side=60)
    first = [next(stream) for _ in range(4)]
    assert all(batch.shape == (5, 1, 24, 24) for batch in first)
    later = draw_crops(images, 5, 24, each=2, long_side=60, start=3)
    assert torch.equal(next(later), first[3])
    assert not torch.equal(first[0], first[1])
    other = draw_crops(images, 5, 24, each=2, long_side=60, seed=1)
    assert not torch.equal(next(other), first[0])


def test_crops_are_cut_from_the_images(photos):
    images = find_training_images(photos, 24, 60)
    squares = (read(path, 60).unfold(2, 24, 1).unfold(3, 24, 1) for path in images)
    whole = torch.cat([square.flatten(0, 3) for square in squares])
    for crop in next(draw_crops(images, 3, 24, each=1, long_side=60))[:, 0]:
        assert (whole == crop).all(1).all(1).any()
    middle = center_crops(images[:2], 24, 60)
    assert middle.shape == (2, 1, 24, 24)
    expected = read(images[1], 60)
    y, x = ((side - 24) // 2 for side in expected.shape[2:])
    assert torch.equal(middle[1:], expected[..., y : y + 24, x : x + 24])
