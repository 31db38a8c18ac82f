"""Read annotations of the Semantic Boundaries Dataset (SBD), MATLAB files.

Hariharan, Arbelaez, Bourdev, Maji, Malik, *Semantic contours from inverse detectors*, ICCV 2011.
"""

import importlib.util
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unpool.errors import DataError, ImageError


def require_scipy(root: Path) -> None:
    """Raise a `DataError` unless SciPy, which reads .mat files, is installed."""
    if importlib.util.find_spec("scipy") is None:
        raise DataError(
            f"got {root}, an SBD folder, whose .mat files need SciPy; pip install 'unpool[sbd]'"
        )


def read_mat(path: Path, name: Literal["GTcls", "GTinst"]) -> NDArray[np.integer]:
    """Read an annotation (H, W), 0 to 255.

    Args:
        path: a file `cls/ID.mat` or `inst/ID.mat`.
        name: "GTcls" for its class ids, "GTinst" for its object numbers; 0 is background.

    Raises:
        ImageError: the file cannot be read, or is something else.
    """
    from scipy.io import loadmat  # optional, and slow to import

    wanted = f"wanted an SBD annotation with {name}.Segmentation"
    if not path.is_file():
        raise ImageError(f"{path}: does not exist; {wanted}")
    try:
        found = np.asarray(loadmat(path, variable_names=[name])[name]["Segmentation"][0, 0])
    except Exception as error:  # SciPy raises many types for broken files
        raise ImageError(
            f"{path}: cannot be read ({type(error).__name__}: {error}), {wanted}; "
            "copy or download it again"
        ) from error
    integral = found.ndim == 2 and found.size and found.dtype.kind in "ui"
    if not integral or found.min() < 0 or found.max() > 255:
        raise ImageError(
            f"{path}: holds {found.dtype} of shape {found.shape} as {name}.Segmentation, wanted "
            "ids from 0 to 255 (H, W); copy or download it again"
        )
    return found
