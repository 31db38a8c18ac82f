"""`unpool segment`: images in, masks and overlays out."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool import Progress
from unpool.cards import MODES
from unpool.cli import console
from unpool.cli.images import Record, each_image
from unpool.cli.options import (
    BATCH,
    JSON,
    METHOD,
    OVERLAY,
    QUIET,
    SEGMENTATION,
    WEIGHTS,
    Folder,
    choice,
    make_folder,
    network_options,
    require_instances,
    typed,
)
from unpool.cli.progress import progress

if TYPE_CHECKING:
    from unpool.vision.sources import Source


@click.command()
@click.argument("inputs", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=Folder(),
    default="segmented",
    metavar="FOLDER",
    help="Folder for the results, created if missing.  [default: segmented]",
)
@WEIGHTS
@choice(
    "--mode",
    MODES,
    "whole: each image in one pass; instance: object proposals one by one, as in the paper.  "
    "[default: the mode of the weights; instance with --preset edeconvnet]",
)
@SEGMENTATION
@METHOD
@BATCH
@OVERLAY
@click.option(
    "--scores", is_flag=True, help="Also write the class scores before the CRF, for `unpool crf`."
)
@click.option("--timings", is_flag=True, help="Also report the time of each stage.")
@JSON
@QUIET
def segment(
    inputs: tuple[str, ...],
    output: Path,
    weights: str,
    overlay: bool,
    scores: bool,
    timings: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Assign a class to every pixel of images.

    INPUTS are images, folders, patterns, lists of paths (.txt), or - for standard input.

    For a/cat.jpg in the folder photos this writes OUTPUT/a/cat.png, an index PNG with a palette
    and the size of the upright image, and OUTPUT/a/cat.overlay.jpg; with --scores also
    OUTPUT/a/cat.scores.npz. If the results of two inputs would both be named cat, they are named
    cat_jpg and cat_png, or cat_jpg and cat_jpg_2.

    Inputs are never overwritten: an OUTPUT where that would happen is refused. Folders and patterns
    skip the files in OUTPUT, the results of earlier runs; files given by name or in a list are
    always used.

    Unreadable images are reported and skipped (exit code 3); the exit code is 2 if there is no
    image at all.

    With --json, each image gives a line with source, mask (its path), scores (their path, if
    written), size ([width, height]), labels (the fraction of the pixels of each class), timings
    (with --timings: the seconds of each stage), description (how it was segmented) and seconds; or
    with source and error.

    \b
    Example: unpool segment photos "more/*.jpg" -o out --json
    """
    from unpool.vision.sources import find_images, spare_inputs

    found = find_images(inputs, output)
    prefixes = [output / str(source.name) for source in found.sources]
    endings = (".png", ".overlay.jpg", ".scores.npz")
    spare_inputs(found.sources, [Path(f"{p}{ending}") for p in prefixes for ending in endings])

    from unpool.ops.meanfield import warm_up
    from unpool.segment.ensemble import load

    with progress("loading the weights", quiet) as update:
        segmenter = load(weights, options["preset"], **network_options(options))
        require_instances(options, options["mode"] or segmenter.mode)
        options = typed(options)
        description = segmenter.describe(**options)  # refuses modes that the network does not have
        make_folder(output)
        if options.get("crf"):
            update(1, 2, "loading the CRF")
            warm_up(options["crf"])

    def make(source: "Source", progress: Progress) -> Record:
        mask = output / f"{source.name}.png"
        run = partial(segmenter, progress=progress, **options)
        record, spent = _segment_one(run, source, mask, overlay, scores)
        times = {"timings": spent} if timings else {}
        return {**record, **times, "description": description}

    return each_image(
        found,
        make,
        console.segmentation_text,
        what="segmenting",
        as_json=as_json,
        quiet=quiet,
        summary=f"segmented, into {output}",
    )


def _segment_one(
    run: Callable[..., Any], source: "Source", mask: Path, overlay: bool, scores: bool
) -> tuple[Record, dict[str, float]]:
    """Segment an image and write the results; returns a record and the seconds of each stage."""
    from unpool.segment.timings import measuring, stage

    start = time.perf_counter()
    with measuring() as seconds:
        with stage("reading"):
            image = source.read()
        result = run(image)
        with stage("writing"):
            result.save(mask, overlay=overlay, scores=scores)
    seconds["other"] = max(time.perf_counter() - start - sum(seconds.values()), 0.0)
    record = {
        "mask": str(mask),
        **({"scores": str(mask.with_suffix(".scores.npz"))} if scores else {}),
        "size": [image.shape[1], image.shape[0]],
        "labels": result.fractions(),
    }
    return record, {name: round(s, 3) for name, s in seconds.items()}
