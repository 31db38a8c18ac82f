"""`unpool crf`: refine saved scores by a dense CRF."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unpool.cli import console, images, options
from unpool.errors import ImageError
from unpool.recipes.presets import CRF_PRESETS

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.vision.sources import Source


@click.command()
@click.argument("scores", type=click.Path(path_type=Path))
@click.argument("image")
@images.output_option("refined")
@options.choice("--crf", CRF_PRESETS, "The published parameters to use.", required=True)
@click.option("--probabilities", is_flag=True, help="SCORES are probabilities, not logits.")
@options.PRESENCE
@options.OVERLAY
@options.REDO
@options.JSON
@options.QUIET
def crf(
    scores: Path,
    image: str,
    output: Path,
    crf: str,
    probabilities: bool,
    presence_threshold: float | None,
    overlay: bool,
    redo: bool,
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
    found = images.find_inputs([image], output, images.with_suffixes(".png", ".overlay.jpg"))

    from unpool.ops.meanfield import warm_up
    from unpool.segment.postprocessing import describe_postprocessing, postprocess
    from unpool.segment.scores import read_scores

    size = _size(found.sources)
    saved = read_scores(scores, probabilities=probabilities, size=size)
    if presence_threshold is None:
        presence_threshold = saved.presence_threshold
    steps = ", ".join(describe_postprocessing(presence_threshold, crf))
    with console.progress("loading the CRF", quiet):
        warm_up(crf)

    def make(source: "Source", stem: Path, progress: "Progress") -> images.Record:
        refined = postprocess(
            source.read(),
            saved.values,
            saved.classes,
            saved.palette,
            crf=crf,
            presence_threshold=presence_threshold,
        )
        mask = refined.save(f"{stem}.png", overlay=overlay)
        return {"mask": str(mask), **refined.to_dict(), "description": f"{steps} of {scores.name}"}

    show = console.segmentation_text
    return images.each_image(found, output, make, show, "refining", as_json, quiet, redo=redo)


def _size(sources: "list[Source]") -> tuple[int, int] | None:
    """Height and width of a single file that can be read."""
    from unpool.vision.images import image_size

    if len(sources) == 1 and sources[0].path is not None:
        with suppress(ImageError):
            return image_size(sources[0].path)
    return None
