"""`unpool segment`: images and videos in, masks and overlays out."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import click

from unpool.cards import MODES, weights_digest
from unpool.cli import console, images, options
from unpool.errors import OptionError, suggest
from unpool.files import HIDDEN, sha256
from unpool.recipes.presets import RESULTS

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.segment.pipeline import BaseSegmenter
    from unpool.vision.sources import Source


SUFFIXES = (".png", ".overlay.jpg", ".scores.npz", ".uncertainty.png", ".overlay.mp4")
"""Of the files that may be written for an image or a video."""

_KINDS = ("overlay", "scores", "uncertainty")


def parse_formats(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """The formats of a list with commas, in the order of `RESULTS`; Label-Studio is one, too."""
    given = [part.strip().lower().replace("-", "").replace("_", "") for part in value.split(",")]
    for name in given:
        if name not in RESULTS:
            raise click.BadParameter(f"got {name!r}; {suggest(name, RESULTS)}.", ctx, param)
    return tuple(name for name in RESULTS if name in given)


@click.command()
@click.argument("inputs", nargs=-1, required=True)
@images.output_option("segmented")
@options.WEIGHTS
@options.choice(
    "--mode",
    MODES,
    "whole: each image in one pass; instance: object proposals one by one, as in the paper; tiles: "
    "overlapping windows at native resolution, for large images.  "
    "[default: the mode of the weights; instance with --preset edeconvnet]",
)
@options.SEGMENTATION
@options.METHOD
@options.BATCH
@options.VOID_BELOW
@options.OVERLAY
@click.option("--masks", is_flag=True, help="Also write an index mask of each frame of a video.")
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
@click.option(
    "--uncertainty",
    is_flag=True,
    help="Also write how far the passes of --samples differ, as a gray image.",
)
@click.option("--timings", is_flag=True, help="Also report the time of each stage.")
@options.REDO
@options.JSON
@options.QUIET
def segment(
    inputs: tuple[str, ...],
    output: Path,
    weights: str,
    redo: bool,
    as_json: bool,
    quiet: bool,
    **given: Any,
) -> int:
    """Assign a class to every pixel of images and videos.

    INPUTS are images, videos, folders, patterns, lists of paths (.txt), or - for standard input.

    For a/cat.jpg in the folder photos this writes OUTPUT/a/cat.png, an index PNG with a palette
    and the size of the upright image, and OUTPUT/a/cat.overlay.jpg; with --scores also
    OUTPUT/a/cat.scores.npz, with --uncertainty OUTPUT/a/cat.uncertainty.png. If the results of two
    inputs would both be named cat, they are named cat_jpg and cat_png, or cat_jpg and cat_jpg_2.

    For the video clip.mp4 this writes OUTPUT/clip.overlay.mp4, and with --masks the folder
    OUTPUT/clip.masks with an index PNG of each frame: 000001.png ... (needs unpool[video]).

    --format takes the results to other tools; each connected component of a class is an object.

    \b
      mask         OUTPUT/a/cat.png
      coco         OUTPUT/annotations.coco.json, of all images: run-length codes
      labelme      OUTPUT/a/cat.json: polygons, and masks where holes are
      yolo         OUTPUT/a/cat.txt, OUTPUT/data.yaml with the names
      geojson      OUTPUT/a/cat.geojson: on the map, if the image says where
      labelstudio  OUTPUT/label_studio.json, of all images, and .xml: config

    Inputs are never overwritten. Folders and patterns skip the files in OUTPUT, the results of
    earlier runs; files given by name or in a list are always used. Unreadable images are reported
    and skipped (exit code 3; 2 if there is no image at all). What an earlier run into OUTPUT
    finished with the same options and weights is skipped, so an interrupted run goes on, also
    within a video; images that failed are tried again.

    With --json, each image gives a line with source, its files (mask, labelme, yolo, geojson,
    scores, uncertainty_image), size ([width, height]), labels (the fraction of the pixels of each
    class), confidence (the mean over the pixels), with --samples uncertainty (the mean) and
    largest_uncertainty, timings (with --timings: the seconds of each stage), description, seconds,
    and warnings if it was read by a guess; or with source and error. A video has movie, masks,
    frames and fps; skipped images have the line of the earlier run, and skipped.

    \b
    Example: unpool segment photos "more/*.jpg" -o out --json
    """
    from unpool.formats.outlines import require_tolerance

    files = images.with_suffixes(*SUFFIXES)
    found = images.find_inputs(inputs, output, files, videos=True)  # before torch is loaded
    outputs = Outputs(output, **{name: given.pop(name) for name in Outputs.options()})
    require_tolerance(outputs.tolerance)
    spare_others(inputs, found.sources, output, outputs.formats)
    if outputs.uncertainty and not given["samples"]:
        raise OptionError("got --uncertainty without --samples; add --samples 20")
    outputs.require_fit(found.sources)

    from unpool.ops.meanfield import warm_up
    from unpool.segment.ensemble import load

    with console.progress("loading the weights", quiet) as update:
        segmenter = load(weights, given["preset"], **options.network_options(given))
        given = options.typed(given)
        segmenter.describe(**given)  # refuses modes that the network does not have
        options.make_folder(output)
        if outputs.others:
            (output / HIDDEN).mkdir(exist_ok=True)
        if (crf := segmenter.find_crf(given.get("crf"))) is not None:
            update(1, 2, "loading the CRF")
            warm_up(crf)
    job = Job(segmenter, given, outputs, file_names(found.sources))
    shown = (console.segmentation_text, "segmenting", as_json, quiet, f"segmented, into {output}")
    more: dict[str, Any] = {"network": weights_digest(weights), "also": job.also, "redo": redo}
    code = images.each_image(found, output, job.image, *shown, **more, video=job.video)
    job.write_folder(found.sources)
    return code


@dataclass(frozen=True)
class Outputs:
    """The results to write, and where."""

    output: Path
    formats: tuple[str, ...]
    tolerance: float  #: of polygons, in pixels
    overlay: bool
    masks: bool  #: of the frames of videos
    scores: bool
    uncertainty: bool
    timings: bool

    @classmethod
    def options(cls) -> list[str]:
        """The names of the command's options that say what to write."""
        return [field.name for field in fields(cls) if field.name != "output"]

    @property
    def others(self) -> list[str]:
        """The formats besides index masks."""
        return [name for name in self.formats if name != "mask"]

    def require_fit(self, sources: Sequence["Source"]) -> None:
        """Refuse options that videos do not have."""
        video = next((source for source in sources if source.is_video), None)
        if video is None:
            return
        wrong = [f"--format {','.join(self.others)}"] * bool(self.others)
        wrong += ["--scores"] * self.scores + ["--uncertainty"] * self.uncertainty
        if wrong:
            raise OptionError(
                f"got {video}, a video, with {' and '.join(wrong)}; videos give a movie and, with "
                "--masks, index masks: leave these options out, or segment frames as images"
            )
        if not (self.overlay or self.masks):
            raise OptionError(f"got {video}, a video, with --no-overlay; add --masks to get masks")


@dataclass(frozen=True)
class Job:
    """Segments images and videos, and writes the results."""

    segmenter: "BaseSegmenter"
    options: dict[str, Any]  #: of the segmenter
    outputs: Outputs
    names: dict[PurePosixPath, str]  #: of the images in files about many, see `file_names`

    def image(self, source: "Source", stem: Path, progress: "Progress") -> images.Record:
        """Segment an image."""
        from unpool.formats.write import forget_image, write_image
        from unpool.segment.timings import measuring, stage

        outputs, start = self.outputs, time.perf_counter()
        record: images.Record = {}
        forget_image(outputs.output, source.name)
        with measuring() as seconds:
            with stage("reading"):
                image = source.read()
            if outputs.scores:
                self.segmenter.require_scores(image, self.options.get("mode"))
            result = self.segmenter(image, progress=progress, **self.options)
            with stage("writing"):
                if outputs.others:
                    objects, name = result.objects(), self.names[source.name]
                    place = (
                        outputs.output,
                        source.name,
                        outputs.others,
                        objects,
                        source.path,
                        name,
                    )
                    record |= write_image(*place, tolerance=outputs.tolerance)
                kinds = {name: getattr(outputs, name) for name in _KINDS}
                result.save(f"{stem}.png", mask="mask" in outputs.formats, **kinds)
        seconds["other"] = max(time.perf_counter() - start - sum(seconds.values()), 0.0)
        if "mask" in outputs.formats:
            record = {"mask": f"{stem}.png", **record}
        if outputs.scores:
            record["scores"] = f"{stem}.scores.npz"
        if outputs.uncertainty:
            record["uncertainty_image"] = f"{stem}.uncertainty.png"
        record |= result.to_dict()
        if outputs.timings:
            record["timings"] = {name: round(s, 3) for name, s in seconds.items()}
        return {**record, "description": self.segmenter.describe(**self.options)}

    def video(
        self, source: "Source", stem: Path, frames: Path, progress: "Progress"
    ) -> images.Record:
        """Segment a video; `frames` is for those that are done."""
        from unpool.segment.video import segment_video

        assert source.path is not None
        kinds = {"overlay": self.outputs.overlay, "masks": self.outputs.masks}
        record = segment_video(
            self.segmenter, source.path, stem, frames, progress=progress, **kinds, **self.options
        )
        return {**record, "description": self.segmenter.describe(**self.options)}

    def also(self, source: "Source") -> object:
        """What files in other formats say about an image besides its content."""
        from unpool.vision.georeference import find_world_file

        if source.path is None or not self.outputs.others:
            return None
        world = find_world_file(source.path)
        return [self.names[source.name], str(source.path.absolute()), world and sha256(world)]

    def write_folder(self, sources: Sequence["Source"]) -> None:
        """Write the files about all images."""
        from unpool.formats.write import write_folder

        names, network = [source.name for source in sources], self.segmenter
        folder, formats = self.outputs.output, self.outputs.others
        write_folder(folder, names, formats, network.classes, network.palette)


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
