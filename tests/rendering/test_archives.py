"""Valid, broken and malicious zip files."""

import contextlib
import os
import random
import stat
import zipfile

import pytest

from unpool.errors import DataError
from unpool.rendering import archives
from unpool.rendering.archives import unpack


@pytest.fixture
def pack(tmp_path):
    """Write a zip file of entries, by name or as `ZipInfo`; gives its path."""

    def write(entries, **options):
        path = tmp_path / "models.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
            for name, data in entries:
                archive.writestr(name, data)
        return path

    return write


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deep" / "out").mkdir(parents=True)
    return tmp_path / "deep" / "out"


def test_a_tree_is_unpacked(pack, folder):
    unpack(pack([("a/b.obj", "v"), ("a/c/d.mtl", "k"), ("e.txt", "")]), folder)
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == {"a/b.obj", "a/c/d.mtl", "e.txt"}
    assert (folder / "a/c/d.mtl").read_text() == "k"


@pytest.mark.parametrize(
    "name", ["../out.obj", "a/../../out.obj", "/tmp/out.obj", "..\\out.obj", "C:\\out.obj", "a/.."]
)
def test_paths_that_lead_out(pack, folder, tmp_path, name):
    info = zipfile.ZipInfo("placeholder")
    info.filename = name  # as it is, which the constructor would mend
    path = pack([("good.obj", "v"), (info, "v")])
    with pytest.raises(DataError, match="which leads out of its folder; nothing was unpacked"):
        unpack(path, folder)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


def test_links(pack, folder):
    info = zipfile.ZipInfo("link.obj")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(DataError, match=r"'link.obj', which is a link or a device"):
        unpack(pack([("good.obj", "v"), (info, "/etc/passwd")]), folder)
    assert not list(folder.iterdir())


def test_a_bomb_by_its_ratio(pack, folder):
    with pytest.raises(
        DataError, match=r"would unpack to 32 MiB, wanted at most 100 times its own size, or 16 MiB"
    ):
        unpack(pack([("zeros.obj", bytes(32 * 2**20))]), folder)
    assert not list(folder.iterdir())


def test_a_bomb_by_its_size(pack, folder, monkeypatch):
    monkeypatch.setattr(archives, "MAX_ZIP_BYTES", 10)
    with pytest.raises(DataError, match="would unpack to"):
        unpack(pack([("a.obj", "12345"), ("b.obj", "678901")]), folder)


def test_a_bomb_by_its_files(pack, folder, monkeypatch):
    monkeypatch.setattr(archives, "MAX_ZIP_FILES", 2)
    with pytest.raises(DataError, match="has 3 files, wanted at most 2"):
        unpack(pack([(name, "v") for name in "abc"]), folder)


def test_a_bomb_that_declares_a_wrong_size(pack, folder):
    path = pack([("zeros.obj", bytes(2**20))])
    data = path.read_bytes()
    start = data.index(b"PK\x01\x02") + 24  # the size, in the directory at the end
    path.write_bytes(data[:start] + (100).to_bytes(4, "little") + data[start + 4 :])
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(path, folder)
    assert sum(p.stat().st_size for p in folder.iterdir()) <= 100


def test_broken_files(pack, folder, tmp_path):
    noise = tmp_path / "noise.zip"
    noise.write_bytes(b"PK, but no more")
    with pytest.raises(DataError, match=r"noise.zip cannot be unpacked"):
        unpack(noise, folder)
    path = pack([("a.obj", "v 1 2 3\n" * 99)])
    data = bytearray(path.read_bytes())
    data[45] ^= 255
    path.write_bytes(data)
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(path, folder)


@pytest.mark.parametrize("name", ["x" * 300 + ".obj", ""])
def test_names_that_no_file_can_have(pack, folder, name):
    path = pack([("a.obj", "v"), (zipfile.ZipInfo(name), "v")])
    with pytest.raises(DataError, match=r"models.zip cannot be unpacked: .*; zip its files again"):
        unpack(path, folder)


def test_a_file_where_a_folder_is_wanted(pack, folder):
    with pytest.raises(DataError, match="files and folders of the same name"):
        unpack(pack([("a", "v"), ("a/b.obj", "v")]), folder)


def test_encrypted_files(pack, folder):
    path = pack([("a.obj", "v")])
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="is encrypted"):
        unpack(path, folder)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_compression(folder, tmp_path, method):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("a.obj", "v 1 2 3\n" * 99)
    with pytest.raises(DataError, match="compressed in an unusual way"):
        unpack(tmp_path / "a.zip", folder)


def test_long_lists_and_names(pack, folder, monkeypatch):
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(pack([("a" * 300, "v")]), folder)
    path = pack([(f"{n}.obj", "v") for n in range(100)])
    monkeypatch.setattr("unpool.files.MAX_ZIP_DIRECTORY", 1000)
    with pytest.raises(DataError, match="has a list of files of 5,190 bytes, wanted at most 1,000"):
        unpack(path, folder)


def test_a_pipe_is_not_opened(folder, tmp_path):
    os.mkfifo(tmp_path / "a.zip")
    with pytest.raises(DataError, match="is a pipe, device or socket"):
        unpack(tmp_path / "a.zip", folder)


def test_damaged_bytes_are_refused_or_unpacked(pack, folder):
    path = pack([("a.obj", "v 1 2 3\n" * 30), ("b/c.obj", "f")])
    data, rng = path.read_bytes(), random.Random(0)
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 2, 4])):
            damaged[rng.randrange(len(data))] = rng.choice([0, 1, 127, 255, rng.randrange(256)])
        path.write_bytes(damaged)
        with contextlib.suppress(DataError):
            unpack(path, folder)
