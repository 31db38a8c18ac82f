"""Output of the command line: facts and tables on standard output, errors and progress on stderr.

Progress is a bar on a terminal, and a line every ten seconds elsewhere.
"""

import math
import shutil
import signal
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import click

from unpool.cli.messages import with_flags
from unpool.errors import one_line
from unpool.files import json_line
from unpool.training.progress import Lines

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
        case float() | [float(), float()]:
            return f"{percent(figures)} %"
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
        case [[_, *_], *_]:
            return ", ".join(_row(item) for item in value)
        case list():
            return ", ".join(map(_text, value)) or "none"
        case _:
            return str(value)


def _row(item: object) -> str:
    """A row of a table as text: 2 x 64, of a trunk; others in parentheses."""
    match item:
        case [int() as number, int() as width]:
            return f"{number} x {width}"
        case list():
            return f"({_text(item)})"
        case _:
            return _text(item)


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


def percent(fraction: float | Sequence[float] | None) -> str:
    """A fraction or an interval in percent.

    >>> percent(0.5), percent([0.25, 0.5]), percent(None)
    ('50.0', '25.0 to 50.0', '-')
    """
    if isinstance(fraction, Sequence):
        return " to ".join(map(percent, fraction))
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


def print_error(message: str) -> None:
    """Print one line to standard error; see `one_line`."""
    click.echo(f"unpool: {one_line(message)}", err=True)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print each warning once, as one line with flags, without its place in the code."""
    before, shown = warnings.showwarning, set[str]()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        context = click.get_current_context(silent=True)
        text = f"warning: {with_flags(str(message), context.command if context else None)}"
        if text not in shown:
            shown.add(text)
            print_error(text)

    warnings.showwarning = show
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


# ---- progress ------------------------------------------------------------------------------------


class Update(Protocol):
    """An `unpool.Progress` that also takes fractions, such as half an image."""

    def __call__(self, done: float, total: int, what: str = "") -> None:
        """Show that `done` of `total` are done, and the description `what`."""


@contextmanager
def progress(what: str, quiet: bool = False) -> Iterator[Update]:
    """Show the progress of a piece of work.

    Args:
        what: the description if an update gives none.
        quiet: show nothing.

    Yields:
        The progress callback.

    >>> with progress("segmenting", quiet=True) as update:
    ...     update(1, 2, "segmenting")
    """
    if quiet:
        yield _nothing
    elif sys.stderr.isatty():
        with _bar(what) as update:
            yield update
    else:
        yield Lines(what)


def _nothing(done: float, total: int, what: str = "") -> None:
    pass


@contextmanager
def _bar(title: str) -> Iterator[Update]:
    from rich.console import Console
    from rich.progress import Progress

    # print lines above the bar if stdout is the same terminal; leave a file or a pipe alone
    with Progress(
        console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()
    ) as bar:
        task = bar.add_task(title, total=None)

        def update(done: float, total: int, what: str = "") -> None:
            bar.update(task, completed=done, total=total, description=what or title)

        yield update
