"""Folders of rendered styles, in the public layout and in ours."""

import os

import numpy as np
import pytest
from PIL import Image

from unpool.errors import DataError, OptionError
from unpool.rendering import dataset
from unpool.rendering.dataset import (
    AZIMUTHS,
    ELEVATIONS,
    open_chairs,
    read_credits,
    read_views,
    view_name,
)


def put(root, style, name, image):
    folder = root / style / "renders"
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / name)


def test_the_public_views():
    assert np.allclose(AZIMUTHS, np.linspace(0, 360, 32)[:31])
    assert view_name(3, AZIMUTHS[3], 30.0) == "image_003_p030_t034_r096.png"


def test_names_of_all_views_are_parsed(tmp_path):
    views = [(a, e) for e in ELEVATIONS for a in AZIMUTHS]
    pixel = np.zeros((1, 1, 4), np.uint8)
    for style in ("b chair", "a"):
        for number, view in enumerate(views):
            put(tmp_path, style, view_name(number, *view), pixel)
    (tmp_path / "empty" / "renders").mkdir(parents=True)
    (tmp_path / "a" / "renders" / "notes.txt").touch()
    chairs = open_chairs(tmp_path)
    assert chairs.styles == ("a", "b chair")
    assert [view.style for view in chairs.views] == [0] * 62 + [1] * 62
    assert [(view.azimuth, view.elevation) for view in chairs.views] == views * 2


@pytest.mark.parametrize(
    ("degrees", "azimuth"), [("011", 1), ("012", 1), ("348", 30), ("000", 0), ("360", 0)]
)
def test_truncated_and_rounded_degrees_mean_the_same_view(tmp_path, degrees, azimuth):
    name = f"image_000_p020_t{degrees}_r096.png"
    put(tmp_path, "a", name, np.zeros((1, 1, 4), np.uint8))
    [view] = open_chairs(tmp_path).views
    assert view.azimuth == AZIMUTHS[azimuth]


@pytest.fixture
def public(tmp_path):
    """Two views of a body as in the public set: RGB on white, 600 pixels, wide margins."""
    first, second = (np.full((600, 600, 3), 255, np.uint8) for _ in range(2))
    first[200:400, 250:350] = (200, 30, 60)
    second[220:420, 200:300] = (30, 200, 60)
    second[0, 0] = 252  # white that is not quite white
    put(tmp_path, "seat", view_name(0, AZIMUTHS[1], 20), first)
    put(tmp_path, "seat", view_name(1, AZIMUTHS[2], 20), second)
    return open_chairs(tmp_path)


def test_images_on_white_are_cropped_as_one_style(public):
    first, second = read_views(public, 64)
    side = 220 / (1 - 2 / 32)  # rows 200 to 420, columns 200 to 350
    left, top = 275 - side / 2, 310 - side / 2
    for image, box, color in (
        (first, (250, 200, 350, 400), (200, 30, 60)),
        (second, (200, 220, 300, 420), (30, 200, 60)),
    ):
        alpha = image[..., 3] / 255
        assert alpha.sum() == pytest.approx(100 * 200 * (64 / side) ** 2, rel=0.01)
        rows, columns = np.indices(alpha.shape)
        middle = [(columns * alpha).sum() / alpha.sum(), (rows * alpha).sum() / alpha.sum()]
        expected = [(box[0] + box[2]) / 2 - left, (box[1] + box[3]) / 2 - top]
        assert np.allclose(np.array(middle) + 0.5, np.array(expected) * 64 / side, atol=0.5)
        assert (np.abs(image[alpha > 0][:, :3].astype(int) - color) <= 1).all()


def test_a_crop_does_not_depend_on_which_views_are_read(public):
    assert np.array_equal(read_views(public, 32, [1])[0], read_views(public, 32)[1])


def test_images_on_white_without_cropping(public):
    first = read_views(public, 600, [0], crop=False)[0]
    assert (first[..., 3] == 255).sum() == 100 * 200
    assert first[300, 300].tolist() == [200, 30, 60, 255]


def test_transparent_pixels_do_not_bleed_their_color(tmp_path):
    image = np.zeros((8, 8, 4), np.uint8)
    image[:, :3] = (10, 200, 30, 255)
    image[:, 3:, :3] = (255, 0, 255)
    put(tmp_path, "a", view_name(0, 0, 20), image)
    chairs = open_chairs(tmp_path)
    assert np.array_equal(read_views(chairs, 8)[0], image)
    half = read_views(chairs, 4)[0]
    assert half[:, :2, :3].tolist() == [[[10, 200, 30]] * 2] * 4
    assert half[0, :, 3].tolist() == [255, 128, 0, 0]
    large = read_views(chairs, 16)[0]
    assert (np.abs(large[large[..., 3] > 8][:, :3].astype(int) - [10, 200, 30]) <= 2).all()
    cropped = read_views(chairs, 16, crop=True)[0]  # a square as high as the body
    assert cropped[..., 3].mean() / 255 == pytest.approx(3 * 8 / 9**2, rel=0.1)


def test_progress_and_order(public):
    reports = []
    images = read_views(public, 8, [1, 0, 1], lambda done, total: reports.append((done, total)))
    assert reports == [(1, 3), (2, 3), (3, 3)]
    assert np.array_equal(images[0], images[2])
    assert read_views(public, 8, []).shape == (0, 8, 8, 4)


def test_invalid_data(tmp_path):
    with pytest.raises(DataError, match="is not a folder; pass the root"):
        open_chairs(tmp_path / "nowhere")
    with pytest.raises(DataError, match="or make one with `unpool render`"):
        open_chairs(tmp_path)
    put(tmp_path, "a", view_name(0, 0, 20), np.zeros((2, 3, 4), np.uint8))
    with pytest.raises(DataError, match="is 3x2; wanted a square image"):
        read_views(open_chairs(tmp_path), 2)
    with pytest.raises(OptionError, match="got size=0"):
        read_views(open_chairs(tmp_path), 0)
    (tmp_path / "a" / "renders" / view_name(0, 0, 20)).write_bytes(b"no image")
    with pytest.raises(DataError, match="is not an image of a known format"):
        read_views(open_chairs(tmp_path), 2)


def test_views_that_are_too_large_or_no_files(tmp_path, monkeypatch):
    put(tmp_path, "a", view_name(0, 0, 20), np.zeros((8, 8, 4), np.uint8))
    monkeypatch.setattr(dataset, "MAX_VIEW_PIXELS", 63)
    with pytest.raises(DataError, match="too large by its header"):
        read_views(open_chairs(tmp_path), 8)
    path = tmp_path / "a" / "renders" / view_name(0, 0, 20)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match="is a pipe, device or socket"):
        read_views(open_chairs(tmp_path), 8)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "renders").touch()
    assert open_chairs(tmp_path).styles == ("a",)


@pytest.mark.parametrize(
    "text", ["{", "{}", "[1]", '[{"style": 1}]', "[" * 9999, '"style"', "1e999"]
)
def test_damaged_credits(tmp_path, text):
    (tmp_path / "styles.json").write_text(text)
    with pytest.raises(DataError, match=r"styles.json"):
        read_credits(tmp_path)
