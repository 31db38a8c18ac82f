"""`unpool visualize correspond`: whether a network notices the same part in several images."""

import csv
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click

from unpool.cli import console
from unpool.cli.options import DEVICE, JSON, QUIET, make_folder, typed
from unpool.cli.progress import progress
from unpool.cli.visualize.options import (
    LAYERS,
    MODEL,
    find_images,
    output_option,
    report,
    show_layers,
    take_model,
)
from unpool.errors import OptionError

Parts = dict[str, dict[Path, tuple[float, ...]]]
_COLUMNS = ("image", "part", "x0", "y0", "x1", "y1")


@click.command()
@click.argument("inputs", nargs=-1)
@click.option(
    "--part",
    "parts",
    multiple=True,
    metavar="NAME=X0,Y0,X1,Y1",
    help="Where a part is, in pixels of the file; give each part once for each of INPUTS, in turn.",
)
@click.option(
    "--boxes",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Instead of INPUTS and --part: a .csv with the columns image,part,x0,y0,x1,y1, or a "
    ".json with a list of such objects. Images are found from the folder of the file.",
)
@MODEL
@LAYERS
@click.option(
    "--draws",
    type=click.IntRange(min=0),
    help="Boxes at random that each image is compared by; 0 for none.  [default: 10]",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    metavar="NUMBER",
    help="Seed of the random places of the control.  [default: 0]",
)
@output_option("correspondence")
@DEVICE
@JSON
@QUIET
def correspond(
    inputs: tuple[str, ...],
    parts: tuple[str, ...],
    boxes: Path | None,
    layers: tuple[str, ...],
    list_layers: bool,
    output: Path,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Hide the same part in several images, and compare how their features change.

    INPUTS are two or more images. The table has the fraction of features whose change differs in
    sign, over all pairs of images: a network that knows a part gives less for it than for boxes
    at random. --layer names the layers; when not given, the last with maps and the last of all
    below the class scores.

    OUTPUT/correspondence.png shows what was hidden, OUTPUT/correspondence.json has the numbers.

    What cannot be read is reported, the rest is done, and the exit code is 3.

    With --json, there is one object: output, failed, seconds, and what is in the file.

    \b
    Example: unpool visualize correspond --boxes parts.csv -o out
             unpool visualize correspond a.jpg b.jpg --part eye=60,40,80,55 --part eye=71,38,90,52
    """
    start = time.perf_counter()
    loaded = take_model(options)
    if list_layers:
        return show_layers(loaded, as_json)
    from unpool.visualize.correspondence import correspond as application

    unusable: dict[str, str] = {}
    if boxes is not None:
        if inputs or parts:
            raise OptionError("got --boxes, and images or --part; leave one of them out")
        given = _read(boxes)
    else:
        images, unusable = find_images(inputs, None, None, output)
        given = _placed(parts, images)
    make_folder(output)
    with progress("hiding", quiet) as show:
        found = application(loaded, given, layers, progress=show, **typed(options))
    found.save(output)

    def show_it() -> None:
        console.print_table(found.table())
        click.echo(f"{len(found.images)} images, into {output / 'correspondence.png'}")

    return report(found, unusable, start, output, as_json, None if quiet else show_it)


def _placed(parts: tuple[str, ...], images: list[Path]) -> Parts:
    """The boxes of --part, of which the first of a name is in the first image, and so on."""
    count = Counter(part.partition("=")[0] for part in parts)
    if not parts or any(n != len(images) for n in count.values()):
        given = ", ".join(f"{n} of {name!r}" for name, n in count.items()) or "no --part"
        raise OptionError(
            f"got {given} for {len(images)} images; give --part NAME=X0,Y0,X1,Y1 for each "
            "image in turn, or --boxes FILE"
        )
    found: Parts = {}
    for part in parts:
        name, _, box = part.partition("=")
        where = found.setdefault(name, {})
        where[images[len(where)]] = _box(box.split(","), f"--part {part}")
    return found


def _read(path: Path) -> Parts:
    """The boxes of a file."""
    try:
        text = path.read_text("utf-8-sig")
        rows = json.loads(text) if path.suffix == ".json" else [*csv.DictReader(text.splitlines())]
    except (ValueError, csv.Error) as error:
        raise OptionError(f"got boxes {path}, which cannot be read ({error}); correct it") from None
    found: Parts = {}
    for i, row in enumerate(rows if isinstance(rows, list) else [rows], 1):
        if not isinstance(row, dict) or any(row.get(column) in (None, "") for column in _COLUMNS):
            raise OptionError(
                f"got boxes {path}, whose entry {i} lacks some of {', '.join(_COLUMNS)}; add them"
            )
        box = _box([row[column] for column in _COLUMNS[2:]], f"entry {i} of {path}")
        where, image = found.setdefault(str(row["part"]), {}), path.parent / str(row["image"])
        if image in where:
            raise OptionError(
                f"got boxes {path}, whose entry {i} is a second box of {row['part']} in "
                f"{row['image']}; leave one of them out"
            )
        where[image] = box
    if not found:
        raise OptionError(f"got boxes {path}, which has none; add {', '.join(_COLUMNS)} of each")
    return found


def _box(values: list[Any], where: str) -> tuple[float, ...]:
    try:
        box = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        box = ()
    if len(box) != 4:
        raise OptionError(f"got {where}; wanted a box x0, y0, x1, y1 in pixels, four numbers")
    return box
