"""Label maps that are hard to write: noise, holes, islands, diagonals, borders, single pixels."""

import numpy as np

CLASSES = ["background", "cat", "dog", "owl"]


def noise(seed, size=(23, 31)):
    random = np.random.default_rng(seed)
    weights = random.dirichlet(np.ones(len(CLASSES)))
    labels = random.choice(len(CLASSES), size, p=weights).astype(np.uint8)
    labels[random.random(size) < 0.05] = 255
    return labels


def rings():
    """A ring in a ring, an island in its hole, and single pixels in the corners."""
    y, x = np.mgrid[:60, :80]
    distance = np.hypot(x - 40, y - 30)
    labels = np.zeros((60, 80), np.uint8)
    labels[distance < 28] = 1
    labels[distance < 20] = 2
    labels[distance < 12] = 0
    labels[distance < 5] = 1
    labels[0, 0] = labels[-1, -1] = labels[0, -1] = 3
    labels[40:, :3] = 255
    return labels


SCENES = {
    **{f"noise {seed}": noise(seed) for seed in range(6)},
    "rings": rings(),
    "diagonal": np.eye(9, dtype=np.uint8) * 2,
    "checkered": (np.indices((8, 11)).sum(0) % 2).astype(np.uint8),
    "two classes": (np.indices((8, 11)).sum(0) % 2 + 1).astype(np.uint8),
    "nothing": np.zeros((4, 5), np.uint8),
    "void": np.full((4, 5), 255, np.uint8),
    "full": np.full((4, 5), 3, np.uint8),
    "one pixel": np.ones((1, 1), np.uint8),
    "a column": np.array([[1], [0], [1], [2]], np.uint8),
}


def known(labels):
    """What a format keeps: void becomes background."""
    return np.where(labels == 255, 0, labels)
