"""Segment the photos that scikit-image ships, and lay them out on one sheet.

usage: python examples/demo.py [FOLDER]
"""

import sys
import time
from importlib import resources
from pathlib import Path

from rich.console import Console
from rich.table import Table

import unpool
from unpool.vision.figures import contact_sheet
from unpool.vision.images import write_image

PHOTOS = ("chelsea", "astronaut", "motorcycle_left", "coffee")


def main(folder: Path) -> None:
    """Write a mask and an overlay for every photo, and a sheet of all."""
    segmenter = unpool.load("objects", preset="edeconvnet")  # a DeconvNet and an FCN
    table, tiles = Table("image", "classes", "seconds", title="unpool demo"), []
    for name in PHOTOS:
        image = unpool.read_image(str(resources.files("skimage") / "data" / f"{name}.png"))
        start = time.perf_counter()
        result = segmenter(image, mode="whole", crf="auto")
        seconds = time.perf_counter() - start
        result.save(folder / f"{name}.png")
        fractions = [
            f"{label} {part:.1%}" for label, part in result.fractions().items() if part > 0.005
        ]
        table.add_row(name, ", ".join(fractions), f"{seconds:.2f}")
        tiles += [(image, name), (result.overlay(), "segmented")]
    write_image(folder / "sheet.png", contact_sheet(tiles, columns=4, width=1600))
    Console(width=110).print(table)
    print(f"masks, overlays and the contact sheet are in {folder.resolve()}/ (see sheet.png)")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
