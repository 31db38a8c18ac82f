"""`unpool visualize`: what networks have learned, and what in a picture excites them."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool import console
from unpool.cli.options import DEVICE, FROM_ONE, JSON, QUIET, Folder, choice, make_folder, typed
from unpool.errors import ImageError, OptionError

if TYPE_CHECKING:
    from unpool.vision.sources import Source
    from unpool.visualize.subjects import Subject

__all__ = ["visualize"]

Command = Callable[..., Any]
_OF_MODELS = ("weights", "torch_model", "size", "mean", "std", "order", "range", "device")


@click.group()
def visualize() -> None:
    """Look into a network, one of ours or any of PyTorch.

    --list-layers shows what its layers are called.

    \b
    Example: unpool visualize project photo.jpg --layer trunk.stages.4 -o out
             unpool visualize top photos -o out --torch-model nets:build --layer layer3
    """


def _numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    """Numbers with commas between them, as a tuple."""
    try:
        return None if value is None else tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(
            f"got {value!r}; wanted numbers with commas, such as 0.5,0.5,0.5.", ctx, param
        ) from None


def _place(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    """A word as it is, or (row, column)."""
    parts = (value or "").split(",")
    if value in (None, "max", "all"):
        return value
    if len(parts) == 2 and all(part.strip().isdecimal() for part in parts):
        return int(parts[0]), int(parts[1])
    message = f"got {value!r}; wanted max, all, or ROW,COLUMN, such as 3,5."
    raise click.BadParameter(message, ctx, param)


def _all(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one, in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_MODEL = _all(
    click.option(
        "--weights",
        metavar="NAME|FOLDER",
        help="Weights that come with the package, or a folder of weights.  [default: objects]",
    ),
    click.option(
        "--torch-model",
        metavar="PACKAGE.MODULE:FACTORY",
        help="Any model instead: what that function gives, called without arguments; a module in "
        "the current folder will do. Its code is run.",
    ),
    click.option(
        "--size",
        type=FROM_ONE,
        help="Side in pixels of the middle square that the network sees.  [default: as the card "
        "says, or else 224]",
    ),
    click.option(
        "--mean",
        callback=_numbers,
        metavar="N[,N,N]",
        help="Of --torch-model: what is subtracted from the pixels.  [default: ImageNet's]",
    ),
    click.option(
        "--std",
        callback=_numbers,
        metavar="N[,N,N]",
        help="Of --torch-model: what they are then divided by.  [default: ImageNet's]",
    ),
    choice("--order", ["rgb", "bgr"], "Of --torch-model: of the colors.  [default: rgb]"),
    choice(
        "--range",
        ["1", "255"],
        "Of --torch-model: whether pixels, and so mean and std, are 0 to 1 or 0 to 255.  "
        "[default: 1]",
    ),
)
_LAYERS = _all(
    click.option(
        "--layer",
        "layers",
        multiple=True,
        metavar="NAME",
        help="A layer to look at; can be given several times.  [default: the last of each stage]",
    ),
    click.option("--list-layers", is_flag=True, help="Show the layers, and do nothing else."),
)
_RULE = _all(
    click.option(
        "--rule",
        metavar="deconvnet|guided|saliency|CODE",
        help="How signals go down through a ReLU and pooling; a code is one of Mahendran and "
        "Vedaldi's, such as TTF.  [default: deconvnet]",
    ),
    choice(
        "--overlap",
        ["sum", "overwrite", "center"],
        "Where pooling windows share their maximum: add up what comes down, or keep the last; "
        "center uses no switches.  [default: as the rule says]",
    ),
    choice("--seed", ["activation", "1"], "What is sent down.  [default: activation]"),
    click.option(
        "--activations",
        multiple=True,
        metavar="[NAME=]relu|gradient|constant",
        help="What to do with functions that have no rule, such as silu: treat them as a ReLU, "
        "take their derivative, or let nothing through; for all, or for one by name.",
    ),
    click.option("--color/--gray", default=None, help="How they are shown.  [default: color]"),
)


def _output(default: str) -> Callable[[Command], Command]:
    return click.option(
        "-o",
        "--output",
        type=Folder(),
        default=default,
        metavar="FOLDER",
        help=f"Where the results go; made if it is missing.  [default: {default}]",
    )


@visualize.command()
@click.argument("inputs", nargs=-1)
@_MODEL
@_LAYERS
@click.option(
    "--unit",
    "units",
    type=click.IntRange(min=0),
    multiple=True,
    help="A map to look at, from 0; can be given several times.  [default: the strongest]",
)
@click.option(
    "--place",
    callback=_place,
    metavar="max|all|ROW,COLUMN",
    help="Which activation of the map: the largest, all, or that one.  [default: max]",
)
@_RULE
@_output("projected")
@DEVICE
@JSON
@QUIET
def project(
    inputs: tuple[str, ...],
    layers: tuple[str, ...],
    list_layers: bool,
    output: Path,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Project activations down to the pixels that excited them.

    INPUTS are pictures, folders, patterns, lists of paths (.txt), or - for the standard input.

    For cat.jpg this writes OUTPUT/cat.input.png, the square that the network sees, as large;
    OUTPUT/cat.LAYER.png for each layer, or OUTPUT/cat.LAYER.UNIT.png where units are named; and
    OUTPUT/cat.json, which tells what they show. Zero is mid-gray.

    What cannot be read is reported, the rest is done, and the exit code is 3.

    With --json, the line of a picture has source, input, seconds and projections: layer, unit,
    place, value (the activation there), box (what the unit sees, in the square) and file; or
    source and error.

    \b
    Example: unpool visualize project photo.jpg --layer trunk.stages.4 --unit 7 -o out
    """
    subject = _subject(options)
    if list_layers:
        return _list(subject, as_json)
    from unpool.vision.sources import find_images, spare_inputs
    from unpool.visualize.sheets import Projector

    sources, unusable = find_images(inputs, output)
    shown = {"units": options.pop("units"), "color": options.pop("color")}
    projector = Projector(subject, layers, **typed(shown), **_rules(options))
    files = [file for s in sources for file in projector.files(output / str(s.name))]
    spare_inputs(sources, files)
    make_folder(output)
    failed = len(unusable)
    with console.progress("projecting", quiet) as show:
        for useless in unusable:
            _print(useless._asdict(), as_json, quiet)
        for done, source in enumerate(sources, 1):
            record = _project(projector, source, output)
            failed += "error" in record
            show(done, len(sources))
            _print(record, as_json, quiet)
    return 3 if failed else 0


def _project(projector: Any, source: "Source", output: Path) -> dict[str, Any]:
    """Write the projections of a picture, and give what is to be said of it."""
    from unpool.vision.images import read_image

    record: dict[str, Any] = {"source": "-" if source.path is None else str(source.path)}
    start = time.perf_counter()
    try:
        image = read_image(sys.stdin.buffer if source.path is None else source.path)
    except ImageError as error:
        return {**record, "error": str(error)}
    record |= projector.write(image, output / str(source.name))
    return {**record, "seconds": round(time.perf_counter() - start, 3)}


def _print(record: dict[str, Any], as_json: bool, quiet: bool) -> None:
    if as_json:
        console.print_json(record)
    elif "error" in record:
        console.complain(record["error"])
    elif not quiet:
        for shown in record["projections"]:
            place = "all of it" if shown["place"] is None else "at {}, {}".format(*shown["place"])
            what = f"{shown['layer']} unit {shown['unit']}, {place}: {shown['value']:.4g}"
            click.echo(f"{record['source']}: {what}, {shown['file']}")


@visualize.command()
@click.argument("inputs", nargs=-1)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Instead of INPUTS, labeled pictures in a layout that `unpool evaluate` knows.",
)
@click.option(
    "--split", metavar="NAME", help="Of --data: the part that is looked at.  [default: all]"
)
@_MODEL
@_LAYERS
@click.option(
    "--unit",
    "units",
    type=click.IntRange(min=0),
    multiple=True,
    help="A map to show; can be given several times.  [default: evenly chosen ones]",
)
@click.option("--shown", type=FROM_ONE, help="How many maps a layer are shown.  [default: 16]")
@click.option("--count", type=FROM_ONE, help="Pictures kept of each map.  [default: 9]")
@click.option("--batch", type=FROM_ONE, help="Pictures at a time.  [default: 8]")
@_RULE
@_output("top")
@DEVICE
@JSON
@QUIET
def top(
    inputs: tuple[str, ...],
    data: Path | None,
    split: str | None,
    layers: tuple[str, ...],
    list_layers: bool,
    output: Path,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Find the pictures that excite each map most, and show what in them does.

    INPUTS are pictures, folders, patterns, or lists of paths (.txt). One pass over them finds the
    strongest of all maps of all layers named; then some maps are shown as in the paper,
    projections beside the patches they come from.

    OUTPUT/index.html is a page to browse, OUTPUT/top.json has all that was found, and
    OUTPUT/LAYER/UNIT.png are the figures.

    What cannot be read is reported, the rest is done, and the exit code is 3.

    With --json, there is one object: output, pictures (how many were seen), failed, seconds, and
    layers: layer, units (how many it has), dead (how many of them no picture excites).

    \b
    Example: unpool visualize top photos --layer trunk.stages.4 -o out
    """
    start = time.perf_counter()
    subject = _subject(options)
    if list_layers:
        return _list(subject, as_json)
    from unpool.visualize.gallery import make_gallery

    paths, unusable = _pictures(inputs, data, split, output)
    shown = {name: options.pop(name) for name in ("units", "shown", "count", "batch", "color")}
    if shown["units"] and shown["shown"]:
        raise OptionError("got --unit and --shown; leave one of them out")
    make_folder(output)
    with console.progress("looking", quiet) as show:
        found = make_gallery(
            subject, paths, output, layers, progress=show, **typed(shown), **_rules(options)
        )
    failed = unusable | found.failed
    told = [
        {"layer": layer, "units": len(strongest.values), "dead": strongest.dead}
        for layer, strongest in found.tops.items()
    ]
    if as_json:
        seconds = round(time.perf_counter() - start, 3)
        seen = {"output": str(output), "pictures": len(found.pictures), "failed": failed}
        console.print_json({**seen, "seconds": seconds, "layers": told})
    else:
        for reason in failed.values():
            console.complain(reason)
        if not quiet:
            rows = [[str(value) for value in line.values()] for line in told]
            console.print_table([["layer", "units", "never active"], *rows])
            click.echo(f"{len(found.pictures)} pictures, into {output / 'index.html'}")
    return 3 if failed else 0


def _pictures(
    inputs: Sequence[str], data: Path | None, split: str | None, output: Path
) -> tuple[list[Path], dict[str, str]]:
    """The files to look at, and what cannot be used."""
    from unpool.data import open_data
    from unpool.vision.sources import find_images

    if data is not None:
        if inputs:
            raise OptionError("got pictures and --data; leave one of them out")
        missing: dict[str, str] = {}
        return [s.image for s in open_data(data, split or "all", missing).samples], missing
    if split is not None:
        raise OptionError("got --split without --data; add that, or leave it out")
    sources, unusable = find_images(inputs, output)
    if any(source.path is None for source in sources):
        raise OptionError("got - for a picture, and each is read twice; name files or folders")
    return [source.path for source in sources if source.path], dict(unusable)


# ---- what the commands share ---------------------------------------------------------------------


def _subject(options: dict[str, Any]) -> "Subject":
    """The model; what it is made of is taken out of the options."""
    given = typed({name: options.pop(name) for name in _OF_MODELS})
    if "weights" in given and "torch_model" in given:
        raise OptionError("got --weights and --torch-model; leave one of them out")
    if "range" in given:
        given["range"] = int(given["range"])
    from unpool.visualize.subjects import load_subject

    return load_subject(**given)


def _rules(options: dict[str, Any]) -> dict[str, Any]:
    """The options of `unpool.visualize.project`."""
    meant = options.pop("activations")
    named = dict(item.split("=", 1) for item in meant if "=" in item)
    if meant and not named:
        options["activations"] = meant[-1]
    elif len(named) != len(meant):
        raise OptionError(
            f"got --activations {' '.join(meant)}; name a function in each, such as silu=relu, or "
            "give one for all"
        )
    elif named:
        options["activations"] = named
    return typed(options)


def _list(subject: "Subject", as_json: bool) -> int:
    from unpool.visualize.probes import list_layers

    found = list_layers(subject.model, subject.blank())
    if as_json:
        for layer in found:
            console.print_json({**layer._asdict(), "shape": list(layer.shape)})
    else:
        rows = [[layer.name, layer.kind, " x ".join(map(str, layer.shape))] for layer in found]
        console.print_table([["layer", "kind", "shape"], *rows])
    return 0
