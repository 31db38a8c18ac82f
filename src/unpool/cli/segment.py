"""`unpool segment`: images in, masks and overlays out."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool.cards import MODES
from unpool.cli import console, images, options

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.vision.sources import Source


@click.command()
@click.argument("inputs", nargs=-1, required=True)
@images.output_option("segmented")
@options.WEIGHTS
@options.choice(
    "--mode",
    MODES,
    "whole: each image in one pass; instance: object proposals one by one, as in the paper.  "
    "[default: the mode of the weights; instance with --preset edeconvnet]",
)
@options.SEGMENTATION
@options.METHOD
@options.BATCH
@options.OVERLAY
@click.option(
    "--scores", is_flag=True, help="Also write the class scores before the CRF, for `unpool crf`."
)
@click.option("--timings", is_flag=True, help="Also report the time of each stage.")
@options.JSON
@options.QUIET
def segment(
    inputs: tuple[str, ...],
    output: Path,
    weights: str,
    overlay: bool,
    scores: bool,
    timings: bool,
    as_json: bool,
    quiet: bool,
    **given: Any,
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
    files = images.with_suffixes(".png", ".overlay.jpg", ".scores.npz")
    found = images.find_inputs(inputs, output, files)  # before torch is loaded

    from unpool.ops.meanfield import warm_up
    from unpool.segment.ensemble import load
    from unpool.segment.timings import measuring, stage

    with console.progress("loading the weights", quiet) as update:
        segmenter = load(weights, given["preset"], **options.network_options(given))
        given = options.typed(given)
        description = segmenter.describe(**given)  # refuses modes that the network does not have
        options.make_folder(output)
        if "crf" in given:
            update(1, 2, "loading the CRF")
            warm_up(given["crf"])

    def make(source: "Source", stem: Path, progress: "Progress") -> images.Record:
        start = time.perf_counter()
        with measuring() as seconds:
            with stage("reading"):
                image = source.read()
            result = segmenter(image, progress=progress, **given)
            with stage("writing"):
                mask = result.save(f"{stem}.png", overlay=overlay, scores=scores)
        seconds["other"] = max(time.perf_counter() - start - sum(seconds.values()), 0.0)
        record: images.Record = {"mask": str(mask)}
        if scores:
            record["scores"] = str(mask.with_suffix(".scores.npz"))
        record |= result.to_dict()
        if timings:
            record["timings"] = {name: round(s, 3) for name, s in seconds.items()}
        return {**record, "description": description}

    into = f"segmented, into {output}"
    show = console.segmentation_text
    return images.each_image(found, output, make, show, "segmenting", as_json, quiet, into)
