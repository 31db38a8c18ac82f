"""Read annotations of the Semantic Boundaries Dataset (SBD), MATLAB files.

Hariharan, Arbelaez, Bourdev, Maji, Malik, *Semantic contours from inverse detectors*, ICCV 2011.
"""

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unpool.errors import DataError, ImageError
from unpool.vision.images import Pixels


def read_classes(path: Path) -> Pixels:
    """Read the class ids (H, W) uint8 of a file `cls/ID.mat`.

    Raises:
        ImageError: the file cannot be read, or is something else.
    """
    return _segmentation(path, "GTcls").astype(np.uint8)


def read_objects(path: Path) -> NDArray[np.int32]:
    """Read the object numbers (H, W) int32 of a file `inst/ID.mat`; 0 is background.

    Raises:
        ImageError: the file cannot be read, or is something else.
    """
    return _segmentation(path, "GTinst").astype(np.int32)


def require_scipy(root: Path) -> None:
    """Raise unless .mat files can be read.

    Raises:
        DataError: SciPy is not installed.
    """
    if importlib.util.find_spec("scipy") is None:
        raise DataError(
            f"got {root}, an SBD folder, whose .mat files need SciPy; pip install 'unpool[sbd]'"
        )


def _segmentation(path: Path, name: str) -> NDArray[np.integer]:
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
