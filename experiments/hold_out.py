"""Hold images out of training splits, to choose settings by: splits `fit` and `tune`.

    python -m experiments.hold_out --data vocmini 60 0.15 --data vocplus 140 0.08 -o data

makes a folder of links to each data set in VOC's layout, with two more lists of images: `tune` has
60 and 140 images of `train`, at most 15 and 8 % of those of each class, and `fit` the others. These
are the sets that the default weights were trained on and tuned by.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import numpy as np

from unpool.data import open_data, read_sample
from unpool.vision.images import VOID

LISTS = Path("ImageSets/Segmentation")


def hold_out(
    classes: dict[str, set[int]], count: int, most: float, generator: random.Random
) -> list[str]:
    """Choose images by the classes that they show.

    Args:
        classes: those of each image, by name.
        count: of images; fewer, if classes would become too rare otherwise.
        most: the largest part of the images of a class that may be held out; one image of a class
            in five or more, none of a rarer one.
        generator: of the order in which images are tried.

    >>> hold_out({"a": {1}, "b": {1}, "c": set(), "d": {1}}, 2, 0.5, random.Random(0))
    ['a', 'c']
    """
    total, taken = Counter(k for own in classes.values() for k in own), Counter[int]()
    order, held = [*classes], []
    generator.shuffle(order)
    for name in order:
        limits = {k: max(float(total[k] > 4), most * total[k]) for k in classes[name]}
        if len(held) < count and all(taken[k] + 1 <= limit for k, limit in limits.items()):
            held.append(name)
            taken.update(classes[name])
    return sorted(held)


def split(data: Path, output: Path, count: int, most: float, generator: random.Random) -> None:
    """Make the folder of links to a data set, with the lists."""
    found = open_data(data, "train")
    classes = {}
    for sample in found.samples:
        labels = read_sample(sample, len(found.classes))[1]
        classes[sample.name] = set(np.unique(labels).tolist()) - {0, VOID}
    held = hold_out(classes, count, most, generator)
    fit = [name for name in classes if name not in set(held)]
    link_data(data, output, {"tune": held, "fit": fit})
    click.echo(f"{len(held)} of {len(classes)} images held out, in {output}")


def link_data(data: Path, output: Path, lists: Mapping[str, Sequence[str]]) -> None:
    """Make a folder of links to a data set in VOC's layout, with its lists and more of them."""
    (output / LISTS).mkdir(parents=True)
    for path in data.iterdir():
        if path.name != LISTS.parts[0]:
            (output / path.name).symlink_to(path.resolve())
    for path in (data / LISTS).glob("*.txt"):
        (output / LISTS / path.name).write_text(path.read_text())
    for title, names in lists.items():
        (output / LISTS / f"{title}.txt").write_text("\n".join(names) + "\n")


@click.command()
@click.option(
    "--data",
    type=(Path, int, float),
    multiple=True,
    required=True,
    metavar="FOLDER COUNT PART",
    help="Images to hold out, and at most this part of those of each class; may be repeated.",
)
@click.option("-o", "--output", type=Path, required=True)
def main(data: Sequence[tuple[Path, int, float]], output: Path) -> None:
    """Make a folder for each data set."""
    generator = random.Random(0)
    for folder, count, most in data:
        split(folder, output / folder.name, count, most, generator)


if __name__ == "__main__":
    main()
