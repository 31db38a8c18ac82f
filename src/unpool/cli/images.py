"""What commands share that work image by image: the option `-o`, the inputs and the loop."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import unpool
from unpool.batch.ledger import Ledger
from unpool.cli import console, options
from unpool.cli.messages import disk_is_full, error_message
from unpool.errors import ImageError, OptionError, UnpoolError
from unpool.files import fingerprint, written_files

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.vision.sources import Found, Source

Record = dict[str, Any]
"""The result for an image, as plain values."""

_WITHOUT_EFFECT = {  # parameters of commands that do not change the results
    *("inputs", "image", "output", "weights", "device", "batch"),
    *("as_json", "quiet", "redo", "list_layers"),
}


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
    inputs: Sequence[str],
    output: Path,
    files: Callable[[Path], Iterable[Path]],
    videos: bool = False,
) -> "Found":
    """Find the images that inputs name, report others, and refuse to overwrite one of them.

    Args:
        inputs: see `unpool.vision.sources.find_images`.
        output: the folder for the results.
        files: all files that may be written for OUTPUT/NAME, where NAME stands for an image.
        videos: find videos, too.
    """
    from unpool.vision.sources import find_images, spare_inputs

    found = find_images(inputs, output, videos=videos)
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
    *,
    network: str = "",
    also: Callable[["Source"], object] = lambda _: None,
    redo: bool = False,
    video: Callable[["Source", Path, Path, "Progress"], Record] | None = None,
) -> int:
    """Process images one by one, print a record of each, and report those that fail.

    An image that cannot be read or processed, or that needs too much memory, is reported and
    skipped. A full disk and a bug end the loop. Records get `source` and `seconds`; those of failed
    images have only `source` and `error`. Images that were read by a guess have `warnings`, too.

    What an earlier run finished, with the same content and procedure, is not done again (see
    `unpool.batch.ledger`); its record is that of the earlier run, with `skipped`. The procedure is
    the command with its options, the network and the version. Standard input is always done.

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
        network: a digest of the network, as of `unpool.cards.weights_digest`.
        also: what the results for an image depend on besides its content, plain values; not called
            for standard input.
        redo: do all images again.
        video: as `make`, for videos; its third argument is a folder for the frames that are done,
            which an interrupted run leaves to the next.

    Returns:
        The exit code: 0, or 3 if an image failed.
    """
    options.make_folder(output)
    ledger = Ledger(output, _procedure(network))
    failed, skipped = len(found.unusable), 0
    for unusable in found.unusable:
        _print(unusable._asdict(), text, as_json, quiet)
    with console.progress(what, quiet) as update, console.noted_warnings() as noted:
        for i, source in enumerate(found.sources):

            def within(done: int, total: int, _: str = "", i: int = i) -> None:
                update(i + done / total, len(found.sources), what)

            within(0, 1)
            noted.clear()
            name, content = str(source.name), _content(source, also)
            earlier = ledger.find(name, content) if content and not redo else None
            if earlier is not None:
                record = {"source": str(source), **earlier, "skipped": True}
            else:
                work = partial(make, source, output / source.name, within)
                if video is not None and source.is_video:
                    frames = ledger.work_folder(name, content)
                    if redo:
                        shutil.rmtree(frames, ignore_errors=True)
                    work = partial(video, source, output / source.name, frames, within)
                done = _record(ledger, name, content, work, noted)
                record = {"source": str(source), **done}
            within(1, 1)
            _print(record, text, as_json, quiet)
            failed += "error" in record
            skipped += "skipped" in record
    ledger.close()
    if not (as_json or quiet):
        _print_summary(len(found.sources) + len(found.unusable), failed, skipped, summary)
    return 3 if failed else 0


def _record(
    ledger: Ledger, name: str, content: str, work: Callable[[], Record], noted: list[str]
) -> Record:
    """Work on an image; its record, which the ledger gets, too."""
    start = time.perf_counter()
    try:
        with written_files() as files:
            record = work()
        record["seconds"] = round(time.perf_counter() - start, 3)
    except Exception as error:
        message = error_message(error, click.get_current_context().command)
        if disk_is_full(error) or not message:
            raise
        record = {"error": message}
    if noted:
        record["warnings"] = [*noted]
    if content and "error" in record:
        ledger.fail(name, content, record["error"])
    elif content:
        ledger.add(name, content, record, [file for file in files if file.exists()])
    return record


def _print(record: Record, text: Callable[[Record], str], as_json: bool, quiet: bool) -> None:
    if as_json:
        console.print_json(record)
    elif "error" in record:
        source, error = record["source"], record["error"]
        console.print_error(error if source in error else f"{source}: {error}")
    elif not quiet:
        click.echo(("(skipped) " if "skipped" in record else "") + text(record))


def _print_summary(total: int, failed: int, skipped: int, summary: str) -> None:
    if skipped:
        click.echo(f"{skipped} skipped, finished by an earlier run (--redo does all again)")
    if summary:
        click.echo(f"{total - failed} of {total} {summary}")


def _procedure(network: str) -> Record:
    """All that determines the results of the current command."""
    context = click.get_current_context()
    chosen = {name: value for name, value in context.params.items() if name not in _WITHOUT_EFFECT}
    for name, value in chosen.items():
        if isinstance(value, Path) and value.is_file():
            chosen[name] = fingerprint(value, OptionError)
    about = {"version": unpool.__version__, "command": context.command.name}
    return {**about, "options": chosen, "network": network}


def _content(source: "Source", also: Callable[["Source"], object]) -> str:
    """The digest of what goes in; "" for an unreadable image, and for standard input."""
    if source.path is None:
        return ""
    try:
        content, more = fingerprint(source.path, ImageError), also(source)
    except (OSError, UnpoolError):
        return ""
    if more is None:
        return content
    return hashlib.sha256(json.dumps([content, more]).encode()).hexdigest()
