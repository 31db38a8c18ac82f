"""Segmentation by tiles against whole passes at native resolution, and against slow blending."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unpool.errors import OptionError
from unpool.formats.objects import find_objects
from unpool.models import FCN, DeconvNet, DeepLab, SegNet, SegNetBasic, prepare, save_pretrained
from unpool.segment.ensemble import EDeconvNet, combine
from unpool.segment.pipeline import Prediction
from unpool.segment.segmenter import Segmenter
from unpool.segment.tiles import TiledPrediction, Tiling, blend_weights, plan_tiles, segment_bands
from unpool.vision.images import read_mask, voc_palette

CLASSES = ["background", "cat", "dog"]
TRUNK = ((1, 6), (1, 8))
MARGIN = 24  #: pixels, beyond which none of these networks sees
NETS = {
    "DeconvNet": lambda: DeconvNet(3, TRUNK, None, 32),
    "FCN": lambda: FCN(3, TRUNK, 8, stride=4, pad=1, window=3),
    "FCN that pads": lambda: FCN(3, TRUNK, 8, stride=4, pad=25, window=3),
    "DeepLab": lambda: DeepLab(3, ((1, 4), (1, 6), (1, 8)), code=8, dilation=1),
    "SegNet": lambda: SegNet(3, TRUNK),
    "SegNetBasic": lambda: SegNetBasic(3, width=6, kernel=3, stages=2),
}


def noise(height, width, seed=0):
    cells = np.random.default_rng(seed).integers(0, 256, (height // 3, width // 3, 3), np.uint8)
    return np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BILINEAR))


def segmenter(net, **options):
    return Segmenter(net, CLASSES, precision="fp32", device="cpu", **options)


@torch.no_grad()
def whole_pass(net, image):
    """The logits of the image at native resolution in one pass."""
    return net(prepare(torch.from_numpy(image[None].copy())))[0].numpy()


def inside(windows, length, margin=MARGIN):
    """Where every window that covers a pixel sees all around it, along one axis."""
    exact = np.ones(length, bool)
    for window in windows:
        if window.start > 0:
            exact[window.start : window.start + margin] = False
        if window.stop < length:
            exact[window.stop - margin : window.stop] = False
    return exact


def covered(windows, length):
    """How many windows cover each pixel along one axis."""
    return sum(np.isin(np.arange(length), np.arange(length)[window]) for window in windows)


@pytest.fixture
def small_limit(monkeypatch):
    """Let images of more than 900 pixels count as large."""
    monkeypatch.setattr("unpool.vision.boxes.reduced_size.__defaults__", (900,))


# ---- windows -------------------------------------------------------------------------------------


@given(
    grid=st.integers(1, 8),
    cells=st.integers(1, 9),
    part=st.floats(0, 0.5),
    length=st.integers(1, 400),
)
def test_windows_cover_the_image_on_the_grid(grid, cells, part, length):
    side = cells * grid
    overlap = int(part * side)
    windows = Tiling(side, side, overlap, grid, grid).windows(length)
    assert (windows[0].start, windows[-1].stop) == (0, length)
    assert all(window.start % grid == 0 for window in windows)
    assert all(window.stop - window.start == side for window in windows[:-1])
    last = windows[-1].stop - windows[-1].start
    assert last == length if len(windows) == 1 else side - grid < last <= side
    for before, after in pairwise(windows):
        assert before.start < after.start
        assert before.stop - after.start >= (overlap if overlap <= side - grid else 0)
    total = np.zeros(length)
    for window, weight in zip(windows, blend_weights(windows), strict=True):
        assert weight.dtype == np.float32
        assert weight.min() > 0
        total[window] += weight
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_weights_fall_linearly_to_the_edge():
    first, second = blend_weights([slice(0, 12), slice(4, 16)])
    assert (first[:4] == 1).all()
    np.testing.assert_allclose(np.diff(first[4:]), -1 / 8, atol=1e-6)
    np.testing.assert_allclose(first[::-1], second, atol=1e-6)


def test_the_plan():
    net, code = DeconvNet(3, TRUNK, None, 32), DeconvNet(3, TRUNK, 8, 32)
    assert plan_tiles([net]) == Tiling(512, 512, 128, 4, 4)
    assert plan_tiles([net], 64, 0) == Tiling(64, 64, 0, 4, 4)
    assert plan_tiles([code]) == Tiling(32, 32, 8, 1, 32)
    assert plan_tiles([code, net], 32) == Tiling(32, 32, 8, 1, 32)
    assert plan_tiles([net], 64, scale=0.5) == Tiling(64, 128, 32, 1, 4)
    deep = FCN(3, ((1, 4),) * 5, None, stride=32, pad=1)
    assert plan_tiles([net, deep], 96) == Tiling(96, 96, 24, 32, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 30}, "got tile=30; wanted a multiple of 4, .* up to 4096: pass tile=32"),
        ({"tile": 2}, "pass tile=4"),
        ({"tile": 5000}, "pass tile=4096"),
        ({"tile": 0}, "got tile=0; wanted 1 or more"),
        ({"tile": 64, "overlap": 40}, "got overlap=40; wanted at most half of the tile, 32"),
        ({"overlap": -1}, "got overlap=-1; wanted 0 or more"),
        ({"scale": 0.01}, "got scale=0.01; wanted 1/16 to 16; 1 is native"),
        ({"scale": float("nan")}, "got scale=nan; wanted 1/16 to 16"),
        ({"scale": "half"}, "got scale=half; wanted 1/16 to 16"),
    ],
)
def test_refused_plans(options, message):
    with pytest.raises(OptionError, match=message):
        plan_tiles([DeconvNet(3, TRUNK, None, 32)], **options)


def test_a_network_with_a_code_has_its_own_size():
    code, other = (DeconvNet(3, TRUNK, 8, size) for size in (32, 64))
    with pytest.raises(OptionError, match=r"got tile=64 .* made for 32 x 32 pixels; leave it out"):
        plan_tiles([code], 64)
    with pytest.raises(OptionError, match=r"images of \[32, 64\]; tiles need one size"):
        plan_tiles([code, other])


# ---- scores --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(203, 262), (262, 203)])
@pytest.mark.parametrize("name", NETS)
def test_scores_are_those_of_a_whole_pass(filled, name, size):
    """Wherever each window sees all that the pixel depends on, also where windows are blended."""
    net, image = filled(NETS[name](), seed=2), noise(*size)
    own = segmenter(net, mode="tiles", exact=True)
    found = own.predict(image, tile=128, overlap=60).logits
    windows = [plan_tiles([net], 128, 60).windows(length) for length in size]
    exact = np.outer(*(inside(w, n) for w, n in zip(windows, size, strict=True)))
    times = np.outer(*(covered(w, n) for w, n in zip(windows, size, strict=True)))
    assert exact.mean() > 0.2
    assert set(np.unique(times[exact])) >= {1, 2, 4}
    expected = whole_pass(net, image)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found[:, exact], expected[:, exact], atol=1e-5 * scale)
    assert np.abs(found - expected).max() > 1e-3 * scale  # elsewhere windows do not see enough
    assert own(image, tile=128, overlap=60).labels.shape == size


@pytest.mark.parametrize("name", NETS)
def test_an_image_in_one_tile_is_a_whole_pass(filled, name):
    net, image = filled(NETS[name](), seed=2), noise(45, 61)
    found = segmenter(net, exact=True).predict(image, mode="tiles").logits
    np.testing.assert_array_equal(found, whole_pass(net, image))


@pytest.mark.parametrize("size", [(40, 75), (75, 40)])
def test_overlaps_are_blended(size):
    """Against a mean over all windows, written slowly, of values that depend on the window."""
    tiling, image = Tiling(16, 16, 6, 4, 4), noise(*size)

    def infer(images):
        h, w = images.shape[1:3]
        y, x = np.mgrid[:h, :w]
        return np.float32(images[..., 0] + np.stack([y, x * x])[:, None]).swapaxes(0, 1)

    total, weights = np.zeros((2, *size)), np.zeros(size)
    for rows in tiling.windows(size[0]):
        for columns in tiling.windows(size[1]):
            part = infer(image[rows, columns][None])[0]
            for y in range(rows.start, rows.stop):
                for x in range(columns.start, columns.stop):
                    weight = 1.0
                    for at, window, length in ((y, rows, size[0]), (x, columns, size[1])):
                        others = tiling.windows(length)
                        i, ramps = others.index(window), [1.0]
                        if i:
                            shared = others[i - 1].stop - window.start
                            ramps.append((at + 0.5 - window.start) / shared)
                        if i + 1 < len(others):
                            shared = window.stop - others[i + 1].start
                            ramps.append((window.stop - at - 0.5) / shared)
                        weight *= min(ramps)
                    total[:, y, x] += weight * part[:, y - rows.start, x - columns.start]
                    weights[y, x] += weight
    found = TiledPrediction(image, infer, tiling, 2).logits
    np.testing.assert_allclose(found, total / weights, rtol=1e-5)


def test_a_network_with_a_code_sees_windows_of_its_size(filled, monkeypatch):
    own = segmenter(filled(DeconvNet(3, TRUNK, 8, 32)))
    seen, infer = [], own.infer
    monkeypatch.setattr(own, "infer", lambda x: seen.append(x.copy()) or infer(x))
    image = noise(50, 33)
    assert own(image, mode="tiles").labels.shape == (50, 33)
    assert {x.shape for x in seen} == {(1, 32, 32, 3)}
    np.testing.assert_array_equal(seen[-1][0], image[-32:, -32:])  # real pixels up to the edge
    seen.clear()
    small = noise(9, 40)
    assert own(small, mode="tiles").labels.shape == (9, 40)
    np.testing.assert_array_equal(seen[0][0, :9], small[:, :32])
    assert (seen[0][0, 9:] == 0).all()


def test_images_smaller_than_a_pooling_cell_are_padded(filled):
    own = segmenter(filled(DeconvNet(3, ((1, 4),) * 4, None, 32)))
    assert own(noise(5, 3), mode="tiles").labels.shape == (5, 3)


def test_the_network_may_see_the_image_at_another_scale(filled):
    net, image = filled(NETS["DeconvNet"](), seed=2), noise(60, 84)
    found = segmenter(net, exact=True).predict(image, mode="tiles", tile=64, scale=0.5).logits
    half = np.asarray(Image.fromarray(image).resize((42, 30), Image.Resampling.BILINEAR))
    small = torch.from_numpy(whole_pass(net, half))[None]
    expected = F.interpolate(small, size=(60, 84), mode="bilinear")[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    large = segmenter(net).predict(image, mode="tiles", tile=64, scale=2.0).logits
    assert large.shape == (3, 60, 84)


def test_an_ensemble_combines_each_window(filled):
    image = noise(203, 262)
    nets = filled(NETS["DeconvNet"](), seed=3), filled(NETS["FCN"](), seed=4)
    both = EDeconvNet(*(segmenter(net, exact=True) for net in nets), weight=0.3)
    options = {"mode": "tiles", "tile": 128, "overlap": 60}
    found = both.predict(image, **options).logits
    windows = [plan_tiles(nets, 128, 60).windows(length) for length in image.shape[:2]]
    exact = np.outer(*(inside(w, n) for w, n in zip(windows, image.shape, strict=False)))
    expected = combine(*(whole_pass(net, image) for net in nets), weight=0.3)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found[:, exact], expected[:, exact], atol=1e-5 * scale)
    assert both.describe(**options) == (
        "EDeconvNet: 0.3 : 0.7 mean of DeconvNet (tiles of 128 x 128, overlap 60, native "
        "resolution, float32, exact) and FCN (the same)"
    )
    with pytest.raises(OptionError, match="got samples=3 in mode='tiles'"):
        both(image, samples=3, **options)


# ---- large images --------------------------------------------------------------------------------


def uniform(classes):
    """Logits that are cheap, and the same everywhere in a window."""
    ramp = np.arange(classes, dtype=np.float32)[None, :, None, None]
    return lambda images: np.broadcast_to(ramp, (1, classes, *images.shape[1:3]))


@pytest.mark.parametrize(
    "options", [{}, {"presence_threshold": 0.9, "void_below": 0.5}, {"presence_threshold": 0.2}]
)
@pytest.mark.parametrize("size", [(70, 90), (90, 70)])
def test_labels_by_bands_are_those_of_all_scores(filled, monkeypatch, size, options):
    net, image = filled(NETS["DeconvNet"](), seed=2), noise(*size)
    with torch.no_grad():
        net.score.weight /= 20
    own = segmenter(net, mode="tiles", temperature={"tiles": 1.7})
    options = {"tile": 32, **options}
    expected = own(image, **options)
    monkeypatch.setattr("unpool.vision.boxes.reduced_size.__defaults__", (900,))
    found = own(image, **options)
    assert len(np.unique(expected.labels)) > 1
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-6)
    assert found.temperature == expected.temperature == 1.7
    assert found.to_dict()["labels"] == expected.to_dict()["labels"]
    assert found.to_dict()["confidence"] == pytest.approx(expected.to_dict()["confidence"])


def test_what_a_large_image_has(filled, small_limit, tmp_path):
    own = segmenter(filled(NETS["DeconvNet"](), seed=2), mode="tiles")
    image = noise(60, 80)
    found = own(image, tile=32)
    assert found.has_confidence
    assert found.to_coco()["annotations"]
    scores = find_objects(found.labels, CLASSES, found.confidence).scores
    np.testing.assert_array_equal(found.objects().scores, scores)
    means = [found.confidence[found.objects().numbers == i + 1].mean() for i in range(len(scores))]
    np.testing.assert_allclose(scores, means, rtol=1e-5)
    path = found.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(path), found.labels)
    assert (tmp_path / "a.overlay.jpg").exists()


@pytest.mark.parametrize("crf", ["deeplab", "auto"])
def test_what_a_large_image_does_not_have(filled, small_limit, tmp_path, crf):
    """Refused with a cure, and before the network runs."""
    own = segmenter(filled(NETS["DeconvNet"](), seed=2), mode="tiles")
    own.crf = "densecrf"
    image = noise(60, 80)
    found = own(image, tile=32)
    with pytest.raises(OptionError, match="probabilities are not kept; use `labels` and"):
        _ = found.probabilities
    with pytest.raises(OptionError, match="got scores=True for a result that has none; use"):
        found.save(tmp_path / "a.png", scores=True)
    prediction = own.predict(image, tile=32)
    with pytest.raises(OptionError, match=r"of 0\.0 megapixels by tiles, whose logits are not ke"):
        _ = prediction.logits
    assert all(logits.shape[0] == 3 for _, logits in prediction.bands())
    own.infer = None
    with pytest.raises(OptionError, match=r"got crf='d.*' for an image .* by tiles; a dense CRF"):
        own(image, crf=crf)
    with pytest.raises(OptionError, match=r"got scores=True for an image of .* leave scores out"):
        own.require_scores(image)
    own.require_scores(image, "whole")


def test_a_small_image_has_everything(filled):
    own = segmenter(filled(NETS["DeconvNet"](), seed=2), mode="tiles")
    image = noise(60, 80)
    assert isinstance(own.predict(image, tile=32), Prediction)
    plain, refined = own(image, tile=32), own(image, tile=32, crf="deeplab")
    assert plain.logits.shape == plain.probabilities.shape == (3, 60, 80)
    assert (plain.labels != refined.labels).any()
    own.require_scores(image)


@pytest.mark.parametrize(("height", "width"), [(2000, 300), (300, 2000)])
def test_memory_is_bounded_by_the_shorter_side(small_limit, height, width):
    """One row of windows, and 5 bytes a pixel; the scores of all pixels would take 20 times it."""
    classes, tile = 64, 64
    tiles = TiledPrediction(
        np.zeros((height, width, 3), np.uint8),
        uniform(classes),
        Tiling(tile, tile, 16, 4, 4),
        classes,
    )
    window = 4 * classes * tile * tile
    row = 4 * classes * tile * min(height, width)
    tracemalloc.start()
    try:
        found = segment_bands(tiles, [str(k) for k in range(classes)], voc_palette())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (found.labels == classes - 1).all()
    assert peak < 5 * height * width + 3 * row + 4 * window
    assert peak < 4 * classes * height * width / 6


def test_progress_counts_tiles(filled, small_limit):
    own = segmenter(filled(NETS["DeconvNet"](), seed=2), mode="tiles")
    for threshold, passes in ((0.0, 1), (0.5, 2)):
        seen = []
        own(
            noise(60, 80),
            tile=32,
            presence_threshold=threshold,
            progress=lambda *args, seen=seen: seen.append(args),
        )
        count = 3 * 3 * passes
        assert seen == [(i + 1, count, "segmenting tiles") for i in range(count)]


# ---- the mode ------------------------------------------------------------------------------------


def test_each_mode_has_its_options(filled):
    own = segmenter(filled(NETS["DeconvNet"]()))
    image = noise(40, 60)
    with pytest.raises(OptionError, match=r"got tile=32 and scale=0\.5 in mode='whole', which is "):
        own(image, tile=32, scale=0.5)
    with pytest.raises(OptionError, match="where there are no tiles; pass mode='tiles', or leave"):
        own(image, mode="instance", overlap=4)
    with pytest.raises(OptionError, match="got proposals=3 in mode='tiles', where there are no pr"):
        own(image, mode="tiles", proposals=3)
    with pytest.raises(OptionError, match="got samples=3 in mode='tiles'; they are of whole image"):
        own(image, mode="tiles", samples=3)


def test_weights_may_be_for_tiles(filled, tmp_path):
    card = {"classes": CLASSES, "mode": "tiles", "temperature": {"tiles": 3.0}}
    folder = save_pretrained(filled(NETS["FCN"]()), tmp_path / "net", card)
    own = Segmenter.from_pretrained(folder, precision="fp32", device="cpu")
    assert own.mode == "tiles"
    assert own.measured_modes == ("tiles",)
    assert own.describe() == "tiles of 512 x 512, overlap 128, native resolution, float32"
    assert own(noise(30, 40)).temperature == 3
    scaled = own.describe(tile=64, overlap=0, scale=0.25)
    assert scaled == "tiles of 64 x 64, overlap 0, scale 0.25, float32"
