"""Images taken apart: quality, the strongest parts, the files."""

import json

import numpy as np
import pytest
import torch

from unpool.coding.images import read, reduced
from unpool.coding.parts import (
    filter_sheet,
    load_coder,
    parts_sheet,
    rebuild,
    strongest_place,
    take_apart,
)
from unpool.data.unlabeled import find_training_images
from unpool.errors import ImageError, WeightsError
from unpool.models import SparseCoder
from unpool.models.coder import Code
from unpool.vision.figures import patch
from unpool.vision.images import read_image


@pytest.fixture(scope="module")
def coder(trained):
    return load_coder(trained[0], "cpu")[0]


def test_quality_by_hand(coder, photos):
    y = read(photos / "0.png", 60)
    found = rebuild(coder, y, 2)
    rest = (y - found.images).square().sum() / y.square().sum()
    assert found.quality.snr == pytest.approx(float(-10 * torch.log10(rest)), abs=1e-4)
    assert found.quality.nonzeros == pytest.approx(
        int((found.code.maps != 0).sum()) / found.code.maps.numel()
    )


def test_the_strongest_place_is_off_the_border(coder):
    maps = torch.zeros(2, 4, 20, 21)
    maps[0, 1, 2, 10], maps[1, 1, 12, 9], maps[0, 1, 8, 8] = 9.0, -5.0, 4.0
    assert strongest_place(coder, Code(maps, ()), 1) == (1, 1, 12, 9)
    assert strongest_place(coder, Code(maps[:, :, :8], ()), 1) == (0, 1, 2, 10)  # all border


def test_the_tops_are_those_of_a_search(coder, photos, tmp_path):
    """One of each image, by magnitude."""
    images = find_training_images(photos, 24, 60)
    found = take_apart(coder, images, tmp_path, long_side=60, count=3)
    for layer, units in enumerate(found.tops, start=1):
        with torch.no_grad():
            codes = [coder.encode(read(path, 60), layer) for path in images]
        for unit, parts in enumerate(units):
            values = [code.maps[strongest_place(coder, code, unit)].item() for code in codes]
            ranked = sorted(zip(map(abs, values), map(str, images), strict=True), reverse=True)
            ranked = [row for row in ranked if row[0]][:3]
            assert [part.image for part in parts] == [name for _, name in ranked]
            assert [abs(part.value) for part in parts] == pytest.approx([v for v, _ in ranked])
            for part in parts:
                whole = reduced(read_image(part.image), 60)
                assert np.array_equal(part.patch, patch(whole, part.box))
                assert part.shown.shape == part.patch.shape
    rows = [[image["layers"][k]["snr"] for image in found.rebuilt] for k in (0, 1)]
    means = [found.mean(layer).snr for layer in (1, 2)]
    assert means == pytest.approx([sum(row) / 9 for row in rows])


def test_files(coder, photos, tmp_path):
    images = [photos / "0.png", tmp_path / "broken.png", photos / "2.png"]
    images[1].write_bytes(b"no image")
    out = tmp_path / "out"
    found = take_apart(coder, images, out, long_side=60, count=2)
    assert [*found.failed] == [str(images[1])]
    written = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    rebuilt = {"rebuilt/0.png", "rebuilt/2.png"}
    assert written == {"filters.png", "layer1.png", "layer2.png", "parts.json", *rebuilt}
    values = json.loads((out / "parts.json").read_text())
    assert values == json.loads(json.dumps(found.to_dict()))
    assert len(values["layers"][1]) == 4
    with pytest.raises(ImageError, match="none of 1 images can be used"):
        take_apart(coder, images[1:2], out)


def test_sheets(coder, photos):
    y = read(photos / "0.png", 60)
    one, both = filter_sheet(coder, y, 1), filter_sheet(coder, y)
    assert both.shape[0] > one.shape[0]
    assert np.array_equal(both[: one.shape[0], : one.shape[1]], one)
    assert parts_sheet([[], []]).ndim == 3  # no map is active


def test_other_weights_are_refused():
    with pytest.raises(WeightsError, match="got objects, a DeconvNet; wanted a SparseCoder"):
        load_coder("objects")


def test_color_images_of_a_coder_for_color():
    torch.manual_seed(0)
    net = SparseCoder((4, 4), 5, lam=(0.1, 0.1), channels=3, steps=5)
    assert filter_sheet(net, torch.randn(1, 3, 30, 30)).shape[2] == 3
