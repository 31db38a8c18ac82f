"""Output of the command line: facts, tables, reports, and errors as one line each."""

import csv
import math
import os
import re
import shutil
import signal
import sys
import textwrap
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool.files import atomic, json_line, write_json

if TYPE_CHECKING:
    from unpool.data.check import Report

_SPECK = 0.005  # classes on a smaller fraction of an image are not named, as in overlays


def print_json(values: object) -> None:
    """Print plain values as one line of strict JSON."""
    click.echo(json_line(values))


def print_facts(facts: Mapping[str, Any], indent: str = "") -> None:
    """Print names and values, one per line; nested ones are indented, long text is wrapped.

    Numbers are rounded, and None is left out.

    >>> print_facts({"devices": ["cpu", "cuda:0"], "weights": {"objects": 3}, "note": None})
    devices: cpu, cuda:0
    weights:
      objects: 3
    >>> print_facts({"data": [{"part": "coco", "images": 152}, {"part": "msrc"}]})
    data:
      part: coco; images: 152
      part: msrc
    """
    for name, value in facts.items():
        match value:
            case None:
                pass
            case dict() if value:
                click.echo(f"{indent}{name}:")
                print_facts(value, indent + "  ")
            case [dict(), *_]:
                click.echo(f"{indent}{name}:")
                for item in value:
                    _print_wrapped(_text(item), indent + "  ")
            case _:
                _print_wrapped(f"{name}: {_text(value)}", indent)


def print_card(card: Mapping[str, Any]) -> None:
    """Print a model card without its palette, and with its figures in percent.

    >>> print_card({"palette": [[0, 0, 0]], "figures": {"val": {"miou": 0.4424, "images": 80}}})
    figures:
      val:
        miou: 44.2 %
        images: 80
    """
    print_facts({**card, "palette": None, "figures": in_percent(card.get("figures"))})


def in_percent(figures: object) -> object:
    """Nested figures with each fraction as a percentage; the error `mse` is not a fraction.

    >>> in_percent({"miou_interval": [0.364, 0.479], "protocol": "whole images"})
    {'miou_interval': '36.4 to 47.9 %', 'protocol': 'whole images'}
    >>> in_percent({"mse": 0.0059, "iou": 0.8929})
    {'mse': 0.0059, 'iou': '89.3 %'}
    """
    match figures:
        case dict():
            return {k: v if k == "mse" else in_percent(v) for k, v in figures.items()}
        case [float(low), float(high)]:
            return f"{percent(low)} to {percent(high)} %"
        case float(fraction):
            return f"{percent(fraction)} %"
        case _:
            return figures


def _text(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case dict():
            return "; ".join(f"{k}: {_text(v)}" for k, v in value.items()) or "none"
        case list():
            return ", ".join(map(_text, value)) or "none"
        case _:
            return str(value)


def _print_wrapped(text: str, indent: str) -> None:
    """Print text wrapped to the terminal, lines after the first indented further."""
    width = max(40, min(100, shutil.get_terminal_size().columns))
    layout = textwrap.TextWrapper(width, indent, indent + "    ", break_on_hyphens=False)
    layout.break_long_words = False  # paths and hashes stay whole, to be copied
    click.echo("\n".join(layout.wrap(text)))


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells, the first column left-aligned, the others right-aligned.

    >>> print_table([["%", "whole"], ["cat", "81.5"]])
    %    whole
    cat   81.5
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        click.echo("  ".join([first.ljust(widths[0]), *cells]))


def percent(fraction: float | None) -> str:
    """A fraction in percent.

    >>> percent(0.5), percent(None)
    ('50.0', '-')
    """
    return "-" if fraction is None or math.isnan(fraction) else f"{100 * fraction:.1f}"


def segmentation_text(record: Mapping[str, Any]) -> str:
    """A result as text: the fraction of each class, small ones added up, and the seconds."""
    seen = {name: f for name, f in record["labels"].items() if f >= _SPECK}
    if (others := 1 - sum(seen.values())) >= 0.0005:  # what does not print as 0.0
        seen["others"] = others
    fractions = ", ".join(f"{name} {percent(f)} %" for name, f in seen.items())
    line = f"{record['source']}: {fractions} ({record['seconds']:.2f} s)"
    if seconds := record.get("timings"):
        line += "\n  " + ", ".join(f"{name} {s:.2f} s" for name, s in seconds.items())
    return line


def print_figures(modes: Mapping[str, Mapping[str, Any]], quiet: bool) -> None:
    """Print the dropped images, percentages in a column per mode, and the protocols."""
    first, *_ = modes.values()
    for image, message in first["dropped"].items():
        print_error(f"dropped {image}: {message}")
    if not quiet:
        columns = [_figures(summary) for summary in modes.values()]
        rows = [[title, *(column[title] for column in columns)] for title in columns[0]]
        print_table([["%", *modes], *rows])
        for summary in modes.values():
            click.echo(summary["protocol"])


def _figures(summary: Mapping[str, Any]) -> dict[str, str]:
    interval = summary["miou_interval"] or [None]
    others = ("pixel_accuracy", "mean_accuracy", "boundary_f1")
    return {
        **{name: percent(iou) for name, iou in summary["iou"].items()},
        "mean IoU": percent(summary["miou"]),
        "95 % interval": " to ".join(map(percent, interval)),
        **{name.replace("_", " "): percent(summary[name]) for name in others},
    }


def write_figures(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write `summary.json`, and `iou.csv` with a row per class and a column per mode."""
    write_json(folder / "summary.json", summary)
    columns = [mode["iou"] for mode in summary["modes"].values()]
    with atomic(folder / "iou.csv") as temporary, temporary.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["class", *summary["modes"]])
        table.writerows([name, *(column[name] for column in columns)] for name in columns[0])


_SHOWN = 10  # findings of a kind, because a mistake is often made in every file


def print_report(report: "Report") -> None:
    """Print the findings, and a table of images, objects and pixels per class."""
    total = Counter(finding[:2] for finding in report.findings)
    seen: Counter[tuple[str, str]] = Counter()
    for level, kind, where, message in report.findings:
        seen[level, kind] += 1
        n, rest = seen[level, kind], total[level, kind] - _SHOWN
        if n <= _SHOWN:
            click.echo(f"{level}: {where}: {message} ({kind})")
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
            cells.append(", ".join([*counts, f"{percent(fraction):>4} %"]))
        rows.append([f"{found.id} {found.name}", *cells])
    print_table(rows)


def print_error(message: str) -> None:
    """Print one line to standard error."""
    click.echo("unpool: " + re.sub(r"\s*\n\s*", " ", message.strip()), err=True)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print warnings as one line each, without their place in the code."""
    before = warnings.showwarning
    warnings.showwarning = lambda message, *_, **__: print_error(f"warning: {message}")
    try:
        yield
    finally:
        warnings.showwarning = before


@contextmanager
def terminable() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM, so that it cleans up as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():  # signals can only be set there
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def drop_unwritten() -> None:
    """Discard output that cannot be written, so that Python does not fail on it at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
