"""Images in tar files and behind URLs, compared with the same images in files."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unpool.errors import ImageError, OptionError
from unpool.vision.archives import find_members, find_urls, is_url
from unpool.vision.sources import Shard, find_images

fsspec = pytest.importorskip("fsspec")


def image(value):
    file = io.BytesIO()
    Image.fromarray(np.full((4, 5, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def pack(path, files):
    """A tar file of names and contents; a name that is None is a link."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


SHARD = {"0001.png": image(1), "0001.cls": b"7", "sub/0002.png": image(2), "../0003.JPG": image(3)}


def found(*inputs, **options):
    sources, unusable, _ = find_images(inputs, archives=True, **options)
    assert not unusable
    return {str(source.name): source for source in sources}


def test_members_are_those_of_the_tar_file():
    pack("in/a.tar", SHARD)
    sources = found("in/a.tar")
    assert list(sources) == ["a/0001", "a/sub/0002", "a/0003"]
    assert str(sources["a/sub/0002"]) == "in/a.tar/sub/0002.png"
    for value, source in enumerate(sources.values(), 1):
        assert (source.read() == value).all()
        assert not source.is_stdin
    with tarfile.open("in/a.tar") as archive:
        members = archive.getmembers()
    offsets = {m.name: (m.offset_data, m.size) for m in members}
    assert all(offsets[s.place.member] == s.place[2:4] for s in sources.values())


def test_a_folder_gives_its_tar_files_if_it_has_no_images():
    pack("in/a.tar", SHARD)
    pack("in/b.tar", SHARD)
    assert len(found("in")) == len(found("in/*.tar")) == 6
    Path("list.txt").write_text("in/b.tar\n")
    assert len(found("list.txt")) == 3
    Path("in/c.png").write_bytes(image(0))
    assert list(found("in")) == ["c"]
    Path("in/c.png").unlink()
    with pytest.raises(ImageError, match="holds no images"):
        find_images(["in"])  # without `archives`


def test_a_shard_has_whole_tar_files():
    for name in "abcde":
        pack(f"in/{name}.tar", SHARD)
    parts = [found("in", shard=Shard(i, 2)) for i in (1, 2)]
    assert [{name[0] for name in part} for part in parts] == [{"a", "c", "e"}, {"b", "d"}]
    assert parts[0] | parts[1] == found("in")


def test_names_stay_apart():
    pack("in/a.tar", {"x.png": image(1), "x.bmp": image(2), "X.gif": image(3)})
    pack("other/a.tar", {"x.png": image(1)})
    names = list(found("in/a.tar", "other/a.tar"))
    assert names == ["a_tar/x_png", "a_tar/x_bmp", "a_tar/X_gif", "a_tar_2/x"]
    pack("in/a/b.tar", {"x.png": image(1)})
    Path("in/a/y.png").write_bytes(image(1))
    with pytest.raises(OptionError, match=r"got a\.tar and a folder a; rename"):
        find_images(["in/a.tar", "in/*/y.png"], archives=True)


def test_damage_is_named_and_what_is_before_is_read():
    pack("in/a.tar", SHARD)
    content = Path("in/a.tar").read_bytes()
    with tarfile.open("in/a.tar") as archive:
        starts = [member.offset_data for member in archive.getmembers()]
    Path("in/a.tar").write_bytes(content[: starts[2] + 10])  # within the second image
    sources, unusable, _ = find_images(["in/a.tar"], archives=True)
    assert (sources[0].read() == 1).all()
    for source in sources[1:]:
        with pytest.raises(ImageError, match=r"is cut short, as in/a\.tar is"):
            source.read()
    assert len(sources) == 2
    assert "in/a.tar: is damaged after 2 images" in unusable[0].error
    Path("in/a.tar").write_bytes(b"no tar file")
    sources, unusable, _ = find_images(["in/a.tar"], archives=True)
    assert not sources
    assert "wanted a tar file, not compressed" in unusable[0].error
    pack("in/a.tar", {"notes.md": b""})
    _, unusable, _ = find_images(["in/a.tar"], archives=True)
    assert "holds no images" in unusable[0].error


def test_what_is_held_is_not_read_again():
    pack("a.tar", SHARD)
    (source, *_) = found("a.tar").values()
    held = source.held()
    Path("a.tar").unlink()
    assert (held.read() == 1).all()
    assert str(held) == str(source) == "a.tar/0001.png"
    with pytest.raises(ImageError, match="cannot be read"):
        source.held()


def test_links_are_passed_over():
    with tarfile.open("a.tar", "w") as archive:
        info = tarfile.TarInfo("passwd.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    assert list(find_members("a.tar")) == []


def test_a_member_beyond_its_file_takes_no_memory():
    info = tarfile.TarInfo("a.png")
    info.size = 2**40
    Path("a.tar").write_bytes(info.tobuf() + bytes(1024))
    (source,) = find_images(["a.tar"], archives=True).sources
    with pytest.raises(ImageError, match="has more than"):
        source.read()


@pytest.fixture
def bucket():
    system = fsspec.filesystem("memory")
    for name, content in (("a.png", image(1)), ("b/c.png", image(2)), ("b/notes.md", b"")):
        system.pipe(f"/bucket/{name}", content)
    pack("x.tar", SHARD)
    system.pipe("/shards/x.tar", Path("x.tar").read_bytes())
    yield system
    system.rm("/", recursive=True)


def test_urls(bucket):
    sources = found("memory://bucket")
    assert {name: int(s.read()[0, 0, 0]) for name, s in sources.items()} == {"a": 1, "b/c": 2}
    assert str(sources["b/c"]) == "memory:///bucket/b/c.png"
    assert list(found("memory://bucket/*.png")) == ["a"]
    assert list(found("memory://bucket/b/c.png")) == ["c"]
    inside = found("memory://shards/*.tar")
    assert {name: int(s.read()[0, 0, 0]) for name, s in inside.items()} == {
        **{"x/0001": 1, "x/sub/0002": 2, "x/0003": 3}
    }
    Path("list.txt").write_text("memory://bucket/a.png\nmemory://bucket/b/c.png\n")
    assert list(found("list.txt")) == ["a", "c"]


def test_urls_that_cannot_be_read(bucket, monkeypatch):
    (source,) = found("memory://bucket/none.png").values()
    with pytest.raises(ImageError, match="cannot be read"):
        source.read()
    for text, message in (
        ("memory://bucket/*.tif", "holds no images"),
        ("nothing://x/y.png", "cannot be listed"),
    ):
        with pytest.raises(ImageError, match=message):
            find_images([text], archives=True)
    assert not is_url("in/a:b")
    monkeypatch.setattr("unpool.vision.archives.find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"pip install 'unpool\[scale\]'"):
        find_urls("memory://bucket")
