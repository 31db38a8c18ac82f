"""Segment a video frame by frame: a movie of its overlays, and a mask for each frame."""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unpool.errors import ImageError, OptionError
from unpool.files import note_written
from unpool.segment.result import class_fractions
from unpool.vision.drawing import overlay as draw_overlay
from unpool.vision.images import Pixels, read_mask, write_mask
from unpool.vision.video import read_clip, read_frames, write_video

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.segment.pipeline import BaseSegmenter


def segment_video(
    segmenter: "BaseSegmenter",
    source: Path,
    stem: Path,
    work: Path,
    *,
    overlay: bool = True,
    masks: bool = False,
    progress: "Progress | None" = None,
    **options: Any,
) -> dict[str, Any]:
    """Segment each frame of a video by itself.

    Writes STEM.overlay.mp4, and with `masks` the folder STEM.masks with an index PNG for each
    frame: 000001.png ... Frames are kept in `work` until all are done, so that a run that was
    killed is continued where it ended.

    Args:
        segmenter: what segments an image.
        source: the video, see `unpool.vision.video.read_frames`.
        stem: the path of the results, without suffixes.
        work: a folder for the frames that are done, only for this video and these options.
        overlay: write the movie.
        masks: keep the masks.
        progress: receives the number of frames that are done.
        options: of the segmenter.

    Returns:
        Plain values: `size` (width, height) and number of `frames`, `fps`, `labels` (the fraction
        of all pixels of each class), and the paths of the results, `movie` and `masks`.

    Raises:
        ImageError: the video cannot be read, or not to its end; the frames before are written.
        OptionError: neither a movie nor masks are to be written, STEM.masks holds other files, or
            PyAV is not installed.
    """
    if not (overlay or masks):
        raise OptionError("got a video with overlay=False; pass masks=True to get its masks")
    movie, folder = Path(f"{stem}.overlay.mp4"), Path(f"{stem}.masks")
    if masks and folder.exists() and not _holds_masks(folder):
        raise OptionError(f"got {folder}, which holds other files than masks; move it elsewhere")
    clip = read_clip(source)
    pixels, done, broken = np.zeros(256, np.int64), 0, ""
    with ExitStack() as stack:
        write = stack.enter_context(write_video(movie, clip.fps)) if overlay else None
        try:
            for done, frame in enumerate(read_frames(source), 1):
                labels = _segment(segmenter, frame.image, work / f"{done:06d}.png", options)
                pixels += np.bincount(labels.ravel(), minlength=256)
                if write is not None:
                    shown = draw_overlay(frame.image, labels, segmenter.palette, segmenter.classes)
                    write(shown, frame.time)
                if progress is not None:
                    progress(done, max(clip.frames, done), "segmenting")
        except ImageError as error:
            if not done:
                raise
            # what precedes a damaged frame is kept
            broken = str(error)
    if masks:
        _move(work, folder)
    else:
        shutil.rmtree(work)
    if broken:
        raise ImageError(f"{broken}; the {done} frames before are written")
    record: dict[str, Any] = {
        "size": [clip.width, clip.height],
        "frames": done,
        "fps": float(clip.fps),
        "labels": class_fractions(pixels, segmenter.classes),
    }
    if overlay:
        record["movie"] = str(movie)
    if masks:
        record["masks"] = str(folder)
    return record


def _segment(
    segmenter: "BaseSegmenter", image: Pixels, mask: Path, options: dict[str, Any]
) -> Pixels:
    """The labels of a frame, from its mask if an earlier run has written it."""
    if mask.is_file():
        return read_mask(mask)
    labels: Pixels = segmenter(image, **options).labels
    write_mask(mask, labels, segmenter.palette)
    return labels


def _move(work: Path, folder: Path) -> None:
    """Give the masks of all frames their place, instead of those of an earlier run."""
    for leftover in work.glob(".*"):  # a write that was killed
        leftover.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)
    note_written(folder)


def _holds_masks(folder: Path) -> bool:
    """Whether a folder holds nothing but the masks of frames, by their names."""
    return folder.is_dir() and all(
        path.suffix == ".png" and path.stem.isdecimal() and len(path.stem) >= 6
        for path in folder.iterdir()
    )
