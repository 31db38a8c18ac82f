"""A folder of sharp images, and a network that learned a little from them."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from unpool import train
from unpool.recipes.restore import DEBLUR_GIVEN

TINY = dataclasses.replace(
    DEBLUR_GIVEN,
    name="tiny",
    steps=4,
    width=4,
    blocks=1,
    components=(1, 16),
    patch=24,
    margin=2,
    psf_side=9,
    batch=3,
    held_out=2,
    warmup=0,
    validate_every=2,
    save_every=1,
    bf16=False,
)


@pytest.fixture(scope="session")
def tiny():
    """A recipe of a second."""
    return TINY


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Eight images of rectangles in color."""
    root, rng = tmp_path_factory.mktemp("sharp"), np.random.default_rng(0)
    for i in range(8):
        image = rng.integers(100, 120, (70, 80, 3), dtype=np.uint8)
        for _ in range(12):
            y, x = rng.integers(0, 70, 2)
            image[y : y + 12, x : x + 9] = rng.integers(0, 256, 3)
        Image.fromarray(image).save(root / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def trained(tmp_path_factory, photos, tiny):
    """A run folder, its summary and what it reported."""
    folder, events = tmp_path_factory.mktemp("deblur") / "run", []
    summary = train(photos, folder, tiny, device="cpu", report=events.append)
    return folder, summary, events
