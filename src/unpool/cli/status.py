"""`unpool status`: how far a run is."""

from pathlib import Path

import click

from unpool.cli import console, options


@click.command()
@click.argument("output", type=click.Path(exists=True, file_okay=False, path_type=Path))
@options.JSON
def status(output: Path, as_json: bool) -> int:
    """How far the newest run into the folder OUTPUT is.

    Shows how many images are done, failed and left, the rate, the time left, and why images have
    failed. It may be called while the run goes on, from any machine that sees the folder, and
    reads neither images nor results. Of a run in shards it counts those that were started.

    With --json, one object with command, images, done, failed, given_up (those that ended their
    process), left, rate (images a second in the last ten minutes of the run), seconds_left,
    seconds_since_last, shards ([started, all]) and failures (up to 20, with name and error).

    \b
    Example: unpool status out
    """
    from unpool.batch.status import status as find

    found = find(output)
    if as_json:
        console.print_json(found)
        return 0
    failures, shards = found.pop("failures"), found.pop("shards")
    seconds, since, rate = (found.pop(k) for k in ("seconds_left", "seconds_since_last", "rate"))
    found["rate"] = rate and f"{rate:.3g} images/s"
    if found["left"]:
        found["time left"] = seconds and _duration(seconds)
        found["last image"] = since and f"{_duration(since)} ago"
    found["shards"] = shards and f"{shards[0]} of {shards[1]} started"
    console.print_facts({name.replace("_", " "): value for name, value in found.items()})
    for failure in failures:
        click.echo(f"  {failure['name']}: {failure['error']}")
    if more := found["failed"] - len(failures):
        click.echo(f"  and {more} more")
    return 0


def _duration(seconds: int) -> str:
    """A time in words.

    >>> _duration(50), _duration(4000), _duration(200_000)
    ('50 s', '1 h 7 min', '2 d 7 h')
    """
    minutes, hours, days = round(seconds / 60), seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds} s"
    if minutes < 60:
        return f"{minutes} min"
    if days < 2:
        return f"{hours} h {round(seconds % 3600 / 60)} min"
    return f"{days} d {seconds % 86400 // 3600} h"
