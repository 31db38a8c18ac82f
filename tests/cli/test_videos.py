"""`unpool segment` on videos."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cli.files import photo, save
from unpool.segment.ensemble import load
from unpool.vision.images import read_mask
from unpool.vision.video import read_frames, write_video

SLOW = """
import sys, time
from unpool.cli import main
from unpool.segment.segmenter import Segmenter
predict = Segmenter.predict
Segmenter.predict = lambda *args, **options: time.sleep(0.3) or predict(*args, **options)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def clip(tmp_path):
    """A video of six frames in the folder in/, beside an image."""
    pytest.importorskip("av")
    save("in/photo.png", photo())
    with write_video("in/clip.mp4", fps=6) as write:
        for i in range(6):
            write(np.asarray(photo(seed=i)))
    return Path("in/clip.mp4")


def test_a_video_in_a_folder(run, weights, clip):
    code, out, err = run("segment", "in", "-o", "out", "--weights", weights, "--masks", "--json")
    assert (code, err) == (0, [])
    video, image = map(json.loads, out)
    assert image["mask"] == "out/photo.png"
    assert (video["source"], video["size"], video["frames"], video["fps"]) == (
        *("in/clip.mp4", [40, 30], 6, 6.0),
    )
    assert (video["movie"], video["masks"]) == ("out/clip.overlay.mp4", "out/clip.masks")
    segmenter = load(weights)
    for i, frame in enumerate(read_frames(clip), 1):
        expected = segmenter(frame.image).labels
        assert np.array_equal(read_mask(f"out/clip.masks/{i:06d}.png"), expected)
    assert len(list(read_frames("out/clip.overlay.mp4"))) == 6
    again = run("segment", "in", "-o", "out", "--weights", weights, "--masks", "--json")
    assert [json.loads(line)["skipped"] for line in again[1]] == [True, True]
    assert {**json.loads(again[1][0]), "skipped": None} == {**video, "skipped": None}
    assert not list(Path("out/.unpool/unfinished").glob("*"))


def test_a_killed_video_goes_on_at_its_frame(run, weights, clip):
    command = [sys.executable, "-c", SLOW, "segment", "in/clip.mp4", "-o", "out", "--masks"]
    command += ["--weights", weights]
    with subprocess.Popen(command) as child:
        end = time.monotonic() + 100
        while len(done := list(Path("out").glob(".unpool/unfinished/*/0*.png"))) < 3:
            assert time.monotonic() < end
            assert child.poll() is None
            time.sleep(0.02)
        child.kill()
    times = {path.name: path.stat().st_mtime_ns for path in done}
    assert not Path("out/clip.masks").exists()
    assert not Path("out/clip.overlay.mp4").exists()
    assert run("segment", "in/clip.mp4", "-o", "out", "--masks", "--weights", weights)[0] == 0
    assert len(list(read_frames("out/clip.overlay.mp4"))) == 6
    for name, written in times.items():  # those that were done are kept
        assert Path("out/clip.masks", name).stat().st_mtime_ns == written
    assert len(list(Path("out/clip.masks").iterdir())) == 6


def test_what_there_is_not_for_videos(refused, run, weights, clip):
    common = ("segment", "in/clip.mp4", "--weights", weights, "-o", "out")
    assert "a video, with --format coco and --scores; videos give a movie" in refused(
        *common, "--format", "mask,coco", "--scores"
    )
    assert "a video, with --no-overlay; add --masks" in refused(*common, "--no-overlay")
    assert "which holds other files than masks; move it elsewhere" in other_files(run, common)
    clip.write_bytes(b"no video")
    code, _, err = run(*common)
    assert (code, len(err)) == (3, 1)
    assert "clip.mp4: is no video that can be read, or broken" in err[0]
    code, _, err = run("visualize", "project", "in", "-o", "out", "--weights", weights)
    assert "in: 1 .mp4 not read" in err[0]


def other_files(run, common):
    save("out/clip.masks/holiday.png", photo())
    code, _, err = run(*common, "--masks")
    assert code == 3
    assert Path("out/clip.masks/holiday.png").exists()
    return err[0]
