"""`unpool render`: render views of three-dimensional models from all sides."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool.cli import console
from unpool.cli.options import FROM_ONE, JSON, QUIET, Folder, choice, make_folder, typed
from unpool.errors import DataError, OptionError

if TYPE_CHECKING:
    from unpool.rendering.triangles import Mesh

_NOTES = 5  # printed for a model


@click.command()
@click.argument("models", required=False, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=Folder(),
    required=True,
    metavar="FOLDER",
    help="Folder for the views, a folder per style; created if missing.",
)
@click.option(
    "--size",
    type=click.IntRange(8, 2048),
    default=128,
    metavar="PIXELS",
    help="Side of the images in pixels.  [default: 128]",
)
@choice("--up", ["y", "z"], "The axis that points up in the files.  [default: y]")
@click.option(
    "--parametric", type=FROM_ONE, metavar="N", help="Render N procedural chairs instead of models."
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="Random seed of the shapes with --parametric.  [default: 0]",
)
@JSON
@QUIET
def render(
    models: Path | None,
    output: Path,
    size: int,
    parametric: int | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Render models from all sides, as data for `unpool train chairs`.

    MODELS is a zip file or a folder of OBJ, GLB or PLY models, or one model file.

    For each model this writes 62 views, OUTPUT/STYLE/renders/image_000_p020_t000_r096.png and so
    on: 31 azimuths at elevations of 20 and 30 degrees, in the layout of the public rendered chairs,
    with the mask as alpha. If the models have a manifest.json, OUTPUT/styles.json lists the author
    and license of each.

    Models that cannot be rendered are reported and skipped (exit code 3). A zip file that is
    broken, or not safe to unpack, is refused as a whole.

    With --json, the line of a model has source, style, folder, views and faces (their numbers),
    missing (textures and materials that were not found; the color of the material, or gray,
    replaces them) and notes (what is rendered in another way than the file says); or source and
    error.

    \b
    Example: unpool render chairs3d.zip -o data
    """
    from unpool.rendering.write import write_credits

    given, failed, done = typed(options), 0, 0
    if (models is None) == (parametric is None):
        raise OptionError("wanted either models or --parametric N; pass one of them")
    if models is None and "up" in given:
        raise OptionError("got --up with --parametric, whose chairs stand upright; leave it out")
    if models is not None and "seed" in given:
        raise OptionError("got --seed with models, where nothing is random; leave it out")
    new = not output.exists()
    credits: list[dict[str, Any]] = []
    with console.progress("rendering", quiet) as show:
        if models is None:
            rendered = _render_parametric(parametric or 0, output, size, show, **given)
        else:
            rendered = _render_models(models, output, size, show, **given)
        for record, credit in rendered:
            failed, done = failed + ("error" in record), done + ("error" not in record)
            credits.append(credit)
            _print(record, as_json, quiet)
    write_credits(output, credits)
    if new and not done:
        with suppress(OSError):  # it is not empty after all
            output.rmdir()
    if not (as_json or quiet):
        click.echo(f"{done} of {done + failed} rendered, into {output}")
    return 3 if failed else 0


Rendered = Iterator[tuple[dict[str, Any], dict[str, Any]]]


def _render_models(
    source: Path, output: Path, size: int, show: console.Update, **options: str
) -> Rendered:
    """Render models; yields a record and the credits of each."""
    from unpool.rendering.write import open_models, read_model, write_style

    with open_models(source) as found:
        make_folder(output)
        for i, model in enumerate(found):
            show(i, len(found), model.style)
            folder = output / model.style
            try:
                mesh = read_model(model, **options)
                views = write_style(mesh, folder, size, _part(show, i, len(found)))
            except DataError as error:
                yield {"source": model.name, "error": str(error)}, {}
                continue
            yield _record(model.name, folder, views, mesh), model.credits()


def _render_parametric(
    count: int, output: Path, size: int, show: console.Update, seed: int = 0
) -> Rendered:
    """Render procedural chairs, likewise."""
    from unpool.rendering.parametric import build_chair, random_shape
    from unpool.rendering.write import write_style

    make_folder(output)
    for i in range(count):
        shape = random_shape(seed, i)
        mesh, folder = build_chair(shape), output / f"parametric_{i:03d}"
        views = write_style(mesh, folder, size, _part(show, i, count))
        credit = {"style": folder.name, "seed": seed, "shape": shape._asdict()}
        yield _record(f"seed {seed}", folder, views, mesh), credit


def _part(show: console.Update, i: int, total: int) -> Callable[[int, int], object]:
    """Progress within model i as progress over all models."""
    return lambda done, of: show(i + done / of, total, "rendering")


def _record(source: str, folder: Path, views: int, mesh: "Mesh") -> dict[str, Any]:
    return {
        "source": source,
        "style": folder.name,
        "folder": str(folder),
        "views": views,
        "faces": len(mesh.corners),
        "missing": list(mesh.missing),
        "notes": list(mesh.notes),
    }


def _print(record: dict[str, Any], as_json: bool, quiet: bool) -> None:
    if as_json:
        console.print_json(record)
    elif "error" in record:
        reason = record["error"].removeprefix(Path(record["source"]).name + " ")
        console.print_error(f"{record['source']}: {reason}")
    elif not quiet:
        click.echo(f"{record['style']}: {record['views']} views of {record['faces']:,} faces")
        if record["missing"]:
            names = ", ".join(record["missing"])
            click.echo(f"  without {names}, missing, broken or too large")
        for note in record["notes"][:_NOTES]:
            click.echo(f"  {note}")
        if (more := len(record["notes"]) - _NOTES) > 0:
            click.echo(f"  and {more} more notes, which --json lists")
