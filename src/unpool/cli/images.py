"""What commands share that work image by image: the option `-o`, the inputs and the loop."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool.cli import console, options
from unpool.cli.messages import disk_is_full, error_message

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.vision.sources import Found, Source

Record = dict[str, Any]
"""The result for an image, as plain values."""


def output_option(default: str) -> options.Option:
    """The option `-o FOLDER`."""
    text = f"Folder for the results, created if missing.  [default: {default}]"
    return click.option(
        *("-o", "--output"), type=options.Folder(), default=default, metavar="FOLDER", help=text
    )


def with_suffixes(*suffixes: str) -> Callable[[Path], list[Path]]:
    """The `files` of `find_inputs`: one for each suffix, appended to a name that may have dots."""
    return lambda stem: [Path(f"{stem}{suffix}") for suffix in suffixes]


def find_inputs(
    inputs: Sequence[str], output: Path, files: Callable[[Path], Iterable[Path]]
) -> "Found":
    """Find the images that inputs name, report others, and refuse to overwrite one of them.

    Args:
        inputs: see `unpool.vision.sources.find_images`.
        output: the folder for the results.
        files: all files that may be written for OUTPUT/NAME, where NAME stands for an image.
    """
    from unpool.vision.sources import find_images, spare_inputs

    found = find_images(inputs, output)
    for unread in found.unread:
        console.print_error(str(unread))
    spare_inputs(found.sources, [f for s in found.sources for f in files(output / s.name)])
    return found


def each_image(
    found: "Found",
    output: Path,
    make: Callable[["Source", Path, "Progress"], Record],
    text: Callable[[Record], str],
    what: str,
    as_json: bool,
    quiet: bool,
    summary: str = "",
) -> int:
    """Process images one by one, print a record of each, and report those that fail.

    An image that cannot be read or processed, or that needs too much memory, is reported and
    skipped. A full disk and a bug end the loop. Records get `source` and `seconds`; those of failed
    images have only `source` and `error`. Images that were read by a guess have `warnings`, too.

    Args:
        found: the result of `find_inputs`.
        output: the folder for the results; created if missing.
        make: reads an image, writes its results under the given path, to which it appends suffixes,
            and returns its record; it may report progress.
        text: formats a record as text.
        what: the description of the progress, such as "segmenting".
        as_json: print records as JSON, one per line.
        quiet: print failures only.
        summary: the end of a last line of text, after "3 of 4 ".

    Returns:
        The exit code: 0, or 3 if an image failed.
    """
    options.make_folder(output)
    command = click.get_current_context().command
    count, failed = len(found.sources), len(found.unusable)
    for unusable in found.unusable:
        _print(unusable._asdict(), text, as_json, quiet)
    with console.progress(what, quiet) as update, console.noted_warnings() as noted:
        for i, source in enumerate(found.sources):

            def within(done: int, total: int, _: str = "", i: int = i) -> None:
                update(i + done / total, count, what)

            within(0, 1)
            noted.clear()
            record: Record = {"source": str(source)}
            start = time.perf_counter()
            try:
                record |= make(source, output / source.name, within)
                record["seconds"] = round(time.perf_counter() - start, 3)
            except Exception as error:
                if disk_is_full(error) or not (message := error_message(error, command)):
                    raise
                record["error"] = message
                failed += 1
            within(1, 1)
            if noted:
                record["warnings"] = [*noted]
            _print(record, text, as_json, quiet)
    if summary and not (as_json or quiet):
        total = count + len(found.unusable)
        click.echo(f"{total - failed} of {total} {summary}")
    return 3 if failed else 0


def _print(record: Record, text: Callable[[Record], str], as_json: bool, quiet: bool) -> None:
    if as_json:
        console.print_json(record)
    elif "error" in record:
        source, error = record["source"], record["error"]
        console.print_error(error if source in error else f"{source}: {error}")
    elif not quiet:
        click.echo(text(record))
