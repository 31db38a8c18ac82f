"""`unpool visualize decode`: the maps of a segmentation network's decoder, stage by stage."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from unpool.cli.console import percent
from unpool.cli.images import Record, with_suffixes
from unpool.cli.options import REDO, numbers
from unpool.cli.visualize.options import Job, command
from unpool.errors import OptionError

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.vision.images import Pixels
    from unpool.vision.sources import Source
    from unpool.visualize.preprocessing import LoadedModel


@command(
    "decoded",
    click.option(
        "--class",
        "name",
        metavar="NAME|NUMBER",
        help="The class that is followed.  [default: the largest but background]",
    ),
    click.option(
        "--unit",
        type=click.IntRange(min=0),
        help="The map shown of every layer.  [default: the one whose mean where the class is "
        "predicted exceeds its mean elsewhere most]",
    ),
    click.option(
        "--crop",
        callback=numbers("40,30,260,250", 4),
        metavar="X0,Y0,X1,Y1",
        help="Decode the square around this box, in pixels of the image, as in instance-wise "
        "segmentation.  [default: the center square of the image]",
    ),
    REDO,
)
def decode(
    job: Job,
    name: str | None = None,
    unit: int | None = None,
    crop: tuple[float, ...] | None = None,
) -> int:
    """Follow a class through the decoder of a DeconvNet, a SegNet or an FCN, from coarse to fine.

    INPUTS are images, folders, patterns, lists of paths (.txt), or - for the standard input.

    For cat.jpg this writes OUTPUT/cat.png: for each stage, a map after unpooling and one after
    deconvolution (for an FCN, the scores of the stage before and its own), and finally the score
    of the class; and OUTPUT/cat.json, which describes them.

    Images that are unreadable, or that do not contain the class, are reported and skipped (exit
    code 3).

    With --json, the line of an image has source, class, unit (its number), fraction (of
    the square where it is predicted), score (the mean there), maps (layer, unit, size, largest),
    file and seconds; or source and error.

    \b
    Example: unpool visualize decode photo.jpg --class dog --crop 40,30,260,250 -o out
    """
    from unpool.vision.figures import write_figure
    from unpool.visualize.decoding import decode as follow

    if crop is not None:
        x0, y0, x1, y1 = crop
        if not (all(map(float.is_integer, crop)) and x0 < x1 and y0 < y1):
            raise OptionError(
                f"got --crop {','.join(f'{v:g}' for v in crop)}; wanted the left, upper, right and "
                "lower side in whole pixels, such as 40,30,260,250"
            )
    loaded = job.loaded
    label = None if name is None else loaded.find_class(name)
    _try(loaded, label, unit)

    def make(source: "Source", stem: Path, _: "Progress") -> Record:
        seen = _crop(loaded, source.read(), crop)
        found = follow(loaded.model, loaded.prepare([seen]), label, unit, names=loaded.classes)
        record = {"class": loaded.class_name(found.label), **found.to_dict()}
        figure = found.figure(seen, record["class"])
        file = write_figure(stem, figure, {"source": str(source), **record})[0]
        return {**record, "file": str(file)}

    files = with_suffixes(".png", ".json")
    return job.each_image("decoding", make, _text, files)


def _crop(loaded: "LoadedModel", image: "Pixels", box: tuple[float, ...] | None) -> "Pixels":
    import numpy as np

    from unpool.vision.boxes import Crop, square

    if box is None:
        return loaded.preprocessing.crop(image)
    x0, y0, x1, y1 = square(np.array([box]), enlarge=1).tolist()[0]
    return Crop((x0, y0, x1, y1), loaded.preprocessing.size).take(image)


def _try(loaded: "LoadedModel", label: int | None, unit: int | None) -> None:
    """Refuse at once what fits no image: another model, or a class or map that it lacks."""
    from unpool.visualize.class_scores import score_maps
    from unpool.visualize.decoding import decode as follow

    trial = loaded.trial_image()
    scores = score_maps(loaded.model, trial)
    count = scores.shape[1]
    if label is not None and label >= count:
        got = f"class {label} of {loaded.name}, which has {count}"
        raise OptionError(f"got {got}; wanted 0 to {count - 1}")
    follow(loaded.model, trial, int(scores.argmax(1).flatten()[0]), unit)


def _text(record: Record) -> str:
    fraction, score = percent(record["fraction"]), f"{record['score']:.3g}"
    what = f"{record['class']}, {fraction} % of it, mean score {score}"
    return f"{record['source']}: {what}, {record['file']}"
