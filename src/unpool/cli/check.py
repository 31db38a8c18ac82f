"""`unpool check`: find mistakes in labeled images."""

from pathlib import Path

import click

from unpool.cli import console
from unpool.cli.options import JSON, QUIET
from unpool.cli.progress import progress
from unpool.errors import DataError


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--split",
    "splits",
    multiple=True,
    help="A part of the data to check; may be repeated.  [default: all]",
)
@JSON
@QUIET
def check(data: Path, splits: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Find mistakes in labeled images before training on them.

    The exit code is 2 if there are errors, and 0 if there are only warnings.

    \b
    Example: unpool check VOC2012 --split train --split val
    """
    from unpool.data.check import check_data

    with progress("checking", quiet) as show:
        report = check_data(data, list(splits) or None, progress=show)
    if as_json:
        console.print_json(report.to_dict())
    elif not quiet:
        console.print_report(report)
    if not report.ok:
        errors = sum(finding.level == "error" for finding in report.findings)
        raise DataError(f"{data} has {errors} error{'s' * (errors > 1)}; correct, and check again")
