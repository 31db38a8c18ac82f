"""The figures of docs/generate.md, with the default weights.

usage: python -m experiments.generate_figures [--weights chairs] [-o docs] [STYLE ...]
writes generate-*.jpg and generate-*.gif; STYLE are four different styles, by default evenly spaced
"""

import sys
from pathlib import Path

import click
import numpy as np

from unpool.cli import main as unpool
from unpool.generate import Generator
from unpool.generate.result import enlarge
from unpool.vision.figures import contact_sheet
from unpool.vision.images import write_image

FIGURES = {
    "grid.jpg": "grid --style {a} --style {b} --style {c} --style {d} --columns 8",
    "turn.gif": "interpolate --style {a} --count 31",
    "elevation.jpg": "interpolate --style {a} --azimuth 301,301 --elevation -10,70 --count 9",
    "between.jpg": "interpolate --style {b} --azimuth 0,90 --count 9",
    "morph.gif": "morph --from {a} --to {b} --count 24",
    "morph.jpg": "morph --from {c} --to {d}",
    "transform.jpg": "transform --style {a}",
    "mask.jpg": "mask --style {a}",
    "unit.jpg": "unit --layer shared.fc4",
    "unit-maps.jpg": "unit --layer rgb.stages.0",
    "zoom.jpg": "zoom --style {a} --style {b}",
    "filters.jpg": "filters",
    "correspond.jpg": "correspond --from {a} --to {b} --scale 3",
}
"""Commands of `unpool generate`, by the file they write."""


def arithmetic(generator: Generator, names: list[str], path: Path) -> None:
    """A - B + C, the mean of three, and three weights of one as in the authors' script."""
    a, b, c = names[:3]
    shown = {
        "A": a,
        "B": b,
        "C": c,
        "A - B + C": {a: 1, b: -1, c: 1},
        "mean of A, B, C": {a: 1 / 3, b: 1 / 3, c: 1 / 3},
        "A + B + C": {a: 1, b: 1, c: 1},
    }
    images = generator.generate(list(shown.values()), 301, 20)
    tiles = [(enlarge(one.on(), 1), name) for one, name in zip(images, shown, strict=True)]
    write_image(path, contact_sheet(tiles, len(tiles), len(tiles) * (generator.size + 10) + 10))


@click.command()
@click.option("--weights", default="chairs")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("docs"))
@click.argument("styles", nargs=-1)
def main(weights: str, output: Path, styles: tuple[str, ...]) -> None:
    """Make every figure by its command of `unpool generate`."""
    generator = Generator.from_pretrained(weights)
    chosen = np.linspace(0, len(generator.styles) - 1, 6).astype(int)[1:5]
    names = [generator.styles[generator.style_index(s)] for s in styles]
    names = (names + [generator.styles[i] for i in chosen])[:4]
    places = dict(zip("abcd", names, strict=True))
    for file, command in FIGURES.items():
        arguments = [word.format(**places) for word in command.split()]
        path = str(output / f"generate-{file}")
        if code := unpool(["generate", *arguments, "--weights", weights, "-o", path]):
            sys.exit(code)
    arithmetic(generator, names, output / "generate-arithmetic.jpg")
    total = sum(path.stat().st_size for path in output.glob("generate-*"))
    print(f"{len(FIGURES) + 1} figures of {', '.join(names)}, {total / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
