"""`unpool visualize decode`: the maps of a segmentation network's decoder, stage by stage."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool import Progress
from unpool.cli import console
from unpool.cli.images import Record, each_image
from unpool.cli.options import DEVICE, JSON, QUIET, make_folder
from unpool.cli.visualize.options import MODEL, numbers, output_option, take_model
from unpool.errors import OptionError

if TYPE_CHECKING:
    from unpool.vision.sources import Source
    from unpool.visualize.preprocessing import LoadedModel


@click.command()
@click.argument("inputs", nargs=-1)
@MODEL
@click.option(
    "--class",
    "label",
    metavar="NAME|NUMBER",
    help="Which class is followed.  [default: the largest but background]",
)
@click.option(
    "--unit",
    type=click.IntRange(min=0),
    help="The map that is shown of every layer.  [default: of each layer the one that is most "
    "stronger where the class is predicted than elsewhere]",
)
@click.option(
    "--crop",
    callback=numbers,
    metavar="X0,Y0,X1,Y1",
    help="Look at the square around this box, in pixels of the image, as in instance-wise "
    "segmentation.  [default: the middle square of the image]",
)
@output_option("decoded")
@DEVICE
@JSON
@QUIET
def decode(
    inputs: tuple[str, ...],
    label: str | None,
    unit: int | None,
    crop: tuple[float, ...] | None,
    output: Path,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Follow a class through the decoder of a DeconvNet or an FCN, from coarse to fine.

    INPUTS are images, folders, patterns, lists of paths (.txt), or - for the standard input.

    For cat.jpg this writes OUTPUT/cat.png, of each stage a map after unpooling and one after
    deconvolution (of an FCN: the scores of the stage before and its own), and at the end the score
    of the class; and OUTPUT/cat.json, which describes them.

    What cannot be read, or does not hold the class, is reported; the rest is done, and the exit
    code is 3.

    With --json, the line of an image has source, class, unit (its number), share (of the square
    where it is predicted), score (the mean there), maps (layer, unit, size, largest), file and
    seconds; or source and error.

    \b
    Example: unpool visualize decode photo.jpg --class dog --crop 40,30,260,250 -o out
    """
    from unpool.vision.sources import find_images, spare_inputs

    if crop is not None and not _is_box(crop):
        raise OptionError(
            f"got --crop {','.join(f'{v:g}' for v in crop)}; wanted the left, upper, right and "
            "lower side in whole pixels, such as 40,30,260,250"
        )
    loaded = take_model(options)
    wanted = {"label": None if label is None else loaded.find_class(label), "unit": unit}
    _try(loaded, **wanted)
    found = find_images(inputs, output)
    files = [output / f"{s.name}{end}" for s in found.sources for end in (".png", ".json")]
    spare_inputs(found.sources, files)
    make_folder(output)

    def make(source: "Source", _: Progress) -> Record:
        return _decode(loaded, source, output, crop, wanted)

    return each_image(found, make, _text, what="decoding", as_json=as_json, quiet=quiet)


def _is_box(values: tuple[float, ...]) -> bool:
    whole = len(values) == 4 and all(value == int(value) for value in values)
    return whole and values[0] < values[2] and values[1] < values[3]


def _decode(
    loaded: "LoadedModel",
    source: "Source",
    output: Path,
    box: tuple[float, ...] | None,
    wanted: dict[str, Any],
) -> Record:
    """Write the figure of an image, and describe it."""
    import numpy as np

    from unpool.vision.boxes import Crop, square
    from unpool.vision.figures import write_figure
    from unpool.visualize.decoding import decode as follow

    image = source.read()
    if box is None:
        seen = loaded.preprocessing.crop(image)
    else:
        x0, y0, x1, y1 = square(np.array([box]), enlarge=1).tolist()[0]
        seen = Crop((x0, y0, x1, y1), loaded.preprocessing.size).take(image)
    found = follow(loaded.model, loaded.prepare([seen]), names=loaded.classes, **wanted)
    name = loaded.class_name(found.label)
    record = {"class": name, **found.to_dict()}
    facts = {"source": str(source), **record}
    file, _ = write_figure(output / source.name, found.figure(seen, name), facts)
    return {**record, "file": str(file)}


def _try(loaded: "LoadedModel", label: int | None, unit: int | None) -> None:
    """Refuse what fits no image: another model, or a class or map that it does not have."""
    from unpool.visualize.class_scores import score_maps
    from unpool.visualize.decoding import decode as follow

    trial = loaded.trial_image()
    scores = score_maps(loaded.model, trial)
    if label is not None and label >= scores.shape[1]:
        raise OptionError(
            f"got class {label} of {loaded.name}, which has {scores.shape[1]}; wanted 0 to "
            f"{scores.shape[1] - 1}"
        )
    follow(loaded.model, trial, int(scores.argmax(1).flatten()[0]), unit)


def _text(record: Record) -> str:
    share = console.percent(record["share"])
    what = f"{record['class']}, {share} % of it, mean score {record['score']:.3g}"
    return f"{record['source']}: {what}, {record['file']}"
