import ast
import io
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

import unpool
from tests.fuzz.seeds.images import tiff
from tests.vision.encoded import IMAGE, PHOTO, encode, png
from unpool.errors import ImageError
from unpool.vision import opening
from unpool.vision.images import image_size, read_image, read_mask
from unpool.vision.sources import find_images

RNG = np.random.default_rng(0)
READERS = (read_image, read_mask, image_size)

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 9 9
%%EndComments
0 0 9 9 rectfill
%%EOF
"""


def test_an_eps_in_disguise_starts_no_program(tmp_path, monkeypatch):
    """Pillow gives the pixels of an EPS to Ghostscript."""

    def start(*_, **__):
        raise AssertionError("a program was started")

    path = tmp_path / "photo.png"
    path.write_bytes(EPS)
    with Image.open(path) as im:
        assert im.format == "EPS"
    for name in ("Popen", "run", "call", "check_call", "check_output"):
        monkeypatch.setattr(subprocess, name, start)
    monkeypatch.setattr(EpsImagePlugin, "has_ghostscript", lambda: True)
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", start)
    for read in READERS:
        with pytest.raises(ImageError, match="is not an image of a known format"):
            read(path)


SOURCES = sorted(Path(unpool.__file__).parent.rglob("*.py"))


def calls(path):
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_call_that_opens_images_names_its_formats(path):
    for call in calls(path):
        name = ast.unparse(call.func)
        where = f"{path}:{call.lineno}: {name}"
        if name.endswith("Image.open"):
            assert any(keyword.arg == "formats" for keyword in call.keywords), where
        assert name not in ("cv2.imread", "plt.imread", "torchvision.io.read_image"), where


@pytest.mark.parametrize(
    ("kind", "options"),
    [("AVIF", {"quality": 100, "subsampling": "4:4:4"}), ("JPEG2000", {}), ("JPEG", {})],
)
def test_photos_of_newer_and_older_formats(kind, options, tmp_path):
    path = tmp_path / f"photo{opening.FORMATS[kind][-1]}"
    path.write_bytes(encode(PHOTO, kind, **options))
    difference = abs(read_image(path).astype(int) - PHOTO)
    assert np.median(difference) <= (12 if kind == "JPEG" else 3)
    assert image_size(path) == PHOTO.shape[:2]
    with pytest.raises(ImageError, match=r"color-coded|alters class indices"):
        read_mask(path)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("TGA", {}),
        ("TGA", {"compression": "tga_rle"}),
        ("PCX", {}),
        ("SGI", {}),
        ("SGI", {"bpc": 2}),
    ],
)
def test_formats_that_are_known_by_their_suffix(kind, options, tmp_path):
    path = tmp_path / f"photo{opening.BY_NAME[kind][0]}"
    path.write_bytes(encode(PHOTO, kind, **options))
    assert np.array_equal(read_image(path), PHOTO)
    assert image_size(path) == PHOTO.shape[:2]
    assert [source.path for source in find_images([str(tmp_path)]).sources] == [path]
    renamed = path.rename(path.with_suffix(".png"))
    for other in (renamed, renamed.read_bytes()):
        with pytest.raises(ImageError, match="is not an image of a known format"):
            read_image(other)


def test_a_transparent_tga_is_seen_on_white(tmp_path):
    clear = np.dstack([PHOTO, np.zeros_like(PHOTO[:, :, :1])])
    (tmp_path / "a.tga").write_bytes(encode(clear, "TGA"))
    assert (read_image(tmp_path / "a.tga") == 255).all()


@pytest.mark.parametrize("suffix", [".tga", ".pcx", ".sgi"])
def test_what_only_has_such_a_suffix(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    for content in (b"no image", bytes(100), b"\x0a" * 300, encode(PHOTO, "TGA")[:200]):
        path.write_bytes(content)
        with pytest.raises(ImageError):
            read_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_is_turned_as_a_jpeg(orientation):
    header = Image.Exif()
    header[0x0112] = orientation
    exif = header.tobytes()  # Pillow takes the orientation out of an object
    avif = encode(PHOTO, "AVIF", quality=100, subsampling="4:4:4", exif=exif)
    expected = read_image(encode(PHOTO, "JPEG", quality=100, subsampling=0, exif=exif))
    assert np.abs(read_image(avif).astype(int) - expected).mean() < 4
    assert image_size(avif) == expected.shape[:2]


def test_heic_is_named_with_the_cure():
    for brand in (b"heic", b"mif1"):
        with pytest.raises(ImageError, match="is a HEIC photo, which is not read; convert it to J"):
            read_image(b"\0\0\0\x18ftyp" + brand + bytes(100))


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    return tmp_path / "pipe.png"


def test_pipes_devices_and_sockets_are_not_opened(pipe, tmp_path):
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    place = tmp_path / "socket.png"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        for path in (pipe, tmp_path / "zero.png", place):
            for read in READERS:
                with pytest.raises(ImageError, match="a pipe, device or socket; wanted a regular"):
                    read(path)


@pytest.mark.parametrize("name", ["a\0b.png", "x" * 5000, "a/" * 5000])
def test_names_that_no_file_has(name):
    for read in READERS:
        with pytest.raises(ImageError, match=r"which (cannot be read|does not exist)"):
            read(name)


class Endless(io.RawIOBase):
    """As /dev/zero on standard input."""

    name = "<stdin>"

    def __init__(self, head: bytes) -> None:
        self.head = head

    def readable(self):
        return True

    def readinto(self, buffer):
        buffer[:] = bytes(len(buffer))
        buffer[: len(self.head)] = self.head[: len(buffer)]
        self.head = b""
        return len(buffer)


@pytest.mark.parametrize("head", [b"", b"\x89PNG\r\n\x1a\n", b"II*\0"])
def test_streams_without_end(monkeypatch, head):
    monkeypatch.setattr(opening, "MAX_IMAGE_STREAM", 3 * 2**20)
    with pytest.raises(ImageError, match="<stdin>: has more than 3145728 bytes; name the file"):
        read_image(io.BufferedReader(Endless(head)))


def test_the_limit_of_a_stream_is_inclusive(monkeypatch):
    data = encode(PHOTO, "PNG")
    for limit, fits in ((len(data), True), (len(data) - 1, False)):
        monkeypatch.setattr(opening, "MAX_IMAGE_STREAM", limit)
        if fits:
            np.testing.assert_array_equal(read_image(io.BytesIO(data)), PHOTO)
        else:
            with pytest.raises(ImageError, match="has more than"):
                read_image(io.BytesIO(data))


@pytest.mark.parametrize("kind", ["WEBP", "AVIF"])
def test_files_that_pillow_reads_as_a_whole_are_bounded(kind, tmp_path, monkeypatch):
    path = tmp_path / "large"
    path.write_bytes(encode(PHOTO, kind))
    with path.open("r+b") as file:
        file.truncate(2**20)  # a hole of zeros
    monkeypatch.setattr(opening, "MAX_IMAGE_STREAM", 2**19)
    with pytest.raises(ImageError, match="has more than 524288 bytes; convert it to PNG"):
        read_image(path)


@pytest.mark.parametrize(
    ("kind", "options", "cost"),
    [
        ("PNG", {}, 8),
        ("JPEG", {}, 8),
        ("JPEG", {"progressive": True}, 11),
        ("WEBP", {}, 16),
        ("JPEG2000", {}, 20),
    ],
)
def test_memory_is_bounded_by_the_header(kind, options, cost, monkeypatch):
    data = encode(PHOTO, kind, **options)
    pixels = PHOTO[..., 0].size
    monkeypatch.setattr(opening, "MAX_IMAGE_MEMORY", cost * pixels)
    assert read_image(data).shape == PHOTO.shape
    monkeypatch.setattr(opening, "MAX_IMAGE_MEMORY", cost * pixels - 1)
    with pytest.raises(ImageError, match=f"at most {pixels - 1} are read"):
        read_image(data)


MEASURE = """
import resource, sys
from PIL import Image
from unpool.vision.images import read_image

Image.init()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert read_image(sys.argv[1]).shape == (4000, 4000, 3)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 4000**2)
"""


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("PNG", "RGBA", {}),
        ("JPEG", "RGB", {"progressive": True, "subsampling": 0}),
        ("WEBP", "RGB", {}),
        ("JPEG2000", "RGB", {}),
    ],
)
def test_the_memory_for_a_pixel_is_what_is_counted(kind, mode, options, tmp_path):
    path = tmp_path / "image"
    Image.new(mode, (4000, 4000)).save(path, kind, **options)
    with Image.open(path) as im:
        counted = opening._cost(im)
    command = [sys.executable, "-c", MEASURE, str(path)]
    # a shell between: a process inherits the peak of the one that it was forked from
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(result.stdout) < counted + 2


def test_pillow_logs_nothing_beside_the_error(tmp_path):
    """In a process of its own, since pytest collects what is logged."""
    file = io.BytesIO()
    Image.fromarray(PHOTO).save(file, "TIFF")
    samples = (277).to_bytes(2, "little") + b"\3\0\1\0\0\0"  # a short, once
    assert samples + b"\3\0\0\0" in file.getvalue()
    path = tmp_path / "a.tif"
    path.write_bytes(file.getvalue().replace(samples + b"\3", samples + b"\x21"))
    printed = [
        subprocess.run(
            [sys.executable, "-c", f"{first}\nfrom PIL import Image\nImage.open({str(path)!r})"],
            capture_output=True,
            text=True,
        ).stderr
        for first in ("", "import unpool.vision.opening")
    ]
    assert ["More samples per pixel" in text for text in printed] == [True, False]


@pytest.mark.parametrize("kind", ["path", "bytes", "file"])
def test_no_more_is_asked_for_than_there_is(kind, tmp_path):
    """A TIFF whose strips are 1 TB apart: Pillow reads up to there, Python allocates for it."""
    content = tiff(">", 8, 2)
    offsets = struct.pack(">HHI", 273, 4, 3)  # three of 32 bits, which are read as of 64 bits
    assert offsets in content
    content = content.replace(offsets, struct.pack(">HHI", 273, 16, 3))
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    with pytest.raises(ImageError, match="truncated"):  # rather than a MemoryError
        read_image({"path": path, "bytes": content, "file": io.BytesIO(content)}[kind])


@pytest.mark.parametrize("side", [13_500, 20_000, 2**31 - 1])
def test_header_bombs_are_refused_before_decoding(side):
    bomb = png(side, side, 8, 2, b"\0")
    for read in (read_image, read_mask, image_size):
        with pytest.raises(ImageError, match=r"too large by its header .*scale it down"):
            read(bomb)


def test_between_pillows_warning_and_our_limit_no_warning_leaks():
    with pytest.raises(ImageError, match="cut short"):  # 169 million pixels, none of them there
        read_image(png(13_000, 13_000, 1, 0, b"\0"))
    assert image_size(png(13_000, 13_000, 1, 0, b"\0")) == (13_000, 13_000)


def test_max_pixels():
    data = encode(IMAGE)
    assert read_image(data, max_pixels=35).shape == (5, 7, 3)
    with pytest.raises(ImageError, match="7 x 5 pixels, at most 34 are read"):
        read_image(data, max_pixels=34)


FRAMES = [Image.fromarray(PHOTO), Image.fromarray(255 - PHOTO)]


@pytest.mark.parametrize(
    ("kind", "options"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})]
)
def test_animations_are_refused_unless_asked_for(kind, options):
    data = encode(FRAMES[0], kind, save_all=True, append_images=FRAMES[1:], **options)
    for read in (read_image, read_mask):
        with pytest.raises(ImageError, match="several frames or pages, wanted one image; extra"):
            read(data)
    first = read_image(data, animated=True)
    np.testing.assert_allclose(first.astype(int), PHOTO, atol=40 if kind == "GIF" else 0)


def test_a_phones_mpo_is_one_photo():
    data = encode(FRAMES[0], "MPO", save_all=True, append_images=FRAMES[1:], quality=95)
    assert abs(read_image(data).astype(int) - PHOTO).mean() < 16


def test_sources_agree(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(encode(IMAGE))
    sources = [path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes())]
    for source in sources:
        np.testing.assert_array_equal(read_image(source), IMAGE)
    with path.open("rb") as file:
        assert image_size(file) == (5, 7)
        assert not file.closed


def test_a_file_that_cannot_seek():
    class Pipe(io.RawIOBase):
        name = "<stdin>"

        def __init__(self, data):
            self.data = io.BytesIO(data)

        def readable(self):
            return True

        def readinto(self, buffer):
            return self.data.readinto(buffer)

    np.testing.assert_array_equal(read_image(io.BufferedReader(Pipe(encode(IMAGE)))), IMAGE)
    with pytest.raises(ImageError, match="<stdin>: is empty"):
        read_image(io.BufferedReader(Pipe(b"")))
