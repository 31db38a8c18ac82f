import numpy as np
import pytest

from unpool.bench import images


def test_images_are_photos_or_made_up(monkeypatch):
    pytest.importorskip("skimage")
    assert list(images.photos((20, 30))) == ["astronaut", "chelsea", "coffee"]
    large = images.photos((600, 800))["coffee"]
    assert (large.shape, large.dtype) == ((600, 800, 3), np.uint8)
    monkeypatch.setattr(images, "find_spec", lambda name: None)
    found = images.photos((20, 30))
    assert len(found) == 3
    for image in found.values():
        assert (image.shape, image.dtype) == ((20, 30, 3), np.uint8)
        assert image.std() > 20
    np.testing.assert_array_equal(found["made up 1"], images.made_up((20, 30), 1))
