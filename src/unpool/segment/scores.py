"""Class scores on disk: what a network gives before one class is chosen for each pixel.

They are saved to be refined later: a `.npz` with `scores` (K, H, W) at half precision, `classes`
(the names), `palette` and `presence_threshold`. A `.npy` with the scores alone can be read, too.
"""

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpool.errors import DataError, ShapeError
from unpool.files import atomic

_LARGEST = 65504.0  # of half precision
_ARRAYS = ("scores", "classes", "palette", "presence_threshold")


class Scores(NamedTuple):
    """Scores of one image, and what their classes are called."""

    values: NDArray[np.float32]  #: raw scores (K, H, W); their softmax gives probabilities
    classes: list[str]  #: names by class id
    palette: NDArray[np.uint8] | None = None  #: (256, 3) RGB by class id
    presence_threshold: float = 0.0  #: by which their network leaves classes out, see `postprocess`


def write_scores(path: str | Path, scores: Scores) -> None:
    """Write scores as a compressed `.npz`, atomically.

    Half precision keeps three digits, so that of two classes that are nearly as likely, the other
    one may win afterwards.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "cat.scores.npz")
    >>> write_scores(path, Scores(np.ones((2, 3, 4), np.float32), ["background", "cat"]))
    >>> found = read_scores(path)
    >>> found.values.shape, found.classes
    ((2, 3, 4), ['background', 'cat'])
    """
    values = np.clip(scores.values, -_LARGEST, _LARGEST).astype(np.float16)
    arrays: dict[str, Any] = {"scores": values, "classes": np.array(scores.classes)}
    arrays["presence_threshold"] = np.float64(scores.presence_threshold)
    if scores.palette is not None:
        arrays["palette"] = scores.palette
    with atomic(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def read_scores(path: str | Path, *, probabilities: bool = False) -> Scores:
    """Read scores of one image.

    Args:
        path: a `.npz` with `scores` (K, H, W), and optionally `classes`, `palette` and
            `presence_threshold`, as of `write_scores`; or a `.npy` with the scores alone.
        probabilities: the values are probabilities, rather than raw scores.

    Returns:
        Raw scores; for probabilities their logarithms.

    Raises:
        DataError: a file that cannot be read, or one that holds the other kind of values.
        ShapeError: an array of another shape or type.
    """
    arrays = _load(Path(path))
    values = arrays["scores"]
    if values.ndim != 3 or not values.size or len(values) > 256 or values.dtype.kind not in "fiu":
        raise ShapeError(
            f"got scores of {values.shape} {values.dtype} in {path}; wanted (K, H, W), numbers, "
            "of 1 to 256 classes: save one image's, the classes first"
        )
    values = values.astype(np.float32)
    if not np.isfinite(values.max(0)).all():
        raise DataError(
            f"got scores in {path} with NaN, or with pixels of no finite score; save them again"
        )
    _require_kind(values, probabilities, path)
    if probabilities:
        values = np.log(np.maximum(values, np.finfo(np.float32).tiny))
    return Scores(values, *_facts(arrays, len(values), path))


def _load(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file; nothing in it is unpickled."""
    wanted = "wanted a .npz with an array `scores`, or a .npy: save a result with scores=True"
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"scores": loaded}
            arrays = {k: loaded[k] for k in _ARRAYS if k in loaded}
    except OSError as error:
        raise DataError(f"cannot read scores from {path} ({error.strerror}); {wanted}") from None
    except (ValueError, EOFError, zipfile.BadZipFile):  # whose advice would be to unpickle it
        raise DataError(f"{path} is no .npz or .npy of numbers, or damaged; {wanted}") from None
    if "scores" not in arrays:
        raise DataError(f"got {path}, which has no array `scores`; {wanted}")
    return arrays


def _require_kind(values: NDArray[np.float32], probabilities: bool, path: str | Path) -> None:
    """Refuse one for the other, which would go unnoticed."""
    total = values.sum(0)
    off = float(np.abs(total - 1).max())
    alike = values.min() >= 0 and off < 0.02  # half precision of many classes
    if probabilities and not alike:
        raise DataError(
            f"got values from {values.min():.3g} to {values.max():.3g} in {path}, whose sums over "
            f"the classes are {total.min():.3g} to {total.max():.3g}; probabilities are 0 or more "
            "and sum up to 1: pass probabilities=False for raw scores"
        )
    if alike and not probabilities and len(values) > 1:
        raise DataError(
            f"got values in {path} that are 0 or more and sum up to 1, as probabilities do; pass "
            "probabilities=True, or save raw scores"
        )


def _facts(
    arrays: dict[str, NDArray[Any]], count: int, path: str | Path
) -> tuple[list[str], NDArray[np.uint8] | None, float]:
    """The names of classes, the palette and the presence threshold, or their defaults."""
    names = arrays.get("classes", np.array([f"class {i}" for i in range(count)]))
    palette = arrays.get("palette")
    threshold = arrays.get("presence_threshold", np.float64(0))
    wrong: tuple[str, Any, str] | None = None
    if names.shape != (count,) or names.dtype.kind != "U":
        wrong = "classes", names, f"{count} names, one for each of the scores"
    elif palette is not None and (palette.shape != (256, 3) or palette.dtype != np.uint8):
        wrong = "a palette", palette, "(256, 3) uint8, or none"
    elif threshold.shape != () or threshold.dtype.kind not in "fiu" or not 0 <= threshold <= 1:
        wrong = "a presence threshold", threshold, "a single probability, 0 to 1, or none"
    if wrong is not None:
        what, found, wanted = wrong
        raise ShapeError(f"got {what} of {found.shape} {found.dtype} in {path}; wanted {wanted}")
    return [str(name) for name in names], palette, float(threshold)
