"""The ledger of an output folder: what it knows after kills, moves and changes."""

import errno
import json
import os
import subprocess
import sys

import pytest

from unpool.batch.ledger import Ledger
from unpool.temporary import process_name

OTHER = """
import sys
from pathlib import Path
from unpool.batch.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]), {"mode": "whole"})
for name in sys.argv[2:]:
    ledger.add(name, "content", {"by": "another"}, [])
"""
PROCEDURE = {"mode": "whole"}


@pytest.fixture
def another(tmp_path):
    """Let another process note items."""
    return lambda *names: subprocess.run(
        [sys.executable, "-c", OTHER, str(tmp_path), *names], check=True
    )


def files(output):
    return sorted((output / ".unpool/ledger").iterdir())


def rows(output):
    lines = [line for path in files(output) for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def write(path, text="a"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_an_item_is_known_by_name_content_and_procedure(tmp_path):
    ledger = Ledger(tmp_path, PROCEDURE)
    assert ledger.find("a", "one") is None
    ledger.add("a", "one", {"n": 1}, [])
    ledger.fail("b", "one", "too small")
    ledger = Ledger(tmp_path, PROCEDURE)
    assert ledger.find("a", "one") == {"n": 1}
    for name, content in (("a", "two"), ("b", "one"), ("c", "one")):
        assert ledger.find(name, content) is None
    assert Ledger(tmp_path, {"mode": "instance"}).find("a", "one") is None
    assert Ledger(tmp_path, dict(reversed(PROCEDURE.items()))).find("a", "one") == {"n": 1}


def test_the_last_line_of_an_item_counts(tmp_path):
    ledger = Ledger(tmp_path, PROCEDURE)
    for number in (1, 2):
        ledger.add("a", "one", {"n": number}, [])
    assert Ledger(tmp_path, PROCEDURE).find("a", "one") == {"n": 2}
    ledger.fail("a", "one", "no luck")
    assert Ledger(tmp_path, PROCEDURE).find("a", "one") is None


def test_files_must_be_as_they_were_written(tmp_path):
    results = [write(tmp_path / "deep" / name) for name in ("a.png", "b.jpg", "masks/1.png")]
    given = [*results[:2], tmp_path / "deep/masks"]
    Ledger(tmp_path, PROCEDURE).add("a", "one", {"n": 1}, given)

    def found():
        return Ledger(tmp_path, PROCEDURE).find("a", "one") is not None

    assert found()
    for path in results:
        write(path, "b")
        assert not found()
        path.unlink()
        assert not found()
        write(path)
        assert found()
    results[0].unlink()
    os.mkfifo(results[0])  # reading it would not end
    assert not found()


def test_paths_follow_the_folder(tmp_path):
    file = write(tmp_path / "old/a.png")
    record = {"mask": str(file), "all": [{"file": str(file)}], "source": "old/a.png", "n": 1}
    Ledger(tmp_path / "old", PROCEDURE).add("a", "one", record, [file])
    (tmp_path / "old").rename(tmp_path / "new")
    moved = str(tmp_path / "new/a.png")
    expected = {"mask": moved, "all": [{"file": moved}], "source": "old/a.png", "n": 1}
    assert Ledger(tmp_path / "new", PROCEDURE).find("a", "one") == expected


def test_a_line_that_was_cut_is_passed_over(tmp_path):
    ledger = Ledger(tmp_path, PROCEDURE)
    for name in "ab":
        ledger.add(name, "one", {"n": name}, [])
    (own,) = files(tmp_path)
    whole = own.read_bytes()
    own.unlink()
    path = own.with_name("000000000000-1-1.jsonl")  # of another host
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        ledger = Ledger(tmp_path, PROCEDURE)
        found = [ledger.find(name, "one") for name in "ab"]
        complete = [size >= len(whole) // 2 - 1, size >= len(whole) - 1]  # but for its end
        assert found == [{"n": n} if done else None for n, done in zip("ab", complete, strict=True)]
    ledger.add("c", "one", {"n": "c"}, [])
    assert Ledger(tmp_path, PROCEDURE).find("c", "one") == {"n": "c"}


def test_a_line_that_is_nested_without_end_is_passed_over(tmp_path):
    ledger = Ledger(tmp_path, PROCEDURE)
    ledger.add("a", "one", {"n": "here"}, [])
    (own,) = files(tmp_path)
    own.write_text(own.read_text().replace('"here"', "[" * 900 + "]" * 900))
    assert Ledger(tmp_path, PROCEDURE).find("a", "one") is None


KEY = b'{"name": "a", "content": "one", "procedure": "P", '


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff\n",
        b"[]\n",
        b"1\n",
        b"[" * 10**5 + b"\n",
        b'{"name": 1, "content": "one", "procedure": "P"}\n',
        KEY + b'"record": []}\n',
        KEY + b'"record": {}}\n',
        KEY + b'"record": {}, "files": ["/etc/hosts"]}\n',
        KEY + b'"record": {}, "files": ["../x", 1]}\n',
        KEY + b'"record": {}, "files": ["x"], "digest": 1}',
    ],
)
def test_lines_of_another_kind_are_passed_over(tmp_path, line):
    ledger = Ledger(tmp_path, PROCEDURE)
    write(tmp_path / ".unpool/ledger/x.jsonl").write_bytes(
        line.replace(b'"P"', json.dumps(ledger.procedure).encode())
    )
    assert Ledger(tmp_path, PROCEDURE).find("a", "one") is None


def test_processes_that_have_ended_are_gathered(tmp_path, another):
    another("a", "b")
    another("b", "c")
    (tmp_path / ".unpool/ledger/000000000000-1-1.jsonl").write_text("of another host")
    ledger = Ledger(tmp_path, PROCEDURE)
    assert len(files(tmp_path)) == 3
    ledger.fail("d", "content", "no luck")
    ledger.close()
    own = tmp_path / f".unpool/ledger/{process_name()}.jsonl"
    assert files(tmp_path) == sorted([tmp_path / ".unpool/ledger/000000000000-1-1.jsonl", own])
    names = [json.loads(line)["name"] for line in own.read_text().splitlines()]
    assert names == ["a", "b", "c", "d"]
    before = own.read_bytes()
    Ledger(tmp_path, PROCEDURE).close()
    assert own.read_bytes() == before


def test_other_procedures_are_kept(tmp_path, another):
    another("a")
    ledger = Ledger(tmp_path, {"mode": "instance"})
    ledger.add("a", "content", {"by": "this"}, [])
    ledger.close()
    assert len(files(tmp_path)) == 1
    assert Ledger(tmp_path, PROCEDURE).find("a", "content") == {"by": "another"}
    assert Ledger(tmp_path, {"mode": "instance"}).find("a", "content") == {"by": "this"}


def test_living_processes_keep_their_files(tmp_path):
    code = OTHER + "\nprint('ready', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path), "a"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        assert process.stdout.readline() == b"ready\n"
        ledger = Ledger(tmp_path, PROCEDURE)
        ledger.add("b", "content", {}, [])
        ledger.close()
        assert len(files(tmp_path)) == 2
        process.stdin.close()
    ledger.close()
    assert [row["name"] for row in rows(tmp_path)] == ["a", "b"]


def test_a_file_that_is_gathered_meanwhile(tmp_path, another):
    another("a")
    ledger = Ledger(tmp_path, PROCEDURE)
    files(tmp_path)[0].unlink()
    assert ledger.find("a", "content") is None


def test_a_full_disk_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "write", lambda file, data: len(data) - 1)
    with pytest.raises(OSError, match="No space left on device") as raised:
        Ledger(tmp_path, PROCEDURE).fail("a", "one", "why")
    assert raised.value.errno == errno.ENOSPC
    assert str(tmp_path / ".unpool/ledger") in raised.value.filename


def test_the_folder_for_parts_of_an_item(tmp_path):
    ledger = Ledger(tmp_path, PROCEDURE)
    folder = ledger.work_folder("clip", "one")
    assert folder == Ledger(tmp_path, PROCEDURE).work_folder("clip", "one")
    assert folder.is_relative_to(tmp_path / ".unpool")
    others = [Ledger(tmp_path, {}).work_folder("clip", "one"), ledger.work_folder("clip", "two")]
    assert len({folder, *others, ledger.work_folder("other", "one")}) == 4
    assert not folder.exists()


def test_names_need_not_be_unicode(tmp_path):
    Ledger(tmp_path, {"names": "caf\udce9"}).add("caf\udce9", "one", {"n": "caf\udce9"}, [])
    found = Ledger(tmp_path, {"names": "caf\udce9"}).find("caf\udce9", "one")
    assert found == {"n": "caf\udce9"}
