"""Images, and files that were written."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ["background", "cat", "dog"]


def photo(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def save(path: str, image: Image.Image | None = None, **options: object) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    (image or photo()).save(path, **options)
    return Path(path)


def hashes(folder: str) -> dict[str, str]:
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def results(folder: str) -> set[str]:
    """All files, the hidden ones too, but the ledger and the manifest."""
    files = {p.relative_to(folder) for p in Path(folder).rglob("*") if not p.is_dir()}
    notes = (".unpool/ledger", ".unpool/manifest")
    return {str(p) for p in files if not any(map(p.is_relative_to, notes))}
