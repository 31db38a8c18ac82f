"""What commands share that work image by image: the option `-o`, the inputs and the loop."""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import unpool
from unpool.batch.engines import processes, serial
from unpool.batch.ledger import Ledger
from unpool.batch.status import write_manifest
from unpool.batch.work import Item, Outcome, Work
from unpool.batch.work import Record as Record
from unpool.cli import console, options
from unpool.cli.messages import disk_is_full, error_message
from unpool.errors import ImageWarning, OptionError
from unpool.files import fingerprint

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.vision.sources import Found, Shard, Source

_WITHOUT_EFFECT = {  # parameters of commands that do not change the results
    *("inputs", "image", "output", "weights", "device", "batch"),
    *("as_json", "quiet", "redo", "list_layers", "workers", "engine", "shard"),
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
    scale: "Scale | None" = None,
) -> "Found":
    """Find the images that inputs name, report others, and refuse to overwrite one of them.

    Args:
        inputs: see `unpool.vision.sources.find_images`.
        output: the folder for the results.
        files: all files that may be written for OUTPUT/NAME, where NAME stands for an image.
        videos: find videos, too.
        scale: of commands that have the options `SCALE`; they find images in tar files, too.
    """
    from unpool.vision.sources import find_images, spare_inputs

    shard = scale.shard if scale else None
    found = find_images(inputs, output, videos=videos, archives=scale is not None, shard=shard)
    for unread in found.unread:
        console.print_error(str(unread))
    if output.exists():
        spare_inputs(found.sources, [f for s in found.sources for f in files(output / s.name)])
    return found


@dataclass(frozen=True)
class Scale:
    """Who works on the images, and on which."""

    workers: int | None = None  #: processes; None: this one
    engine: str | None = None
    shard: "Shard | None" = None

    @classmethod
    def taken(cls, given: dict[str, Any]) -> "Scale":
        """Take the options `SCALE` out of those of a command."""
        workers, engine, shard = (given.pop(name) for name in ("workers", "engine", "shard"))
        if engine and not workers:
            raise OptionError(f"got engine={engine!r} without workers; add workers=2")
        return cls(workers, engine, shard)

    def outcomes(
        self, work: Work, items: Iterable[Item], progress: "Progress"
    ) -> Iterator[Outcome]:
        """Work on items, see `unpool.batch.engines`."""
        if self.engine == "ray":
            from unpool.batch.ray import ray_data

            device = str(click.get_current_context().params.get("device"))
            return ray_data(work, items, self.workers or 1, gpu=device.startswith("cuda"))
        return (
            processes(work, items, self.workers) if self.workers else serial(work, items, progress)
        )


def parse_shard(ctx: click.Context, param: click.Parameter, value: str | None) -> "Shard | None":
    """A part of several, as 3/16."""
    if value is None:
        return None
    from unpool.vision.sources import Shard

    number, _, count = value.partition("/")
    if number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
        return Shard(int(number), int(count))
    raise click.BadParameter(f"got {value!r}; wanted 1/16 to 16/16.", ctx, param)


SCALE = options.all_of(
    click.option(
        "--workers",
        type=options.FROM_ONE,
        help="Work on so many images at a time, in as many processes, which share the cores.  "
        "[default: one at a time]",
    ),
    options.choice(
        "--engine",
        ("processes", "ray"),
        "Where the workers are: on this machine, or on a Ray cluster, whose address is in "
        "RAY_ADDRESS.  [default: processes]",
    ),
    click.option(
        "--shard",
        metavar="I/N",
        callback=parse_shard,
        help="Work on the I-th of N parts of the inputs, such as 1/16, so that other processes or "
        "machines can work on the others at the same time.  [default: all]",
    ),
)


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
    redo: bool = False,
    scale: Scale | None = None,
    finish: Callable[[Ledger], None] | None = None,
    **more: Any,
) -> int:
    """Process images, print a record of each, and report those that fail.

    An image that cannot be read or processed, or that needs too much memory, is reported and
    skipped. A full disk and a bug end the loop. Records get `source` and `seconds`; those of failed
    images have only `source` and `error`. Images that were read by a guess have `warnings`, too.

    What an earlier run finished, with the same content and procedure, is not done again (see
    `unpool.batch.ledger`); its record is that of the earlier run, with `skipped`. The procedure is
    the command with its options, the network and the version. Standard input is always done.

    Args:
        found: the result of `find_inputs`.
        output: the folder for the results; created if missing.
        make: see `unpool.batch.work.Work`.
        text: formats a record as text.
        what: the description of the progress, such as "segmenting".
        as_json: print records as JSON, one per line.
        quiet: print failures only.
        summary: the end of a last line of text, after "3 of 4 ".
        network: a digest of the network, as of `unpool.cards.weights_digest`.
        redo: do all images again.
        scale: who works on the images; `make` and the others are then picklable, and images that
            end their process are given up.
        finish: called at the end, with the ledger that has all that was done.
        **more: see `unpool.batch.work.Work`.

    Returns:
        The exit code: 0, or 3 if an image failed.
    """
    options.make_folder(output)
    command = click.get_current_context().command
    ledger = Ledger(output, _procedure(network))
    run = os.urandom(8).hex() if scale else ""
    work = Work(ledger, run, make, Explain(command), redo=redo, **more)
    names = [str(source.name) for source in found.sources if not source.is_stdin]
    write_manifest(ledger, command.name or "", names, scale.shard if scale else None)
    total, failed, skipped, done = len(found.sources), len(found.unusable), 0, 0
    for unusable in found.unusable:
        _print(unusable._asdict(), text, as_json, quiet)

    with console.progress(what, quiet) as update, _warn_of_all():

        def within(part: int, parts: int, _: str = "") -> None:
            update(done + part / parts, total, what)

        for outcome in _outcomes(found.sources, work, scale, within):
            within(1, 1)
            record = outcome.record
            for warning in [] if "skipped" in record else record.get("warnings", []):
                warnings.warn(warning, ImageWarning, stacklevel=2)
            if outcome.line is not None:
                ledger.append(outcome.line)
            _print(record, text, as_json, quiet)
            done += 1
            failed += "error" in record
            skipped += "skipped" in record
    if finish:
        finish(copy(ledger))  # which reads again what is there
    ledger.close()
    if not (as_json or quiet):
        _print_summary(total + len(found.unusable), failed, skipped, summary)
    return 3 if failed else 0


def _outcomes(
    sources: "Sequence[Source]", work: Work, scale: Scale | None, within: "Progress"
) -> Iterator[Outcome]:
    """Work on images; those that may have ended the process of an earlier run come last."""
    names = [str(source.name) for source in sources if not source.is_stdin]
    suspects = work.ledger.unended(names) if scale else set()

    def items(these: bool) -> Iterator[Item]:
        for source in sources:
            if (str(source.name) in suspects) is these:
                yield Item(source, None if source.is_stdin else work.ledger.last(str(source.name)))

    scale = scale or Scale()
    yield from scale.outcomes(work, items(False), within)
    if suspects:  # in processes of their own, which may end
        yield from Scale(scale.workers or 1, scale.engine).outcomes(work, items(True), within)


@contextmanager
def _warn_of_all() -> Iterator[None]:
    """Show each warning about an image; `console.plain_warnings` leaves out what was shown."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", ImageWarning)
        yield


class Explain:
    """The message of an error that concerns one image; can be sent to other processes."""

    def __init__(self, command: click.Command) -> None:
        self.command = command

    def __call__(self, error: Exception) -> str:
        """The message, or "" if the error ends the run."""
        return "" if disk_is_full(error) else error_message(error, self.command)

    def __reduce__(self) -> tuple[Any, ...]:
        module = getattr(self.command.callback, "__module__", __name__)
        return _explain, (module, self.command.name)


def _explain(module: str, name: str) -> Explain:
    """As it was in another process; commands themselves are not picklable."""
    command = getattr(import_module(module), name, None)
    return Explain(command if isinstance(command, click.Command) else click.Command(name))


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
