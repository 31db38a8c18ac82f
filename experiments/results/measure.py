"""The figures of every row, of each part of the data and of all."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from experiments.results.rows import PRESENCE_OF, PRESENCES, TABLE, rows
from unpool.data import DataSet, read_sample
from unpool.data.datasets import Sample, objects, read_instances
from unpool.devices import bf16_pays
from unpool.files import atomic
from unpool.segment.ensemble import EDeconvNet
from unpool.segment.evaluate import Measured, compare, summarize
from unpool.segment.segmenter import Segmenter
from unpool.vision.metrics import scores as figures

FREQUENT = 5  #: classes in fewer images are these images' luck
FOLDS = 10  #: in each, the presence is chosen by the images of the others
SIZES = (0.0, 0.01, 0.05, 0.2, 1.0)  #: ends of the ranges of an object's part of its image

Found = dict[str, list[Measured]]
"""The counts of each image by row."""


def measure(
    parts: dict[str, DataSet], both: EDeconvNet, folder: Path, instances: bool
) -> dict[str, Any]:
    """Summaries of every row: of each part by its title, and of all.

    The counts of each image are kept in the folder, from which an interrupted run continues.
    """
    found: dict[str, Found] = {}
    sizes: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for title, data in parts.items():
        measured: Found = defaultdict(list)
        with click.progressbar(data.samples, label=f"measuring {title}") as samples:
            for sample in samples:
                path = folder / f"{sample.name}.json"
                counts = kept(path, title, lambda s=sample: count(s, both, instances))  # type: ignore[misc]
                for name, (matrix, f1, diagram, objects_) in counts.items():
                    arrays = np.array(matrix), np.array(diagram)
                    one = Measured(sample.name, arrays[0], f1, reliability=arrays[1])
                    measured[name].append(one)
                    sizes[name] += [(area, part) for area, part in objects_]
        found[title] = measured
    summaries = {title: _summaries(found[title], data) for title, data in parts.items()}
    if len(parts) > 1:
        names = next(iter(found.values()))
        every = {name: [one for part in found.values() for one in part[name]] for name in names}
        whole = next(iter(parts.values()))._replace(titles=tuple(parts))
        summaries["all"] = _summaries(every, whole)
    own = [name for name in TABLE if name in sizes]
    return {"rows": summaries, "sizes": {name: by_size(sizes[name]) for name in own}}


def count(sample: Sample, both: EDeconvNet, instances: bool) -> dict[str, Any]:
    """The counts of one image by row, as plain values: as of `Measured`, and its objects."""
    classes = len(both.classes)
    image, truth = read_sample(sample, classes)
    found = {}
    for row in rows(image, both, instances):
        one = compare(sample.name, row.labels, truth, classes, row.confidence)
        assert one.reliability is not None
        own = found_objects(sample, row.labels, classes) if row.name in TABLE else []
        found[row.name] = [one.matrix.tolist(), one.boundary_f1, one.reliability.tolist(), own]
    return found


def found_objects(
    sample: Sample, labels: NDArray[np.uint8], classes: int
) -> list[tuple[float, float]]:
    """For each object of an image, its part of the pixels, and the part of it that was found."""
    instances = read_instances(sample, classes)
    return [
        (one.area / labels.size, float((labels[instances == one.instance] == one.label).mean()))
        for one in objects(sample, classes)
    ]


def by_size(found: Iterable[tuple[float, float]]) -> list[dict[str, float]]:
    """The number of objects of each range of sizes, and the mean part of them that was found.

    >>> by_size([(0.5, 1.0), (0.6, 0.5), (0.001, 0.25)])[-1]
    {'objects': 2, 'found': 0.75}
    """
    area, part = np.array(list(found), np.float64).reshape(-1, 2).T
    ranges = [(area >= low) & (area < high) for low, high in pairwise(SIZES)]
    return [
        {"objects": int(own.sum()), "found": float(part[own].mean()) if own.any() else 0.0}
        for own in ranges
    ]


def by_others(ways: list[list[Measured]]) -> list[Measured]:
    """Each image in the way that is best on the other folds, so that it has not chosen itself."""
    fold = np.arange(len(ways[0])) % FOLDS
    counts = np.array([[one.matrix for one in way] for way in ways])
    best = [
        np.argmax([figures(way[fold != f].sum(0)).miou for way in counts]) for f in range(FOLDS)
    ]
    return [ways[best[f]][i] for i, f in enumerate(fold)]


def precisions(data: DataSet, weights: str) -> dict[str, dict[str, Any]]:
    """Whole images by the network as it is, in its fast form, and in bfloat16 if there is any."""
    ways: dict[str, dict[str, Any]] = {
        "as trained, fp32": {"exact": True},
        "fast form, fp32": {"precision": "fp32"},
        "fast form, bf16": {"precision": "bf16"},
    }
    if not bf16_pays(torch.device("cpu")):
        del ways["fast form, bf16"]
    segmenters = {name: Segmenter.from_pretrained(weights, **way) for name, way in ways.items()}
    measured: Found = defaultdict(list)
    different: dict[str, list[float]] = defaultdict(list)
    with click.progressbar(data.samples, label="precision") as samples:
        for sample in samples:
            image, truth = read_sample(sample, len(data.classes))
            plain = None
            for name, segmenter in segmenters.items():
                labels = segmenter(image, mode="whole").labels
                plain = labels if plain is None else plain
                measured[name].append(compare(sample.name, labels, truth, len(data.classes)))
                different[name].append(float((labels != plain).mean()))
    summaries = _summaries(measured, data)
    for name, summary in summaries.items():
        summary["different"] = float(np.mean(different[name]))
    return summaries


def _summaries(measured: Found, data: DataSet) -> dict[str, dict[str, Any]]:
    """The summary of each row: over the classes in the truth, and over the frequent of them."""
    for name in PRESENCE_OF:
        ways = [measured.get(f"{name}, presence {p:g}", []) for p in PRESENCES]
        if all(ways):
            measured[f"{name}, presence cross-validated"] = by_others(ways)
    summaries = {}
    for name, found in measured.items():
        summary = summarize(found, data, name, min_images=1)
        frequent = summarize(found, data, name, min_images=FREQUENT)
        summary["frequent"] = {k: frequent[k] for k in ("miou", "miou_interval")}
        diagrams = [one.reliability for one in found if one.reliability is not None]
        summary["reliability"] = np.sum(diagrams, 0).tolist() if diagrams else None
        summaries[name] = summary
    return summaries


def kept(path: Path, key: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was measured before under the same key, or else what is measured now."""
    if path.exists():
        found = json.loads(path.read_text())
        if found["key"] == key:
            return dict(found["rows"])
    measured = measure()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        temporary.write_text(json.dumps({"key": key, "rows": measured}))
    return measured
