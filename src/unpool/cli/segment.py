"""`unpool segment`: images in, masks and overlays out."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import click

from unpool.cards import MODES, weights_digest
from unpool.cli import console, images, options
from unpool.errors import OptionError, suggest
from unpool.files import sha256
from unpool.ledger import HIDDEN
from unpool.recipes.presets import FORMATS

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.vision.sources import Source


def parse_formats(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """The formats of a list with commas, in the order of `FORMATS`; Label-Studio is one, too."""
    given = [part.strip().lower().replace("-", "").replace("_", "") for part in value.split(",")]
    for name in given:
        if name not in FORMATS:
            raise click.BadParameter(f"got {name!r}; {suggest(name, FORMATS)}.", ctx, param)
    return tuple(name for name in FORMATS if name in given)


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
@click.option(
    "--format",
    "formats",
    default="mask",
    metavar="NAME,...",
    callback=parse_formats,
    help="What to write, with commas: mask, coco, labelme, yolo, geojson, labelstudio.  "
    "[default: mask]",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="PIXELS",
    help="Leave out corners of polygons that are then at most so far from the outline.  "
    "[default: 0, each pixel is kept]",
)
@click.option("--timings", is_flag=True, help="Also report the time of each stage.")
@options.REDO
@options.JSON
@options.QUIET
def segment(
    inputs: tuple[str, ...],
    output: Path,
    weights: str,
    overlay: bool,
    scores: bool,
    formats: tuple[str, ...],
    tolerance: float,
    timings: bool,
    redo: bool,
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

    --format takes the results to other tools; each connected component of a class is an object.

    \b
      mask         OUTPUT/a/cat.png
      coco         OUTPUT/annotations.coco.json, of all images: run-length codes
      labelme      OUTPUT/a/cat.json: polygons, and masks where holes are
      yolo         OUTPUT/a/cat.txt, OUTPUT/data.yaml with the names
      geojson      OUTPUT/a/cat.geojson: on the map, if the image says where
      labelstudio  OUTPUT/label_studio.json, of all images, and .xml: config

    Inputs are never overwritten: an OUTPUT where that would happen is refused. Folders and patterns
    skip the files in OUTPUT, the results of earlier runs; files given by name or in a list are
    always used.

    Unreadable images are reported and skipped (exit code 3); the exit code is 2 if there is no
    image at all.

    What an earlier run into OUTPUT finished with the same options and weights is skipped, so an
    interrupted run goes on; images that failed are tried again.

    With --json, each image gives a line with source, the paths of its files (mask, labelme, yolo,
    geojson, scores), size ([width, height]), labels (the fraction of the pixels of each class),
    timings (with --timings: the seconds of each stage), description (how it was segmented),
    seconds, and warnings if the image was read by a guess; or with source and error. Skipped images
    have the line of the earlier run, and skipped.

    \b
    Example: unpool segment photos "more/*.jpg" -o out --json
    """
    from unpool.formats.outlines import require_tolerance

    files = images.with_suffixes(".png", ".overlay.jpg", ".scores.npz")
    found = images.find_inputs(inputs, output, files)  # before torch is loaded
    require_tolerance(tolerance)
    spare_others(inputs, found.sources, output, formats)
    names = file_names(found.sources)

    from unpool.formats.write import forget_image, write_folder, write_image
    from unpool.ops.meanfield import warm_up
    from unpool.segment.ensemble import load
    from unpool.segment.timings import measuring, stage
    from unpool.vision.georeference import find_world_file

    others = [name for name in formats if name != "mask"]
    with console.progress("loading the weights", quiet) as update:
        segmenter = load(weights, given["preset"], **options.network_options(given))
        given = options.typed(given)
        description = segmenter.describe(**given)  # refuses modes that the network does not have
        options.make_folder(output)
        if others:
            (output / HIDDEN).mkdir(exist_ok=True)
        if "crf" in given:
            update(1, 2, "loading the CRF")
            warm_up(given["crf"])

    def make(source: "Source", stem: Path, progress: "Progress") -> images.Record:
        start = time.perf_counter()
        record: images.Record = {}
        forget_image(output, source.name)
        with measuring() as seconds:
            with stage("reading"):
                image = source.read()
            result = segmenter(image, progress=progress, **given)
            with stage("writing"):
                if others:
                    objects, name = result.objects(), names[source.name]
                    place = (output, source.name, others, objects, source.path, name)
                    record |= write_image(*place, tolerance=tolerance)
                result.save(f"{stem}.png", mask="mask" in formats, overlay=overlay, scores=scores)
        seconds["other"] = max(time.perf_counter() - start - sum(seconds.values()), 0.0)
        if "mask" in formats:
            record = {"mask": f"{stem}.png", **record}
        if scores:
            record["scores"] = f"{stem}.scores.npz"
        record |= result.to_dict()
        if timings:
            record["timings"] = {name: round(s, 3) for name, s in seconds.items()}
        return {**record, "description": description}

    def also(source: "Source") -> object:
        """What files in other formats say about an image besides its content."""
        if source.path is None or not others:
            return None
        world = find_world_file(source.path)
        return [names[source.name], str(source.path.absolute()), world and sha256(world)]

    into = f"segmented, into {output}"
    show = console.segmentation_text
    network = weights_digest(weights)
    shown = (show, "segmenting", as_json, quiet, into)
    code = images.each_image(found, output, make, *shown, network=network, also=also, redo=redo)
    results = [source.name for source in found.sources]
    write_folder(output, results, others, segmenter.classes, segmenter.palette)
    return code


def spare_others(
    inputs: Sequence[str], sources: Sequence["Source"], output: Path, formats: Sequence[str]
) -> None:
    """Refuse results in other formats that would replace an input, a list, or one another.

    Annotations made by hand may have their names, so those that were there before are kept, too.
    """
    from unpool.formats.write import folder_files, image_files
    from unpool.vision.sources import Source, spare_inputs

    shared = folder_files(output, formats)
    own = [file for source in sources for file in image_files(output / source.name, formats)]
    given = [Source(Path(text), PurePosixPath()) for text in inputs if os.path.isfile(text)]
    spare_inputs([*sources, *given], [*shared, *own])
    if both := set(shared) & set(own):
        raise OptionError(
            f"got an image whose result would be {both.pop()}, the file of all images; rename it, "
            "or write one format at a time"
        )
    foreign = [] if (output / HIDDEN).is_dir() else [f for f in [*own, *shared] if f.exists()]
    if foreign:
        raise OptionError(
            f"got the output {foreign[0]}, which exists and is not by unpool; move it, or choose "
            "another output folder"
        )


def file_names(sources: Sequence["Source"]) -> dict[PurePosixPath, str]:
    """The names of images in files about many, by those of their results: relative, if unique."""
    names = [s.name.parent / s.path.name if s.path else s.name for s in sources]
    count = Counter(names)
    return {
        s.name: s.path.as_posix() if s.path and count[name] > 1 else str(name)
        for s, name in zip(sources, names, strict=True)
    }
