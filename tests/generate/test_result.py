"""Generated images and animations: pixels shown and files written."""

import io
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from unpool.errors import ImageError, OptionError, ShapeError
from unpool.generate import write_animation
from unpool.generate.result import GeneratedImage, enlarge, parse_color, postprocess

RANDOM = np.random.default_rng(0)


def test_compositing_is_the_authors():
    """rgb * m + 1 * (1 - m), with the mask clipped."""
    rgb, mask = torch.rand(2, 3, 8, 8), torch.rand(2, 1, 8, 8) * 3 - 1
    m = mask.clamp(0, 1)
    expected = (rgb * m + 1 - m).permute(0, 2, 3, 1).numpy() * 255
    images = postprocess(rgb, mask.expand(-1, 3, -1, -1))
    for image, wanted in zip(images, expected, strict=True):
        assert np.abs(image.on() - wanted).max() < 1.6  # through 8 bits
        assert np.array_equal(image.on("white"), image.on((255, 255, 255)))


def test_backgrounds():
    pixels = [[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]]
    image = GeneratedImage(np.array(pixels, np.uint8))
    assert image.on("#0000ff").tolist() == [[[200, 100, 0], [0, 0, 255], [40, 20, 204]]]
    assert parse_color("red") == (255, 0, 0)
    for wrong in ("reddish", (1, 2), (0, 0, 300), "#ff00ff80", 5):
        with pytest.raises(OptionError, match=r"got the color .*; wanted a name such as white"):
            image.on(wrong)


def test_values_that_are_not_finite_are_refused():
    rgb = torch.zeros(1, 3, 4, 4)
    rgb[0, 1, 2, 3] = float("nan")
    with pytest.raises(ImageError, match="output is not finite"):
        postprocess(rgb, torch.zeros(1, 1, 4, 4))


@pytest.fixture
def image():
    return GeneratedImage(RANDOM.integers(0, 256, (16, 16, 4), dtype=np.uint8))


def test_files(image, tmp_path):
    path = image.save(tmp_path / "deep/a.png")
    with Image.open(path) as found:
        assert found.mode == "RGBA"
        assert np.array_equal(np.array(found), image.rgba)
    with Image.open(image.save(tmp_path / "b.png", "blue")) as found:
        assert np.array_equal(np.array(found), image.on("blue"))
    with Image.open(image.save(tmp_path / "c.JPG", scale=3)) as found:
        assert (found.format, found.size) == ("JPEG", (48, 48))
        shown = np.array(found.resize((16, 16), Image.Resampling.BOX)).astype(int)
        assert np.abs(shown - image.on()).mean() < 30  # white where there is nothing
    with Image.open(image.save(tmp_path / "d.png", scale=2)) as found:
        assert (found.mode, found.size) == ("RGBA", (32, 32))


def test_refusals_write_nothing(image, tmp_path, monkeypatch):
    with pytest.raises(OptionError, match=r"got the path .*\.tiff; images end in \.png"):
        image.save(tmp_path / "a.tiff")
    with pytest.raises(OptionError, match="got scale=0"):
        image.save(tmp_path / "a.png", scale=0)
    with pytest.raises(OptionError, match="got the color"):
        image.save(tmp_path / "a.png", "whitish")

    def broken(path, content):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    (tmp_path / "old.png").write_bytes(b"old")
    monkeypatch.setattr(Path, "write_bytes", broken)
    with pytest.raises(OSError, match="No space"):
        image.save(tmp_path / "old.png")
    assert [p.name for p in tmp_path.iterdir()] == ["old.png"]
    assert (tmp_path / "old.png").read_bytes() == b"old"


def test_transparent_pixels_do_not_bleed_when_enlarged():
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:, :2] = (255, 0, 0, 255)
    pixels[:, 2:] = (0, 255, 0, 0)
    large = enlarge(pixels, 4)
    seen = large[large[:, :, 3] > 16]
    assert large.shape == (16, 16, 4)
    assert (seen[:, 0] > 240).all()
    assert (seen[:, 1] < 16).all()


def test_notebooks_show_the_transparent_image(image):
    with Image.open(io.BytesIO(image._repr_png_())) as shown:
        assert shown.format == "PNG"
        assert np.array_equal(np.array(shown), image.rgba)


def test_plain_values(image):
    values = json.loads(json.dumps(GeneratedImage(image.rgba, "a note").to_dict()))
    inside = (image.rgba[:, :, 3] > 127).mean()
    assert values == {"size": [16, 16], "mask_fraction": pytest.approx(inside), "note": "a note"}


@pytest.fixture
def frames():
    """A colored square that moves to the right."""
    found = []
    for i in range(7):
        frame = np.full((24, 32, 3), 255, np.uint8)
        frame[8:16, 2 + 3 * i : 10 + 3 * i] = (200, 40, 90)
        found.append(frame)
    return found


def test_gif(frames, tmp_path):
    path = write_animation(tmp_path / "a.gif", frames, fps=10)
    with Image.open(path) as found:
        assert (found.n_frames, found.size, found.info["loop"]) == (7, (32, 24), 0)
        assert found.info["duration"] == 100
        read = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(found)]
    assert all(np.array_equal(a, b) for a, b in zip(read, frames, strict=True))  # few colors


def test_webp(frames, tmp_path):
    path = write_animation(tmp_path / "a.webp", frames, fps=10)
    with Image.open(path) as found:
        assert (found.n_frames, found.size) == (7, (32, 24))
        for i, frame in enumerate(ImageSequence.Iterator(found)):
            inside = np.array(frame.convert("RGB"))[10:14, 4 + 3 * i : 8 + 3 * i]
            assert np.abs(inside.reshape(-1, 3).mean(0) - (200, 40, 90)).max() < 25
            assert found.info["duration"] == 100


def test_mp4(frames, tmp_path):
    path = write_animation(tmp_path / "a.mp4", frames, fps=10, scale=2)
    film = cv2.VideoCapture(str(path))
    read = []
    while (step := film.read())[0]:
        read.append(step[1][:, :, ::-1])
    assert film.get(cv2.CAP_PROP_FPS) == 10
    film.release()
    assert len(read) == 7
    assert read[0].shape == (48, 64, 3)
    for i, frame in enumerate(read):
        inside = frame[20:28, 8 + 6 * i : 16 + 6 * i].reshape(-1, 3).mean(0)
        assert np.abs(inside - (200, 40, 90)).max() < 25


def test_refused_animations(frames, tmp_path, monkeypatch):
    with pytest.raises(OptionError, match=r"a\.avi; animations end in \.gif, \.webp, \.mp4"):
        write_animation(tmp_path / "a.avi", frames)
    with pytest.raises(OptionError, match="got fps=60"):
        write_animation(tmp_path / "a.gif", frames, fps=60)
    with pytest.raises(ShapeError, match="got 1 frames"):
        write_animation(tmp_path / "a.gif", frames[:1])
    with pytest.raises(ShapeError, match="wanted two or more"):
        write_animation(tmp_path / "a.gif", [frames[0], frames[0][:-1]])
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(OptionError, match=r"needs PyAV; pip install 'unpool\[video\]'"):
        write_animation(tmp_path / "a.mp4", frames)
    assert not list(tmp_path.iterdir())
