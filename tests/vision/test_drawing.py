import numpy as np
import pytest
import torch
from matplotlib import colormaps

from unpool.errors import OptionError, ShapeError
from unpool.vision import drawing
from unpool.vision.drawing import heat_map, outline, overlay, to_images
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
    painted = []

    def draw(image, labeled, rows):
        before = image.copy()
        original(image, labeled, rows)
        painted.append((before != image).any(2))

    original, drawing._draw_legend = drawing._draw_legend, draw
    try:
        assert overlay(image, labels, voc_palette(), NAMES).shape == image.shape
    finally:
        drawing._draw_legend = original
    assert painted[0].mean() <= 0.27
    if min(size) >= 300 and classes < 200:  # which leaves more than 0.5 % to each
        assert painted[0].any()


def test_legend_avoids_the_labels_and_names_classes_by_area(monkeypatch):
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


def test_a_long_name_is_cut_off_in_the_legend(monkeypatch):
    drawn = []
    monkeypatch.setattr(drawing, "_draw_legend", lambda shown, labeled, rows: drawn.append(rows))
    labels = np.ones(PHOTO.shape[:2], np.uint8)
    overlay(PHOTO, labels, voc_palette(), ["background", "x" * 10**6])  # Pillow draws no more
    assert drawn == [[((128, 0, 0), "x" * 100 + "  100%")]]


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


# signals and heat maps


@pytest.mark.parametrize("contrast", ["sigmoid", "linear"])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e9])
def test_zero_is_gray_and_the_contrast_is_each_images_own(contrast, scale):
    signal = RNG.standard_normal((2, 3, 20, 30))
    signal[:, :, :3] = 0
    signal[1] *= 1000
    shown = to_images(signal * scale, contrast=contrast)
    assert shown.shape == (2, 20, 30, 3)
    assert shown.dtype == np.uint8
    assert (shown[:, :3] == 128).all()
    assert np.array_equal(shown, to_images(signal, contrast=contrast))
    assert np.array_equal(shown[1:], to_images(signal[1] * 1e-3, contrast=contrast))
    assert ((shown > 128) <= (signal.transpose(0, 2, 3, 1) > 0)).all()
    mirrored = to_images(-signal, contrast=contrast).astype(int)
    if contrast == "linear":
        assert np.abs(mirrored + shown - 255).max() <= 1
        assert shown.min() == 0 or shown.max() == 255


def test_the_sigmoid_is_that_of_the_published_code():
    """1 / (1 + exp(-(x / a) * -log(99))), where a is the 0.5 % quantile."""
    x = RNG.standard_normal((1, 3, 40, 40))
    a = np.quantile(x, 0.005)
    expected = 1 / (1 + np.exp(-(x / a * -np.log(99))))
    shown = to_images(x).transpose(0, 3, 1, 2) / 255
    assert np.abs(shown - expected).max() <= 0.5 / 255 + 1e-9


def test_a_stretch_goes_from_black_to_white():
    signal = RNG.random((3, 3, 9, 9)) * 7 + 2
    shown = to_images(signal, contrast="stretch")
    assert shown.reshape(3, -1).min(1).tolist() == [0] * 3
    assert shown.reshape(3, -1).max(1).tolist() == [255] * 3
    expected = (signal[0] - signal[0].min()) / np.ptp(signal[0]) * 255
    assert np.abs(shown[0].transpose(2, 0, 1) - expected).max() <= 0.5


@pytest.mark.parametrize("contrast", ["sigmoid", "linear", "stretch"])
def test_zeros_and_a_single_value(contrast):
    gray = 0 if contrast == "stretch" else 128
    assert (to_images(np.zeros((1, 3, 4, 4)), contrast=contrast) == gray).all()
    one = np.zeros((1, 3, 8, 8))
    one[0, 0, 2, 3] = 5.0
    shown = to_images(one, contrast=contrast)
    assert shown[0, 2, 3, 0] >= 252
    assert shown[0, 0, 0, 0] == gray
    assert (to_images(-one, contrast=contrast)[0, 2, 3, 0]) <= 3


def test_colors_and_their_order():
    signal = np.zeros((1, 3, 2, 2))
    signal[0, 0] = 1
    assert to_images(signal, contrast="linear")[0, 0, 0].tolist() == [255, 128, 128]
    assert to_images(signal, contrast="linear", order="BGR")[0, 0, 0].tolist() == [128, 128, 255]
    assert to_images(signal, contrast="linear", color=False)[0, 0, 0].tolist() == [255] * 3
    for channels in (1, 2, 4):
        many = RNG.standard_normal((2, channels, 5, 5))
        shown = to_images(many)
        assert (shown == shown[..., :1]).all()
        assert np.array_equal(shown, to_images(many.sum(1, keepdims=True)))


def test_tensors_and_arrays_give_the_same():
    signal = torch.randn(2, 3, 6, 7, requires_grad=True)
    assert np.array_equal(to_images(signal), to_images(signal.detach().numpy()))
    assert np.array_equal(to_images(signal[0]), to_images(signal[:1]))
    assert to_images(signal.bfloat16()).shape == (2, 6, 7, 3)
    assert to_images(torch.zeros(0, 3, 4, 5)).shape == (0, 4, 5, 3)


def test_a_heat_map_goes_from_dark_to_bright():
    values = RNG.permutation(256).reshape(16, 16).astype(float)
    for colors in ("viridis", "inferno"):
        expected = np.rint(255 * colormaps[colors](values.astype(int))[..., :3])
        shown = heat_map(values / 7 - 3, colors)
        assert np.abs(shown.astype(int) - expected).max() <= 1
    assert (heat_map([[1.0, np.nan, np.inf]])[0, 1:] == 128).all()
    assert (heat_map(np.full((2, 2), np.nan)) == 128).all()


def test_to_images_checks_its_arguments():
    with pytest.raises(ShapeError, match=r"got a signal of \(4, 4\); wanted \(N, C, H, W\)"):
        to_images(np.zeros((4, 4)))
    with pytest.raises(
        OptionError, match=r"got contrast='max', .* one of sigmoid, linear, stretch"
    ):
        to_images(np.zeros((3, 4, 4)), contrast="max")
    with pytest.raises(OptionError, match="an order 'RGB' or 'BGR'"):
        to_images(np.zeros((3, 4, 4)), order="rgb")
