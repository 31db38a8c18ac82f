"""The program with streams that are closed, full, or without a reader."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.files import save

UNPOOL = [sys.executable, "-c", "import sys; from unpool.cli import main; sys.exit(main())"]
BROKEN = "unpool: in/dog.jpg: is empty (0 bytes); copy or download it again"
FULL = ["unpool: standard output: No space left on device"]


@pytest.fixture
def shell(run, weights):
    """Run a command line in a shell, with `unpool` for the program and WEIGHTS for small ones."""
    save("in/cat.jpg")
    Path("in/dog.jpg").write_bytes(b"")
    program = shlex.join(UNPOOL)

    def shell(text):
        text = re.sub(r"\bunpool\b", lambda _: program, text.replace("WEIGHTS", weights))
        done = subprocess.run(text, shell=True, check=False, capture_output=True, text=True)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()

    return shell


def test_closed_streams(shell, run, weights):
    """They are silent, and take no part in what is written."""
    assert run("segment", "in", "--weights", weights, "-o", "open")[0] == 3
    assert shell("unpool segment in --weights WEIGHTS -o out >&-") == (3, [], [BROKEN])
    assert shell("unpool segment in --weights WEIGHTS -o all <&- >&- 2>&-") == (3, [], [])
    for folder in ("out", "all"):
        for name in ("cat.png", "cat.overlay.jpg"):
            assert Path(folder, name).read_bytes() == Path("open", name).read_bytes()


def test_standard_input_is_closed(shell):
    code, out, errors = shell("unpool segment - --weights WEIGHTS <&-")
    assert (code, out, len(errors)) == (3, ["0 of 1 segmented, into segmented"], 1)
    assert errors[0].startswith("unpool: -: ")
    assert "is empty" in errors[0]


def test_closed_streams_of_users_errors(shell):
    line = ["unpool: got weights 'lions'; wanted a folder"]
    for closed in ("", "<&-", ">&-", "<&- >&-"):
        code, out, err = shell(f"unpool info --weights lions {closed}")
        assert (code, out, [text[: len(line[0])] for text in err]) == (2, [], line)
    for closed in ("2>&-", "<&- >&- 2>&-", "2>/dev/full"):
        assert shell(f"unpool info --weights lions {closed}") == (2, [], [])
    assert shell("unpool --version >&-") == shell("unpool info >&- 2>&-") == (0, [], [])


def test_a_reader_that_has_gone(shell):
    code, _, err = shell("(unpool --help; echo $? >code) | true; exit $(cat code)")
    assert (code, err) == (130, [])
    code, _, err = shell("(unpool info --json; echo $? >code) | true; exit $(cat code)")
    assert (code, err) == (130, [])
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*UNPOOL, "segment"], check=False, stderr=writing, stdout=writing)
    os.close(writing)
    assert done.returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is full")
def test_output_to_a_full_disk(shell):
    for command in ("--help", "info --json", "info --weights WEIGHTS"):
        assert shell(f"unpool {command} >/dev/full") == (2, [], FULL)
    assert shell("unpool --version >/dev/full 2>/dev/full") == (2, [], [])
    assert shell("unpool info 2>/dev/full")[::2] == (0, [])
    segment = "unpool segment in --weights WEIGHTS"
    assert shell(f"{segment} >/dev/full") == (2, [], FULL)
    code, out, _ = shell(f"{segment} 2>/dev/full")
    assert (code, out[-1]) == (3, "1 of 2 segmented, into segmented")


def test_what_was_printed_before_comes_first(run):
    code = "print('first'); from unpool.cli import main; main(['--version']); print('last')"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["first", "unpool", "last"]


ECHO = (
    "import click, sys; from unpool import cli\n"
    "cli.commands.invoke = lambda _: click.echo('x' * 10**6)\nsys.exit(cli.main(['info']))"
)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is full")
def test_lines_longer_than_a_buffer():
    """What is lost is known, even if no buffer keeps it."""
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", ECHO]
        done = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.splitlines()) == (2, FULL)


def test_a_pipe_that_does_not_block():
    """As some programs leave the pipes of their children."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with subprocess.Popen([sys.executable, "-c", ECHO], stdout=writing) as process:
        os.close(writing)
        with open(reading, "rb") as file:
            assert len(file.read()) == 10**6 + 1
    assert process.returncode == 0
