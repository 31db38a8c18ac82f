"""Class scores on disk: what a network gives before one class is chosen for each pixel.

They are saved to be refined later: a `.npz` with `scores` (K, H, W) at half precision, `classes`
(the names), `palette` and `presence_threshold`. A `.npy` with the scores alone can be read, too.
"""

import math
import zipfile
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpool.errors import DataError, ShapeError, UnpoolError
from unpool.files import atomic, require_regular, require_zip_directory
from unpool.limits import MAX_SCORES, MAX_TEXT
from unpool.vision.arrays import Header, read_header, read_values
from unpool.vision.boxes import reduced_size

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
    >>> write_scores(path, Scores(np.zeros((2, 3, 4), np.float32), ["background", "cat"]))
    >>> found = read_scores(path)
    >>> found.values.shape, found.classes
    ((2, 3, 4), ['background', 'cat'])
    """
    # beyond the range of half precision, softmax gives 0 or 1 in any case
    values = np.clip(scores.values, -_LARGEST, _LARGEST).astype(np.float16)
    arrays: dict[str, Any] = {"scores": values, "classes": np.array(scores.classes)}
    arrays["presence_threshold"] = np.float64(scores.presence_threshold)
    if scores.palette is not None:
        arrays["palette"] = scores.palette
    with atomic(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def read_scores(
    path: str | Path, *, probabilities: bool = False, size: tuple[int, int] | None = None
) -> Scores:
    """Read scores of one image.

    Args:
        path: a `.npz` with `scores` (K, H, W), and optionally `classes`, `palette` and
            `presence_threshold`, as of `write_scores`; or a `.npy` with the scores alone.
        probabilities: the values are probabilities, rather than raw scores.
        size: height and width of the image, which bound those of the scores before they are read.
            Without it at most `MAX_SCORES` values are read.

    Returns:
        Raw scores; for probabilities their logarithms.

    Raises:
        DataError: a file that cannot be read, is too large, or holds the other kind of values.
        ShapeError: an array of another shape or type.
    """
    arrays = _load(require_regular(path, DataError), size)
    values = arrays["scores"]
    if not np.isfinite(values.max(0)).all():  # -inf excludes a class
        raise DataError(
            f"got scores in {path} with NaN, or with pixels of no finite score; save them again"
        )
    if probabilities or "presence_threshold" not in arrays:  # `write_scores` saves raw ones
        with np.errstate(over="ignore"):
            _require_kind(values, probabilities, path)
    if probabilities:
        values = np.log(np.maximum(values, np.finfo(np.float32).tiny))
    return Scores(values, *_facts(arrays, len(values), path))


def require_size(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    """Raise a `ShapeError` unless scores of a shape are those of an image of `size` (H, W).

    Those of a large image may have its `reduced_size`, see `unpool.vision.boxes`.
    """
    sizes = size, reduced_size(size)
    if len(shape) == 3 and shape[1:] in sizes:
        return
    cure = "pass the image that they were made from, upright and at its full size"
    if len(shape) == 3 and shape[:2] in sizes:
        cure = "put the classes first, np.moveaxis(scores, -1, 0)"
    raise ShapeError(
        f"got scores of {shape} for an image of {size} (H, W); wanted (K, H, W): {cure}"
    )


# ---- files ---------------------------------------------------------------------------------------


def _load(path: Path, size: tuple[int, int] | None) -> dict[str, NDArray[Any]]:
    """The arrays of a file, sizes checked before they are read; nothing in it is unpickled."""
    wanted = "wanted a .npz with an array `scores`, or a .npy: save a result with scores=True"
    try:
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                file.seek(0)
                return {"scores": _read(file, "scores", path, size)}
            require_zip_directory(path, DataError)
            with zipfile.ZipFile(file) as archive:
                names = [name.removesuffix(".npy") for name in archive.namelist()]
                if "scores" not in names:
                    found = ", ".join(names)[:80] or "none"
                    raise DataError(f"got {path}, which has no array `scores` ({found}); {wanted}")
                arrays = {}
                for name in [name for name in _ARRAYS if name in names]:
                    with archive.open(f"{name}.npy") as part:
                        arrays[name] = _read(part, name, path, size)
                return arrays
    except UnpoolError:
        raise
    except OSError as error:
        raise DataError(f"cannot read scores from {path} ({error}); {wanted}") from None
    except Exception:  # the readers of zip archives and arrays raise many kinds
        raise DataError(f"{path} is no .npz or .npy of numbers, or damaged; {wanted}") from None


def _read(file: IO[bytes], name: str, path: Path, size: tuple[int, int] | None) -> NDArray[Any]:
    """An array, numbers of the scores as float32; infinite ones are refused later."""
    header = read_header(file)
    if name == "scores":
        _require_scores(header, path, size)
        return read_values(file, header, np.dtype(np.float32))
    if math.prod(header.shape) * header.dtype.itemsize > MAX_TEXT:
        got = f"got {path} with {name} of {header.shape} {header.dtype}"
        raise DataError(f"{got}; wanted fewer: save them again")
    return read_values(file, header, header.dtype)


def _require_scores(header: Header, path: Path, size: tuple[int, int] | None) -> None:
    shape, _, dtype = header
    count = math.prod(shape)
    if len(shape) == 4 and shape[0] == 1:
        cure = "save scores[0], those of one image"
    elif len(shape) == 3 and shape[2] < min(shape[:2]):
        cure = "put the classes first, np.moveaxis(scores, -1, 0)"
    else:
        cure = "save one image's, the classes first"
    if len(shape) != 3 or min(shape) < 1 or shape[0] > 256 or dtype.kind not in "fiu":
        raise ShapeError(
            f"got scores of {shape} {dtype} in {path}; wanted (K, H, W), numbers, of 2 to 256 "
            f"classes: {cure}"
        )
    if size is not None:
        require_size(shape, size)
    elif count > MAX_SCORES:
        raise DataError(
            f"got scores of {shape} in {path}, more than {MAX_SCORES} values; pass size=(H, W), "
            "that of their image"
        )
    if shape[0] == 1:
        raise ShapeError(
            f"got scores of one class, {shape}, in {path}; wanted 2 to 256 classes: of a single "
            "probability map p save np.stack([1 - p, p])"
        )


def _require_kind(values: NDArray[np.float32], probabilities: bool, path: str | Path) -> None:
    """Refuse one for the other, and values that are neither, which would go unnoticed."""
    total, lowest = values.sum(0), float(values.min())
    least, most = float(total.min()), float(total.max())
    what = f"got values from {lowest:.3g} to {values.max():.3g} in {path}"
    sums = f"whose sums over the classes are {least:.3g} to {most:.3g}"
    if (values.max(0) == values.min(0)).all():
        raise DataError(
            f"got scores in {path} that are the same for all classes at every pixel; wanted those "
            "of a trained network: save them again"
        )
    alike = lowest >= 0 and max(1 - least, most - 1) < 0.02  # half precision of many classes
    if alike and not probabilities:
        raise DataError(
            f"got values in {path} that are 0 or more and sum up to 1, as probabilities do; pass "
            "probabilities=True, or save raw scores"
        )
    if alike or (lowest < 0 and not probabilities):
        return
    last = values.sum(2)
    if lowest >= 0 and np.abs(last - 1).max() < 0.02:
        raise DataError(
            f"{what} that sum up to 1 over the last axis; wanted the classes first: save "
            "np.moveaxis(scores, -1, 0)"
        )
    rounding = len(values) * float((values == np.rint(values)).all())
    if lowest >= 0 and most - least <= 0.05 * most + rounding:
        raise DataError(
            f"{what}, {sums}, as scaled probabilities have; wanted a sum of 1: save them divided "
            "by their sums and pass probabilities=True"
        )
    if lowest >= 0 and values.max() <= 1:
        raise DataError(
            f"{what}, {sums}; probabilities of separate classes, as of a sigmoid, sum up to "
            "anything: save them divided by their sums and pass probabilities=True, or save the "
            "raw scores before the sigmoid"
        )
    if probabilities:
        raise DataError(
            f"{what}, {sums}; probabilities are 0 or more and sum up to 1: pass "
            "probabilities=False for raw scores"
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
