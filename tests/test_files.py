"""Files appear whole or not at all, even if the writer is killed; JSON is strict."""

import errno
import hashlib
import json
import math
import os
import socket
import stat
import subprocess
import sys
import zipfile

import pytest

from unpool.errors import DataError, WeightsError
from unpool.files import (
    atomic,
    drafts,
    fingerprint,
    json_line,
    read_bytes,
    read_json,
    require_regular,
    require_zip_directory,
    sha256,
    strict,
    write_bytes,
    write_json,
    written_files,
)


def write_half(path, error):
    path.write_text("half")
    raise error


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "new" / "folder" / "note.txt"
    for text in ("one", "two"):
        with atomic(path) as temporary:
            assert temporary.parent == path.parent  # of one file system, or renaming would copy
            assert temporary.suffix == ".txt"
            temporary.write_text(text)
            assert not path.exists() or path.read_text() == "one"
        assert path.read_text() == text
        assert names(path.parent) == ["note.txt"]


def test_takes_a_string(tmp_path):
    with atomic(str(tmp_path / "a.txt")) as temporary:
        temporary.write_text("a")
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / "note.txt"
    for before in ([], ["note.txt"]):
        with pytest.raises(error), atomic(path) as temporary:
            write_half(temporary, error)
        assert names(tmp_path) == before
        path.write_text("old")
    assert path.read_text() == "old"


def test_a_kill_leaves_nothing_under_the_final_name(tmp_path):
    code = (
        "import os, sys; from unpool.files import atomic\n"
        "with atomic(sys.argv[1]) as t:\n"
        "    t.write_text('half'); os._exit(9)"
    )
    (tmp_path / "note.txt").write_text("old")
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path / "note.txt")], check=False)
    assert result.returncode == 9
    assert (tmp_path / "note.txt").read_text() == "old"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o000, 0o666)])
def test_modes_follow_the_umask(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        with atomic(tmp_path / "a") as temporary:
            temporary.write_text("a")
        assert os.umask(mask) == mask  # unchanged
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_a_writer_may_rename_another_file_onto_it(tmp_path):
    """As safetensors does, which writes under another name and renames."""
    with atomic(tmp_path / "a") as temporary:
        other = temporary.with_suffix(".other")
        other.write_text("a")
        other.replace(temporary)
    assert (tmp_path / "a").read_text() == "a"
    assert names(tmp_path) == ["a"]


def test_a_folder_is_not_replaced(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="directory"), atomic(tmp_path / "a") as temporary:
        temporary.write_text("a")
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(
    "name", ["ü" * 125 + ".png", "a" * 255, "a." + "b" * 253, "." + "a" * 254, "ü" * 127 + "."]
)
def test_long_names(tmp_path, name):
    """Of the 255 bytes that file systems allow, temporary names take their own few."""
    with atomic(tmp_path / name) as temporary:
        temporary.write_text("a")
    assert names(tmp_path) == [name]


def test_a_name_that_is_too_long_is_named(tmp_path):
    path = tmp_path / ("a" * 256)
    with pytest.raises(OSError, match="File name too long") as raised:
        write_bytes(path, b"a")
    assert raised.value.filename == str(path)
    assert names(tmp_path) == []


# ---- file systems that refuse --------------------------------------------------------------------


@pytest.fixture
def refuse_fsync(monkeypatch):
    """Let fsync fail, of folders or of files."""
    fsync = os.fsync

    def refuse(code, folders):
        def fail(descriptor):
            if stat.S_ISDIR(os.fstat(descriptor).st_mode) == folders:
                raise OSError(code, os.strerror(code))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", fail)

    return refuse


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EACCES, errno.EPERM, errno.ENOTSUP])
def test_a_folder_need_not_be_flushed(tmp_path, refuse_fsync, code):
    """As on network shares."""
    refuse_fsync(code, folders=True)
    write_bytes(tmp_path / "a", b"whole")
    with drafts(tmp_path, "b") as folder:
        (folder / "b").write_bytes(b"whole")
    assert names(tmp_path) == ["a", "b"]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == b"whole"


def test_a_folder_need_not_be_opened(tmp_path, monkeypatch):
    """As on Windows, and where it may be written to and not be listed."""
    opened = os.open

    def refuse(path, *args):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return opened(path, *args)

    monkeypatch.setattr(os, "open", refuse)
    write_bytes(tmp_path / "a", b"whole")
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS])
def test_a_file_system_may_have_no_fsync(tmp_path, refuse_fsync, code):
    refuse_fsync(code, folders=False)
    write_bytes(tmp_path / "a", b"whole")
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EACCES])
def test_a_file_that_cannot_be_flushed_is_not_kept(tmp_path, refuse_fsync, code):
    write_bytes(tmp_path / "a", b"old")
    refuse_fsync(code, folders=False)
    with pytest.raises(OSError, match=os.strerror(code)) as raised:
        write_bytes(tmp_path / "a", b"new")
    assert (raised.value.errno, raised.value.filename) == (code, str(tmp_path / "a"))
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_file_system_may_have_no_permissions(tmp_path, monkeypatch):
    """As of a memory card."""

    def refuse(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refuse)
    with drafts(tmp_path, "a") as folder:
        (folder / "a").touch(0o600)
    assert names(tmp_path) == ["a"]


def test_a_full_disk(small_disk):
    write_bytes(small_disk / "a", b"old")
    with pytest.raises(OSError, match="No space left on device") as raised:
        write_bytes(small_disk / "a", bytes(10**5))
    assert raised.value.filename == str(small_disk / "a")
    with pytest.raises(OSError, match="No space left on device"), drafts(small_disk, "b") as folder:
        (folder / "b").write_bytes(bytes(10**5))
    assert names(small_disk) == ["a"]
    assert (small_disk / "a").read_bytes() == b"old"
    write_bytes(small_disk / "b", bytes(10**4))  # nothing is left that would need room


def test_a_disk_that_may_only_be_read(small_disk):
    (small_disk / "a").write_bytes(b"old")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for path in (small_disk / "a", small_disk / "new/b"):
        with pytest.raises(OSError, match="Read-only file system") as raised:
            write_bytes(path, b"new")
        assert raised.value.filename in (str(path), str(path.parent))
    assert (small_disk / "a").read_bytes() == b"old"


def test_written_files_are_listed(tmp_path):
    write_bytes(tmp_path / "before", b"")
    with written_files() as files:
        write_bytes(tmp_path / "a", b"")
        with pytest.raises(KeyError), atomic(tmp_path / "failed"):
            raise KeyError
        with drafts(tmp_path, "b"), written_files() as inner:
            write_bytes(tmp_path / "c", b"")
            os.rename(tmp_path / "c", next(tmp_path.glob(".unpool-*")) / "b")
    write_bytes(tmp_path / "after", b"")
    assert files == [tmp_path / "a", tmp_path / "b"]
    assert inner == [tmp_path / "c"]


# ---- JSON and digests ----------------------------------------------------------------------------


def test_json_has_no_numbers_that_json_does_not_have(tmp_path):
    values = {"iou": [0.5, math.nan, (math.inf, -math.inf)], "name": "Ärger", "n": 3, "ok": True}
    expected = {"iou": [0.5, None, [None, None]], "name": "Ärger", "n": 3, "ok": True}
    write_json(tmp_path / "deep" / "values.json", values)
    text = (tmp_path / "deep" / "values.json").read_text(encoding="utf-8")
    line = json_line(values)
    assert json.loads(text) == json.loads(line) == strict(values) == expected
    assert text.endswith("}\n")
    assert "\n" not in line


def test_values_that_are_not_plain_leave_the_old_file(tmp_path):
    write_json(tmp_path / "values.json", {"n": 1})
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "values.json", {"n": object()})
    assert json.loads((tmp_path / "values.json").read_text()) == {"n": 1}
    assert names(tmp_path) == ["values.json"]


@pytest.mark.parametrize("data", [b"", b"abc", bytes(3 * 2**20)])
def test_sha256(tmp_path, data):
    (tmp_path / "a").write_bytes(data)
    assert sha256(tmp_path / "a") == sha256(str(tmp_path / "a")) == hashlib.sha256(data).hexdigest()


def test_a_file_without_end_is_known_by_its_size_and_time(tmp_path):
    small, huge = tmp_path / "small", tmp_path / "huge"
    small.write_bytes(b"abc")
    assert fingerprint(small, DataError) == hashlib.sha256(b"abc").hexdigest()
    with huge.open("wb") as file:
        file.truncate(2**42)  # takes no room, and hours to read
    first = fingerprint(huge, DataError)
    assert first == fingerprint(huge, DataError)
    os.utime(huge, (1, 1))
    assert fingerprint(huge, DataError) != first
    with pytest.raises(DataError, match="is a folder"):
        fingerprint(tmp_path, DataError)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo")  # opening it would wait for a writer
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(tmp_path / "socket"))
        for name in ("fifo", "socket"):
            with pytest.raises(DataError, match="is a pipe, device or socket; wanted a regular"):
                require_regular(tmp_path / name, DataError)
    with pytest.raises(WeightsError, match="/dev/zero, which is a pipe, device or socket"):
        read_bytes("/dev/zero", WeightsError)
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="zero, which is a pipe"):
        read_bytes(tmp_path / "zero", DataError)
    with pytest.raises(DataError, match="is a folder"):
        read_bytes(tmp_path, DataError)
    with pytest.raises(DataError, match="does not exist; check"):
        read_bytes(tmp_path / "none", DataError)
    for name in ("nul\0", "long" * 100):
        with pytest.raises(DataError, match="cannot be read"):
            read_bytes(tmp_path / name, DataError)


def test_reading_is_bounded(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"12345")
    assert read_bytes(tmp_path / "a.txt", DataError, limit=5) == b"12345"
    with pytest.raises(DataError, match="of more than 4 bytes"):
        read_bytes(tmp_path / "a.txt", DataError, limit=4)


@pytest.mark.parametrize("text", ["", "{", "[" * 10**5, "9" * 5000, b"\xff{}"])
def test_what_is_not_json_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(WeightsError, match=r"a\.json, which is not JSON"):
        read_json(tmp_path / "a.json", WeightsError)


def test_json_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1}', encoding="utf-8-sig")
    assert read_json(tmp_path / "a.json", DataError) == {"a": 1}


def test_long_lists_of_files_in_zip_files_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for n in range(100):
            archive.writestr(f"{n}", b"")
        archive.comment = b"PK" * 99
    require_zip_directory(path, DataError)
    monkeypatch.setattr("unpool.files.MAX_ZIP_DIRECTORY", 1000)
    with pytest.raises(DataError, match="has a list of files of 4,790 bytes, wanted at most 1,000"):
        require_zip_directory(path, DataError)
    path.write_bytes(b"PK, but no zip file")
    require_zip_directory(path, DataError)  # `zipfile` says so
