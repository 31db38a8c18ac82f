"""How far a run is, while it goes on and at its end."""

import pytest

from unpool.batch.ledger import Ledger
from unpool.batch.status import status, write_manifest
from unpool.errors import DataError
from unpool.vision.sources import Shard


@pytest.fixture
def now(monkeypatch):
    """The time, set by hand."""
    time = [1000.0]
    monkeypatch.setattr("time.time", lambda: time[0])
    return lambda seconds: time.__setitem__(0, time[0] + seconds)


def test_a_run_that_goes_on(tmp_path, now):
    ledger = Ledger(tmp_path, {"n": 1})
    names = [f"{i}" for i in range(20)]
    write_manifest(ledger, "shade", names)
    empty = {"command": "shade", "images": 20, "done": 0, "failed": 0, "given_up": 0, "left": 20}
    unknown = {"rate": None, "seconds_left": None, "seconds_since_last": None, "shards": None}
    assert status(tmp_path) == {**empty, **unknown, "failures": []}
    for name in names[:8]:
        now(2)
        ledger.add(name, "content", {}, [])
    now(2)
    ledger.fail("8", "content", "no luck")
    now(2)
    ledger.append(ledger.failed("9", "content", "kills", 2))
    ledger.add("of another run", "content", {}, [])
    now(100)
    assert status(tmp_path) == {
        **empty,
        **{"done": 8, "failed": 2, "given_up": 1, "left": 10},
        **{"rate": 0.5, "seconds_left": 20, "seconds_since_last": 100, "shards": None},
        "failures": [{"name": "8", "error": "no luck"}, {"name": "9", "error": "kills"}],
    }
    ledger.add("8", "content", {}, [])
    assert status(tmp_path)["done"] == 9


def test_the_rate_is_that_of_the_last_minutes(tmp_path, now):
    ledger = Ledger(tmp_path, {"n": 1})
    write_manifest(ledger, "shade", [str(i) for i in range(200)])
    for i in range(100):
        now(100 if i < 10 else 10)
        ledger.add(str(i), "content", {}, [])
    assert status(tmp_path)["rate"] == 0.1


def test_shards_are_counted_together(tmp_path, now):
    ledger = Ledger(tmp_path, {"n": 1})
    write_manifest(ledger, "shade", ["old"])
    for number, names in ((1, "abc"), (3, "de")):
        now(1)
        write_manifest(ledger, "shade", names, Shard(number, 4))
    ledger.add("d", "content", {}, [])
    found = status(tmp_path)
    assert (found["images"], found["done"], found["shards"]) == (5, 1, [2, 4])
    now(1)
    write_manifest(Ledger(tmp_path, {"n": 2}), "other", ["a"])  # a later run
    assert (status(tmp_path)["command"], status(tmp_path)["done"]) == ("other", 0)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(DataError, match="no run has left its notes"):
        status(tmp_path)
    (tmp_path / ".unpool/manifest").mkdir(parents=True)
    (tmp_path / ".unpool/manifest/x.jsonl").write_text("[1]\n{}\n\n")
    with pytest.raises(DataError, match="no run has left its notes"):
        status(tmp_path)
