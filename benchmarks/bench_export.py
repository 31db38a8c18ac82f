"""Speed of exported networks beside that of PyTorch.

What bounds them is arithmetic: convolutions, nearly all. They take turns in one process; seconds
are medians over the rounds, those of a crop from batches of four. The last line is JSON.

usage: python benchmarks/bench_export.py WEIGHTS [WEIGHTS.onnx] [WEIGHTS.xml]
"""

import json
import sys

import numpy as np
import torch

from unpool.bench.harness import in_turn, photos, spread, timed
from unpool.export.runtime import is_exported
from unpool.segment.segmenter import Segmenter
from unpool.vision.boxes import Crop, resize

ROUNDS, CROPS = 10, 4


def segmenters(sources: list[str]) -> dict[str, Segmenter]:
    """What is compared, by name; each source in the precisions that it has."""
    found = {}
    for source in sources:
        found[f"{source} fp32"] = Segmenter.from_pretrained(source, precision="fp32")
        if not is_exported(source) or source.endswith(".xml"):
            found[f"{source} bf16"] = Segmenter.from_pretrained(source, precision="bf16")
    return found


def main() -> None:
    """Print a table, and the same as JSON."""
    torch.set_num_threads(1)
    compared = segmenters(sys.argv[1:] or ["objects"])
    image = photos((375, 500))["coffee"]
    results: dict[str, dict[str, dict[str, float]]] = {name: {} for name in compared}
    first = next(iter(compared.values()))
    inputs = {"whole": resize(image, first.long_side)[None]}
    if first.side is not None:
        crops = [Crop((x, 10, x + 300, 310), first.side) for x in range(0, 40 * CROPS, 40)]
        inputs["crop"] = np.stack([crop.take(image) for crop in crops])
    if first.model.fc is not None and first.side is not None:
        del inputs["whole"]  # a network with a code sees a crop of the whole
    for what, images in inputs.items():
        works = {
            name: timed(lambda segmenter=segmenter, images=images: segmenter.infer(images))
            for name, segmenter in compared.items()
        }
        for name, seconds in in_turn(works, ROUNDS).items():
            results[name][what] = spread(second / len(images) for second in seconds)
    for name, found in results.items():
        row = (f"{what} {s['median']:.3f} ({s['low']:.3f})" for what, s in found.items())
        print(f"{name:24}", *row, sep="  ")
    print(json.dumps({"threads": 1, "rounds": ROUNDS, "batch": CROPS, "seconds": results}))


if __name__ == "__main__":
    main()
