"""Evaluate every row of docs/results.md on one split, and write the page.

    make results DATA=...              # with the weights that ship with the package
    make results DATA=... TRUNK=...    # with weights trained from these VGG weights

writes docs/results.md, docs/results.json, docs/results-proposals.png and docs/results-figure.jpg.
Interrupted training runs are resumed, and measurements with the same weights are cached in
RUNS/results. The crops of an image are segmented once, and every row is computed from their scores.
"""

import dataclasses
import json
import platform
from collections import defaultdict
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from unpool import train
from unpool.cards import read_card
from unpool.data import DataSet, open_data, read_sample
from unpool.files import atomic
from unpool.ops import CRF_PRESETS, DenseCRF, Kernel
from unpool.recipes import SegmentationRecipe
from unpool.recipes.segment import FCN8S, FINETUNE, OBJECTS, OBJECTS_LONGER, Phase
from unpool.segment.aggregate import Aggregate, crop_squares, squares
from unpool.segment.ensemble import combine
from unpool.segment.evaluate import Measured, compare, evaluate, summarize
from unpool.segment.result import PRESENT_ON, postprocess
from unpool.segment.segmenter import Segmenter
from unpool.vision.boxes import resize
from unpool.vision.drawing import overlay
from unpool.vision.figures import contact_sheet, plot
from unpool.vision.images import read_image, write_image
from unpool.vision.metrics import scores as miou

COUNTS = (1, 2, 5, 10, 20, 30, 50, 75, 100)
TABLE = (
    "FCN-8s",
    "DeconvNet, whole image",
    "DeconvNet, instance-wise",
    "DeconvNet, instance-wise + CRF",
    "EDeconvNet",
    "EDeconvNet + CRF",
)
_CRF = CRF_PRESETS["edeconvnet"]
CRFS = {  # by what differs from the published one
    "as published": _CRF,
    "color weight 5 → 1": _CRF._replace(kernels=(Kernel(3, 3), Kernel(20, 1, 3))),
    "normalized symmetrically": _CRF._replace(normalization="symmetric"),
    **{f"preset `{name}`": CRF_PRESETS[name] for name in ("deeplab", "crfrnn", "densecrf")},
}
PRESENCES = (0.0, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
PRESENCE_OF = ("FCN-8s", "DeconvNet, whole image", "DeconvNet, instance-wise", "EDeconvNet")
FOLDS = 10  #: in each, the presence is chosen by the images of the others
ENLARGED = 500  #: long side of VOC's images, for which these parameters were published
STAGED = dataclasses.replace(FINETUNE, name="stages", patience=None)
STAGES: dict[str, tuple[Phase, ...]] = {  # from `objects`; as many steps each
    "stage 1 only": (Phase("stage 1", 5, 200, 2e-4, 2e-4, 2e-5, 4, ("objects",)),),
    "stage 1, then stage 2": (
        Phase("stage 1", 5, 100, 2e-4, 2e-4, 2e-5, 4, ("objects",)),
        Phase("stage 2", 5, 100, 2e-4, 2e-4, 2e-5, 4, ("proposals",)),
    ),
}
PHOTOS = ("chelsea", "astronaut", "motorcycle_left", "coffee", "camera")

Scores = NDArray[np.float32]


def rows(
    image: NDArray[np.uint8], deconvnet: Segmenter, fcn: Segmenter, crf: str, ensemble: str
) -> dict[str, NDArray[np.uint8]]:
    """The labels of one image by every row: those of the table, and those of the ablations."""

    def labels(
        scores: Scores,
        crf: str | DenseCRF | None = None,
        presence_threshold: float = deconvnet.presence_threshold,
    ) -> NDArray[np.uint8]:
        return postprocess(
            image, scores, deconvnet.classes, crf=crf, presence_threshold=presence_threshold
        ).labels

    whole = deconvnet.predict(image, mode="whole").logits
    partner = fcn.predict(image, mode="whole").logits
    found = {}
    merged = {how: Aggregate(len(whole), image.shape[:2], how) for how in ("max", "mean")}
    boxes = squares(image, count=max(COUNTS))
    best: Scores = whole
    assert deconvnet.side is not None
    crops = (
        pair
        for part, images in crop_squares(image, boxes, deconvnet.side, deconvnet.quickest_batch())
        for pair in zip(part, deconvnet.infer(images), strict=True)
    )
    for number, (crop, scores) in enumerate(crops, 1):
        for how, one in merged.items():
            one.add(crop, scores)
            if number in COUNTS or number == len(boxes):
                for count in COUNTS:
                    if count == number or (number == len(boxes) and count > number):
                        found[f"{how} of {count}"] = labels(one.logits)
                        if count == 50 and how == deconvnet.aggregate:
                            best = one.logits
    both = combine(best, partner, ensemble)
    for name, scores in zip(PRESENCE_OF, (partner, whole, best, both), strict=True):
        found[name] = labels(scores)
        for presence_threshold in PRESENCES:
            found[f"{name}, presence {presence_threshold:g}"] = labels(
                scores, presence_threshold=presence_threshold
            )
    for name, scores in (("DeconvNet, instance-wise + CRF", best), ("EDeconvNet + CRF", both)):
        found[name] = labels(scores, crf)
        found[f"{name}, presence 0"] = labels(scores, crf, 0.0)
    other = {"mean": "product", "product": "mean"}[ensemble]
    found[f"EDeconvNet, {other}"] = labels(combine(best, partner, other))
    found["DeconvNet, whole image + CRF"] = labels(whole, crf)
    found["EDeconvNet, whole image"] = labels(combine(whole, partner, ensemble))
    for what, other_crf in CRFS.items():
        found[f"CRF, {what}"] = labels(both, other_crf)
    found[f"CRF, at {ENLARGED} pixels"] = _at_large(image, both, deconvnet)
    return found


def _at_large(image: NDArray[np.uint8], scores: Scores, by: Segmenter) -> NDArray[np.uint8]:
    """The labels after the CRF of the enlarged image, back at the image's size."""
    large = resize(image, max(ENLARGED, *image.shape[:2]))
    size = large.shape[:2]
    grown = F.interpolate(torch.from_numpy(scores)[None], size=size, mode="bilinear")[0]
    found = postprocess(
        large, grown.numpy(), by.classes, crf=_CRF, presence_threshold=by.presence_threshold
    )
    refined = found.probabilities
    back = F.interpolate(torch.from_numpy(refined)[None], size=image.shape[:2], mode="area")[0]
    return np.asarray(back.numpy().argmax(0).astype(np.uint8))


def measure(
    data_root: Path, split: str, deconvnet: Segmenter, fcn: Segmenter, crf: str, ensemble: str
) -> dict[str, dict[str, Any]]:
    """The summary of every row."""
    data = open_data(data_root, split)
    measured: dict[str, list[Measured]] = defaultdict(list)
    with click.progressbar(data.samples, label="measuring") as samples:
        for sample in samples:
            image, truth = read_sample(sample, len(data.classes))
            for name, labels in rows(image, deconvnet, fcn, crf, ensemble).items():
                measured[name].append(compare(sample.name, labels, truth, len(data.classes)))
    for name in PRESENCE_OF:
        measured[f"{name}, presence cross-validated"] = by_others(
            [
                measured[f"{name}, presence {presence_threshold:g}"]
                for presence_threshold in PRESENCES
            ]
        )
    return _summaries(measured, data)


def by_others(ways: list[list[Measured]]) -> list[Measured]:
    """Each image in the way that is best on the other folds, so that it has not chosen itself."""
    fold = np.arange(len(ways[0])) % FOLDS
    counts = np.array([[one.matrix for one in way] for way in ways])
    chosen = [np.argmax([miou(way[fold != f].sum(0)).miou for way in counts]) for f in range(FOLDS)]
    return [ways[chosen[f]][i] for i, f in enumerate(fold)]


def precisions(data_root: Path, split: str, weights: str) -> dict[str, dict[str, Any]]:
    """Whole images by the network as it is, in its fast form, and in bfloat16."""
    ways: dict[str, dict[str, Any]] = {
        "as trained, fp32": {"exact": True},
        "fast form, fp32": {"precision": "fp32"},
        "fast form, bf16": {"precision": "bf16"},
    }
    segmenters = {name: Segmenter.from_pretrained(weights, **way) for name, way in ways.items()}
    data = open_data(data_root, split)
    measured: dict[str, list[Measured]] = defaultdict(list)
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


def stages(data_root: Path, split: str, runs: Path) -> dict[str, dict[str, Any]]:
    """Instance-wise segmentation after training with stage 1 alone, and with both stages."""
    data = open_data(data_root, split)
    begun = read_card("objects").sha256[:8]  # with other weights it is another run
    found = {}
    for name, phases in STAGES.items():
        recipe = dataclasses.replace(STAGED, phases=phases)
        folder = f"{name.replace(', ', '-').replace(' ', '-')}-{begun}"
        weights = trained(recipe, runs / folder, data_root, None)
        segmenter = Segmenter.from_pretrained(weights, aggregate="mean")
        for mode in ("whole", "instance"):
            with click.progressbar(length=len(data.samples), label=f"{name}, {mode}") as bar:
                summary = evaluate(
                    segmenter, data, mode=mode, progress=lambda done, _, b=bar: b.update(1)
                )
            found[f"{name}, {mode}"] = _with_means(summary, images(data))
    return found


def _summaries(measured: dict[str, list[Measured]], data: DataSet) -> dict[str, dict[str, Any]]:
    count = images(data)
    summaries = {name: summarize(found, data, name) for name, found in measured.items()}
    return {name: _with_means(summary, count) for name, summary in summaries.items()}


def _with_means(summary: dict[str, Any], count: dict[str, int]) -> dict[str, Any]:
    """The summary with means over the classes of the truth, and over the more frequent of them."""
    means = {
        name: float(np.mean([summary["iou"][k] or 0 for k, n in count.items() if n >= least]))
        for name, least in (("miou_present", 1), ("miou_frequent", 3))
    }
    return summary | means


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


def images(data: DataSet) -> dict[str, int]:
    """In how many images each class occurs; those of one or two are these images' luck."""
    count = np.zeros(256, int)
    for sample in data.samples:
        count[np.unique(read_sample(sample, len(data.classes))[1])] += 1
    return {name: int(n) for name, n in zip(data.classes, count, strict=False)}


def figure(deconvnet: Segmenter, fcn: Segmenter, crf: str, ensemble: str) -> NDArray[np.uint8]:
    """A row for each photo that scikit-image ships, a column for each row of the table."""
    tiles = []
    for name in PHOTOS:
        image = read_image(Path(str(resources.files("skimage") / f"data/{name}.png")))
        found = rows(image, deconvnet, fcn, crf, ensemble)
        tiles.append((image, name))
        for row in TABLE:
            tiles.append((overlay(image, found[row], deconvnet.palette, deconvnet.classes), row))
    return contact_sheet(tiles, columns=1 + len(TABLE))


def plot_proposals(summaries: dict[str, dict[str, Any]], path: Path) -> None:
    """Plot the mean IoU, with its interval, against the number of proposals, by aggregation."""
    with plot(path, (6, 3.5)) as axes:
        for how in ("max", "mean"):
            found = [summaries[f"{how} of {count}"] for count in COUNTS]
            low, high = zip(*(s["miou_interval"] for s in found), strict=True)
            axes.plot(COUNTS, [s["miou"] for s in found], marker=".", label=how)
            axes.fill_between(COUNTS, low, high, alpha=0.12)
        axes.axhline(summaries["DeconvNet, whole image"]["miou"], ls=":", c="k", label="whole")
        axes.set(xlabel="proposals", ylabel="mean IoU", ylim=(0, None))
        axes.legend()
        axes.grid(alpha=0.3)


def line(name: str, summary: dict[str, Any]) -> str:
    """A row of a table on the page."""
    low, high = (f"{100 * v:.1f}" for v in summary["miou_interval"])
    names = ("miou_present", "miou_frequent", "pixel_accuracy", "mean_accuracy", "boundary_f1")
    rest = (summary[name] for name in names)
    cells = " | ".join(f"{100 * v:.1f}" for v in rest)
    return f"| {name} | {100 * summary['miou']:.1f} | {low} to {high} | {cells} |"


HEAD = """| | mean IoU | 95 % interval | of classes in the truth | in 3 images or more \
| pixel accuracy | mean accuracy | boundary F1 |
|---|---|---|---|---|---|---|---|"""


def table(summaries: dict[str, dict[str, Any]], names: list[str]) -> str:
    """Some rows as a table on the page."""
    return "\n".join([HEAD, *(line(name, summaries[name]) for name in names)])


def page(parts: dict[str, dict[str, dict[str, Any]]], about: dict[str, str]) -> str:
    """The page, in Markdown."""
    rows = parts["rows"]
    crfs = [name for name in rows if name.startswith("CRF, ")]
    others = [
        name
        for name in rows
        if name not in (*TABLE, *crfs) and " of " not in name and "presence" not in name
    ]
    kept = {name: rows[f"{name}, presence 0"] for name in TABLE}
    presences = [
        f"| {p} | "
        + " | ".join(_cell(rows[f"{name}, presence {p}"]) for name in PRESENCE_OF)
        + " |"
        for p in (
            *(f"{presence_threshold:g}" for presence_threshold in PRESENCES),
            "cross-validated",
        )
    ]
    counts = [
        f"| {c} | " + " | ".join(_cell(rows[f"{how} of {c}"]) for how in ("max", "mean")) + " |"
        for c in COUNTS
    ]
    exact = [
        f"| {name} | {100 * row['miou']:.2f} | {1e4 * row['different']:.2f} |"
        for name, row in parts["precisions"].items()
    ]
    sections = [
        "# Results",
        f"Generated by `{about['command']}`; figures in percent. {about['protocol']}.",
        f"Machine: {about['machine']}. Weights: {about['weights']}. Ensemble: {about['ensemble']}, "
        f"dense CRF: `{about['crf']}`, 50 proposals, aggregation: {about['aggregate']}, "
        f"class presence threshold: {about['presence_threshold']}.",
        table(rows, list(TABLE)),
        "![Each row on photos of scikit-image](results-figure.jpg)",
        "## Class presence threshold",
        "The card of the weights sets `presence_threshold`: a class is removed from an image "
        f"unless its probability reaches {about['presence_threshold']} on {100 * PRESENT_ON:g} % "
        "of the pixels. The paper keeps all classes:",
        table(kept, list(TABLE)),
        "Mean IoU against the threshold. In the last row it is cross-validated: each tenth of the "
        "images uses the threshold that is best on the other nine tenths.",
        "\n".join(
            ["| threshold | " + " | ".join(PRESENCE_OF) + " |", "|---|---|---|---|---|", *presences]
        ),
        "## Components and alternatives",
        table(rows, others),
        "## The dense CRF's parameters",
        "The scores of EDeconvNet, refined by other CRFs. The published parameters were tuned on "
        f"VOC, whose images have a long side of {ENLARGED} pixels; the last row enlarges images to "
        "that.",
        table(rows, ["EDeconvNet", *crfs]),
        "## Number of proposals and aggregation",
        "\n".join(["| proposals | max | mean |", "|---|---|---|", *counts]),
        "![Mean IoU against the number of proposals](results-proposals.png)",
        "## The fast form and bfloat16",
        "Whole images. The last column counts the pixels in 10,000 whose label differs from that "
        "of the network as trained.",
        "\n".join(["| | mean IoU | differing labels |", "|---|---|---|", *exact]),
    ]
    if "stages" in parts:
        steps = sum(phase.steps for phase in STAGES["stage 1 only"])
        sections += [
            "## Stage 1 alone, and both stages",
            f"`objects`, trained for another {steps} steps of {STAGED.batch} windows at a small "
            "learning rate, with new score layers: on windows around objects (stage 1) only, or "
            "half of the steps on windows around proposals (stage 2). All classes are kept. "
            "Generated by `make results` with `STAGES=--with-stages`.",
            table(parts["stages"], list(parts["stages"])),
        ]
    return "\n\n".join(sections) + "\n"


def _cell(summary: dict[str, Any]) -> str:
    return f"{100 * summary['miou']:.1f}"


def trained(recipe: SegmentationRecipe, folder: Path, data: Path, trunk: Path | None) -> Path:
    """The weights of a recipe's run; it is begun, or gone on with, if they are not there."""
    if not (folder / "weights/card.json").exists():
        click.echo(f"training {recipe.name}")
        command = f"unpool train {recipe.name} --data {data.name} -o {folder}"
        train(data, folder, recipe, trunk_weights=trunk, resume=True, command=command)
    return folder / "weights"


@click.command()
@click.option("--data", type=Path, required=True, help="A folder of labeled images.")
@click.option("--split", default="val", show_default=True)
@click.option("--trunk-weights", type=Path, help="VGG weights, for what is still to be trained.")
@click.option("--runs", type=Path, default=Path("runs"), show_default=True)
@click.option("--shipped", is_flag=True, help="Measure the weights that ship with the package.")
@click.option("--with-stages", is_flag=True, help="Train and compare the two stages, too.")
@click.option("--crf", default="edeconvnet", show_default=True)
@click.option("--ensemble", default="mean", show_default=True)
@click.option("-o", "--output", type=Path, default=Path("docs"), show_default=True)
def main(
    data: Path,
    split: str,
    trunk_weights: Path | None,
    runs: Path,
    shipped: bool,
    with_stages: bool,
    crf: str,
    ensemble: str,
    output: Path,
) -> None:
    """Train, measure, and write the page."""
    names = ["objects", "objects-fcn8s"]
    if not shipped:
        first, partner = (
            trained(recipe, runs / recipe.name, data, trunk_weights) for recipe in (OBJECTS, FCN8S)
        )
        longer = dataclasses.replace(OBJECTS_LONGER, start=str(first))
        names = [str(trained(longer, runs / longer.name, data, None)), str(partner)]
    deconvnet, fcn = (Segmenter.from_pretrained(name) for name in names)
    known = [data.name, split, *(read_card(name).sha256 for name in names)]
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "rows": lambda: measure(data, split, deconvnet, fcn, crf, ensemble),
        "precisions": lambda: precisions(data, split, names[0]),
    }
    if with_stages:
        ways["stages"] = lambda: stages(data, split, runs)
    presence_threshold = f"{deconvnet.presence_threshold:g}"
    keys = {
        "rows": " ".join([*known, crf, ensemble, presence_threshold]),
        "precisions": " ".join([*known[:3], presence_threshold]),
        "stages": " ".join(known[:3]),
    }
    parts = {
        name: kept(runs / f"results/{name}.json", keys[name], way) for name, way in ways.items()
    }
    rows_ = parts["rows"]
    about = {
        "protocol": rows_["FCN-8s"]["protocol"].replace("; FCN-8s", ""),
        "command": f"make results DATA={data.name}" + ("" if shipped else " TRUNK=..."),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, "
        f"{str(deconvnet.dtype).removeprefix('torch.')}, no GPU",
        "weights": " and ".join(f"`{name}`" for name in names),
        "ensemble": ensemble,
        "crf": crf,
        "aggregate": deconvnet.aggregate,
        "presence_threshold": presence_threshold,
    }
    with atomic(output / "results.json") as temporary:
        temporary.write_text(json.dumps({"about": about, **parts}, indent=1) + "\n")
    plot_proposals(rows_, output / "results-proposals.png")
    write_image(output / "results-figure.jpg", figure(deconvnet, fcn, crf, ensemble))
    with atomic(output / "results.md") as temporary:
        temporary.write_text(page(parts, about))
    for name in TABLE:
        click.echo(f"{name}: {_cell(rows_[name])}")
    click.echo(json.dumps({name: rows_[name]["miou"] for name in TABLE}))


if __name__ == "__main__":
    main()
