"""Progress as lines of text on standard error."""

import sys
import time

PERIOD = 10.0  #: seconds from one line of progress to the next


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
        print(line, file=sys.stderr, flush=True)


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
