"""The tables of docs/restore.md: each method on images that are blurred here, in PSNR and SSIM.

Protocol: gray images, a crop of 288 x 288 from the middle, blurred without borders ("valid") by a
PSF, Gaussian noise; the PSF is known, the noise is estimated, and the value of each method is the
one that `Restorer` chooses. 8 pixels of the border are not counted. Means over the images.

usage: python -m experiments.restore FOLDER [--kernels FOLDER] [--edges] [-o runs/restore]
writes restore.json, from which an interrupted run continues, and prints the tables
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from numpy.typing import NDArray
from skimage import data

from experiments.results_file import ResultsFile
from unpool.bench.harness import threads
from unpool.cards import list_pretrained
from unpool.ops.blur import blur
from unpool.ops.inversion import wiener
from unpool.restore import METHODS, Restorer, psnr, ssim
from unpool.vision.images import SUFFIXES, read_image
from unpool.vision.psf import PSF, find_psf, make_psf

SIDE, BORDER = 288, 8
OWN = ("camera", "coins", "moon", "page", "astronaut", "coffee", "chelsea", "rocket")
EDGES = ("none", "reflect", "ramp")
Image = NDArray[np.float64]


class Case(NamedTuple):
    """An image to blur: `row` is its row of the table."""

    row: str
    image: str
    sharp: Image
    psf: PSF
    sigma: float
    seed: int

    @property
    def label(self) -> str:
        """The name of its result."""
        return f"{self.row}: {self.image}"


def columns() -> list[str]:
    """The blurred image, and the methods; of networks, those whose weights ship."""
    ready = [n for n, m in METHODS.items() if m.run is not None or m.weights in list_pretrained()]
    return ["blurred", *ready]


def gray(image: NDArray[np.uint8]) -> Image:
    """The middle of an image, 0 to 1."""
    values = image[..., :3] @ (0.299, 0.587, 0.114) if image.ndim == 3 else image
    spare = [(0, max(0, SIDE - n)) for n in values.shape]
    values = np.pad(values / 255, spare, "symmetric")
    top, left = ((n - SIDE) // 2 for n in values.shape)
    return values[top : top + SIDE, left : left + SIDE]


def photos(folder: Path, count: int = 12) -> dict[str, Image]:
    """The images of scikit-image, and some of a folder."""
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES)
    files = files[:: max(1, len(files) // count)][:count]
    own = {name: gray(getattr(data, name)()) for name in OWN}
    return own | {file.stem: gray(read_image(file)) for file in files}


def cases(images: dict[str, Image]) -> Iterator[Case]:
    """The protocol: shakes with three noise levels, and a Gaussian, a disk and a motion."""
    for sigma in (0.002, 0.01, 0.03):
        for i, (name, sharp) in enumerate(images.items()):
            yield Case(f"shake, {sigma:g}", name, sharp, find_psf(f"shake:{1000 + i}"), sigma, i)
    for psf in ("gaussian:1.6", "disk:3.5", "motion:13,30"):
        for i, (name, sharp) in enumerate(images.items()):
            yield Case(f"{psf}, 0.01", name, sharp, find_psf(psf), 0.01, i)


def recorded(folder: Path) -> Iterator[Case]:
    """Each image of a folder blurred by each PSF of its file kernels.npz."""
    sharp = {f.stem: read_image(f)[..., 0] / 255 for f in sorted(folder.glob("*.png"))}
    with np.load(folder / "kernels.npz") as file:
        for name in file.files:
            psf = make_psf(file[name], name)
            for i, (image, values) in enumerate(sharp.items()):
                yield Case(name, image, values, psf, 0.01, i)


def blurred(case: Case) -> tuple[Image, Image]:
    """An image blurred, with noise, and the part of the sharp one that it shows."""
    kernel = torch.from_numpy(case.psf.kernel.astype(np.float64))
    y = blur(torch.from_numpy(case.sharp)[None, None], kernel, "valid")[0, 0].numpy()
    top, left = (n // 2 for n in kernel.shape)
    truth = case.sharp[top : top + y.shape[0], left : left + y.shape[1]]
    return y + np.random.default_rng(case.seed).normal(0, case.sigma, y.shape), truth


def run(case: Case, known: dict[str, Any]) -> dict[str, Any]:
    """PSNR and SSIM of the blurred image, and of those methods that have none yet."""
    y, truth = blurred(case)
    inside = (slice(BORDER, -BORDER),) * 2
    found = dict(known)
    for name in columns():
        if name not in found:
            image = y
            if name != "blurred":
                low = 0 if METHODS[name].counts else -np.inf
                psf = "none" if name == "blind" else case.psf
                image = Restorer(name)(np.maximum(y, low), psf).image
            pair = image[inside], truth[inside]
            found[name] = [round(psnr(*pair), 4), round(ssim(*pair), 5)]
    return found


def run_edges(case: Case) -> dict[str, Any]:
    """PSNR over all pixels for each way to extend the borders."""
    y, truth = blurred(case)
    kernel = torch.from_numpy(case.psf.kernel.astype(np.float64))
    methods: dict[str, Callable[[Any], Image]] = {
        "wiener, balance 0.003": lambda edges: wiener(
            torch.from_numpy(y)[None, None], kernel, 3e-3, edges
        )[0, 0].numpy()
    }
    for name in ("wiener", "tv", "rl"):
        clean = np.maximum(y, 0) if METHODS[name].counts else y
        methods[name] = lambda edges, name=name, clean=clean: (  # type: ignore[misc]
            Restorer(name, edges=edges)(clean, case.psf).image
        )
    return {name: [round(psnr(f(e), truth), 4) for e in EDGES] for name, f in methods.items()}


def table(results: dict[str, dict[str, Any]], rows: dict[str, list[str]]) -> list[str]:
    """A row for each PSF: means over its images."""
    lines = ["| PSF | cases | " + " | ".join(columns()) + " |"]
    lines += ["|---" * (len(columns()) + 2) + "|"]
    for row, labels in rows.items():
        means = [np.mean([results[i][name] for i in labels], 0) for name in columns()]
        cells = " | ".join(f"{mean[0]:.2f} / {mean[1]:.3f}" for mean in means)
        lines.append(f"| {row} | {len(labels)} | {cells} |")
    return lines


def edges_table(results: list[dict[str, Any]]) -> list[str]:
    """A row for each method: means over images."""
    lines = ["| method | " + " | ".join(EDGES) + " |", "|---" * (len(EDGES) + 1) + "|"]
    for name in results[0]:
        means = np.mean([result[name] for result in results], 0)
        lines.append(f"| {name} | " + " | ".join(f"{mean:.2f}" for mean in means) + " |")
    return lines


def measure(every: list[Case], stored: ResultsFile) -> dict[str, list[str]]:
    """Restore every image that has no result yet; returns the labels of each row."""
    rows: dict[str, list[str]] = {}
    for case in every:
        known = stored.results.get(case.label, {})
        if set(columns()) - set(known):
            stored.add(case.label, run(case, known))
        rows.setdefault(case.row, []).append(case.label)
    return rows


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--kernels", type=Path, help="A folder of images with kernels.npz: a second table.")
@click.option("--edges", is_flag=True, help="Also compare ways to extend borders.")
@click.option("-o", "--output", type=Path, default=Path("runs/restore"), show_default=True)
def main(folder: Path, kernels: Path | None, edges: bool, output: Path) -> None:
    """Measure all methods on images of FOLDER, and print the tables."""
    images = photos(folder)
    with threads(1):
        stored = ResultsFile(output / "restore.json", {"images": sorted(images)})
        click.echo("\n".join(table(stored.results, measure(list(cases(images)), stored))))
        if kernels is not None:
            rows = measure(list(recorded(kernels)), stored)
            for row, labels in list(rows.items()):
                rows.setdefault(f"all of {row.rstrip('0123456789')}", []).extend(labels)
            click.echo("\n".join(["", *table(stored.results, rows)]))
        if edges:
            shakes = [case for case in cases(images) if case.row == "shake, 0.01"]
            found = [run_edges(case) for case in shakes]
            for count in (len(OWN), len(found)):
                click.echo(f"\n{count} images, shake, noise 0.01, all pixels")
                click.echo("\n".join(edges_table(found[:count])))


if __name__ == "__main__":
    main()
