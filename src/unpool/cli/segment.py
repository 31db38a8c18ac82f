"""`unpool segment`: images in, masks and overlays out."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool.cards import MODES
from unpool.cli import console
from unpool.cli.options import (
    AGGREGATE,
    BATCH,
    CRF,
    DEVICE,
    ENSEMBLE,
    EXACT,
    JSON,
    METHOD,
    OVERLAY,
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

if TYPE_CHECKING:
    from unpool.segment.ensemble import EDeconvNet
    from unpool.segment.segmenter import Segmenter
    from unpool.vision.sources import Source


@click.command()
@click.argument("inputs", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=Folder(),
    default="segmented",
    metavar="FOLDER",
    help="Where the results go; made if it is missing.  [default: segmented]",
)
@WEIGHTS
@choice(
    "--mode",
    MODES,
    "whole: each image in one pass; instance: object proposals, one by one, as in the paper.  "
    "[default: the weights'; with --preset edeconvnet, instance]",
)
@PRESET
@ENSEMBLE
@CRF
@PRESENCE
@PROPOSALS
@AGGREGATE
@METHOD
@BATCH
@PRECISION
@EXACT
@OVERLAY
@click.option(
    "--scores",
    is_flag=True,
    help="Write the raw class scores, before the CRF, too, for `unpool crf`.",
)
@click.option("--timings", is_flag=True, help="Tell how long each stage took, too.")
@DEVICE
@JSON
@QUIET
def segment(
    inputs: tuple[str, ...],
    output: Path,
    weights: str,
    ensemble: str | None,
    device: str | None,
    precision: str | None,
    exact: bool | None,
    overlay: bool,
    scores: bool,
    timings: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Give a class to every pixel of images.

    INPUTS are images, folders, patterns, lists of paths (.txt), or - for the standard input.

    For a/cat.jpg in the folder photos this writes OUTPUT/a/cat.png, an index PNG with a palette,
    as large as the upright image, and OUTPUT/a/cat.overlay.jpg; with --scores also
    OUTPUT/a/cat.scores.npz. Where the results of two inputs would both be called cat, they are
    called cat_jpg and cat_png, or cat_jpg and cat_jpg_2.

    No input is ever written over: such an OUTPUT is refused. Where a search of a folder or pattern
    meets OUTPUT, it passes over it, for there are results of earlier runs; what is named directly
    or in a list is taken from anywhere.

    What cannot be used is reported, the rest is done, and the exit code is 3; it is 2 where not
    one input stands for an image.

    With --json, the line of an image has source, mask (its path), scores (their path, if they are
    written), size ([width, height]), labels (the fraction of the pixels of each class), seconds,
    timings (with --timings: the seconds of each stage) and description (how it was segmented, in
    words); or source and error.

    \b
    Example: unpool segment photos "more/*.jpg" -o out --json
    """
    from unpool.vision.sources import find_images, spare_inputs

    sources, unusable = find_images(inputs, output)
    masks = [output / f"{source.name}.png" for source in sources]
    endings = (".png", ".overlay.jpg", ".scores.npz")
    spare_inputs(sources, [mask.with_suffix(ending) for mask in masks for ending in endings])

    from unpool.ops.meanfield import warm_up
    from unpool.segment.ensemble import load
    from unpool.segment.timings import measuring

    build = {"ensemble": ensemble, "device": device, "precision": precision, "exact": exact}
    failed = len(unusable)
    with console.progress("segmenting", quiet) as show:
        show(0, len(sources), "loading the weights")
        segmenter = load(weights, options["preset"], **typed(build))
        require_instances(options, options["mode"] or segmenter.mode)
        options = typed(options)
        description = segmenter.describe(**options)  # which refuses modes that cannot be
        make_folder(output)
        if options.get("crf"):
            show(0, len(sources), "loading the CRF")
            warm_up(options["crf"])
        for useless in unusable:
            console.print_segmented(useless._asdict(), as_json, quiet)
        for i, (source, mask) in enumerate(zip(sources, masks, strict=True)):
            options["progress"] = lambda done, total, i=i: show(i + done / total, len(sources))
            with measuring() as spent:
                record = _segment(segmenter, source, mask, overlay, scores, **options)
            failed += "error" in record
            if "error" not in record:
                if timings:
                    spent["other"] = max(record["seconds"] - sum(spent.values()), 0.0)
                    record["timings"] = {name: round(s, 3) for name, s in spent.items()}
                record["description"] = description
            show(i + 1, len(sources))
            console.print_segmented(record, as_json, quiet)
    if not (as_json or quiet):
        total = len(sources) + len(unusable)
        click.echo(f"{total - failed} of {total} segmented, into {output}")
    return 3 if failed else 0


def _segment(
    segmenter: "Segmenter | EDeconvNet",
    source: "Source",
    mask: Path,
    overlay: bool,
    scores: bool,
    **options: Any,
) -> dict[str, Any]:
    """Segment one image, write the results, and give what is to be said of it."""
    from unpool.segment.timings import stage
    from unpool.vision.images import read_image

    record = {"source": "-" if source.path is None else str(source.path)}
    start = time.perf_counter()
    try:
        with stage("reading"):
            image = read_image(sys.stdin.buffer if source.path is None else source.path)
        found = segmenter(image, **options)
        with stage("writing"):
            found.save(mask, overlay=overlay, scores=scores)
    except Exception as error:
        if console.disk_is_full(error) or not (message := console.reason(error)):
            raise
        return {**record, "error": message}
    return {
        **record,
        "mask": str(mask),
        **({"scores": str(mask.with_suffix(".scores.npz"))} if scores else {}),
        "size": [image.shape[1], image.shape[0]],
        "labels": found.fractions(),
        "seconds": round(time.perf_counter() - start, 3),
    }
