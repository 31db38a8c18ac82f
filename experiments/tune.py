"""Choose what a card says about post-processing, on images that no network was trained on.

    python -m experiments.tune --data vocmini:tune --data vocplus:tune --weights RUN --partner RUN

segments each image of a split that was left out of training, and chooses by five-fold
cross-validation: how the scores of the DeconvNet are smoothed, the class presence threshold, how
crops are aggregated, the weight of the DeconvNet in the ensemble, the dense CRF, and the
temperature of each mode. It prints a table with the mean IoU of each choice, fitted on all images
and cross-validated, and with --write puts the choices on the cards. Scores are kept in RUNS/tune,
so that an interrupted run continues.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from unpool.cards import AGGREGATIONS, find_weights, read_card
from unpool.data import DataSet, read_sample
from unpool.data.mixture import open_parts, parse_part
from unpool.files import atomic
from unpool.recipes.presets import CRF_PRESETS, DenseCRF, Kernel
from unpool.segment.aggregate import Aggregate, crop_squares, squares
from unpool.segment.ensemble import combine
from unpool.segment.postprocessing import postprocess
from unpool.segment.segmenter import Segmenter
from unpool.segment.smoothing import smooth
from unpool.segment.whole import WholeView
from unpool.vision.images import VOID
from unpool.vision.metrics import confusion_matrix
from unpool.vision.metrics import scores as figures

FOLDS = 5
NEARLY = 0.005  #: mean IoU that a weaker smoothing may lose: a stronger one rounds outlines off
SMOOTHINGS = (0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
PRESENCES = (0.0, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
FEW_PRESENCES = (0.0, 0.75, 0.85, 0.9)  #: with each smoothing, and weight of the ensemble
WEIGHTS = (0.3, 0.4, 0.5, 0.6, 0.7)
PIXELS = 2000  #: of each image, for the temperature
CRF_IMAGES = 60  #: on which the CRF's parameters are searched

Scores = NDArray[np.float32]
Way = Callable[[dict[str, Scores]], Scores]


class Choice(NamedTuple):
    """What was chosen, and how well it does."""

    value: Any
    fitted: float  #: mean IoU of the images that chose it
    validated: float  #: mean IoU, each fold by what the others chose


def choose(matrices: dict[Any, NDArray[np.int64]]) -> Choice:
    """The best of several values by the confusion matrices (N, K, K) of each.

    >>> good, bad = np.tile(np.diag([9, 9]), (5, 1, 1)), np.ones((5, 2, 2), int)
    >>> choose({"bad": bad, "good": good})
    Choice(value='good', fitted=1.0, validated=1.0)
    """
    values, counts = [*matrices], np.stack([*matrices.values()])
    fold = np.arange(counts.shape[1]) % FOLDS

    def best(kept: NDArray[np.bool_]) -> int:
        return int(np.argmax([figures(way[kept].sum(0)).miou for way in counts]))

    every = best(fold >= 0)
    held = sum(counts[best(fold != f)][fold == f].sum(0) for f in range(FOLDS))
    fitted = figures(counts[every].sum(0)).miou
    return Choice(values[every], round(fitted, 4), round(figures(held).miou, 4))


def fit_temperature(scores: NDArray[np.floating], truth: NDArray[np.integer]) -> float:
    """The temperature at which softmax(scores / T) is most likely, for scores (P, K), truth (P,).

    Guo, Pleiss, Sun, Weinberger 2017, section 4.2.

    >>> rng = np.random.default_rng(0)
    >>> scores = rng.normal(0, 2, (20_000, 3))
    >>> p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    >>> truth = (p.cumsum(1) > rng.random((20_000, 1))).argmax(1)
    >>> round(fit_temperature(3 * scores, truth), 1)
    3.0
    """
    logits, labels = torch.from_numpy(scores).float(), torch.from_numpy(truth).long()

    def loss(logarithm: float) -> float:
        scaled = logits / np.exp(logarithm)
        return float(torch.nn.functional.cross_entropy(scaled, labels))

    found = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x))


def choose_smoothing(data: DataSet, segmenter: Segmenter) -> Choice:
    """The smoothing of whole images, and the class presence threshold that goes with it.

    Of the smoothings that are nearly as good as the best, the weakest.
    """
    k = len(data.classes)
    counts: dict[Any, list[Any]] = {(s, p): [] for s in SMOOTHINGS for p in FEW_PRESENCES}
    segmenter.smoothing = 0.0
    with click.progressbar(data.samples, label="smoothing") as samples:
        for sample in samples:
            image, truth = read_sample(sample, k)
            view = WholeView(segmenter.model, image, segmenter.long_side)
            logits = segmenter.infer(view.batch)
            for sigma in SMOOTHINGS:
                smoothed = view.paste(smooth(logits, sigma))
                for p in FEW_PRESENCES:
                    found = postprocess(image, smoothed, data.classes, presence_threshold=p)
                    counts[sigma, p].append(confusion_matrix(found.labels, truth, k, VOID))
    found = {key: np.array(own) for key, own in counts.items()}
    fitted = {key: choose({key: own}).fitted for key, own in found.items()}
    weakest = min(
        sigma for (sigma, _), miou in fitted.items() if miou >= max(fitted.values()) - NEARLY
    )
    return choose({key: own for key, own in found.items() if key[0] == weakest})


def predict(
    image: NDArray[np.uint8], deconvnet: Segmenter, fcn: Segmenter, proposals: int
) -> dict[str, Scores]:
    """The scores of each network and mode."""
    found = {
        "whole": deconvnet.predict(image, mode="whole").logits,
        "fcn": fcn.predict(image, mode="whole").logits,
    }
    return {**found, **merge_crops(image, deconvnet, proposals)} if proposals else found


def merge_crops(
    image: NDArray[np.uint8], deconvnet: Segmenter, proposals: int
) -> dict[str, Scores]:
    """The scores of instance-wise segmentation by each aggregation."""
    assert deconvnet.side is not None
    size, boxes = image.shape[:2], squares(image, count=proposals)
    merged = {how: Aggregate(len(deconvnet.classes), size, how) for how in AGGREGATIONS}
    batch = deconvnet.quickest_batch()
    for crops, images in crop_squares(image, boxes, deconvnet.side, batch):
        for crop, scores in zip(crops, deconvnet.infer(images), strict=True):
            for one in merged.values():
                one.add(crop, scores)
    return {how: one.logits for how, one in merged.items()}


@dataclass(frozen=True)
class Stored:
    """The scores of labeled images, which are kept in a folder."""

    data: DataSet
    deconvnet: Segmenter
    fcn: Segmenter
    proposals: int
    folder: Path

    def __iter__(self) -> Iterator[Any]:
        """The scores of each image, the image and its labels."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for sample in self.data.samples:
            image, truth = read_sample(sample, len(self.data.classes))
            path = self.folder / f"{sample.name}.npz"
            if not path.exists():
                found = predict(image, self.deconvnet, self.fcn, self.proposals)
                with atomic(path) as temporary, temporary.open("wb") as file:
                    np.savez(file, **{k: v.astype(np.float16) for k, v in found.items()})
            with np.load(path) as stored:
                yield {k: stored[k].astype(np.float32) for k in stored.files}, image, truth


def crf_candidates(center: DenseCRF) -> Iterator[DenseCRF]:
    """CRFs that differ from another in one parameter."""
    smooth, color = center.kernels
    for factor in (0.5, 2.0):
        yield center._replace(kernels=(smooth._replace(weight=smooth.weight * factor), color))
        yield center._replace(kernels=(smooth, color._replace(weight=color.weight * factor)))
        yield center._replace(kernels=(smooth, color._replace(xy=color.xy * factor)))
        assert color.rgb is not None
        yield center._replace(kernels=(smooth, color._replace(rgb=color.rgb * factor)))


def crf_measure(
    stored: Stored, way: Way, presence: float
) -> Callable[[DenseCRF | None], NDArray[np.int64]]:
    """The counts of some images, (N, K, K), as a function of the CRF."""
    data, k = stored.data, len(stored.data.classes)
    some = data.samples[:: max(len(data.samples) // CRF_IMAGES, 1)]
    part = replace(stored, data=data._replace(samples=some))

    def measure(crf: DenseCRF | None) -> NDArray[np.int64]:
        return np.array(
            [
                confusion_matrix(
                    postprocess(
                        *(image, way(scores), data.classes), crf=crf, presence_threshold=presence
                    ).labels,
                    *(truth, k, VOID),
                )
                for scores, image, truth in part
            ]
        )

    return measure


def search_crf(
    measure: Callable[[DenseCRF | None], NDArray[np.int64]], rounds: int
) -> dict[DenseCRF | None, NDArray[np.int64]]:
    """The counts of all CRFs that were tried, and of none: a search one parameter at a time."""
    start = DenseCRF((Kernel(3, 1), Kernel(30, 2, 5)), 5, "symmetric")
    tried: dict[DenseCRF | None, NDArray[np.int64]] = {None: measure(None)}
    for crf in (start, *CRF_PRESETS.values()):
        tried[crf] = measure(crf)

    def good(crf: DenseCRF | None) -> float:
        return figures(tried[crf].sum(0)).miou

    center = max((crf for crf in tried if crf is not None), key=good)
    for _ in range(rounds):
        for crf in crf_candidates(center):
            if crf not in tried:
                tried[crf] = measure(crf)
        best = max((crf for crf in tried if crf is not None), key=good)
        click.echo(f"CRF {best}: {100 * good(best):.2f} %, without {100 * good(None):.2f} %")
        if best == center:
            break
        center = best
    return tried


class Collected(NamedTuple):
    """What the choices are made from, by way of combining scores."""

    counts: dict[str, dict[float, NDArray[np.int64]]]  #: (N, K, K) by presence threshold
    scores: dict[str, Scores]  #: (P, K) of some pixels
    truth: NDArray[np.uint8]  #: (P,) of the same pixels


def ways_of(proposals: int) -> dict[str, Way]:
    """The scores that are compared, by name."""
    ways: dict[str, Way] = {"whole": lambda s: s["whole"], "fcn": lambda s: s["fcn"]}
    if proposals:
        ways |= {"max": lambda s: s["max"], "mean": lambda s: s["mean"]}
    first = "mean" if proposals else "whole"
    for weight in WEIGHTS:
        ways[f"weight {weight}"] = lambda s, w=weight: combine(s[first], s["fcn"], weight=w)
    return ways


def collect(stored: Stored, ways: dict[str, Way]) -> Collected:
    """Segment all images, and count."""
    k, rng = len(stored.data.classes), np.random.default_rng(0)
    counts: dict[str, dict[float, list[Any]]] = {
        name: {p: [] for p in (FEW_PRESENCES if name.startswith("weight") else PRESENCES)}
        for name in ways
    }
    samples: dict[str, list[Scores]] = {name: [] for name in ways}
    truths = []
    with click.progressbar(stored, length=len(stored.data.samples), label="segmenting") as found:
        for scores, image, truth in found:
            known = np.flatnonzero(truth.ravel() != VOID)
            some = rng.choice(known, min(PIXELS, len(known)), replace=False)
            truths.append(truth.ravel()[some])
            for name, way in ways.items():
                logits = way(scores)
                samples[name].append(logits.reshape(k, -1)[:, some].T)
                for p, matrices in counts[name].items():
                    labels = postprocess(image, logits, stored.data.classes, presence_threshold=p)
                    matrices.append(confusion_matrix(labels.labels, truth, k, VOID))
    return Collected(
        {name: {p: np.array(m) for p, m in own.items()} for name, own in counts.items()},
        {name: np.concatenate(own) for name, own in samples.items()},
        np.concatenate(truths),
    )


@click.command()
@click.option("--data", multiple=True, required=True, help="FOLDER:SPLIT; may be repeated.")
@click.option("--weights", default="objects", show_default=True)
@click.option("--partner", default="objects-fcn8s", show_default=True)
@click.option("--proposals", default=50, show_default=True, help="0: whole images only.")
@click.option("--rounds", default=4, show_default=True, help="Of the search for a CRF; 0: none.")
@click.option("--runs", type=Path, default=Path("runs"), show_default=True)
@click.option("--write", is_flag=True, help="Write the choices to the cards.")
def main(
    data: Sequence[str],
    weights: str,
    partner: str,
    proposals: int,
    rounds: int,
    runs: Path,
    write: bool,
) -> None:
    """Choose, print, and write."""
    labeled = open_parts([parse_part(part) for part in data], "train")
    nets = Segmenter.from_pretrained(weights), Segmenter.from_pretrained(partner)
    smoothed = choose_smoothing(labeled, nets[0])
    click.echo(f"smoothing, presence: {smoothed}")
    nets[0].smoothing = smoothed.value[0]
    key = "-".join(read_card(name).sha256[:8] for name in (weights, partner))
    key += f"-{nets[0].smoothing:g}"
    stored = Stored(labeled, *nets, proposals, runs / f"tune/{key}-{proposals}")
    ways = ways_of(proposals)
    found = collect(stored, ways)
    table = {name: choose(own) for name, own in found.counts.items()}
    for name, choice in table.items():
        click.echo(f"{name}: presence {choice}")

    def best(*names: str) -> str:
        return max(names, key=lambda name: table[name].fitted)

    def temperature(name: str) -> float:
        return round(fit_temperature(found.scores[name], found.truth), 3)

    together = best(*(f"weight {weight}" for weight in WEIGHTS))
    own = {"whole": temperature("whole"), "edeconvnet": temperature(together)}
    changes: dict[str, Any] = {
        "smoothing": nets[0].smoothing,
        "presence_threshold": table["whole"].value,
        "ensemble_weight": float(together.split()[1]),
        "temperature": own,
    }
    if proposals:
        changes["aggregate"] = best("max", "mean")
        own["instance"] = temperature(changes["aggregate"])
    if rounds:
        measure = crf_measure(stored, ways[together], table["whole"].value)
        crf = choose(search_crf(measure, rounds))
        click.echo(f"CRF: {crf}")
        changes["crf"] = None if crf.value is None else crf.value._asdict()
    theirs = {
        "presence_threshold": table["fcn"].value,
        "temperature": {"whole": temperature("fcn")},
    }
    for name, entries in ((weights, changes), (partner, theirs)):
        click.echo(f"card of {name}: {json.dumps(entries)}")
        if write:
            replace(read_card(name), **entries).write(find_weights(name) / "card.json")


if __name__ == "__main__":
    main()
