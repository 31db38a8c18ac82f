"""The loop over images of every command that gives results image by image."""

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
"""What became of an image, as plain values."""


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
    """Make and print a record of each image, and report those that fail.

    An image that cannot be read or processed, for want of memory too, is reported and the others
    go on. A full disk ends the work, and so does a bug. A record gets `source` and `seconds`; that
    of a failed image has only `source` and `error`.

    Args:
        found: the images, and the inputs that are none.
        make: reads an image, writes its results and describes them; it can report its own
            progress.
        text: a record as the lines to print for people.
        what: the description of the progress, such as "segmenting".
        as_json: print records as JSON, one a line.
        quiet: print failures only.
        summary: a last line for people, after "3 of 4 ".

    Returns:
        The exit code: 0, or 3 if something failed.
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
