"""Batch norm and network deconvolution in a small VGG, epoch by epoch: docs/paper-whitening.md.

Two data sets: scikit-learn's digits, enlarged to 16 pixels, and objects cut out of labeled images,
32 pixels wide; digits also with PyTorch's initial weights, for which pixels are divided by 128.
Each network is trained from several seeds with SGD, momentum 0.9, weight decay 1e-3, batches of 64
and a cosine schedule; its accuracy is measured after each epoch with the running statistics, and
once more after the last with statistics estimated anew on the training images. Seconds are those of
one thread, evaluation left out.

usage: python -m experiments.whitening [--data FOLDER] [--seeds N] [-o runs/whitening]
writes whitening.json, from which an interrupted run continues, and prints the table
"""

import math
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.results_file import ResultsFile
from unpool.bench.harness import threads
from unpool.data import objects, open_data
from unpool.models import VGG, prepare
from unpool.models.vgg import Table
from unpool.segment.fit import cumulative_statistics
from unpool.vision.boxes import resize
from unpool.vision.images import read_image

BATCH, KINDS = 64, 8
NORMS: tuple[str | None, ...] = (None, "batch", "deconv")


class Task(NamedTuple):
    """Images (N, 3, H, W) and labels (N,) to train on and to test, and how."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    classes: int
    trunk: Table
    epochs: int
    rates: tuple[float, ...]
    reset: bool = False  #: whether layers start with PyTorch's weights


def digits() -> Task:
    """1,297 digits to train on and 500 to test, gray, as images of 16 pixels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    gray = torch.from_numpy(found.images * (255 / 16)).float()[:, None]
    gray = F.interpolate(gray, size=(16, 16), mode="bilinear").round().to(torch.uint8)
    images = prepare(gray.expand(-1, 3, -1, -1).permute(0, 2, 3, 1))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images, labels = images[order].contiguous(), torch.from_numpy(found.target)[order].long()
    halves = (images[:1297], labels[:1297]), (images[1297:], labels[1297:])
    return Task(*halves, 10, ((1, 24), (1, 48), (2, 48)), 4, (0.02, 0.05, 0.1))


def scaled(task: Task) -> Task:
    """The same images for PyTorch's initial weights, which suit values of about 1."""
    halves = [(images / 128, labels) for images, labels in (task.train, task.test)]
    return task._replace(train=halves[0], test=halves[1], reset=True)


def crops(folder: Path, side: int = 32) -> Task:
    """The objects of the eight most frequent classes, cut out and resized to a square."""
    parts = {split: list(cut(folder, split, side)) for split in ("train", "val")}
    counts = Counter(label for _, label in parts["train"])
    known = {label: i for i, (label, _) in enumerate(counts.most_common(KINDS))}
    halves = []
    for found in parts.values():
        kept = [(image, known[label]) for image, label in found if label in known]
        images = prepare(torch.from_numpy(np.stack([image for image, _ in kept])))
        halves.append((images.contiguous(), torch.tensor([label for _, label in kept])))
    return Task(halves[0], halves[1], len(known), ((1, 16), (1, 32), (2, 64)), 6, (0.05,))


def cut(folder: Path, split: str, side: int) -> Iterator[tuple[Any, int]]:
    """Crops (side, side, 3) around the objects with 16 pixels and more, and their labels."""
    data = open_data(folder, split)
    for sample in data.samples:
        image = read_image(sample.image)
        for found in objects(sample, len(data.classes)):
            left, top, right, bottom = found.box
            if min(right - left, bottom - top) >= 16:
                yield resize(image[top:bottom, left:right], side, side), found.label


def run(task: Task, norm: str | None, rate: float, seed: int) -> dict[str, Any]:
    """The accuracies of a network after each epoch, and the seconds of its training."""
    torch.manual_seed(seed)
    side = task.train[0].shape[-1]
    net = VGG(task.classes, trunk=task.trunk, code=None, size=side, norm=norm)
    for layer in net.modules() if task.reset else ():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.reset_parameters()
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9, weight_decay=1e-3)
    images, labels = task.train
    each = math.ceil(len(images) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, task.epochs * each)
    accuracies, spent = [], 0.0
    for _ in range(task.epochs):
        start = time.perf_counter()
        net.train()
        for part in torch.randperm(len(images)).split(BATCH):
            loss = F.cross_entropy(net(images[part]), labels[part])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        spent += time.perf_counter() - start
        accuracies.append(accuracy(net, task))
    net.train()
    with torch.no_grad(), cumulative_statistics(net):
        for part in torch.arange(len(images)).split(BATCH):
            net(images[part])
    return {"accuracies": accuracies, "anew": accuracy(net, task), "seconds": round(spent, 1)}


@torch.no_grad()
def accuracy(net: nn.Module, task: Task) -> float:
    """The accuracy on the test images, in percent."""
    images, labels = task.test
    return round(100 * float((net.eval()(images).argmax(1) == labels).float().mean()), 2)


def table(results: dict[str, dict[str, Any]], seeds: int) -> list[str]:
    """A row for each data set, network and learning rate: means over seeds."""
    lines = ["| data, network, rate | after each epoch | anew | spread of the first | seconds |"]
    lines += ["|---|---|--:|--:|--:|"]
    for name in dict.fromkeys(name.rpartition(" ")[0] for name in results):
        runs = [results[f"{name} {seed}"] for seed in range(seeds) if f"{name} {seed}" in results]
        epochs = list(zip(*(one["accuracies"] for one in runs), strict=True))
        means = " / ".join(f"{statistics.mean(values):.1f}" for values in epochs)
        anew, seconds = (statistics.mean(one[key] for one in runs) for key in ("anew", "seconds"))
        first = f"{min(epochs[0]):.1f} to {max(epochs[0]):.1f}"
        lines.append(f"| {name} | {means} | {anew:.1f} | {first} | {seconds:.1f} |")
    return lines


def measure(tasks: dict[str, Task], stored: ResultsFile, seeds: int) -> None:
    """Train every network that has no result yet."""
    for seed in range(seeds):
        for name, task in tasks.items():
            for norm in NORMS:
                for rate in task.rates if norm is not None else task.rates[-1:]:
                    label = f"{name}, {norm or 'nothing'}, {rate:g} {seed}"
                    if label not in stored.results:
                        stored.add(label, run(task, norm, rate, seed))
                        click.echo(f"{label}: {stored.results[label]}", err=True)


@click.command()
@click.option("--data", type=Path, help="A folder of labeled images, for the crops.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("-o", "--output", type=Path, default=Path("runs/whitening"), show_default=True)
def main(data: Path | None, seeds: int, output: Path) -> None:
    """Train all networks, and print the table."""
    own = digits()
    tasks = {"digits": own, "digits with PyTorch's initial weights": scaled(own)}
    if data is not None:
        tasks["crops"] = crops(data)
    sizes = {name: [len(task.train[1]), len(task.test[1])] for name, task in tasks.items()}
    with threads(1):
        stored = ResultsFile(output / "whitening.json", {"images": sizes})
        measure(tasks, stored, seeds)
    click.echo("\n".join(table(stored.results, seeds)))


if __name__ == "__main__":
    main()
