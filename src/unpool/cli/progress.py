"""Progress on standard error: a bar on a terminal, a line every ten seconds elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import click

PERIOD = 10.0  #: seconds from one line to the next


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


class Lines:
    """A progress callback that prints a line every `PERIOD` seconds, none at the start."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.printed = time.monotonic()
        self.total: int | None = None
        self.first = self.start = 0.0

    def __call__(self, done: float, total: int, what: str = "") -> None:
        """Print the progress and the time left, if the last line is `PERIOD` seconds old."""
        now = time.monotonic()
        if total != self.total or done < self.first:  # another piece of work: restart the clock
            self.total, self.first, self.start = total, done, now
        if now - self.printed < PERIOD:
            return
        self.printed = now
        line = f"unpool: {what or self.title}: {int(done)} of {total}"
        if total:
            line += f" ({100 * done / total:.0f} %)"
        if done > self.first:
            seconds = (now - self.start) / (done - self.first) * (total - done)
            line += f", {duration(seconds)} left"
        click.echo(line, err=True)


def duration(seconds: float) -> str:
    """A duration in the one or two units that matter.

    >>> duration(42.3), duration(95), duration(3 * 3600 + 125)
    ('42 s', '1 min 35 s', '3 h 2 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
