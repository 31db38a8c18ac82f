"""`unpool visualize correspond`: whether a network notices the same part in several images."""

import csv
import json
import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import click

from unpool.cli.visualize.options import SEED, Job, command, layer_options
from unpool.errors import OptionError
from unpool.files import read_text

Parts = dict[str, dict[Path, tuple[float, ...]]]
_COLUMNS = ("image", "part", "x0", "y0", "x1", "y1")


@command(
    "correspondence",
    click.option(
        "--part",
        "parts",
        multiple=True,
        metavar="NAME=X0,Y0,X1,Y1",
        help="The box of a part, in pixels of the file; repeat it for each of INPUTS, in order.",
    ),
    click.option(
        "--boxes",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        metavar="FILE",
        help="Instead of INPUTS and --part: a .csv with the columns image,part,x0,y0,x1,y1, or a "
        ".json with a list of such objects. Images are relative to the folder of the file.",
    ),
    *layer_options("see above"),
    click.option(
        "--draws",
        type=click.IntRange(min=0),
        help="Random boxes per image, as a control; 0 for none.  [default: 10]",
    ),
    SEED,
)
def correspond(job: Job, parts: tuple[str, ...], boxes: Path | None = None, **options: Any) -> int:
    """Hide the same part in several images, and compare how their features change.

    INPUTS are two or more images. The table has the fraction of features whose change differs in
    sign, over all pairs of images: for a network that knows a part, it is lower than for random
    boxes. --layer names the layers; the defaults are the last layer with maps and the last one
    below the class scores.

    OUTPUT/correspondence.png shows the hidden parts, OUTPUT/correspondence.json has the numbers.
    Unreadable images are reported and skipped (exit code 3).

    With --json, there is one object with output, failed, seconds, and the content of the file.

    \b
    Example: unpool visualize correspond --boxes parts.csv -o out
             unpool visualize correspond a.jpg b.jpg --part eye=60,40,80,55 --part eye=71,38,90,52
    """
    from unpool.visualize.correspondence import correspond as application

    if boxes is None:
        given = _match(parts, job.images())
    elif job.inputs or parts:
        raise OptionError("got --boxes, and images or --part; leave one of them out")
    else:
        given = _read(boxes)
    with job.working("occluding") as update:
        found = application(job.loaded, given, progress=update, **options)
    found.save(job.output)
    line = f"{len(found.images)} images, into {job.output / 'correspondence.png'}"
    return job.report(found.to_dict(), found.failed, line, found.table())


def _match(parts: tuple[str, ...], images: list[Path]) -> Parts:
    """The boxes of --part; the first one of a name belongs to the first image, and so on."""
    count = Counter(part.partition("=")[0] for part in parts)
    if not parts or any(n != len(images) for n in count.values()):
        given = ", ".join(f"{n} of {name!r}" for name, n in count.items()) or "no --part"
        raise OptionError(
            f"got {given} for {len(images)} images; give --part NAME=X0,Y0,X1,Y1 for each "
            "image in turn, or --boxes FILE"
        )
    found: Parts = defaultdict(dict)
    for part in parts:
        name, _, box = part.partition("=")
        found[name][images[len(found[name])]] = _box(box.split(","), f"--part {part}")
    return found


def _read(path: Path) -> Parts:
    """The boxes of a file."""
    try:
        text = read_text(path, OptionError)
        rows = json.loads(text) if path.suffix == ".json" else [*csv.DictReader(text.splitlines())]
    except OptionError:
        raise
    except (ValueError, RecursionError, csv.Error) as error:
        raise OptionError(f"got boxes {path}, which cannot be read ({error}); correct it") from None
    found: Parts = defaultdict(dict)
    wanted = ", ".join(_COLUMNS)
    for i, row in enumerate(rows if isinstance(rows, list) else [rows], 1):
        entry = f"got boxes {path}, whose entry {i}"
        if not isinstance(row, dict) or any(row.get(column) in (None, "") for column in _COLUMNS):
            raise OptionError(f"{entry} lacks some of {wanted}; add them")
        image, part, *box = (row[column] for column in _COLUMNS)
        where = found[str(part)]
        if path.parent / str(image) in where:
            raise OptionError(f"{entry} is a second box of {part} in {image}; leave one out")
        where[path.parent / str(image)] = _box(box, f"entry {i} of {path}")
    if not found:
        raise OptionError(f"got boxes {path}, which has none; add {wanted} of each")
    return found


def _box(values: list[Any], where: str) -> tuple[float, ...]:
    try:
        box = tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        box = ()
    if len(box) != 4 or not all(map(math.isfinite, box)):
        raise OptionError(f"got {where}; wanted a box x0, y0, x1, y1 in pixels, four numbers")
    return box
