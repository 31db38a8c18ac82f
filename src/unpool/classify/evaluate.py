"""Evaluate a classifier: top-1 and top-5 accuracy, recall, the confusion matrix."""

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from unpool import distributed
from unpool.devices import autocast
from unpool.files import atomic
from unpool.models import Classifier, prepare
from unpool.vision.figures import contact_sheet, plot
from unpool.vision.metrics import confusion_matrix

if TYPE_CHECKING:
    from unpool.classify.folders import ClassFolders
    from unpool.vision.boxes import Crops

Ranking: TypeAlias = NDArray[np.int64]
"""(N, 1 + 5) class ids of images: the true one, and the most probable ones, best first.

-1 where there are fewer than five classes.
"""

_TOP = 5
_BATCH = 64  # images


@torch.no_grad()
def rank(net: Classifier, data: "ClassFolders", crops: "Crops", bf16: bool = False) -> Ranking:
    """The true class and the five most probable classes of each image, in order.

    Under `torchrun` the processes share the images, and each returns the whole ranking.

    Args:
        net: put into evaluation mode.
        data: images of its classes.
        crops: the center crop of each image is used.
        bf16: bfloat16 arithmetic where the hardware supports it.
    """
    net.eval()
    device = next(net.parameters()).device
    count = min(_TOP, net.classes)
    chunks = [data.samples[i : i + _BATCH] for i in range(0, len(data.samples), _BATCH)]
    own = []
    for chunk in distributed.shard(chunks):
        images = np.stack([crops.center(sample.read()) for sample in chunk])
        with autocast(device, bf16):
            found = net(prepare(torch.from_numpy(images).to(device), net.mean)).float()
        ranked = np.full((len(chunk), 1 + _TOP), -1, np.int64)
        ranked[:, 0] = [sample.label for sample in chunk]
        ranked[:, 1 : 1 + count] = found.topk(count).indices.cpu().numpy()
        own.append(ranked)
    return np.concatenate(distributed.gather(own))


def accuracies(ranked: Ranking) -> tuple[float, float]:
    """Top-1 and top-5 accuracy, as fractions of the images.

    >>> accuracies(np.array([[3, 3, 1, 2, 0, 4], [4, 3, 1, 2, 0, 4], [5, 4, 1, 2, 3, 0]]))
    (0.3333333333333333, 0.6666666666666666)
    """
    right = ranked[:, 1:] == ranked[:, :1]
    return float(right[:, 0].mean()), float(right.any(1).mean())


def summarize(ranked: Ranking, data: "ClassFolders", crops: "Crops") -> dict[str, Any]:
    """All figures with their protocol, of the result of `rank`.

    Returns:
        `top1` with its 95 % interval (`top1_interval`, Wilson's), `top5`, `recall` (of each class;
        None without images), `confusion` (counts, a row for each true class), `data`, `split`,
        `images` and `protocol`.
    """
    top1, top5 = accuracies(ranked)
    matrix = confusion_matrix(ranked[:, 1], ranked[:, 0], len(data.classes), ignore=-1)
    recall = [int(row[i]) / int(row.sum()) if row.any() else None for i, row in enumerate(matrix)]
    return {
        "mode": "classify",
        "data": data.root.name,
        "split": data.split,
        "images": len(ranked),
        "top1": top1,
        "top1_interval": list(_interval(top1, len(ranked))),
        "top5": top5,
        "recall": dict(zip(data.classes, recall, strict=True)),
        "confusion": matrix.tolist(),
        "protocol": f"{len(ranked)} images of {data.root.name} {data.split}, the middle square "
        f"resized to {crops.enlarged} pixels, of which the center of {crops.size} is seen",
    }


def write_confusion(path: Path, matrix: list[list[int]], classes: list[str]) -> None:
    """Write a confusion matrix as a CSV table, atomically."""
    with atomic(path) as temporary, temporary.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["true / found", *classes])
        table.writerows([name, *row] for name, row in zip(classes, matrix, strict=True))


def plot_confusion(path: Path, matrix: list[list[int]], classes: list[str]) -> None:
    """Plot a confusion matrix, normalized over each true class. Needs matplotlib."""
    counts = np.array(matrix)
    side = min(4 + 0.25 * len(classes), 16)
    with plot(path, (side, side)) as axes:
        axes.imshow(counts / counts.sum(1, keepdims=True).clip(1), cmap="Blues", vmin=0, vmax=1)
        if len(classes) <= 50:
            axes.set_xticks(range(len(classes)), classes, rotation=90)
            axes.set_yticks(range(len(classes)), classes)
        axes.set(xlabel="found", ylabel="true")


def sheet(
    ranked: Ranking, data: "ClassFolders", crops: "Crops", count: int = 24
) -> NDArray[np.uint8]:
    """A contact sheet (height, width, 3) of center crops with predicted and missed classes.

    Args:
        ranked: the result of `rank`.
        data: the images.
        crops: as in `rank`.
        count: number of images, evenly chosen.
    """
    tiles = []
    for i in np.linspace(0, len(ranked) - 1, min(count, len(ranked))).astype(int).tolist():
        true, found = ranked[i, :2].tolist()
        caption = data.classes[found] + f" (is {data.classes[true]})" * (found != true)
        tiles.append((crops.center(data.samples[i].read()), caption))
    return contact_sheet(tiles, columns=6)


def _interval(fraction: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % score interval of a fraction of `count` images (Wilson 1927)."""
    whole = 1 + z * z / count
    middle = fraction + z * z / (2 * count)
    reach = z * math.sqrt(fraction * (1 - fraction) / count + (z / (2 * count)) ** 2)
    return max((middle - reach) / whole, 0.0), min((middle + reach) / whole, 1.0)
