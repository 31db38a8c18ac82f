"""What several passes with dropout bring, and whether their uncertainty finds the wrong pixels.

    python -m experiments.uncertainty --data camvid --weights runs/bayesian/weights

Segments the images of val as a whole by a single pass without dropout and by the mean of several
passes with it, and prints both mean IoUs with intervals, their difference, and the area under the
ROC curve (AUROC) by which the uncertainty tells wrong pixels of the mean from right ones: 0.5 is
chance, 1 is perfect. All pixels that are not void count alike. The last line is JSON.
"""

import json
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from unpool.cli.console import progress
from unpool.data import open_data, read_sample
from unpool.segment.segmenter import Segmenter
from unpool.vision.images import VOID
from unpool.vision.metrics import bootstrap_interval, confusion_matrix, scores

BINS = 4096


def bins(uncertainty: NDArray[np.float32]) -> NDArray[np.int64]:
    """The bin of each uncertainty, 0 to 0.25, finer towards 0."""
    return np.minimum(np.sqrt(uncertainty / 0.25) * BINS, BINS - 1).astype(np.int64)


def auroc(wrong: NDArray[np.int64], right: NDArray[np.int64]) -> float:
    """The probability that a wrong pixel is less certain than a right one; ties count half.

    Args:
        wrong: number of wrong pixels for each bin of uncertainty, from low to high.
        right: number of right pixels for each bin.

    >>> auroc(np.array([0, 1, 3]), np.array([4, 0, 0]))
    1.0
    >>> auroc(np.array([2, 2]), np.array([3, 3]))
    0.5
    """
    below = np.cumsum(right) - right
    return float((wrong * (below + right / 2)).sum() / (wrong.sum() * right.sum()))


@click.command()
@click.option("--data", type=Path, required=True, help="Labeled images.")
@click.option("--weights", required=True, help="Of a network with dropout.")
@click.option("--split", default="val", show_default=True)
@click.option("--samples", default=20, show_default=True, help="Number of passes with dropout.")
def main(data: Path, weights: str, split: str, samples: int) -> None:
    """Print the figures."""
    segmenter = Segmenter.from_pretrained(weights)
    found = open_data(data, split)
    classes = len(found.classes)
    matrices: dict[str, list[NDArray[np.int64]]] = {"single": [], "mean": []}
    counts = np.zeros((2, BINS), np.int64)  # of right and of wrong pixels
    with progress("segmenting") as report:
        for n, sample in enumerate(found.samples, 1):
            image, truth = read_sample(sample, classes)
            single = segmenter(image, mode="whole")
            mean = segmenter(image, mode="whole", samples=samples)
            for name, result in (("single", single), ("mean", mean)):
                matrices[name].append(confusion_matrix(result.labels, truth, classes))
            seen = truth != VOID
            assert mean.uncertainty is not None
            wrong = (mean.labels != truth)[seen].astype(np.int64)
            where = wrong * BINS + bins(mean.uncertainty[seen])
            counts += np.bincount(where, minlength=2 * BINS).reshape(2, BINS)
            report(n, len(found.samples))
    summary: dict[str, object] = {"images": len(found.samples), "samples": samples}
    for name, each in matrices.items():
        stacked = np.stack(each)
        summary[name] = scores(stacked.sum(0)).miou
        summary[f"{name}_interval"] = bootstrap_interval(stacked)
    summary["auroc"] = auroc(counts[1], counts[0])
    for name in matrices:
        click.echo(f"{name}: mean IoU {100 * summary[name]:.2f} %")  # type: ignore[operator]
    click.echo(f"AUROC of the uncertainty: {summary['auroc']:.3f}")
    click.echo(json.dumps(summary))


if __name__ == "__main__":
    main()
