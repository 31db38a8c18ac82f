import numpy as np
import pytest

from unpool.errors import OptionError, ShapeError
from unpool.vision import drawing
from unpool.vision.drawing import outline, overlay
from unpool.vision.images import voc_palette

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
PHOTO = np.kron(RNG.integers(0, 256, (8, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8)
NAMES = ["background", "aeroplane", "bicycle"]
LABELS = np.array([[0, 1, 2], [255, 20, 0]], np.uint8)
RED, WHITE = [255, 0, 0], [255, 255, 255]


def test_overlay_blends_borders_and_leaves_the_background():
    gray = np.full((40, 40, 3), 100, np.uint8)  # too small for a legend
    labels = np.zeros((40, 40), np.uint8)
    labels[:, 20:] = 1
    shown = overlay(gray, labels, voc_palette(), NAMES, opacity=0.5)
    assert shown[5, 5].tolist() == [100, 100, 100]
    assert shown[5, 19].tolist() == WHITE
    assert shown[5, 30].tolist() == [114, 50, 50]  # halfway to (128, 0, 0)
    assert (gray == 100).all()
    bare = overlay(gray, labels, voc_palette(), NAMES, background=1, opacity=1)
    assert bare[5, 5].tolist() == [0, 0, 0]
    assert bare[5, 30].tolist() == [100, 100, 100]


def test_overlay_of_background_alone_is_the_image():
    labels = np.zeros(PHOTO.shape[:2], np.int64)
    np.testing.assert_array_equal(overlay(PHOTO, labels, voc_palette(), NAMES), PHOTO)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (64, 64), (300, 400), (1200, 900)])
@pytest.mark.parametrize("classes", [2, 21, 150, 256])
def test_legend_takes_at_most_a_quarter(size, classes):
    labels = np.arange(size[0] * size[1]).reshape(size) % classes
    image = np.full((*size, 3), 200, np.uint8)
    drawn = []

    def draw(image, labeled, rows):
        before = image.copy()
        original(image, labeled, rows)
        drawn.append((before != image).any(2))

    original, drawing._draw_legend = drawing._draw_legend, draw
    try:
        assert overlay(image, labels, voc_palette(), NAMES).shape == image.shape
    finally:
        drawing._draw_legend = original
    assert drawn[0].mean() <= 0.27
    if min(size) >= 300 and classes < 200:  # which leaves more than 0.5 % to each
        assert drawn[0].any()


def test_legend_avoids_the_labels_and_names_classes_by_share(monkeypatch):
    labels = np.zeros((300, 300), np.uint8)
    labels[100:] = 2
    labels[:100, :150] = 1
    labels[:2, :300] = 255
    labels[2, :299] = 20  # 0.3 %, which is not named
    labels[3, :300], labels[4, :150] = 77, 77  # 0.5 %, which is
    seen = []
    original = drawing._draw_legend

    def spy(image, labeled, rows):
        seen.extend(rows)
        original(image, labeled, rows)

    monkeypatch.setattr(drawing, "_draw_legend", spy)
    gray = np.full((300, 300, 3), 200, np.uint8)
    shown = overlay(gray, labels, voc_palette(), NAMES, opacity=0)
    assert [text for _, text in seen] == ["bicycle  67%", "aeroplane  16%", "void  <1%", "77  <1%"]
    assert seen[0][0] == (0, 128, 0)
    changed = (shown != gray).any(2) & (shown != 255).any(2)  # the legend, not the borders
    rows, columns = np.nonzero(changed)
    assert rows.max() < 100  # in the top right corner, where no labels are
    assert columns.min() >= 150


def test_overlay_checks_its_arrays():
    with pytest.raises(ShapeError, match=r"labels of \(2, 3\) for an image of \(5, 7\); resize"):
        overlay(IMAGE, LABELS, voc_palette(), NAMES)
    with pytest.raises(ShapeError, match="got an image of shape"):
        overlay(IMAGE[..., 0], LABELS, voc_palette(), NAMES)
    with pytest.raises(ShapeError, match="got labels of shape"):
        overlay(IMAGE, IMAGE, voc_palette(), NAMES)
    with pytest.raises(OptionError, match="got opacity 55; wanted 0"):
        overlay(IMAGE, IMAGE[..., 0], voc_palette(), NAMES, opacity=55)


def test_an_outline_stays_inside_its_box():
    gray = np.full((9, 12, 3), 100, np.uint8)
    shown = outline(gray, (2, 3, 7, 8))
    ring = np.zeros((9, 12), bool)
    ring[3:8, 2:7] = True
    ring[4:7, 3:6] = False
    np.testing.assert_array_equal((shown == 255).all(2), ring)
    assert (gray == 100).all()
