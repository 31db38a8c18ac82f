"""Points tracked by optical flow, along a known motion."""

import cv2
import numpy as np
import pytest
from PIL import Image

from unpool.errors import OptionError, ShapeError
from unpool.generate import mark_points, spread_points, track_points


def texture(side=96):
    """Smooth and nowhere like itself, on white."""
    coarse = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("scale", [1, 3])
def test_points_follow_a_moving_pattern(scale):
    pattern = np.kron(texture(), np.ones((scale, scale, 1), np.uint8))
    size = pattern.shape[1], pattern.shape[0]
    frames = []
    for step in range(9):
        moved = np.float32([[1, 0, 0.75 * step * scale], [0, 1, -0.5 * step * scale]])
        frames.append(
            cv2.warpAffine(pattern, moved, size, flags=cv2.INTER_CUBIC, borderValue=(255,) * 3)
        )
    points = np.array([[30.0, 40.0], [48.0, 60.0], [60.5, 33.25]]) * scale
    tracks = track_points(frames, points)
    assert tracks.shape == (9, 3, 2)
    assert np.array_equal(tracks[0], points)
    for step, positions in enumerate(tracks):
        wanted = points + np.array([0.75, -0.5]) * step * scale
        assert np.abs(positions - wanted).max() < 0.6 * scale
    assert np.abs(tracks[-1] - points).max() > 5 * scale


def test_points_are_spread_evenly():
    mask = np.zeros((20, 30), np.uint8)
    mask[5:15, 10:20] = 255
    points = spread_points(mask, 4)
    assert {tuple(p) for p in points} == {(10, 5), (19, 14), (10, 14), (19, 5)}
    assert len(spread_points(mask, 1000)) == 100
    for wrong in ((mask, 0), (np.zeros((4, 4), np.uint8), 3)):
        with pytest.raises(OptionError, match="points on an object of"):
            spread_points(*wrong)


def test_corresponding_points_have_one_color():
    blank = np.full((10, 12, 3), 255, np.uint8)
    positions = [np.array([[2.0, 3.0], [8.0, 7.0]]), np.array([[5.0, 5.0], [1.0, 8.0]])]
    sheet = mark_points([blank, blank], positions, scale=8)
    assert sheet.shape == (80, 192, 3)
    colors = [
        sheet[round((y + 0.5) * 8), round((left + x + 0.5) * 8)].tolist()
        for left, points in zip((0, 12), positions, strict=True)
        for x, y in points
    ]
    assert colors[0] == colors[2] != colors[1] == colors[3]


def test_refusals():
    frames = [np.full((8, 8, 3), 255, np.uint8)] * 2
    with pytest.raises(ShapeError, match=r"got 1 frames and points of \(1, 2\)"):
        track_points(frames[:1], np.zeros((1, 2)))
    with pytest.raises(ShapeError, match=r"points of \(2,\)"):
        track_points(frames, np.zeros(2))
    with pytest.raises(OptionError, match=r"got the point 9, 3, .* wanted 0 <= x < 8"):
        track_points(frames, np.array([[1.0, 1.0], [9.0, 3.0]]))
