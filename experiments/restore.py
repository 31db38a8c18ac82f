"""The tables of docs/restore.md: each method on images that are blurred here, in PSNR and SSIM.

Protocol: gray images, a crop of 288 x 288 from the middle, blurred without borders ("valid") by a
PSF, Gaussian noise; the PSF is known, the noise is estimated, and the value of each method is the
one that `Restorer` chooses. 8 pixels of the border are not counted. Means over the images.

With --tuned, the value of a classical method is the best one for the images of a row, which favors
it: the true noise is known, and six values around the one for it are tried.

usage: python -m experiments.restore FOLDER [--kernels FOLDER] [--edges] [--tuned] [-o runs/restore]
writes restore.json, from which an interrupted run continues, and prints the tables
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from numpy.typing import NDArray
from skimage import data

from experiments.results_file import ResultsFile
from unpool.bench.harness import threads
from unpool.cards import list_pretrained, read_card
from unpool.ops.blur import blur
from unpool.ops.inversion import wiener
from unpool.restore import METHODS, Restorer, psnr, ssim
from unpool.vision.images import SUFFIXES, read_image
from unpool.vision.psf import PSF, find_psf, make_psf

SIDE, BORDER = 288, 8
OWN = ("camera", "coins", "moon", "page", "astronaut", "coffee", "chelsea", "rocket")
EDGES = ("none", "reflect", "ramp")
FACTORS = (0.35, 0.5, 0.7, 1, 1.4, 2)  # of the value, with --tuned
CLASSICAL = [name for name, method in METHODS.items() if method.run is not None]
Image = NDArray[np.float64]
Restorers = dict[str, Restorer | None]


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


def run(case: Case, known: dict[str, Any], restorers: Restorers) -> dict[str, Any]:
    """PSNR and SSIM of those restorers that have none yet; None stands for the blurred image."""
    y, truth = blurred(case)
    inside = (slice(BORDER, -BORDER),) * 2
    found = dict(known)
    for name in restorers.keys() - known.keys():
        image, restorer = y, restorers[name]
        if restorer is not None:
            counts = restorer.method in METHODS and METHODS[restorer.method].counts
            image = restorer(np.maximum(y, 0 if counts else -np.inf), case.psf).image
        pair = image[inside], truth[inside]
        found[name] = [round(psnr(*pair), 4), round(ssim(*pair), 5)]
    return found


def choices(only: Sequence[str], weights: str | None) -> tuple[Restorers, dict[str, str]]:
    """What restores, by the names of results, and the titles of those: methods, and a network."""
    restorers: Restorers = {"blurred": None}
    restorers |= {name: Restorer(name) for name in CLASSICAL if name in only or not only}
    titles = {name: name for name in restorers}
    if weights is not None:
        name = f"given {read_card(weights).sha256[:8]}"
        restorers[name], titles[name] = Restorer(weights=weights), "given"
    return restorers, titles


def tuned(name: str, sigma: float) -> Restorers:
    """Restorers of a method with several values, by the value."""
    parameter, middle = METHODS[name].parameter, METHODS[name].value_for(sigma)
    values = [factor * middle for factor in FACTORS]
    if parameter == "steps":
        values = sorted({max(1.0, round(value)) for value in values})
    return {
        f"{name}, {parameter} {value:.3g}": Restorer(name, **{parameter: value})  # type: ignore[arg-type]
        for value in values
    }


def tuned_table(every: list[Case], only: Sequence[str], stored: ResultsFile) -> list[str]:
    """A row for each PSF, with the best value of each classical method for its images."""
    names = [name for name in CLASSICAL if name in only or not only]
    lines = ["| PSF | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    cells: dict[str, list[str]] = {}
    for name in names:
        for sigma in sorted({case.sigma for case in every}):
            cases = [case for case in every if case.sigma == sigma]
            restorers = tuned(name, sigma)
            for row, labels in measure(cases, stored, restorers).items():
                means = {k: np.mean([stored.results[i][k] for i in labels], 0) for k in restorers}
                best = max(means, key=lambda k: means[k][0])
                score = f"{means[best][0]:.2f} / {means[best][1]:.3f}"
                cells.setdefault(row, []).append(f"{score} ({best.rpartition(' ')[2]})")
    return [*lines, *(f"| {row} | {' | '.join(texts)} |" for row, texts in cells.items())]


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


def table(
    results: dict[str, dict[str, Any]], rows: dict[str, list[str]], titles: dict[str, str]
) -> list[str]:
    """A row for each PSF: means over its images."""
    lines = ["| PSF | cases | " + " | ".join(titles.values()) + " |"]
    lines += ["|---" * (len(titles) + 2) + "|"]
    for row, labels in rows.items():
        means = [np.mean([results[i][name] for i in labels], 0) for name in titles]
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


def measure(every: list[Case], stored: ResultsFile, restorers: Restorers) -> dict[str, list[str]]:
    """Restore every image that has no result yet; returns the labels of each row."""
    rows: dict[str, list[str]] = {}
    for case in every:
        known = stored.results.get(case.label, {})
        if not restorers.keys() <= known.keys():
            stored.add(case.label, run(case, known, restorers))
        rows.setdefault(case.row, []).append(case.label)
    return rows


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--kernels", type=Path, help="A folder of images with kernels.npz: a second table.")
@click.option("--edges", is_flag=True, help="Also compare ways to extend borders.")
@click.option("--tuned", "with_tuned", is_flag=True, help="A table of tuned values, too.")
@click.option("--only", multiple=True, type=click.Choice(CLASSICAL), help="Of these methods.")
@click.option("--weights", help="The network to compare.  [default: deblur-given, if it ships]")
@click.option("-o", "--output", type=Path, default=Path("runs/restore"), show_default=True)
def main(
    folder: Path,
    kernels: Path | None,
    edges: bool,
    with_tuned: bool,
    only: tuple[str, ...],
    weights: str | None,
    output: Path,
) -> None:
    """Measure all methods on images of FOLDER, and print the tables."""
    images = photos(folder)
    if weights is None and "deblur-given" in list_pretrained():
        weights = "deblur-given"
    with threads(1):
        restorers, titles = choices(only, weights)
        stored = ResultsFile(output / "restore.json", {"images": sorted(images)})
        rows = measure(list(cases(images)), stored, restorers)
        click.echo("\n".join(table(stored.results, rows, titles)))
        if with_tuned:
            click.echo("\n".join(["", *tuned_table(list(cases(images)), only, stored)]))
        if kernels is not None:
            rows = measure(list(recorded(kernels)), stored, restorers)
            for row, labels in list(rows.items()):
                rows.setdefault(f"all of {row.rstrip('0123456789')}", []).extend(labels)
            click.echo("\n".join(["", *table(stored.results, rows, titles)]))
        if edges:
            shakes = [case for case in cases(images) if case.row == "shake, 0.01"]
            found = [run_edges(case) for case in shakes]
            for count in (len(OWN), len(found)):
                click.echo(f"\n{count} images, shake, noise 0.01, all pixels")
                click.echo("\n".join(edges_table(found[:count])))


if __name__ == "__main__":
    main()
