"""Boxes against sets of pixels; crops, and labels of large images, against torch's resizing."""

import itertools

import cv2
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from unpool.errors import ShapeError
from unpool.vision.boxes import (
    LARGEST,
    Crop,
    area,
    clip,
    iou,
    labels_at,
    nms,
    reduced,
    reduced_size,
    resize,
    square,
)

corners = st.tuples(*[st.integers(-9, 9)] * 2, *[st.integers(0, 9)] * 2).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
box_lists = st.lists(corners, min_size=1, max_size=8)


def pixels(box):
    x0, y0, x1, y1 = box
    return set(itertools.product(range(x0, x1), range(y0, y1)))


@given(box_lists, box_lists)
def test_area_and_iou_count_pixels(a, b):
    overlaps = iou(np.array(a), np.array(b))
    assert overlaps.shape == (len(a), len(b))
    for (i, p), (j, q) in itertools.product(enumerate(a), enumerate(b)):
        union = len(pixels(p) | pixels(q))
        assert overlaps[i, j] == (len(pixels(p) & pixels(q)) / union if union else 0)
    assert area(np.array(a)).tolist() == [len(pixels(p)) for p in a]


def test_large_boxes_do_not_overflow():
    boxes = np.array([[0, 0, 10**6, 10**6]], np.int32)
    assert area(boxes)[0] == 1e12
    assert iou(boxes, boxes)[0, 0] == 1


@given(box_lists, st.integers(1, 9), st.integers(1, 9))
def test_clip_keeps_the_pixels_inside(boxes, height, width):
    image = pixels((0, 0, width, height))
    clipped = clip(np.array(boxes, np.int16), (height, width))
    assert clipped.dtype == np.int16
    assert [pixels(c) for c in clipped.tolist()] == [pixels(b) & image for b in boxes]


@given(st.lists(st.tuples(corners, st.integers(0, 4)), max_size=12), st.sampled_from([0, 0.3, 0.7]))
def test_nms_is_the_slow_greedy_loop(scored, threshold):
    boxes = np.array([b for b, _ in scored]).reshape(-1, 4)
    scores = np.array([s for _, s in scored], np.float32)
    expected = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):  # sorted() is stable
        if all(iou(boxes[[i]], boxes[[j]])[0, 0] <= threshold for j in expected):
            expected.append(i)
    assert nms(boxes, scores, threshold).tolist() == expected


@given(box_lists, st.sampled_from([1.0, 1.2, 1.5]), st.integers(-50, 50))
def test_squares_are_square_centered_and_move_with_their_box(boxes, enlarge, shift):
    boxes = np.array(boxes)
    squares = square(boxes, enlarge)
    sides = squares[:, 2:] - squares[:, :2]
    longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    assert np.issubdtype(squares.dtype, np.integer)
    assert (sides[:, 0] == sides[:, 1]).all()
    assert (sides >= 1).all()
    assert (np.abs(sides[:, 0] - enlarge * longer) <= np.where(longer > 0, 0.5, 1)).all()
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert (np.abs((squares[:, :2] + squares[:, 2:]) / 2 - centers) <= 0.5).all()
    assert ((squares[:, :2] <= centers) & (centers <= squares[:, 2:])).all()
    assert (square(boxes + shift, enlarge) == squares + shift).all()


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (np.zeros((2, 5)), r"got boxes of \(2, 5\), wanted \(P, 4\)"),
        (np.zeros(4), r"got boxes of \(4,\)"),
        (np.array([[0, 0, 1, 1], [5, 5, 2, 9]]), r"\[5.0, 5.0, 2.0, 9.0\].* convert from x, y, w"),
        (np.array([[0, 0, np.nan, 1]]), "wanted finite x0 <= x1"),
    ],
)
def test_wrong_boxes_are_refused(boxes, message):
    calls = [
        area,
        square,
        lambda b: iou(b, b),
        lambda b: clip(b, (3, 3)),
        lambda b: nms(b, np.zeros(len(b)), 0.5),
    ]
    for call in calls:
        with pytest.raises(ShapeError, match=message):
            call(boxes)


def test_nms_wants_a_score_a_box():
    with pytest.raises(ShapeError, match=r"got scores of \(3,\) for 2 boxes; pass one each"):
        nms(np.zeros((2, 4)), np.zeros(3), 0.5)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def padded(image, box, fill=0):
    """The box of an image, pixel by pixel."""
    x0, y0, x1, y1 = box
    cut = np.full((y1 - y0, x1 - x0, *image.shape[2:]), fill, image.dtype)
    for y, x in itertools.product(range(y0, y1), range(x0, x1)):
        if 0 <= y < image.shape[0] and 0 <= x < image.shape[1]:
            cut[y - y0, x - x0] = image[y, x]
    return cut


BOXES = [(2, 3, 14, 15), (-5, -7, 25, 23), (10, -4, 40, 26), (1, 1, 4, 4), (5, 2, 17, 22)]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("antialias", [True, False])
def test_take_is_torchs_bilinear_resize_of_the_padded_box(box, antialias):
    image = noise(20, 24, 3)
    taken = Crop(box, 11).take(image, fill=7, antialias=antialias)
    planes = torch.from_numpy(padded(image, box, 7)).permute(2, 0, 1)[None].float()
    expected = functional.interpolate(planes, (11, 11), mode="bilinear", antialias=antialias)
    assert taken.dtype == np.uint8
    assert taken.flags.writeable  # or torch.from_numpy warns
    # both libraries round between the two axes, to 8 bits
    assert np.abs(taken - expected[0].permute(1, 2, 0).numpy()).max() <= 1.5


@pytest.mark.parametrize("box", BOXES)
def test_paste_is_torchs_bilinear_resize_merged_by_maximum(box):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3, 11, 11)).astype(np.float32)
    canvas = rng.normal(size=(3, 20, 24)).astype(np.float32)
    x0, y0, x1, y1 = box
    grown = functional.interpolate(
        torch.from_numpy(scores)[None], (y1 - y0, x1 - x0), mode="bilinear", antialias=True
    )[0].numpy()
    expected = canvas.copy()
    for y, x in itertools.product(range(max(y0, 0), min(y1, 20)), range(max(x0, 0), min(x1, 24))):
        expected[:, y, x] = np.maximum(expected[:, y, x], grown[:, y - y0, x - x0])
    Crop(box, 11).paste(scores, canvas)
    np.testing.assert_allclose(canvas, expected, atol=1e-5)


@settings(deadline=None)
@given(st.integers(-15, 15), st.integers(-15, 15), st.integers(1, 30))
def test_take_and_paste_at_scale_one_are_the_identity_on_the_box(x, y, side):
    image = noise(12, 17, 3)
    crop = Crop((x, y, x + side, y + side), side)
    taken = crop.take(image)
    assert (taken == padded(image, crop.box)).all()
    canvas = np.full((3, 12, 17), -1, np.float32)
    crop.paste(taken.transpose(2, 0, 1).astype(np.float32), canvas)
    expected = np.full((3, 12, 17), -1, np.float32)
    for column, row in pixels(crop.box) & pixels((0, 0, 17, 12)):
        expected[:, row, column] = image[row, column]
    assert (canvas == expected).all()


@settings(deadline=None)
@given(st.integers(-9, 9), st.integers(-9, 9), st.integers(20, 60), st.integers(16, 64))
def test_what_is_pasted_lies_where_it_was_taken(x, y, length, side):
    # on a ramp a shift by a pixel is a step of 3 gray levels; rounding is less than one
    ramp = (3 * np.arange(80, dtype=np.uint8))[:, None] * np.ones(80, np.uint8)
    image = np.stack([ramp, ramp.T, ramp], axis=2)
    crop = Crop((x + 10, y + 10, x + 10 + length, y + 10 + length), side)
    canvas = np.zeros((3, 80, 80), np.float32)
    crop.paste(crop.take(image).transpose(2, 0, 1).astype(np.float32), canvas)
    edge = 2 + 2 * length // side  # there a resize has seen no neighbors
    assume(length > 2 * edge)
    x0, y0, x1, y1 = crop.box
    inner = slice(y0 + edge, y1 - edge), slice(x0 + edge, x1 - edge)
    assert np.abs(canvas.transpose(1, 2, 0)[inner] - image[inner]).max() < 1.1


@settings(deadline=None)
@given(st.integers(-6, 20), st.integers(-6, 20), st.integers(1, 20), st.integers(1, 15))
def test_take_labels_takes_the_nearest(x, y, length, side):
    labels = noise(13, 16) % 21
    box = (x, y, x + length, y + length)
    taken = Crop(box, side).take_labels(labels)
    cut = padded(labels, box, 255)
    for i, j in itertools.product(range(side), repeat=2):
        assert taken[i, j] == cut[int((i + 0.5) * length / side), int((j + 0.5) * length / side)]
    assert taken.dtype == labels.dtype


def test_image_and_labels_stay_together():
    labels = np.zeros((40, 40), np.uint8)
    labels[13:27, 9:31] = 200
    crop = Crop((-4, -4, 44, 44), 31)
    image = crop.take(np.repeat(labels[:, :, None], 3, axis=2))
    assert ((image[..., 0] > 100) == (crop.take_labels(labels, fill=0) > 0)).mean() > 0.99


def test_a_box_outside_takes_the_fill_and_pastes_nothing():
    for box in [(30, 0, 40, 10), (-20, 0, -10, 10), (0, 99, 10, 109)]:
        assert (Crop(box, 4).take(noise(20, 20, 3), fill=9) == 9).all()
        assert (Crop(box, 4).take_labels(noise(20, 20)) == 255).all()
        canvas = np.zeros((2, 20, 20), np.float32)
        Crop(box, 4).paste(np.ones((2, 4, 4), np.float32), canvas)
        assert not canvas.any()


def test_pasting_over_zeros_drops_negative_scores():
    canvas = np.zeros((1, 6, 6), np.float32)
    for value in (-1, 3, 2):
        Crop((0, 0, 6, 6), 3).paste(np.full((1, 3, 3), value, np.float32), canvas)
        assert (canvas == max(value, 3 if value > 0 else 0)).all()


def test_crops_refuse_what_does_not_fit():
    crop = Crop((0, 0, 4, 4), 2)
    canvas = np.zeros((3, 8, 8), np.float32)
    with pytest.raises(
        ShapeError, match=r"image of shape \(8, 8\) and type uint8; wanted \(H, W, 3\) uint8"
    ):
        crop.take(noise(8, 8))
    with pytest.raises(ShapeError, match="float32; wanted"):
        crop.take(np.zeros((8, 8, 3), np.float32))
    with pytest.raises(ShapeError, match=r"labels of \(8, 8, 3\), wanted \(H, W\)"):
        crop.take_labels(noise(8, 8, 3))
    for scores in (np.zeros((3, 2, 3), np.float32), np.zeros((4, 2, 2), np.float32)):
        with pytest.raises(ShapeError, match="paste with the crop that took the image"):
            crop.paste(scores, canvas)
    with pytest.raises(ShapeError, match="float64"):
        crop.paste(np.zeros((3, 2, 2)), canvas)
    with pytest.raises(ShapeError, match=r"empty box \(3, 3, 3, 9\); wanted x0 < x1"):
        Crop((3, 3, 3, 9)).take(noise(8, 8, 3))


# sizes


@pytest.mark.parametrize("size", [(1, 1), (300, 400), (1448, 1448), (2, 10**6)])
def test_what_is_small_enough_stays(size):
    assert reduced_size(size) == size


@pytest.mark.parametrize("size", [(4000, 6000), (2049, 2048), (1, 10**7), (10**5, 50)])
def test_what_is_too_large_keeps_its_shape(size):
    height, width = reduced_size(size)
    assert height * width <= LARGEST
    if min(height, width) > 100:
        assert height * width > 0.99 * LARGEST
        assert abs(height / width / (size[0] / size[1]) - 1) < 0.01


def test_small_images_are_not_copied():
    image = np.zeros((30, 40, 3), np.uint8)
    assert reduced(image) is image
    assert reduced(image, 100).shape == (8, 11, 3)


@pytest.mark.parametrize("size", [(57, 83), (600, 41), (9, 7)])
def test_labels_are_those_of_interpolated_scores(size):
    random = np.random.default_rng(0)
    scores = cv2.GaussianBlur(random.normal(size=(9, 7, 5)).astype(np.float32), (3, 3), 1)
    scores = np.ascontiguousarray(scores.transpose(2, 0, 1))
    large = functional.interpolate(torch.from_numpy(scores)[None], size, mode="bilinear")[0]
    best = large.topk(2, 0).values
    clear = (best[0] - best[1] > 0.02).numpy()  # OpenCV counts in 32nds of a pixel
    labels = labels_at(scores, size)
    assert clear.mean() > 0.9
    assert labels.dtype == np.uint8
    assert np.array_equal(labels[clear], large.argmax(0).numpy()[clear])


def test_refuses_scores_without_classes():
    with pytest.raises(ShapeError, match="got scores of"):
        labels_at(np.zeros((4, 5), np.float32), (8, 10))


def test_resizing_keeps_the_aspect_ratio_and_a_least_side():
    image = np.random.default_rng(0).integers(0, 256, (30, 60, 3), np.uint8)
    assert resize(image, 20).shape == (10, 20, 3)
    assert resize(image[:2], 20, least=8).shape == (8, 20, 3)
    assert (resize(image, 60) == image).all()
