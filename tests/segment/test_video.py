"""Videos are segmented frame by frame, as images are, and go on where a run ended."""

import numpy as np
import pytest

from unpool.errors import ImageError, OptionError
from unpool.models import DeconvNet
from unpool.segment.segmenter import Segmenter
from unpool.segment.video import segment_video
from unpool.vision.images import read_mask
from unpool.vision.video import read_clip, read_frames, write_video

pytest.importorskip("av")


@pytest.fixture
def segmenter(filled):
    net = filled(DeconvNet(3, ((1, 4), (1, 8)), None, 32))
    return Segmenter(net, ["background", "cat", "dog"], long_side=32)


@pytest.fixture
def clip(tmp_path):
    random = np.random.default_rng(0)
    with write_video(tmp_path / "clip.mp4", fps=12) as write:
        for _ in range(6):
            coarse = random.integers(0, 255, (4, 6, 3), np.uint8)
            write(np.kron(coarse, np.ones((8, 8, 1), np.uint8)))
    return tmp_path / "clip.mp4"


def segmented(segmenter, clip, **options):
    stem, work = clip.parent / "out/clip", clip.parent / "out/.work"
    return segment_video(segmenter, clip, stem, work, **options)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_each_frame_is_segmented_as_an_image(segmenter, clip):
    record = segmented(segmenter, clip, masks=True)
    expected = [segmenter(frame.image).labels for frame in read_frames(clip)]
    folder = clip.parent / "out/clip.masks"
    assert names(folder) == [f"{i:06d}.png" for i in range(1, 7)]
    for mask, labels in zip(sorted(folder.iterdir()), expected, strict=True):
        assert np.array_equal(read_mask(mask), labels)
    fractions = {name: np.mean(np.array(expected) == k) for k, name in enumerate(segmenter.classes)}
    assert record.pop("labels") == pytest.approx({k: v for k, v in fractions.items() if v})
    out = clip.parent / "out"
    movie, masks = str(out / "clip.overlay.mp4"), str(out / "clip.masks")
    assert record == {"size": [48, 32], "frames": 6, "fps": 12, "movie": movie, "masks": masks}
    assert names(out) == ["clip.masks", "clip.overlay.mp4"]


def test_the_movie_has_the_frames_and_times_of_the_video(segmenter, clip):
    segmented(segmenter, clip)
    assert names(clip.parent / "out") == ["clip.overlay.mp4"]
    movie = clip.parent / "out/clip.overlay.mp4"
    assert read_clip(movie) == read_clip(clip)
    for shown, frame in zip(read_frames(movie), read_frames(clip), strict=True):
        assert shown.time == frame.time
        expected = segmenter(frame.image).overlay().astype(int)
        assert np.abs(shown.image - expected).mean() < 12  # chroma is stored at half the size


class Interrupted(Exception):
    pass


def test_an_interrupted_run_goes_on_and_ends_alike(segmenter, clip, monkeypatch):
    segmented(segmenter, clip, masks=True)
    out = clip.parent / "out"
    movie = list(read_frames(out / "clip.overlay.mp4"))
    masks = [path.read_bytes() for path in sorted((out / "clip.masks").iterdir())]

    def stop(done, total, what):
        assert total == 6
        if done == 4:
            raise Interrupted

    with pytest.raises(Interrupted):
        segmented(segmenter, clip, masks=True, progress=stop)
    assert names(out / ".work") == [f"{i:06d}.png" for i in range(1, 5)]
    assert len(list(read_frames(out / "clip.overlay.mp4"))) == 6  # the old one, whole
    calls = []
    predict = segmenter.predict
    monkeypatch.setattr(segmenter, "predict", lambda *a, **k: calls.append(0) or predict(*a, **k))
    segmented(segmenter, clip, masks=True)
    assert len(calls) == 2  # the last two frames
    for frame, other in zip(read_frames(out / "clip.overlay.mp4"), movie, strict=True):
        assert np.abs(frame.image.astype(int) - other.image).mean() < 3  # x264 varies a little
    assert [path.read_bytes() for path in sorted((out / "clip.masks").iterdir())] == masks


def test_a_cut_video_is_reported_and_its_frames_written(segmenter, tmp_path):
    random, path = np.random.default_rng(0), tmp_path / "clip.mp4"
    with write_video(path, fps=10) as write:
        for _ in range(12):
            write(random.integers(0, 255, (32, 48, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:-8000])
    with pytest.raises(ImageError, match=r"clip\.mp4: .*; the \d+ frames before are written"):
        segmented(segmenter, path)
    assert 0 < len(list(read_frames(tmp_path / "out/clip.overlay.mp4"))) < 12


def test_refused(segmenter, clip):
    with pytest.raises(OptionError, match="pass masks=True"):
        segmented(segmenter, clip, overlay=False)
    (clip.parent / "text.mp4").write_text("no video")
    with pytest.raises(ImageError, match=r"text\.mp4: is no video"):
        segmented(segmenter, clip.parent / "text.mp4")
    assert not (clip.parent / "out").exists() or not names(clip.parent / "out")
