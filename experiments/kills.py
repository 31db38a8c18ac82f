"""Runs over many images that are killed at random and resumed: each good image is done once.

Makes IMAGES small images of several sizes, 3 % of them broken and two that kill whoever works on
them, as the out-of-memory killer does. Kills KILLS times, in turn a worker, the whole process
group of the run (as a power cut) and the process that was started; where the run has ended, cuts
the last line of the ledger and resumes it. Then compares with a plain loop over the same images,
without those two: masks byte by byte, and the ledger, which has each good image once.

usage: python -m experiments.kills FOLDER [--engine plain|processes|shards|ray] [--images 2000]
                                   [--kills 10]
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

RESTORE = ("-m", "unpool", "restore", "--psf", "gaussian:1", "--method", "wiener", "--no-compare")
ENGINES = {
    "plain": [[]],
    "processes": [["--workers", "2"]],
    "shards": [["--shard", "1/2"], ["--shard", "2/2", "--workers", "1"]],
    "ray": [["--workers", "2", "--engine", "ray"]],
}
POISON = """
import os, sys
opened = set()
def hook(event, args):  # the file is read once for its digest, and again to work on it
    if event == "open" and str(args[0]).endswith("poison.png") and "r" in str(args[1]):
        if str(args[0]) in opened:
            os.kill(os.getpid(), 9)
        opened.add(str(args[0]))
sys.addaudithook(hook)
"""
"""A `sitecustomize` for all Python processes of a run."""


def make_images(folder: Path, count: int) -> None:
    """Images of which 3 % are broken, and two kill."""
    seeds = np.random.default_rng(0)
    for i in range(count):
        side = (24, 40, 56, 72)[i % 4]
        image = seeds.integers(0, 256, (side, side + 8, 3), dtype=np.uint8)
        name = f"{i % 10}/{i:05}" + (".poison" if i in (count // 3, count // 2) else "")
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        if i % 33 == 7:
            path.write_bytes(path.read_bytes()[:60] if i % 2 else b"no image")


def environment(folder: Path) -> dict[str, str]:
    """The variables of a run, in which images called poison kill."""
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site/sitecustomize.py").write_text(POISON)
    places = [str(folder / "site"), *filter(None, sys.path)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places)}


def children(pid: int) -> list[int]:
    """The workers of a process that are started by `multiprocessing` or by Ray."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdigit() or int((entry / "stat").read_text().split()[3]) < 1:
                continue
            command = (entry / "cmdline").read_bytes()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        spawned = b"spawn_main" in command and b"resource_tracker" not in command
        if (spawned and parent == pid) or b"ray::MapWorker" in command or b"ray::_Actor" in command:
            found.append(int(entry.name))
    return found


def alive(pid: int) -> bool:
    """Whether a process has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def rows(output: Path) -> list[dict[str, object]]:
    """The whole lines of all ledgers."""
    found = []
    for path in output.glob(".unpool/ledger/*.jsonl"):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                with suppress(ValueError):  # a line that was cut, and the next one behind it
                    found.append(json.loads(line))
    return found


def digests(output: Path) -> dict[str, str]:
    """The results, without the hidden folder."""
    files = (p for p in output.rglob("*") if p.is_file() and ".unpool" not in str(p))
    return {p.relative_to(output).as_posix(): sha256(p.read_bytes()).hexdigest() for p in files}


def cut_last_line(output: Path) -> bool:
    """Cut the newest ledger within its last line; whether there was one."""
    paths = sorted(output.glob(".unpool/ledger/*.jsonl"), key=lambda path: path.stat().st_mtime)
    lines = paths[-1].read_bytes().splitlines(keepends=True) if paths else []
    if not lines or not lines[-1].endswith(b"\n"):
        return False
    paths[-1].write_bytes(b"".join(lines)[: -len(lines[-1]) // 2])
    return True


def kill_and_resume(
    commands: Sequence[Sequence[str]], folder: Path, kills: int, seed: int, longest: float = 1800
) -> dict[str, int]:
    """Run commands over FOLDER/in into FOLDER/out, kill them at random, and check what is left.

    Args:
        commands: run at the same time.
        folder: with the images in `in`.
        kills: how many.
        seed: of the choice of times.
        longest: seconds that a run may take.

    Returns:
        Numbers of images and kills.
    """
    chance, variables, output = random.Random(seed), environment(folder), folder / "out"
    errors = folder / "errors.txt"
    images = sorted(
        p.relative_to(folder / "in").with_suffix("") for p in (folder / "in").rglob("*.png")
    )
    poison = {name.as_posix() for name in images if name.suffix == ".poison"}
    counts = Counter[str]()
    total = len(images) + 1

    def done() -> int:
        ledgers = output.glob(".unpool/ledger/*.jsonl")
        return sum(path.read_bytes().count(b"\n") for path in ledgers if path.exists())

    def start() -> list[subprocess.Popen[bytes]]:
        options = {"env": variables, "cwd": folder, "stdout": subprocess.DEVNULL}
        with errors.open("wb") as file:
            return [
                subprocess.Popen(c, stderr=file, start_new_session=True, **options)  # type: ignore[call-overload]
                for c in commands
            ]

    def wait_for(goal: int) -> None:
        end = time.monotonic() + longest
        while done() < goal and any(process.poll() is None for process in running):
            if time.monotonic() > end:
                raise TimeoutError(f"{done()} of {total} done, {goal} expected")
            time.sleep(0.2)

    running: list[subprocess.Popen[bytes]] = []
    for kill in range(kills):
        kind = ("worker", "group", "driver")[kill % 3]
        if all(process.poll() is not None for process in running):
            running, counts["runs"] = start(), counts["runs"] + 1
        wait_for(done() + chance.randint(1, max(1, (total - done()) // (kills - kill + 1))))
        time.sleep(chance.uniform(0, 0.05))
        workers = [worker for process in running for worker in children(process.pid)]
        counts[kind] += 1
        if kind == "worker" and workers:
            os.kill(chance.choice(workers), signal.SIGKILL)
            continue
        for process in running:
            if process.poll() is None:
                (os.killpg if kind == "group" else os.kill)(process.pid, signal.SIGKILL)
            process.wait()
        end = time.monotonic() + 300  # a worker that is just starting notices it at the end of that
        while any(alive(worker) for worker in workers):
            assert time.monotonic() < end, "a worker outlived the run"
            time.sleep(0.05)
        before = Counter(str(row["name"]) for row in rows(output) if "record" in row)
        assert max(before.values(), default=1) == 1, "an image was done twice"
        counts["cut"] += cut_last_line(output)
    for _ in range(3 + len(poison)):  # a plain loop dies over each poison once
        if all(process.poll() is not None for process in running):
            running, counts["runs"] = start(), counts["runs"] + 1
        codes = [process.wait(longest) for process in running]
        if all(code in (0, 3) for code in codes):
            break
        assert -signal.SIGKILL in codes, errors.read_text()
    finished = Counter(str(row["name"]) for row in rows(output) if "record" in row)
    failed = {str(row["name"]): str(row["error"]) for row in rows(output) if "error" in row}
    assert max(finished.values()) == 1, "an image was done twice"
    given_up = {name for name, error in failed.items() if "given up" in error}
    assert given_up == poison, (given_up, poison)
    assert len(finished) + len(failed) == len(images), "an image is missing"
    counts |= {"images": len(images), "done": len(finished), "failed": len(failed)}
    return dict(counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--engine", choices=ENGINES, default="processes")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    given = parser.parse_args()
    folder = given.folder.absolute()
    make_images(folder / "in", given.images)
    command = [sys.executable, *RESTORE, "in", "-o"]
    runs = [[*command, "out", *options] for options in ENGINES[given.engine]]
    start = time.monotonic()
    found = kill_and_resume(runs, folder, given.kills, given.seed)
    seconds = time.monotonic() - start
    for path in (folder / "in").rglob("*.poison.png"):
        path.unlink()
    subprocess.run([*command, "plain", "--quiet"], cwd=folder, stderr=subprocess.DEVNULL)
    assert digests(folder / "out") == digests(folder / "plain"), (
        "results differ from a plain loop's"
    )
    print(
        json.dumps({"engine": given.engine, "seed": given.seed, **found, "seconds": round(seconds)})
    )


if __name__ == "__main__":
    main()
