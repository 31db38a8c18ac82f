"""Work on one item: what it returns, and what it leaves in the folder."""

import pickle
import warnings
from pathlib import Path, PurePosixPath

import pytest

from unpool.batch.ledger import Ledger
from unpool.batch.work import ATTEMPTS, Item, Work
from unpool.errors import ImageWarning
from unpool.files import write_bytes
from unpool.vision.sources import Source


def make(source, stem, progress):
    text = source.path.read_text()
    if text == "bad":
        raise ValueError("bad text")
    if text == "bug":
        raise KeyError("bug")
    if text == "guess":
        warnings.warn("read by a guess", ImageWarning, stacklevel=1)
    write_bytes(f"{stem}.out", text.upper().encode())
    return {"file": f"{stem}.out"}


def explain(error):
    return str(error) if isinstance(error, ValueError) else ""


@pytest.fixture
def item(tmp_path):
    def item(text, name="a", ledger=None):
        path = tmp_path / f"{name}.txt"
        path.write_text(text)
        return Item(Source(path, PurePosixPath(name)), ledger and ledger.last(name))

    return item


@pytest.fixture
def work(tmp_path):
    return Work(Ledger(tmp_path / "out", {"n": 1}), "run", make, explain)


def begun(work):
    folder = work.ledger.output / ".unpool/begun"
    return list(folder.iterdir()) if folder.exists() else []


def test_a_finished_item_is_skipped(work, item):
    outcome = work(item("one"))
    assert (work.ledger.output / "a.out").read_text() == "ONE"
    assert outcome.record.pop("seconds") < 10
    file = str(work.ledger.output / "a.out")
    assert outcome.record == {"source": str(outcome.item.source), "file": file}
    assert outcome.line["record"]["file"] == file
    work.ledger.append(outcome.line)
    later = Ledger(work.ledger.output, {"n": 1})
    again = work(item("one", ledger=later))
    assert again.record["skipped"]
    assert again.line is None
    assert "skipped" not in work(item("two", ledger=later)).record
    (work.ledger.output / "a.out").write_text("changed")
    assert "skipped" not in work(item("one", ledger=later)).record
    assert not begun(work)


def test_errors_of_the_item_are_records_and_others_are_raised(work, item):
    outcome = work(item("bad"))
    assert outcome.record == {"source": str(outcome.item.source), "error": "bad text"}
    assert outcome.line["error"] == "bad text"
    assert "attempts" not in outcome.line
    with pytest.raises(KeyError):
        work(item("bug"))
    assert not begun(work)


def test_warnings_of_images_are_in_the_record(work, item):
    assert work(item("guess")).record["warnings"] == ["read by a guess"]


def test_an_item_that_was_begun_twice_in_the_same_run_is_given_up(work, item):
    ledger = work.ledger
    for run, count in (("earlier", 0), ("run", 0), ("earlier", 1), ("run", 1)):
        assert ledger.begin("a", run) == count
    assert ledger.unended(["a", "b"]) == {"a"}
    outcome = work(item("one"))
    assert outcome.record["error"].startswith(f"ended the process that worked on it {ATTEMPTS}")
    assert not (ledger.output / "a.out").exists()
    assert ledger.unended(["a", "b"]) == set()
    ledger.append(outcome.line)
    later = Ledger(ledger.output, {"n": 1})
    assert work(item("one", ledger=later)).record["error"] == outcome.record["error"]
    assert "error" not in work(item("two", ledger=later)).record  # other content
    redo = Work(ledger, "run", make, explain, redo=True)
    assert "error" not in redo(item("one", ledger=later)).record


def test_it_is_sent_to_other_processes_without_what_was_read(work, item):
    for number in range(200):
        work.ledger.add(f"item {number}", "content", {}, [])
    size = len(pickle.dumps(work))
    assert work.ledger.last("item 7") is not None  # reads the ledger
    assert len(pickle.dumps(work)) == size < 1000
    assert pickle.loads(pickle.dumps(work))(item("one")).record["file"].endswith("a.out")


def test_a_file_that_is_gone_is_an_error_of_the_item(work, tmp_path):
    source = Source(Path(tmp_path / "none.txt"), PurePosixPath("none"))
    with pytest.raises(FileNotFoundError):  # by this `explain`, it ends the run
        work(Item(source, None))
