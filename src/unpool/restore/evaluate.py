"""Compare a restored image with the sharp one: PSNR and SSIM, before and after."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.image import structural_similarity_index_measure

from unpool.errors import ShapeError

_REACH = 5  # pixels of the window of SSIM beyond its center


def psnr(found: NDArray[Any], truth: NDArray[Any], largest: float = 1.0) -> float:
    """The peak signal-to-noise ratio in decibels, of values clipped to 0..`largest`.

    Args:
        found, truth: images of the same shape; for color images, over all channels.
        largest: the largest possible value.

    >>> round(psnr(np.zeros((8, 8)), np.full((8, 8), 0.1)), 6)
    20.0
    """
    require_same(found.shape, truth.shape)
    gap = np.clip(found.astype(np.float64), 0, largest) - truth.astype(np.float64)
    error = float(np.mean(gap**2))
    return float("inf") if error == 0 else 10 * float(np.log10(largest**2 / error))


def ssim(found: NDArray[Any], truth: NDArray[Any], largest: float = 1.0) -> float:
    """The structural similarity (Wang et al. 2004), the mean over pixels and channels.

    The window is a Gaussian of standard deviation 1.5 and 11 pixels; the border, where it does not
    fit, is left out. This equals scikit-image with
    `gaussian_weights=True, sigma=1.5, use_sample_covariance=False`.

    Args:
        found, truth: (H, W) or (H, W, C), of the same shape, with sides of 11 pixels or more.
        largest: the largest possible value.

    >>> round(ssim(np.eye(16), np.eye(16)), 6)
    1.0
    """
    require_same(found.shape, truth.shape)
    if min(found.shape[:2]) <= 2 * _REACH or found.ndim not in (2, 3):
        raise ShapeError(f"got images of {found.shape}; wanted 11 pixels or more a side")
    pair = []
    for image in (np.clip(found, 0, largest), truth):
        planes = image.astype(np.float64).reshape(*image.shape[:2], -1) / largest
        pair.append(torch.from_numpy(planes).permute(2, 0, 1)[None])
    _, each = structural_similarity_index_measure(
        pair[0], pair[1], gaussian_kernel=True, sigma=1.5, data_range=1.0, return_full_image=True
    )
    inside = each[..., _REACH:-_REACH, _REACH:-_REACH]
    return float(inside.mean())


def compare(
    truth: NDArray[Any],
    before: NDArray[Any],
    after: NDArray[Any],
    largest: float = 1.0,
    volume: bool = False,
) -> dict[str, float]:
    """PSNR and SSIM of a blurred and of a restored image.

    Args:
        truth, before, after: (H, W) or (H, W, C), or volumes (D, H, W).
        largest: the largest possible value.
        volume: whether the images are volumes, whose SSIM is the mean over the slices.

    Returns:
        `psnr`, `psnr_before`, and if both sides have 11 pixels or more `ssim`, `ssim_before`.
    """
    found = {}
    for name, image in (("", after), ("_before", before)):
        found[f"psnr{name}"] = psnr(image, truth, largest)
        pairs = zip(image, truth, strict=True) if volume else [(image, truth)]
        if min(truth.shape[1:] if volume else truth.shape[:2]) > 2 * _REACH:
            found[f"ssim{name}"] = float(np.mean([ssim(a, b, largest) for a, b in pairs]))
    return found


def require_same(found: Sequence[int], truth: Sequence[int]) -> None:
    """Raise a `ShapeError` if an image and the sharp one differ in shape."""
    if tuple(found) == tuple(truth):
        return
    cure = "the sharp image of the same scene, uncropped"
    if tuple(found[:2]) == tuple(truth[:2]):
        cure = "both in gray or both in color"
    got = f"got an image of {tuple(found)} for a truth of {tuple(truth)}"
    raise ShapeError(f"{got}; wanted one size: give {cure}")
