"""`unpool check`: find mistakes in labeled images."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool.cli import console
from unpool.cli.messages import with_flags
from unpool.cli.options import BY_COLOR, CROWD, JSON, QUIET
from unpool.errors import DataError

if TYPE_CHECKING:
    from unpool.data.check import Report

_SHOWN = 10  # findings of a kind, because a mistake is often made in every file


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--split",
    "splits",
    multiple=True,
    help="A part of the data to check; may be repeated.  [default: all]",
)
@BY_COLOR
@CROWD
@JSON
@QUIET
def check(data: Path, splits: tuple[str, ...], as_json: bool, quiet: bool, **reading: Any) -> None:
    """Find mistakes in labeled images before training on them.

    The exit code is 2 if there are errors, and 0 if there are only warnings.

    \b
    Example: unpool check VOC2012 --split train --split val
    """
    from unpool.data.check import check_data

    with console.progress("checking", quiet) as show:
        report = check_data(data, list(splits) or None, progress=show, **reading)
    if as_json:
        console.print_json(report.to_dict())
    elif not quiet:
        print_report(report)
    if not report.ok:
        errors = sum(finding.level == "error" for finding in report.findings)
        raise DataError(f"{data} has {errors} error{'s' * (errors > 1)}; correct, and check again")


def print_report(report: "Report") -> None:
    """Print the findings, and a table of images, objects and pixels per class."""
    total = Counter(finding[:2] for finding in report.findings)
    seen: Counter[tuple[str, str]] = Counter()
    context = click.get_current_context(silent=True)
    command = context.command if context else None
    for level, kind, where, message in report.findings:
        seen[level, kind] += 1
        n, rest = seen[level, kind], total[level, kind] - _SHOWN
        if n <= _SHOWN:
            text = with_flags(message, command)
            click.echo(f"{level}: {where}: {text} ({kind})")
        if n == _SHOWN and rest > 0:
            click.echo(f"{level}: and {rest} more like that ({kind}), which --json lists")
    objects = "objects, " * any(count.objects for count in report.classes)
    what = f"images, {objects}pixels"
    rows = [["class", *(f"{split} ({n}): {what}" for split, n in report.splits.items())]]
    for found in report.classes:
        cells = []
        for split in report.splits:
            counts = [str(count[split]) for count in (found.images, found.objects) if count]
            pixels = sum(other.pixels[split] for other in report.classes)
            fraction = found.pixels[split] / max(pixels, 1)
            cells.append(", ".join([*counts, f"{console.percent(fraction):>4} %"]))
        rows.append([f"{found.id} {found.name}", *cells])
    console.print_table(rows)
    click.echo(f"layout: {report.layout}")
    for note in report.notes:
        click.echo(f"note: {note}")
    if report.ok:
        n, m = sum(report.splits.values()), len(report.findings)
        result = f"no errors and {m} warning{'s' * (m > 1)}" if m else "no problems"
        click.echo(f"{result} found in {n} image{'s' * (n != 1)}")
