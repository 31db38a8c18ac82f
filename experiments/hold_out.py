"""Hold images out of a training split, to choose settings by: splits `fit` and `tune`.

    python -m experiments.hold_out vocmini --count 60 --most 0.15 -o data/vocmini

makes a folder of links to a data set in VOC's layout, with two more lists of images: `tune` has
`count` images of `train`, of each class at most a part of those there are, and `fit` the others.
"""

import random
from collections import Counter
from pathlib import Path

import click
import numpy as np

from unpool.data import open_data, read_sample
from unpool.vision.images import VOID

LISTS = Path("ImageSets/Segmentation")


def hold_out(classes: dict[str, set[int]], count: int, most: float, seed: int = 0) -> list[str]:
    """Choose images by the classes that they show.

    Args:
        classes: those of each image, by name.
        count: of images; fewer, if classes would become too rare otherwise.
        most: the largest part of the images of a class that may be held out; one image of a class
            in five or more, none of a rarer one.
        seed: of the order in which images are tried.

    >>> hold_out({"a": {1}, "b": {1}, "c": set(), "d": {1}}, 2, 0.5)
    ['c']
    """
    total, taken = Counter(k for own in classes.values() for k in own), Counter[int]()
    order, held = [*classes], []
    random.Random(seed).shuffle(order)
    for name in order:
        limits = {k: max(float(total[k] > 4), most * total[k]) for k in classes[name]}
        if len(held) < count and all(taken[k] + 1 <= limit for k, limit in limits.items()):
            held.append(name)
            taken.update(classes[name])
    return sorted(held)


@click.command()
@click.argument("data", type=Path)
@click.option("--count", default=60, show_default=True, help="Of images to hold out.")
@click.option("--most", default=0.15, show_default=True, help="Part of the images of a class.")
@click.option("-o", "--output", type=Path, required=True)
def main(data: Path, count: int, most: float, output: Path) -> None:
    """Make the folder."""
    found = open_data(data, "train")
    classes = {}
    for sample in found.samples:
        labels = read_sample(sample, len(found.classes))[1]
        classes[sample.name] = set(np.unique(labels).tolist()) - {0, VOID}
    held = hold_out(classes, count, most)
    (output / LISTS).mkdir(parents=True)
    for path in data.iterdir():
        if path.name != LISTS.parts[0]:
            (output / path.name).symlink_to(path.resolve())
    for path in (data / LISTS).glob("*.txt"):
        (output / LISTS / path.name).write_text(path.read_text())
    fit = [name for name in classes if name not in set(held)]
    for split, names in (("tune", held), ("fit", fit)):
        (output / LISTS / f"{split}.txt").write_text("\n".join(names) + "\n")
    click.echo(f"{len(held)} of {len(classes)} images held out, in {output}")


if __name__ == "__main__":
    main()
