"""Animation files can be read back and have all their frames."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageSequence

from unpool.errors import OptionError, ShapeError
from unpool.generate import write_animation


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


def test_refusals(frames, tmp_path, monkeypatch):
    with pytest.raises(OptionError, match=r"a\.avi; animations end in \.gif or \.mp4"):
        write_animation(tmp_path / "a.avi", frames)
    with pytest.raises(OptionError, match="got fps=60"):
        write_animation(tmp_path / "a.gif", frames, fps=60)
    with pytest.raises(ShapeError, match="got 1 frames"):
        write_animation(tmp_path / "a.gif", frames[:1])
    with pytest.raises(ShapeError, match="wanted two or more"):
        write_animation(tmp_path / "a.gif", [frames[0], frames[0][:-1]])
    monkeypatch.setattr(cv2.VideoWriter, "isOpened", lambda self: False)
    with pytest.raises(OptionError, match=r"has no MP4 encoder; write a \.gif"):
        write_animation(tmp_path / "a.mp4", frames)
    assert not list(tmp_path.iterdir())
