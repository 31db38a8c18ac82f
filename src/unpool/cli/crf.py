"""`unpool crf`: refine saved scores by a dense CRF."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from unpool import Progress
from unpool.cli.console import segmentation_text
from unpool.cli.images import Record, each_image
from unpool.cli.options import JSON, OVERLAY, PRESENCE, QUIET, Folder, choice, make_folder
from unpool.cli.progress import progress
from unpool.recipes.presets import CRF_PRESETS

if TYPE_CHECKING:
    from unpool.vision.sources import Source


@click.command()
@click.argument("scores", type=click.Path(path_type=Path))
@click.argument("image", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=Folder(),
    default="refined",
    metavar="FOLDER",
    help="Folder for the results, created if missing.  [default: refined]",
)
@choice("--crf", CRF_PRESETS, "The published parameters to use.", required=True)
@click.option("--probabilities", is_flag=True, help="SCORES are probabilities, not logits.")
@PRESENCE
@OVERLAY
@JSON
@QUIET
def crf(
    scores: Path,
    image: Path,
    output: Path,
    crf: str,
    probabilities: bool,
    presence_threshold: float | None,
    overlay: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Refine saved scores along the edges of IMAGE by a dense CRF.

    SCORES is a file written by `unpool segment --scores`, or a .npy or .npz (with the array
    "scores") of shape (classes, height, width), the size of the upright image.

    For cat.jpg this writes OUTPUT/cat.png and OUTPUT/cat.overlay.jpg, like `unpool segment`.

    \b
    Example: unpool crf out/cat.scores.npz cat.jpg -o refined --crf edeconvnet
    """
    from unpool.vision.sources import find_images, spare_inputs

    found = find_images([str(image)], output)
    mask = output / f"{image.stem}.png"
    spare_inputs(found.sources, [mask, mask.with_suffix(".overlay.jpg")])

    from unpool.ops.meanfield import warm_up
    from unpool.segment.result import describe_postprocessing, postprocess
    from unpool.segment.scores import read_scores

    saved = read_scores(scores, probabilities=probabilities)
    if presence_threshold is None:
        presence_threshold = saved.presence_threshold
    with progress("loading the CRF", quiet):
        warm_up(crf)
    make_folder(output)

    def make(source: "Source", progress: Progress) -> Record:
        pixels = source.read()
        refined = postprocess(
            pixels,
            saved.values,
            saved.classes,
            saved.palette,
            crf=crf,
            presence_threshold=presence_threshold,
        )
        refined.save(mask, overlay=overlay)
        steps = describe_postprocessing(presence_threshold, crf)
        return {
            "mask": str(mask),
            "size": [pixels.shape[1], pixels.shape[0]],
            "labels": refined.fractions(),
            "description": f"{', '.join(steps)} of {scores.name}",
        }

    return each_image(found, make, segmentation_text, what="refining", as_json=as_json, quiet=quiet)
