"""Read and write videos, frame by frame; needs PyAV (`pip install 'unpool[video]'`).

A frame is an image as `unpool.vision.images` reads it: (H, W, 3) uint8, RGB, upright. Sound is not
read. Only files are opened: a playlist that names other files or addresses is refused.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from unpool.errors import ImageError, OptionError
from unpool.files import atomic, require_regular
from unpool.limits import MAX_PIXELS
from unpool.vision.images import Pixels, check_image

VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
"""The endings of videos that are read."""

_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"  # not hls or concat, which open more files
_TICKS = 90_000  # per second; exact for the usual frame rates


class Clip(NamedTuple):
    """What the header of a video says."""

    width: int  #: of the upright frames
    height: int
    fps: Fraction  #: the mean number of frames per second
    frames: int  #: 0 if unknown


class Frame(NamedTuple):
    """A frame of a video."""

    image: Pixels  #: (H, W, 3) uint8, RGB, upright
    time: Fraction  #: seconds from the beginning


def read_clip(path: str | os.PathLike[str]) -> Clip:
    """The size, frame rate and length of a video.

    Raises:
        ImageError: the file is missing, broken, too large, or not a video.
        OptionError: PyAV is not installed.
    """
    with _opened(path) as container:
        stream = container.streams.video[0]
        first = next(container.decode(stream), None)  # only a frame knows its rotation
        if first is None:
            raise ImageError("holds no frame; record or download it again")
        height, width = _turned(first).shape[:2]
        return Clip(width, height, _rate(stream), stream.frames)


def read_frames(path: str | os.PathLike[str]) -> Iterator[Frame]:
    """Read the frames of a video, one at a time.

    Raises:
        ImageError: as of `read_clip`; after the frames before, where a video is broken or cut
            short.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "gray.mp4")
    >>> with write_video(path, fps=5) as write:
    ...     for value in (0, 128, 255):
    ...         write(np.full((32, 48, 3), value, np.uint8))
    >>> [(frame.image.shape, float(frame.time)) for frame in read_frames(path)]
    [((32, 48, 3), 0.0), ((32, 48, 3), 0.2), ((32, 48, 3), 0.4)]
    """
    with _opened(path) as container:
        stream = container.streams.video[0]
        packets, start = 0, None
        for packet in container.demux(stream):
            packets += packet.size > 0
            for frame in packet.decode():
                time = Fraction(0) if frame.pts is None else frame.pts * frame.time_base
                start = time if start is None else start
                yield Frame(_turned(frame), time - start)
        if packets < stream.frames:
            raise ImageError(
                f"is cut short after {packets} of {stream.frames} frames; copy or download it again"
            )


@contextmanager
def write_video(
    path: str | os.PathLike[str], fps: float | Fraction
) -> Iterator[Callable[..., None]]:
    """Write a video that browsers play, atomically: MP4 with H.264, without sound.

    Yields a function that takes a frame, (H, W, 3) uint8, RGB, all of one size, and optionally its
    time in seconds. H.264 as browsers play it needs even sides: the last column or row of frames
    of an odd size is repeated.

    Args:
        path: ending in .mp4.
        fps: frames per second, which give the times of frames that come without.

    Raises:
        OptionError: another ending, a rate of 0 or less, or PyAV is not installed.
    """
    av = _require_av(path)
    if Path(path).suffix.lower() != ".mp4":
        raise OptionError(f"got the video {path}; wanted a name that ends in .mp4")
    if not 0 < fps <= 1000:
        raise OptionError(f"got fps={float(fps):g}; wanted more than 0, at most 1000")
    rate = Fraction(fps).limit_denominator(1001)
    front = {"movflags": "faststart"}  # so that browsers play it before they have the whole file
    with (
        atomic(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options=front) as file,
    ):
        stream = file.add_stream("libx264", rate=rate, options={"crf": "20"})
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, _TICKS)
        count = 0

        def write(image: Pixels, time: Fraction | None = None) -> None:
            nonlocal count
            check_image(image)
            height, width = image.shape[:2]
            even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
            if not count:
                stream.height, stream.width = even.shape[:2]
            elif even.shape[:2] != (stream.height, stream.width):
                raise ImageError(f"{path}: got frames of several sizes; wanted one size")
            frame = av.VideoFrame.from_ndarray(even, format="rgb24")
            frame.time_base = Fraction(1, _TICKS)
            frame.pts = round((count / rate if time is None else time) * _TICKS)
            file.mux(stream.encode(frame))
            count += 1

        yield write
        if not count:
            raise ImageError(f"{path}: got no frames; wanted one or more")
        file.mux(stream.encode(None))


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open a video with one stream of frames; failures here and in the body are ImageErrors."""
    av = _require_av(path)
    try:
        with (
            require_regular(path, ImageError).open("rb") as file,
            av.open(
                file,
                io_open=_refuse,
                container_options={"format_whitelist": _DEMUXERS},
                options={"max_pixels": str(MAX_PIXELS)},
            ) as container,
        ):
            if not container.streams.video:
                raise ImageError("holds no images, only sound or text; give a video")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise ImageError("has a codec that is not known; convert it to MP4 with H.264")
            size = stream.codec_context.width, stream.codec_context.height
            if size[0] * size[1] > MAX_PIXELS:
                raise ImageError(
                    f"has frames of {size[0]} x {size[1]} pixels by its header; at most "
                    f"{MAX_PIXELS} are read: scale it down"
                )
            stream.thread_type = "AUTO"
            yield container
    except ImageError as error:
        text = str(error)
        raise ImageError(text if str(path) in text else f"{path}: {text}") from None
    except (av.FFmpegError, ValueError, OSError, MemoryError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(
            f"{path}: is no video that can be read, or broken ({reason}); wanted "
            f"{', '.join(VIDEOS)}: copy it again, or convert it to MP4"
        ) from error


def _refuse(url: str, flags: int, options: dict[str, Any]) -> NoReturn:
    raise ImageError(f"refers to {url}, which is not opened; give one file with all frames")


def _require_av(path: object) -> Any:
    try:
        import av
    except ImportError:
        raise OptionError(
            f"got the video {path}, which needs PyAV; pip install 'unpool[video]'"
        ) from None
    return av


def _rate(stream: Any) -> Fraction:
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    return min(max(Fraction(rate), Fraction(1, 1000)), Fraction(1000))


def _turned(frame: Any) -> Pixels:
    """A frame as players show it: a phone stores its rotation beside the pixels."""
    quarters = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), quarters))
