"""The program: usage, help, interrupts, errors and broken output."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import unpool
from tests.cli.files import photo, results, save
from unpool.cli import commands
from unpool.segment.segmenter import Segmenter


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["segment", "cat\0.jpg"], "got an argument with a NUL byte, which no path can have"),
        (["segmnt"], "No such command 'segmnt'.* See unpool --help"),
        (["segment"], r"Missing argument 'INPUTS\.\.\.'\. See unpool segment --help"),
        (["segment", "cat.jpg", "--wieghts", "x"], "No such option.* See unpool segment --help"),
        (["segment", "cat.jpg", "--mode", "part"], "'part' is not one of 'whole', 'instance'"),
        (["segment", "cat.jpg", "--batch", "0"], "0 is not in the range x>=1"),
        (["segment", "cat.jpg", "-o", "cat.jpg"], r"'-o' / '--output': cat\.jpg is not a folder"),
        (["evaluate", "--data", "cat.jpg"], "got cat.jpg, which is not a folder"),
        (["convert", "WEIGHTS", "cat.jpg"], "cat.jpg is not a folder"),
        (["segment", "dog.jpg"], "dog.jpg: does not exist; check the path"),
        (["segment", "cat.jpg", "--weights", "lions"], "got weights 'lions'; wanted a folder"),
        (["segment", "cat.jpg", "--weights", "WEIGHTS", "--device", "cuda:99"], "has cpu"),
        (["evaluate"], "Missing option '--data'"),
        (["evaluate", "--data", "none"], "got none, which is not a folder"),
        (["check", "none"], "none"),
        (["convert", "none", "new"], "got weights 'none'"),
        (["convert", "none", "new", "--batch-norm", "folded"], "got weights 'none'"),
        (["convert", "objects", "new", "--batch-norm", "folded"], "got batch_norm for objects"),
        (["convert", "cat.jpg", "new"], "cat.jpg, byte 0: .*wanted a whole .caffemodel"),
        (["info", "--weights", "lions"], "got weights 'lions'"),
    ],
)
def test_usage_errors_are_one_line(refused, weights, args, message):
    save("cat.jpg")
    args = [weights if arg == "WEIGHTS" else arg for arg in args]
    assert re.search(message, refused(*args))
    assert not Path("new").exists()


def test_help_and_version(run):
    code, out, err = run()
    assert (code, err) == (0, [])
    assert run("--help") == run("-h") == (code, out, err)
    assert run("--version") == (0, [f"unpool {unpool.__version__}"], [])
    for name in commands.commands:
        text = " ".join(run(name, "--help")[1])
        assert f"Example: unpool {name} " in text


@pytest.mark.parametrize(
    "args", [["segment", "--help"], ["info"], ["info", "--json"], ["info", "--weights", "WEIGHTS"]]
)
def test_help_and_info_are_quick(args, weights):
    """No application is loaded for them."""
    args = [weights if arg == "WEIGHTS" else arg for arg in args]
    code = f"import sys; from unpool.cli import main; main({args}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint({"torch", "torchmetrics", "numpy", "cv2", "PIL", "rich"})


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_interrupts(run, weights, monkeypatch, end):
    call = Segmenter.__call__
    calls = []

    def spy(self, image, **options):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), end)
        return call(self, image, **options)

    monkeypatch.setattr(Segmenter, "__call__", spy)
    for name in "abc":
        save(f"in/{name}.jpg")
    # a shell that starts a job in the background lets it ignore Ctrl-C
    ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.getsignal(signal.SIGTERM)
    try:
        code, out, err = run("segment", "in", "--weights", weights, "--json")
    finally:
        signal.signal(signal.SIGINT, ctrl_c)
    assert (code, len(out), err) == (130, 1, ["unpool: interrupted"])
    assert results("segmented") == {"a.png", "a.overlay.jpg"}
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_name_that_is_too_long_fails_alone(run, weights):
    save(f"in/{'x' * 250}.jpg")
    save("in/cat.jpg")
    code, out, _ = run("segment", "in", "--weights", weights, "--json")
    assert code == 3
    assert ["error" in json.loads(line) for line in out] == [False, True]
    assert "File name too long" in out[1]
    assert results("segmented") == {"cat.png", "cat.overlay.jpg"}


def test_out_of_memory_for_one_image(run, weights, monkeypatch):
    def grow(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    monkeypatch.setattr(Segmenter, "__call__", grow)
    save("cat.jpg")
    code, _, err = run("segment", "cat.jpg", "--weights", weights)
    assert code == 3
    cure = "out of memory; use smaller images or a smaller batch"
    assert err == [f"unpool: cat.jpg: {cure}"]


def test_a_full_disk_ends_the_work(run, weights, monkeypatch):
    def fail(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    save("in/a.jpg")
    save("in/b.jpg")
    code, out, err = run("segment", "in", "--weights", weights)
    assert (code, out) == (2, [])
    assert re.fullmatch(r"unpool: segmented/.*jsonl: No space left on device", "".join(err))
    assert results("segmented") == set()


def test_a_disk_that_is_full_or_read_only(run, refused, weights, small_disk):
    for name in "abc":
        save(f"in/{name}.jpg", photo(400, 300))
    command = ["segment", "in", "--weights", weights, "-o", small_disk / "out"]
    (small_disk / "filled").write_bytes(bytes(40_000))
    code, _, err = run(*command)
    assert (code, len(err)) == (2, 1)
    assert err[0].endswith(": No space left on device")
    assert err[0].startswith(f"unpool: {small_disk}/out/")
    for file in results(str(small_disk / "out")):  # whole, if it is there
        with Image.open(small_disk / "out" / file) as image:
            image.load()
    (small_disk / "filled").unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert "out, which may not be written to; choose another with -o" in refused(*command)
    for args in (
        ["convert", weights, small_disk / "new"],
        ["export", "--weights", weights, "-o", small_disk / "new/net.pt2"],
        ["visualize", "project", "in", "--weights", weights, "-o", small_disk / "new"],
    ):
        message = refused(*args)
        assert str(small_disk / "new") in message
        assert "Read-only file system" in message


def test_a_bug_shows_its_traceback(run, weights, monkeypatch):
    monkeypatch.setattr(Segmenter, "__call__", lambda *_, **__: 1 / 0)
    save("cat.jpg")
    with pytest.raises(ZeroDivisionError):
        run("segment", "cat.jpg", "--weights", weights)


def test_file_names_that_are_not_unicode(run, weights):
    name = os.fsdecode(b"caf\xe9.jpg")
    try:
        save(name)
    except OSError:
        pytest.skip("this file system wants names to be text")
    code, out, _ = run("segment", name, "--weights", weights, "--json")
    assert (code, json.loads(out[0])["source"]) == (0, name)
    assert run("segment", name, "--weights", weights)[1][0].startswith(r"(skipped) caf\udce9.jpg: ")


def test_a_bar_on_a_terminal_and_json_in_a_pipe(run, weights, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    save("cat.jpg")
    code, out, err = run("segment", "cat.jpg", "--weights", weights, "--json")
    assert (code, len(out)) == (0, 1)
    assert json.loads(out[0])["source"] == "cat.jpg"
    assert "segmenting" in "".join(err)
    assert run("segment", "cat.jpg", "--weights", weights, "--json", "--quiet")[2] == []


def test_the_package_is_a_program(run):
    done = subprocess.run(
        [sys.executable, "-m", "unpool", "info", "--weights", "lions"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("unpool: got weights 'lions'; wanted a folder")
