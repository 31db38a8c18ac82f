"""The per-image loop that commands share."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from unpool import Progress
from unpool.cli import console
from unpool.cli.messages import disk_is_full, error_message
from unpool.cli.progress import Update, progress

if TYPE_CHECKING:
    from unpool.vision.sources import Found, Source

Record = dict[str, Any]
"""The result for an image, as plain values."""


def each_image(
    found: "Found",
    make: Callable[["Source", Progress], Record],
    text: Callable[[Record], str],
    *,
    what: str,
    as_json: bool,
    quiet: bool,
    summary: str = "",
) -> int:
    """Process images one by one, print a record of each, and report those that fail.

    An image that cannot be read or processed, or that needs too much memory, is reported and
    skipped. A full disk and a bug end the loop. Records get `source` and `seconds`; those of failed
    images have only `source` and `error`.

    Args:
        found: the images, and the inputs that are not images.
        make: reads an image, writes its results and returns its record; it may report progress.
        text: formats a record as text.
        what: the description of the progress, such as "segmenting".
        as_json: print records as JSON, one per line.
        quiet: print failures only.
        summary: the end of a last line of text, after "3 of 4 ".

    Returns:
        The exit code: 0, or 3 if an image failed.
    """
    command = click.get_current_context().command
    count, failed = len(found.sources), len(found.unusable)
    for unusable in found.unusable:
        _print(unusable._asdict(), text, as_json, quiet)
    with progress(what, quiet) as update:
        for i, source in enumerate(found.sources):
            update(i, count, what)
            record: Record = {"source": str(source)}
            start = time.perf_counter()
            try:
                record |= make(source, _within(update, i, count, what))
                record["seconds"] = round(time.perf_counter() - start, 3)
            except Exception as error:
                if disk_is_full(error) or not (message := error_message(error, command)):
                    raise
                record["error"] = message
                failed += 1
            update(i + 1, count, what)
            _print(record, text, as_json, quiet)
    if summary and not (as_json or quiet):
        total = count + len(found.unusable)
        click.echo(f"{total - failed} of {total} {summary}")
    return 3 if failed else 0


def _within(update: Update, i: int, count: int, what: str) -> Progress:
    """Progress within image `i` as progress over all images."""

    def within(done: int, total: int, _: str = "") -> None:
        update(i + done / total, count, what)

    return within


def _print(record: Record, text: Callable[[Record], str], as_json: bool, quiet: bool) -> None:
    if as_json:
        console.print_json(record)
    elif "error" in record:
        source, error = record["source"], record["error"]
        console.print_error(error if source in error else f"{source}: {error}")
    elif not quiet:
        click.echo(text(record))
