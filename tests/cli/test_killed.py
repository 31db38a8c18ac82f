"""Folders of images whose run is killed and resumed: every image is done, and noted, once."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.cli.files import hashes, photo, save

CHILD = """
import sys, time
import click
from pathlib import Path
from unpool.cli.images import each_image, find_inputs, with_suffixes
from unpool.files import write_bytes

def make(source, stem, progress):
    image = source.read()
    with open("begun", "a") as file:
        file.write(f"{source.name}\\n")
    for suffix in (".overlay.jpg", ".png"):
        write_bytes(f"{stem}{suffix}", image.tobytes())
        time.sleep(0.002)
    return {"mask": f"{stem}.png", "shade": int(image.mean())}

with click.Context(click.Command("shade")):
    found = find_inputs(["in"], Path("out"), with_suffixes(".png", ".overlay.jpg"))
    sys.exit(each_image(found, Path("out"), make, str, "", as_json=True, quiet=True))
"""


def make_images(count):
    """Images of which every tenth is broken; returns the names of the good ones."""
    for i in range(count):
        path = save(f"in/{i % 7}/{i:03d}.jpg", photo(seed=i))
        if i % 10 == 3:
            path.write_bytes(path.read_bytes()[:300] if i % 20 == 3 else b"no image")
    return {f"{i % 7}/{i:03d}" for i in range(count) if i % 10 != 3}


def rows():
    """The lines of all ledgers, and the number of ledgers; a cut line is passed over."""
    found, files = [], list(Path("out/.unpool/ledger").glob("*.jsonl"))
    for path in files:
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                found.append(json.loads(line))
    return found, len(files)


def check_kills(command, count, kills=5):
    """Kill a command at random times, end it, and compare the ledger with what was to be done."""
    good = make_images(count)
    seed = time.time_ns() % 1_000_000
    chance = random.Random(seed)
    print(f"seed {seed}")
    finished, skipped = Counter(), 0
    for stop in sorted(chance.sample(range(1, count - 1), kills)):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            for number, _ in enumerate(child.stdout, 1):
                if number == stop:
                    break
            time.sleep(chance.uniform(0, 0.02))
            child.kill()
        assert child.returncode == -signal.SIGKILL
        known, _ = rows()
        before, finished = finished, Counter(r["name"] for r in known if "record" in r)
        print(f"killed after {stop} lines: {finished.total()} done")
        assert not before - finished  # what is finished stays so
        assert max(finished.values(), default=1) == 1  # and is not done again
    for path in Path("out").rglob("*"):  # nothing is half
        if path.suffix in (".png", ".jpg") and not path.name.startswith("."):
            assert path.stat().st_size > 0
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (3, "")
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(printed) == count
    skipped = [r["source"] for r in printed if r.get("skipped")]
    assert Counter(skipped) == {f"in/{name}.jpg": 1 for name in finished}
    known, ledgers = rows()
    assert ledgers == 1
    assert Counter(r["name"] for r in known if "record" in r) == dict.fromkeys(good, 1)
    failed = {r["name"]: r["error"] for r in known if "error" in r}
    assert len(failed) == len(known) - len(good) == count - len(good)
    assert {r["source"]: r["error"] for r in printed if "error" in r} == {
        f"in/{name}.jpg": error for name, error in failed.items()
    }
    expected = {f"{name}{end}" for name in good for end in (".png", ".overlay.jpg")}
    there = {p.relative_to("out").as_posix() for p in Path("out").rglob("*") if p.is_file()}
    assert {name for name in there if not name.startswith(".unpool/")} == expected
    return len(skipped)


def test_forty_images_killed_five_times(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_kills([sys.executable, "-c", CHILD], 40)
    begun = Counter(Path("begun").read_text().split())
    assert begun.total() <= 36 + 5  # at most the image that was worked on is begun again
    before = hashes("out")
    assert subprocess.run([sys.executable, "-c", CHILD], check=False).returncode == 3
    assert Counter(Path("begun").read_text().split()) == begun
    names = {path for path in before if ".unpool" not in path}
    assert {k: v for k, v in hashes("out").items() if k in names} == {k: before[k] for k in names}


@pytest.mark.slow
def test_five_hundred_images_killed_five_times(run, weights):
    command = [sys.executable, "-m", "unpool", "segment", "in", "-o", "out", "--json", "--quiet"]
    check_kills([*command, "--weights", weights], 500)
    killed = {path: sha for path, sha in hashes("out").items() if ".unpool" not in path}
    assert run("segment", "in", "-o", "whole", "--weights", weights, "--quiet")[0] == 3
    whole = {path: sha for path, sha in hashes("whole").items() if ".unpool" not in path}
    assert {path.replace("whole/", "out/"): sha for path, sha in whole.items()} == killed
