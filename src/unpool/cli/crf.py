"""`unpool crf`: saved scores, refined along the edges of their image."""

import time
from pathlib import Path, PurePosixPath

import click

from unpool.cli import console
from unpool.cli.options import CRFS, JSON, OVERLAY, PRESENCE, QUIET, Folder, choice, make_folder


@click.command()
@click.argument("scores", type=click.Path(path_type=Path))
@click.argument("image", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=Folder(),
    default="refined",
    metavar="FOLDER",
    help="Where the results go; made if it is missing.  [default: refined]",
)
@choice("--crf", CRFS, "The parameters, as they were published with these.", required=True)
@click.option(
    "--probabilities",
    is_flag=True,
    help="SCORES are probabilities, rather than what softmax makes probabilities of.",
)
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
) -> None:
    """Refine saved scores by a dense CRF, along the edges of the image IMAGE.

    SCORES are a file of `unpool segment --scores`, or a .npy or .npz (there, the array scores) of
    another program: (classes, height, width), as large as the upright image.

    For cat.jpg this writes OUTPUT/cat.png and OUTPUT/cat.overlay.jpg, as `unpool segment` does.

    \b
    Example: unpool crf out/cat.scores.npz cat.jpg -o refined --crf edeconvnet
    """
    from unpool.vision.images import read_image
    from unpool.vision.sources import Source, spare_inputs

    mask = output / f"{image.stem}.png"
    source = Source(image, PurePosixPath(image.stem))
    spare_inputs([source], [mask, mask.with_suffix(".overlay.jpg")])

    from unpool.ops.meanfield import warm_up
    from unpool.segment.result import describe_postprocessing, postprocess
    from unpool.segment.scores import read_scores

    start = time.perf_counter()
    photo, found = read_image(image), read_scores(scores, probabilities=probabilities)
    presence_threshold = (
        found.presence_threshold if presence_threshold is None else presence_threshold
    )
    with console.progress("loading the CRF", quiet) as show:
        show(0, 2)
        warm_up(crf)
        show(1, 2, "refining")
        refined = postprocess(
            photo,
            found.values,
            found.classes,
            found.palette,
            crf=crf,
            presence_threshold=presence_threshold,
        )
        show(2, 2, "writing")
        make_folder(output)
        refined.save(mask, overlay=overlay)
    steps = ", ".join(describe_postprocessing(presence_threshold, crf))
    record = {
        "source": str(image),
        "mask": str(mask),
        "size": [photo.shape[1], photo.shape[0]],
        "labels": refined.fractions(),
        "seconds": round(time.perf_counter() - start, 3),
        "description": f"{steps} of {scores.name}",
    }
    console.print_segmented(record, as_json, quiet)
