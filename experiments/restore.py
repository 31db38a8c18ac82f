"""The tables of docs/restore.md: each method on images that are blurred here, in PSNR and SSIM.

Protocol: gray images, a crop of 288 x 288 from the middle, blurred without borders ("valid") by a
PSF, Gaussian noise; the PSF is known, the noise is estimated, and the value of each method is the
one that `Restorer` chooses. 8 pixels of the border are not counted. Means over the images.

usage: python -m experiments.restore FOLDER [--kernels FILE.npz]
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from skimage import data

from unpool.ops.blur import blur
from unpool.restore import METHODS, Restorer, psnr, ssim
from unpool.vision.images import SUFFIXES, read_image
from unpool.vision.psf import PSF, find_psf, make_psf

SIDE, BORDER = 288, 8
OWN = ("camera", "coins", "moon", "page", "astronaut", "coffee", "chelsea", "rocket")
Image = NDArray[np.float64]
Cases = list[tuple[str, float, Callable[[int], PSF]]]


def gray(image: NDArray[np.uint8]) -> Image:
    """The middle of an image, 0 to 1."""
    values = image[..., :3] @ (0.299, 0.587, 0.114) if image.ndim == 3 else image
    spare = [(0, max(0, SIDE - n)) for n in values.shape]
    values = np.pad(values / 255, spare, "symmetric")
    top, left = ((n - SIDE) // 2 for n in values.shape)
    return values[top : top + SIDE, left : left + SIDE]


def case(sharp: Image, psf: PSF, sigma: float, seed: int) -> tuple[Image, Image]:
    """An image blurred, with noise, and the part of the sharp one that it shows."""
    kernel = torch.from_numpy(psf.kernel.astype(np.float64))
    y = blur(torch.from_numpy(sharp)[None, None], kernel, "valid")[0, 0].numpy()
    top, left = (n // 2 for n in kernel.shape)
    truth = sharp[top : top + y.shape[0], left : left + y.shape[1]]
    return y + np.random.default_rng(seed).normal(0, sigma, y.shape), truth


def measure(images: list[Image], psf: Callable[[int], PSF], sigma: float) -> dict[str, str]:
    """PSNR and SSIM of each method, as in the table."""
    figures: dict[str, list[tuple[float, float]]] = {}
    inside = (slice(BORDER, -BORDER),) * 2
    for i, sharp in enumerate(images):
        y, truth = case(sharp, psf(i), sigma, i)
        found = {"blurred": y}
        for name, method in METHODS.items():
            found[name] = Restorer(name)(np.maximum(y, 0) if method.counts else y, psf(i)).image
        for name, image in found.items():
            pair = image[inside], truth[inside]
            figures.setdefault(name, []).append((psnr(*pair), ssim(*pair)))
    means = {name: np.mean(pairs, 0) for name, pairs in figures.items()}
    return {name: f"{mean[0]:.2f} / {mean[1]:.3f}" for name, mean in means.items()}


def main() -> None:
    """Print a line of JSON for each row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="sharp images; 12 of them are taken")
    parser.add_argument("--kernels", type=Path, help="PSFs in a .npz file, for a second table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    files = sorted(f for f in options.folder.rglob("*") if f.suffix.lower() in SUFFIXES)
    files = files[:: max(1, len(files) // 12)][:12]
    images = [gray(getattr(data, name)()) for name in OWN] + [gray(read_image(f)) for f in files]
    cases: Cases = [
        ("shake", s, lambda i: find_psf(f"shake:{1000 + i}")) for s in (0.002, 0.01, 0.03)
    ]
    for name in ("gaussian:1.6", "disk:3.5", "motion:13,30"):
        cases.append((name, 0.01, lambda i, name=name: find_psf(name)))  # type: ignore[misc]
    if options.kernels:
        with np.load(options.kernels) as file:
            for name in file.files:
                kernel = make_psf(file[name], name)
                cases.append((name, 0.01, lambda i, kernel=kernel: kernel))  # type: ignore[misc]
    for name, sigma, psf in cases:
        row = {"psf": name, "noise": sigma, "images": len(images)}
        print(json.dumps({**row, **measure(images, psf, sigma)}), flush=True)


if __name__ == "__main__":
    main()
