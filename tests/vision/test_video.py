"""Videos: written so that browsers play them, read as players show them, bounded and local."""

import re
import sys
from fractions import Fraction

import cv2
import numpy as np
import pytest

from unpool.errors import ImageError, OptionError, ShapeError
from unpool.vision import video
from unpool.vision.video import Clip, read_clip, read_frames, write_video

av = pytest.importorskip("av")


def gray(value, height=32, width=48):
    return np.full((height, width, 3), value, np.uint8)


def write_all(path, *images):
    with write_video(path, fps=10) as write:
        for image in images:
            write(image)


@pytest.fixture
def clip(tmp_path):
    write_all(tmp_path / "clip.mp4", *map(gray, range(0, 240, 30)))
    return tmp_path / "clip.mp4"


def test_frames_come_back_with_their_times(clip):
    frames = list(read_frames(clip))
    assert [frame.time for frame in frames] == [Fraction(i, 10) for i in range(8)]
    for i, frame in enumerate(frames):
        assert frame.image.shape == (32, 48, 3)
        assert np.abs(frame.image.astype(int) - 30 * i).max() <= 2
    assert read_clip(clip) == Clip(48, 32, Fraction(10), 8)


def test_opencv_reads_the_same(clip):
    film = cv2.VideoCapture(str(clip))
    for frame in read_frames(clip):
        found, other = film.read()
        assert found
        assert np.abs(frame.image.astype(int) - other[:, :, ::-1]).max() <= 2
    assert not film.read()[0]
    film.release()


def test_browsers_play_it(clip):
    with av.open(str(clip)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
    data = clip.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays before all of it has come


def test_times_may_be_uneven(tmp_path):
    times = [Fraction(0), Fraction(1, 7), Fraction(1, 3), Fraction(2)]
    with write_video(tmp_path / "a.mp4", fps=Fraction(30000, 1001)) as write:
        for time in times:
            write(gray(100), time)
    found = [float(frame.time) for frame in read_frames(tmp_path / "a.mp4")]
    assert found == pytest.approx([float(time) for time in times], abs=1e-4)


def test_odd_sides_repeat_the_last_row_and_column(tmp_path):
    image = gray(60, 33, 47)
    image[-1], image[:, -1] = 200, 200
    with write_video(tmp_path / "a.mp4", fps=5) as write:
        write(image)
    (frame,) = read_frames(tmp_path / "a.mp4")
    assert frame.image.shape == (34, 48, 3)
    assert np.abs(frame.image[-2:].astype(int) - 200).max() < 30


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_stored_rotation_is_applied(tmp_path, degrees):
    path = tmp_path / "phone.mp4"
    image = gray(0, 64, 128)
    image[:32, :64] = 255  # the upper left quarter
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        stream.set_display_rotation(degrees)
        file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode(None))
    (frame,) = read_frames(path)
    film = cv2.VideoCapture(str(path))  # turns frames, too
    other = film.read()[1]
    film.release()
    assert frame.image.shape == other.shape
    assert np.abs(frame.image.astype(int) - other[:, :, ::-1]).max() <= 3
    assert read_clip(path)[:2] == (frame.image.shape[1], frame.image.shape[0])


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{}'\n",
    "mpd": "<MPD><Period><AdaptationSet><BaseURL>file://{}</BaseURL></AdaptationSet></Period></MPD>",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_playlists_open_no_other_file(tmp_path, clip, kind):
    path = tmp_path / "list.mp4"
    path.write_text(PLAYLISTS[kind].format(clip))
    with pytest.raises(ImageError, match=r"list\.mp4: is no video that can be read"):
        list(read_frames(path))


@pytest.mark.parametrize(
    "content", [b"", b"no video" * 500, b"\x00\x00\x00\x20ftypisom" + bytes(99)]
)
def test_no_videos(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    for read in (read_clip, lambda path: list(read_frames(path))):
        with pytest.raises(ImageError, match=r"a\.mp4: is no video .*: copy it again, or convert"):
            read(tmp_path / "a.mp4")


def test_a_cut_video_gives_the_frames_before(tmp_path):
    path, noise = tmp_path / "a.mp4", np.random.default_rng(0)
    with write_video(path, fps=10) as write:
        for _ in range(40):
            write(noise.integers(0, 255, (32, 48, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:-30_000])
    read = []
    with pytest.raises(ImageError, match=r"a\.mp4: (is cut short|.*broken)"):
        read.extend(read_frames(path))
    assert 5 < len(read) < 40


def test_damaged_videos_are_refused_or_read(clip):
    whole, random = clip.read_bytes(), np.random.default_rng(1)
    outcomes = set()
    for _ in range(60):
        data = bytearray(whole)
        for place in random.integers(0, len(data), 8):
            data[place] = random.integers(256)
        clip.write_bytes(data)
        try:
            outcomes.add(len(list(read_frames(clip))))
        except ImageError:
            outcomes.add("refused")
    assert {8, "refused"} <= outcomes


def test_frames_are_bounded(clip, monkeypatch):
    monkeypatch.setattr(video, "MAX_PIXELS", 32 * 48 - 1)
    with pytest.raises(ImageError, match="frames of 48 x 32 pixels by its header"):
        read_clip(clip)


def test_refused(tmp_path, monkeypatch):
    with pytest.raises(OptionError, match=r"ends in \.mp4"), write_video(tmp_path / "a.avi", 5):
        pass
    with pytest.raises(OptionError, match="got fps=0"), write_video(tmp_path / "a.mp4", 0):
        pass
    with pytest.raises(ImageError, match="got no frames"), write_video(tmp_path / "a.mp4", 5):
        pass
    with pytest.raises(ImageError, match="several sizes"):
        write_all(tmp_path / "a.mp4", gray(0), gray(0, 34))
    with pytest.raises(ShapeError):
        write_all(tmp_path / "a.mp4", np.zeros((4, 4), np.uint8))
    with pytest.raises(ImageError, match="is a pipe, device or socket"):
        read_clip("/dev/zero")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(OptionError, match=re.escape("pip install 'unpool[video]'")):
        read_clip(tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


def test_sound_alone_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 44100
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    with pytest.raises(ImageError, match="holds no images, only sound"):
        read_clip(tmp_path / "a.mp4")
