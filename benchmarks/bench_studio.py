"""From the drop of a photo on the studio to its mask on the screen, beside the segmentation alone.

A process serves the default weights, and Chromium of the system shows the page; 500 x 375 pixels.

usage: python benchmarks/bench_studio.py [--threads N] [--rounds N] [--json]
"""

import io
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from importlib import resources
from typing import Any

import torch
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from script import run

from unpool import Progress
from unpool.bench.harness import describe, spread
from unpool.cli.bench import seconds_cells
from unpool.errors import OptionError

STUDIO = [sys.executable, "-m", "unpool", "studio", "--port", "0", "--no-browser"]

DROP = """async (bytes) => {
  const photo = document.querySelector(".canvas img"), mask = document.querySelector(".layer");
  const data = new DataTransfer(), before = photo.src, start = performance.now();
  data.items.add(new File([new Uint8Array(bytes)], "photo.jpg", { type: "image/jpeg" }));
  const given = { bubbles: true, cancelable: true, dataTransfer: data };
  document.body.dispatchEvent(new DragEvent("drop", given));
  while (photo.src === before || mask.width === 1) await new Promise(requestAnimationFrame);
  return performance.now() - start;
}"""


def measure(rounds: int, *, progress: Progress) -> dict[str, Any]:
    """Seconds from a drop to the mask, and those of the segmentation in them."""
    if not (chromium := shutil.which("chromium")):
        raise OptionError("got no Chromium; install it: apt-get install chromium")
    variables = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with (
        subprocess.Popen(STUDIO, **pipes, text=True, env=variables) as server,
        sync_playwright() as playwright,
    ):
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            wait_until_ready(address)
            with playwright.chromium.launch(executable_path=chromium) as browser:
                page = browser.new_page()
                page.goto(address)
                page.locator(".classes li").first.wait_for()
                found = []
                for n in range(rounds + 1):  # the first warms up
                    found.append(drop(page, 90 - n))
                    progress(n, rounds)
        finally:
            server.terminate()
    whole, alone = zip(*found[1:], strict=True)
    return {
        "subject": "studio",
        "seconds": {"drop to mask": spread(whole), "segmentation": spread(alone)},
        "rounds": rounds,
        "machine": describe(),
    }


def wait_until_ready(address: str) -> None:
    """Return when the weights of a service are loaded."""
    for _ in range(600):
        with suppress(OSError):
            urllib.request.urlopen(f"{address}/readyz").close()
            return
        time.sleep(0.1)
    raise OptionError("got a studio that does not get ready; run: unpool studio")


def drop(page: Page, quality: int) -> tuple[float, float]:
    """Drop a photo, another file for each quality; seconds to its mask, and to segment it."""
    sample = resources.files("unpool.serve.studio") / "static/samples/chelsea.jpg"
    file = io.BytesIO()
    with Image.open(io.BytesIO(sample.read_bytes())) as photo:
        photo.resize((500, 375)).save(file, "JPEG", quality=quality)
    seconds = page.evaluate(DROP, list(file.getvalue())) / 1000
    page.locator(".work").wait_for(state="hidden")
    how = page.locator(".summary").inner_text().splitlines()[-1]
    return seconds, float(how.partition(" s")[0])


def table(found: dict[str, Any]) -> list[list[str]]:
    rows = ([name, *seconds_cells(seconds)] for name, seconds in found["seconds"].items())
    return [["", "s", "range"], *rows]


if __name__ == "__main__":
    sys.exit(run(measure, table))
