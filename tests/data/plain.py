"""What the tests of `unpool check` share: images, labels, and the only finding of a check."""

from pathlib import Path

import numpy as np

from unpool.data import check_data, open_data

LABELS = np.kron([[0, 1], [2, 0]], np.ones((10, 15), int)).astype(np.uint8)  # 20 x 30


def photo(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((4, 5, 1), np.uint8))


def only(root: Path, kind: str, **options: object) -> tuple[str, str, str]:
    """Level, place and message of the one finding, which is of this kind."""
    findings = check_data(root, **options).findings
    assert [finding.kind for finding in findings] == [kind]
    return findings[0].level, findings[0].where, findings[0].message


def ids(root: Path, split: str) -> list[str]:
    """The ids of the images of a split."""
    return [sample.name for sample in open_data(root, split).samples]
