"""A folder of small images with edges, and a trained coder."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from unpool import train
from unpool.recipes.coder import CODER, CoderLayer

TINY = dataclasses.replace(
    CODER,
    name="tiny",
    layers=(CoderLayer(4, 2, settling=1), CoderLayer(4, 2, settling=0)),
    kernel=5,
    iterations=6,
    crop=24,
    crops=3,
    long_side=60,
    held_out=2,
    batch=4,
    learning_iterations=4,
    gradients=2,
    validate_every=2,
    save_every=1,
)


@pytest.fixture(scope="session")
def tiny():
    """A recipe of seconds."""
    return TINY


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Nine images of rectangles, the first larger than the recipe's long side."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(9):
        image = rng.integers(100, 120, (45, 80 if i == 0 else 50, 3), dtype=np.uint8)
        for _ in range(6):
            y, x = rng.integers(0, 40, 2)
            image[y : y + 12, x : x + 9] = rng.integers(0, 256, 3)
        (root / "more").mkdir(exist_ok=True)
        Image.fromarray(image).save(root / ("more" if i % 2 else "") / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def trained(tmp_path_factory, photos, tiny):
    """A run folder, its summary and what it reported."""
    folder, events = tmp_path_factory.mktemp("coder") / "run", []
    summary = train(photos, folder, tiny, device="cpu", report=events.append)
    return folder, summary, events
