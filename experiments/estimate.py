"""Estimated PSFs, and restoration with them: the table of docs/restore.md.

Protocol as in `experiments.restore`, with noise 0.01; `tv` restores with the estimated and with the
true PSF.

usage: python -m experiments.estimate FOLDER [--noise 0.01]
"""

from pathlib import Path

import click
import numpy as np

from experiments.restore import BORDER, Case, blurred, photos
from unpool.bench.harness import threads
from unpool.restore import Restorer, estimate_psf, psnr
from unpool.vision.psf import PSF, find_psf

PSFS = (
    *("gaussian:1", "gaussian:1.6", "gaussian:2.4", "disk:2", "disk:3.5", "disk:5"),
    *("motion:13,30", "motion:9,70"),
)


def numbers(psf: PSF) -> list[float]:
    """The parameters of a PSF by formula."""
    return [float(value) for value in psf.name.partition(":")[2].split(",")]


def is_near(found: PSF, true: PSF) -> bool:
    """Whether a size is within 2 pixels (a motion) or 20 %, and an angle within 15 degrees."""
    (size, *angle), (wanted, *direction) = numbers(found), numbers(true)
    turn = abs(angle[0] - direction[0]) % 180 if angle else 0
    return abs(size - wanted) <= (2 if angle else 0.2 * wanted) and min(turn, 180 - turn) <= 15


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--noise", type=float, default=0.01, show_default=True)
@click.option("--count", type=int, default=12, show_default=True, help="Images of FOLDER.")
@click.option("--psf", "psfs", multiple=True, default=PSFS, help="PSFs to estimate.")
def main(folder: Path, noise: float, count: int, psfs: tuple[str, ...]) -> None:
    """Estimate PSFs from images of FOLDER, and print the table."""
    click.echo("| PSF | near | median | blurred | estimated | true PSF | below blurred |")
    click.echo("|---|---|---|---|---|---|---|")
    inside = (slice(BORDER, -BORDER),) * 2
    with threads(1):
        for name in psfs:
            true, found, figures = find_psf(name), list[PSF](), []
            for i, (image, sharp) in enumerate(photos(folder, count).items()):
                y, truth = blurred(Case(name, image, sharp, true, noise, i))
                found.append(estimate_psf(y, name.partition(":")[0])[0])
                pair = [Restorer("tv")(y, psf).image for psf in (found[-1], true)]
                figures.append([psnr(x[inside], truth[inside]) for x in (y, *pair)])
            near = sum(is_near(psf, true) for psf in found)
            sizes = np.median([numbers(psf)[0] for psf in found])
            before, estimated, known = np.mean(figures, 0)
            worse = sum(after < input_ for input_, after, _ in figures)
            row = f"{before:.2f} | {estimated:.2f} | {known:.2f} | {worse}"
            click.echo(f"| {name} | {near} of {len(found)} | {sizes:g} | {row} |")


if __name__ == "__main__":
    main()
