"""`unpool evaluate`: the figures of weights on labeled images."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool.cards import MODES
from unpool.cli import console
from unpool.cli.options import (
    AGGREGATE,
    CRF,
    DATA,
    DEVICE,
    ENSEMBLE,
    EXACT,
    JSON,
    PRECISION,
    PRESENCE,
    PRESET,
    PROPOSALS,
    QUIET,
    WEIGHTS,
    Folder,
    choice,
    make_folder,
    require_instances,
    typed,
)
from unpool.cli.progress import progress

if TYPE_CHECKING:
    from unpool.data.datasets import DataSet
    from unpool.segment.ensemble import EDeconvNet
    from unpool.segment.segmenter import Segmenter


@click.command()
@WEIGHTS
@DATA
@click.option(
    "--split",
    default="val",
    help="The part of the data to measure on: val, train, or another that it has; all for every "
    "image.  [default: val]",
)
@choice(
    "--mode",
    [*MODES, "both"],
    "How to segment: whole images, instance-wise, or both, one after the other.  [default: both; "
    "with --preset edeconvnet, instance; of an FCN, whole]",
)
@PRESET
@PROPOSALS
@AGGREGATE
@ENSEMBLE
@CRF
@PRESENCE
@PRECISION
@EXACT
@click.option(
    "-o",
    "--output",
    type=Folder(),
    metavar="FOLDER",
    help="Where to write summary.json and iou.csv.",
)
@DEVICE
@JSON
@QUIET
def evaluate(
    weights: str,
    data: Path,
    split: str,
    mode: str | None,
    ensemble: str | None,
    output: Path | None,
    device: str | None,
    precision: str | None,
    exact: bool | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Measure weights on labeled images.

    The data has VOC's layout (JPEGImages, SegmentationClass, ImageSets), or images and masks.
    Images that cannot be used (missing, unreadable, of another size than their mask, with a
    color-coded mask) are dropped and named; the exit code is then 3, or 2 if none is left.

    With --json, an object has the figures of the weights' own mode and their protocol at its top,
    and those of each mode under modes.

    Several processes share the images: torchrun --nproc-per-node 2 -m unpool evaluate ...

    \b
    Example: unpool evaluate --data VOC2012 --split val -o figures
    """
    from unpool import distributed
    from unpool.data.datasets import open_data
    from unpool.segment.ensemble import load

    start = time.perf_counter()
    missing: dict[str, str] = {}
    labeled = open_data(data, split, missing)
    device = distributed.local(device or "auto")
    build = {"ensemble": ensemble, "device": device, "precision": precision, "exact": exact}
    segmenter = load(weights, options["preset"], **typed(build))
    chosen = segmenter.measured_modes if mode is None else MODES if mode == "both" else (mode,)
    require_instances({**options, "mode": mode}, "instance" if "instance" in chosen else "whole")
    for name in chosen:
        segmenter.describe(mode=name)  # refuses what the network does not have
    with distributed.join(segmenter.device):
        first = distributed.rank() == 0
        if output is not None and first:
            make_folder(output)
        modes = _measure(segmenter, labeled, chosen, missing, quiet or not first, typed(options))
    if not first:
        return 0  # torchrun ends all processes when one fails
    summary = modes.get(segmenter.mode, modes[chosen[-1]]) | {
        "modes": modes,
        "weights": weights,
        "data": str(data),
        "split": split,
        "seconds": round(time.perf_counter() - start, 3),
    }
    if output is not None:
        console.write_figures(output, summary)
    if as_json:
        console.print_json(summary)
    else:
        console.print_figures(modes, quiet)
    return 3 if summary["dropped"] else 0


def _measure(
    segmenter: "Segmenter | EDeconvNet",
    data: "DataSet",
    modes: Sequence[str],
    missing: dict[str, str],
    quiet: bool,
    options: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """The summary of each mode."""
    from unpool.segment.evaluate import evaluate

    found = {}
    for mode in modes:
        with progress(f"evaluating, {mode}", quiet) as show:
            found[mode] = evaluate(
                segmenter, data, missing=missing, progress=show, mode=mode, **options
            )
    return found
