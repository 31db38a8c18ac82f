"""Temporary files of killed processes are removed, and never those of living ones."""

import os
import re
import subprocess
import sys

import pytest

from unpool import temporary
from unpool.files import atomic, drafts, is_draft
from unpool.temporary import is_gone, leftovers, process_name, temporary_folder, temporary_path

WRITER = """
import os, sys, time
from pathlib import Path
from unpool.files import atomic, drafts
with atomic(sys.argv[1] + "/note.txt") as file, drafts(Path(sys.argv[1]), "card") as folder:
    file.write_text("half")
    (folder / "card").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """Another process that has half written a file and a folder of drafts."""
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.kill()


@pytest.fixture
def forget(monkeypatch):
    """As in a new process, which has cleaned no folder yet."""
    monkeypatch.setattr(temporary, "_cleaned", set())


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path, writer, forget):
    writer.kill()
    writer.wait()
    assert len(names(tmp_path)) == 2
    assert is_draft(tmp_path, "card")
    assert not is_draft(tmp_path, "note.txt")
    with atomic(tmp_path / "other.txt") as file:
        file.write_text("whole")
    assert names(tmp_path) == ["other.txt"]


def test_a_process_that_nobody_has_waited_for_is_gone(tmp_path, writer):
    writer.kill()
    os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOWAIT)  # a zombie
    assert len(leftovers(tmp_path)) == 2


def test_living_processes_keep_their_files(tmp_path, writer, forget):
    before = names(tmp_path)
    assert all(name.startswith(f".unpool-{temporary._host()}-{writer.pid}-") for name in before)
    with atomic(tmp_path / "other.txt") as file:
        file.write_text("whole")
    assert names(tmp_path) == [*before, "other.txt"]
    assert leftovers(tmp_path, unknown=True) == []
    assert not is_draft(tmp_path, "card")


def test_files_of_other_hosts_are_left(tmp_path, forget):
    stranger = tmp_path / re.sub("-[0-9a-f]{12}-", f"-{'0' * 12}-", temporary_path(tmp_path).name)
    others = [stranger, tmp_path / ".unpool-", tmp_path / ".unpool-note", tmp_path / ".note"]
    for path in others:
        path.touch()
    with atomic(tmp_path / "a") as file:
        file.touch()
    assert set(others) <= set(tmp_path.iterdir())
    assert leftovers(tmp_path, unknown=True) == [stranger]


def test_an_id_that_is_used_again_is_another_process():
    host, pid, start = process_name().split("-")
    assert is_gone(f"{host}-{pid}-{start}") is False
    if start != "0":  # this system knows when processes started
        assert is_gone(f"{host}-{pid}-{int(start) - 1}") is True
    assert is_gone(f"{host}-{2**31 - 1}-{start}") is True  # larger than any id
    assert is_gone(f"{host}-{2**33}-{start}") is True
    assert is_gone(f"{'0' * 12}-{pid}-{start}") is None
    assert is_gone("note") is None


def test_nothing_is_asked_of_windows(monkeypatch):
    """There `os.kill` ends the process."""
    name = process_name()
    monkeypatch.setattr(os, "name", "nt")
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("killed"))
    assert is_gone(name) is None


def test_a_process_without_proc_is_known_by_its_id(monkeypatch):
    monkeypatch.setattr(temporary, "_state", lambda pid: ("", "0"))
    assert process_name().endswith("-0")
    assert is_gone(process_name()) is False
    assert is_gone(f"{temporary._host()}-{2**31 - 1}-0") is True


@pytest.mark.parametrize("suffix", ["", ".png", "." + "x" * 19, "." + "x" * 200])
def test_names_are_short_and_differ(tmp_path, suffix):
    paths = {temporary_path(tmp_path, suffix) for _ in range(50)}
    assert len(paths) == 50
    assert all(len(os.fsencode(path.name)) <= 80 for path in paths)
    assert {path.suffix for path in paths} == {suffix if len(suffix) <= 20 else ""}


def test_a_child_has_a_name_of_its_own(tmp_path):
    code = "from unpool.temporary import process_name; print(process_name())"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.split("-")[0] == process_name().split("-")[0]
    assert is_gone(run.stdout.strip()) is True


def test_a_temporary_folder_goes_with_all_that_is_in_it(tmp_path):
    with temporary_folder(tmp_path / "new") as folder:
        (folder / "deep").mkdir()
        (folder / "deep/file").touch()
    assert names(tmp_path / "new") == []


def test_drafts_move_together(tmp_path):
    for text in ("one", "two"):
        with drafts(tmp_path / "out", "a", "b") as folder:
            for name in "abc":
                (folder / name).write_text(text)
            assert names(tmp_path / "out")[1:] == ([] if text == "one" else ["a", "b"])
        assert names(tmp_path / "out") == ["a", "b"]
        assert (tmp_path / "out/a").read_text() == (tmp_path / "out/b").read_text() == text
