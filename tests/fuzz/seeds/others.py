"""Other valid files: lists, world files, videos, rendered views, archives of models."""

import io
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from tests.fuzz.seeds.common import JPG, PHOTO, Files, as_json, saved


def lists() -> list[Files]:
    """A list of images, one of them missing."""
    text = b"# images\na.jpg\n\nsub/b.jpg\nmissing.jpg\n"
    return [{"list.txt": text, "a.jpg": JPG, "sub/b.jpg": JPG}]


def tars() -> list[Files]:
    """Tar files of images, in the formats that Python writes, one with a long name."""
    found = []
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        long = "" if kind == tarfile.USTAR_FORMAT else "/".join(["folder"] * 30) + "/"
        with tarfile.open(fileobj=file, mode="w", format=kind) as archive:
            for name, content in (("a.jpg", JPG), ("a.cls", b"7"), (f"{long}b.jpg", JPG)):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        found.append({"a.tar": file.getvalue()})
    return found


def image_classes() -> list[Files]:
    """The classes of images without masks."""
    return [{"image_classes.txt": b"a: dog, cat\nsub/b: cat\nc:\n"}]


def maps() -> list[Files]:
    """Images with a world file or with GeoTIFF tags."""
    world = b"2\n0\n0\n-2\n101\n499\n"
    rgb = Image.fromarray(PHOTO)
    found = [{"a.png": saved(rgb, "PNG"), "a.pgw": world}, {"a.jpg": JPG, "a.jgw": world}]
    for placed in (
        {33550: (2.0, 2.0, 0.0), 33922: (0.0, 0.0, 0.0, 100.0, 500.0, 0.0)},
        {34264: (2.0, 0, 0, 100.0, 0, -2.0, 0, 500.0, 0, 0, 0, 0, 0, 0, 0, 1.0)},
    ):
        tags = ImageFileDirectory_v2()
        for tag, values in placed.items():
            tags.tagtype[tag] = 12
            tags[tag] = values
        tags.tagtype[34735] = 3
        tags[34735] = (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32633)
        found.append({"a.tif": saved(rgb, "TIFF", tiffinfo=tags)})
    return found


def videos() -> list[Files]:
    """Three frames, in three containers and codecs."""
    import av

    found: list[Files] = []
    for name, codec in (("v.mp4", "libx264"), ("v.mkv", "mjpeg"), ("v.avi", "mpeg4")):
        file = io.BytesIO()
        with av.open(file, "w", format={"mkv": "matroska"}.get(name[2:], name[2:])) as container:
            stream = container.add_stream(codec, rate=5)
            stream.width, stream.height = 32, 16
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for value in (0, 128, 255):
                frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), value, np.uint8))
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        found.append({name: file.getvalue()})
    return found


def views() -> list[Files]:
    """Rendered views of two styles, with their credits."""
    from unpool.rendering.dataset import AZIMUTHS, view_name

    rgba = np.full((16, 16, 4), 200, np.uint8)
    rgba[:4, :, 3] = 0
    white = np.full((16, 16, 3), 255, np.uint8)
    white[4:8, 4:12] = 9
    files: Files = {"styles.json": as_json([{"style": s, "license": "CC0"} for s in "ab"])}
    for style, image in (("a", rgba), ("b", white)):
        for number in range(2):
            name = view_name(number, AZIMUTHS[number], 20.0)
            files[f"{style}/renders/{name}"] = saved(Image.fromarray(image), "PNG")
    return [files]


def archives() -> list[Files]:
    """Zip files of a model and its manifest."""
    found, model = [], b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
    rotation = "1 0 0 0 1 0 0 0 1"
    records = as_json([{"id": "a", "obj": "a.obj", "creator": "me", "rotation": rotation}])
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", kind) as archive:
            for name, content in {"models/a/a.obj": model, "models/manifest.json": records}.items():
                archive.writestr(zipfile.ZipInfo(name), content, kind)
        found.append({"m.zip": file.getvalue()})
    return found


def ledgers() -> list[Files]:
    """An output folder in which two items are finished and one has failed."""
    from unpool.batch.ledger import Ledger

    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        ledger = Ledger(folder, {"mode": "whole"})
        for name in "ab":
            path = folder / f"{name}.txt"
            path.write_text(name)
            ledger.add(name, "content", {"mask": str(path), "n": 1}, [path])
        ledger.fail("c", "content", "is broken")
        (lines,) = (folder / ".unpool/ledger").iterdir()
        content = lines.read_bytes().replace(root.encode(), b"/out")
    return [{"a.txt": b"a", "b.txt": b"b", ".unpool/ledger/host-1-1.jsonl": content}]


def examples(*layouts: str) -> list[Files]:
    """Folders of labeled images in some layouts."""
    from tests.data.layouts.examples import FOLDERS

    found = []
    for name in (name for name in FOLDERS if name.startswith(layouts)):
        with tempfile.TemporaryDirectory() as root:
            FOLDERS[name](Path(root))
            paths = [path for path in Path(root).rglob("*") if path.is_file()]
            found.append({path.relative_to(root).as_posix(): path.read_bytes() for path in paths})
    return found
