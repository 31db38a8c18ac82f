"""How far the labels of exported networks are from those of PyTorch, on real images.

Every fourth image of a data set's split is labeled whole, at its own size, and in four crops.
Counted are pixels whose label differs from PyTorch's in fp32, as trained. The last line is JSON.

usage: python -m experiments.equality DATA WEIGHTS [WEIGHTS.onnx] [WEIGHTS.xml]
"""

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.bench_export import segmenters
from unpool.data import open_data, read_sample
from unpool.segment.segmenter import Segmenter
from unpool.vision.boxes import Crop


def labels(segmenter: Segmenter, image: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
    """Of the whole, and of crops from the corners."""
    found = {}
    if segmenter.model.fc is None or segmenter.side is None:
        found["whole"] = segmenter.predict(image, mode="whole").logits.argmax(0)
    if segmenter.side is not None:
        height, width = image.shape[:2]
        side = min(height, width) * 3 // 4
        corners = [(x, y) for x in (0, width - side) for y in (0, height - side)]
        crops = [Crop((x, y, x + side, y + side), segmenter.side) for x, y in corners]
        found["crops"] = segmenter.infer(np.stack([c.take(image) for c in crops])).argmax(1)
    return found


def main() -> None:
    """Print the shares, and the same as JSON."""
    data, weights, *exports = sys.argv[1:]
    reference = Segmenter.from_pretrained(weights, precision="fp32", exact=True)
    compared = segmenters([weights, *exports])
    different: dict[str, dict[str, int]] = {name: {} for name in compared}
    pixels: dict[str, int] = {}
    opened = open_data(Path(data), "val")
    for sample in opened.samples[::4]:
        image, _ = read_sample(sample, len(opened.classes))
        wanted = labels(reference, image)
        for what, truth in wanted.items():
            pixels[what] = pixels.get(what, 0) + truth.size
        for name, segmenter in compared.items():
            for what, found in labels(segmenter, image).items():
                wrong = int((found != wanted[what]).sum())
                different[name][what] = different[name].get(what, 0) + wrong
    for name, counts in different.items():
        row = (f"{what} {n} ({n / pixels[what]:.2%})" for what, n in counts.items())
        print(f"{name:24}", *row, sep="  ")
    print(json.dumps({"pixels": pixels, "different": different}))


if __name__ == "__main__":
    main()
