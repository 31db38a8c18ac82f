"""Whichever engine works on the images, results and records are those of the plain loop."""

import json
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.kills import kill_and_resume, make_images
from tests.batch import shade
from unpool.batch import engines

COMMAND = [sys.executable, "-m", "tests.batch.shade", "in", "-o", "out"]


def save(name, value):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 5, 3), value, np.uint8)).save(name)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the command over nine images; gives the code, the records and the lines of errors."""
    monkeypatch.chdir(tmp_path)
    for i in range(7):
        save(f"in/{i}.png", 20 * i)
    save("in/omen.png", 13)
    Path("in/broken.png").write_text("no image")

    def run(*args):
        code = shade.main("in", "-o", "out", "--json", "--quiet", *args)
        out, err = capsys.readouterr()
        return code, [json.loads(line) for line in out.splitlines()], err.splitlines()

    return run


def texts(folder="out"):
    return {path.name: path.read_text() for path in Path(folder).rglob("*.txt")}


def timeless(records):
    found = [{k: v for k, v in record.items() if k != "seconds"} for record in records]
    return sorted(found, key=lambda record: record["source"])


def test_processes_do_what_the_plain_loop_does(run):
    code, records, err = run()
    assert (code, err, len(records)) == (3, [], 9)
    plain = texts()
    assert len(plain) == 7
    code, again, err = run("-o", "other", "--workers", "2")
    assert (code, err) == (3, [])
    assert texts("other") == plain
    moved = json.loads(json.dumps(timeless(records)).replace("out/", "other/"))
    assert timeless(again) == moved
    assert {r["error"] for r in again if "error" in r} >= {"got a bad omen; pass --engine ray"}
    assert not list(Path("other/.unpool/begun").iterdir())
    code, again, _ = run("-o", "other", "--workers", "1")
    assert sum("skipped" in record for record in again) == 7


def test_poison_is_given_up_and_stays_so(run):
    save("in/3.poison.png", 0)
    save("in/9.poison.png", 0)
    code, records, err = run("--workers", "2")
    assert (code, err, len(records), len(texts())) == (3, [], 11, 7)
    errors = {r["source"]: r["error"] for r in records if "error" in r}
    assert errors["in/3.poison.png"] == errors["in/9.poison.png"]
    assert errors["in/3.poison.png"].startswith("ended the process that worked on it 2 times")
    code, records, err = run()  # would end this process if it were tried
    assert {r["source"]: r["error"] for r in records if "error" in r} == errors


def test_a_bug_ends_the_run_with_its_place(run):
    save("in/bug.png", 0)
    with pytest.raises(KeyError, match="a bug") as raised:
        run("--workers", "1")
    assert "shade.py" in "".join(raised.value.__notes__)


def test_processes_that_die_at_the_start_end_the_run(run, monkeypatch):
    monkeypatch.setattr(engines, "_serve", os._exit)  # wants another number of arguments
    code, records, err = run("--workers", "1")
    assert (code, records) == (2, [])
    assert "the worker processes die before they are ready, the last by exit code 1" in err[-1]


def test_shards_are_all_images_once(run):
    _, records, _ = run()
    parts = [run("-o", "other", "--shard", f"{i}/4")[1] for i in (1, 2, 3, 4)]
    assert [len(part) for part in parts] == [3, 2, 2, 2]
    assert texts("other") == texts()
    names = sorted(record["source"] for part in parts for record in part)
    assert names == sorted(record["source"] for record in records)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_shards_are_counted_from_one(run, text):
    code, records, err = run("--shard", text)
    assert (code, records) == (2, [])
    assert f"got {text!r}; wanted 1/16 to 16/16" in err[0]


@pytest.mark.parametrize("options", [[[]], [["--workers", "2"]]], ids=["plain", "processes"])
def test_killed_runs_go_on(tmp_path, options):
    make_images(tmp_path / "in", 60)
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    found = kill_and_resume([[*COMMAND, *more] for more in options], tmp_path, 3, seed)
    assert (found["images"], found["failed"]) == (60, 4)
    assert len(texts(tmp_path / "out")) == found["done"] == 56


def test_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {2, 3, 5, 7}, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    for allowed, count in (("1", 1), ("3", 3), ("16", 4), ("", 4), ("2,4", 4), ("0", 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", allowed)
        assert engines.cores() == count
