"""A command that is quick to start: it writes the mean of each image, by any engine.

Images called poison kill their process.
"""

import os
import signal
import sys
import time

import click

from unpool.cli.images import SCALE, Scale, each_image, find_inputs, output_option, with_suffixes
from unpool.cli.options import JSON, QUIET
from unpool.errors import UnpoolError
from unpool.files import write_bytes


def make(source, stem, progress):
    if "poison" in source.name.name:
        os.kill(os.getpid(), signal.SIGKILL)
    if "bug" in source.name.name:
        raise KeyError("a bug")
    time.sleep(float(os.environ.get("SHADE_SECONDS", 0)))
    image = source.read()
    if image[0, 0, 0] == 13:
        raise UnpoolError("got a bad omen; pass engine='ray'")
    write_bytes(f"{stem}.txt", f"{image.mean():.3f}".encode())
    return {"file": f"{stem}.txt", "shade": round(float(image.mean()), 3)}


@click.command()
@click.argument("inputs", nargs=-1)
@output_option("out")
@SCALE
@JSON
@QUIET
def shade(inputs, output, as_json, quiet, **given):
    scale = Scale.taken(given)
    found = find_inputs(inputs, output, with_suffixes(".txt"), scale=scale)
    text = lambda record: f"{record['source']} {record['shade']}"  # noqa: E731
    return each_image(found, output, make, text, "", as_json, quiet, "shaded", scale=scale)


def main(*args):
    try:
        return shade.main([*args], standalone_mode=False)
    except (click.UsageError, UnpoolError) as error:
        print(error.message if isinstance(error, click.UsageError) else error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    from tests.batch.shade import main as here  # so that what is pickled has its name

    sys.exit(here(*sys.argv[1:]))
