"""`unpool segment`: images and videos in, masks and overlays out."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
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
    from unpool.batch.ledger import Ledger
    from unpool.segment.pipeline import BaseSegmenter
    from unpool.vision.sources import Shard, Source


SUFFIXES = (".png", ".overlay.jpg", ".scores.npz", ".uncertainty.png", ".overlay.mp4")
"""Of the files that may be written for an image or a video."""

FORMATS = (*RESULTS, "parquet")

_KINDS = ("overlay", "scores", "uncertainty")


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
    help="What to write, with commas: mask, coco, labelme, yolo, geojson, labelstudio, "
    "parquet.  [default: mask]",
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
@images.SCALE
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

    INPUTS are images, videos, folders, patterns, lists of paths (.txt), tar files (as of
    WebDataset), URLs that fsspec knows (s3://...), or - for standard input.

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
      parquet      OUTPUT/segments.parquet: a row an image, run-length codes

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
    from unpool.vision.sources import with_file_names

    scale = images.Scale.taken(given)
    files = images.with_suffixes(*SUFFIXES)
    found = images.find_inputs(inputs, output, files, True, scale)  # before torch is loaded
    outputs = Outputs(output, **{name: given.pop(name) for name in Outputs.options()})
    spare_others(inputs, found.sources, output, outputs.formats)
    outputs.require_fit(found.sources, given["samples"])
    loading, given = options.network_options(given), options.typed(given)
    job = Job(weights, loading, given, outputs)
    with console.progress("loading the weights", quiet) as update:
        job.segmenter.describe(**given)  # refuses modes that the network does not have
        options.make_folder(output)
        if outputs.formats != ("mask",):
            (output / HIDDEN).mkdir(exist_ok=True)
            found = found._replace(sources=with_file_names(found.sources))
        update(1, 2, "loading the CRF")
        job.prepare()
    shown = (console.segmentation_text, "segmenting", as_json, quiet, f"segmented, into {output}")
    more: dict[str, Any] = {"also": job.also, "video": job.video, "prepare": job.prepare}
    return images.each_image(
        found,
        output,
        job.image,
        *shown,
        network=weights_digest(weights),
        scale=scale,
        finish=partial(job.finish, found.sources, scale.shard),
        redo=redo,
        **more,
    )


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
        """The formats of labeling tools."""
        return [name for name in self.formats if name not in ("mask", "parquet")]

    def require_fit(self, sources: Sequence["Source"], samples: int | None) -> None:
        """Refuse what cannot be written, and options that videos do not have."""
        from unpool.formats.outlines import require_tolerance
        from unpool.formats.parquet import require_pyarrow

        require_tolerance(self.tolerance)
        if self.uncertainty and not samples:
            raise OptionError("got --uncertainty without --samples; add --samples 20")
        if "parquet" in self.formats:
            require_pyarrow()
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
    """Segments images and videos, and writes the results; each process loads the network."""

    weights: str
    loading: dict[str, Any]  #: options of `unpool.segment.ensemble.load`
    options: dict[str, Any]  #: of the segmenter
    outputs: Outputs

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "segmenter"}

    @cached_property
    def segmenter(self) -> "BaseSegmenter":
        """The network of this process."""
        from unpool.segment.ensemble import load

        return load(self.weights, self.options.get("preset"), **self.loading)

    def prepare(self) -> None:
        """Load all that the first image needs."""
        from unpool.ops.meanfield import warm_up

        if (crf := self.segmenter.find_crf(self.options.get("crf"))) is not None:
            warm_up(crf)

    def image(self, source: "Source", stem: Path, progress: "Progress") -> images.Record:
        """Segment an image."""
        from unpool.formats.parquet import to_row
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
                    record |= write_image(
                        outputs.output,
                        source.name,
                        outputs.others,
                        result.objects(),
                        source.path,
                        source.file_name,
                        tolerance=outputs.tolerance,
                    )
                if "parquet" in outputs.formats:
                    record |= to_row(result.objects(), source.file_name)
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

        if not self.outputs.others:
            return source.file_name or None
        if source.path is None:
            return source.file_name
        world = find_world_file(source.path)
        return [source.file_name, str(source.path.absolute()), world and sha256(world)]

    def finish(self, sources: Sequence["Source"], shard: "Shard | None", ledger: "Ledger") -> None:
        """Write the files about all images; of a shard, only its Parquet."""
        from unpool.formats.parquet import write_parquet
        from unpool.formats.write import write_folder

        network = self.segmenter
        if "parquet" in self.outputs.formats:
            rows = _rows(sources, ledger)
            write_parquet(_parquet(self.outputs.output, shard), rows, network.classes)
        if shard is not None:
            return
        names = [source.name for source in sources]
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


def _parquet(output: Path, shard: "Shard | None") -> Path:
    name = f"-{shard.number:05}-of-{shard.of:05}" if shard else ""
    return output / f"segments{name}.parquet"


def _rows(sources: Sequence["Source"], ledger: "Ledger") -> Iterator[dict[str, Any]]:
    """The rows of the images that are done, in order."""
    for source in sources:
        line = ledger.last(str(source.name)) or {}
        if "annotations" in (record := line.get("record", {})):
            known = {"name": line["name"], "source": str(source), "content": line["content"]}
            yield record | known
