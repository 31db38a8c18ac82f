"""Run damaged inputs through a parser in a child process, which may crash, hang or fill the memory.

The child makes its inputs itself, from the parser's name, a seed and a number, and reports each.
The parent kills a child that takes too long, saves the input, and goes on with a fresh child.

What is measured: the memory of an input is the child's highest resident set (VmHWM of
/proc/PID/status, which the child resets before each input) less that before the first one. Its time
is the processor time of the child, so that a busy machine makes no hang; a child that waits is
killed after a minute on the clock. Other faults are a program that is started, the network, a
message of more than one line, a changed input, and anything that a library prints.
"""

import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.parsers import PARSERS, Parser, make_input, require_line, valid_files
from tests.fuzz.seeds.common import Files
from unpool.errors import UnpoolError

_PROGRAMS = ("os.exec", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn", "subprocess.Popen")
_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.bind")


@dataclass
class Counts:
    """What became of the inputs of a parser."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    faults: Counter[str] = field(default_factory=Counter)  #: by kind and place
    saved: list[Path] = field(default_factory=list)  #: the inputs of faults
    peak: int = 0  #: bytes
    slowest: float = 0.0  #: seconds

    def number(self, *kinds: str) -> int:
        """The number of faults of some kinds: crash, hang, memory ..."""
        return sum(n for name, n in self.faults.items() if name.startswith(kinds))


def fuzz(
    name: str,
    seed: int = 0,
    *,
    count: int | None = None,
    seconds: float = 0,
    output: Path | None = None,
) -> Counts:
    """Run inputs through a parser: `count`, or as many as there are in `seconds`.

    Args:
        name: of the parser, in `PARSERS`.
        seed: of the damage.
        count: of inputs; the seconds do not count then.
        seconds: on the clock.
        output: the folder for inputs that make a fault, at most three of a kind.
    """
    counts, end = Counts(), time.monotonic() + seconds
    number = 0
    while number < count if count is not None else time.monotonic() < end:
        with _Child(name, seed, number, count) as child:
            for report in child.reports():
                number = report["number"] + 1
                _add(counts, report)
                if output is not None:
                    _keep(counts, report, child, output / f"{name}-{seed}-{report['number']}")
                if count is None and time.monotonic() > end:
                    break
    return counts


def _add(counts: Counts, report: dict[str, Any]) -> None:
    counts.inputs += 1
    counts.peak = max(counts.peak, report.get("peak", 0))
    counts.slowest = max(counts.slowest, report.get("seconds", 0.0))
    match report["outcome"]:
        case "accepted":
            counts.accepted += 1
        case "refused":
            counts.refused += 1
        case kind:
            counts.faults[kind] += 1


def _keep(counts: Counts, report: dict[str, Any], child: "_Child", target: Path) -> None:
    """Copy an input that makes a fault, at most three of a kind."""
    if 1 <= counts.faults[kind := report["outcome"]] <= 3:
        files = child.faults / str(report["number"])
        shutil.copytree(files if files.exists() else child.files, target, dirs_exist_ok=True)
        trace = report.get("trace", "").encode("utf-8", "backslashreplace")
        (target / "outcome.txt").write_bytes(f"{kind}\n".encode() + trace)
        counts.saved.append(target)


class _Child:
    """A child process, from its start to the first input that it does not survive."""

    def __init__(self, name: str, seed: int, first: int, count: int | None) -> None:
        self._parser = PARSERS[name]
        self._home = Path(tempfile.mkdtemp(prefix="fuzz-"))
        self.files, self.faults = self._home / "files", self._home / "faults"
        self._errors = self._home / "stderr"
        arguments = [name, str(seed), str(first), str(count or 0), str(self.files)]
        module = "tests.fuzz.faulty" if name == "faulty" else "tests.fuzz.harness"
        with self._errors.open("wb+") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-m", module, *arguments],
                bufsize=0,  # so that `select` knows of every line
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=Path(__file__).parents[2],
                start_new_session=True,  # so that its own children are killed with it
            )

    def __enter__(self) -> "_Child":
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        shutil.rmtree(self._home, ignore_errors=True)

    def reports(self) -> Iterator[dict[str, Any]]:
        """The outcome of each input, ended by one that kills the child."""
        begun: dict[str, Any] | None = None
        while True:
            try:
                line = self._line(begun is not None)
                kind = ""
            except TimeoutError as error:
                self._kill()
                kind, line = str(error), b""
            if not line:
                code, trace = self._process.wait(), self._errors.read_text(errors="replace")
                if begun is None:  # it could not start, or had nothing more to do
                    if code:
                        raise RuntimeError(f"the child of the fuzzer failed:\n{trace}")
                    return
                kind = kind or (f"crash by signal {-code}" if code < 0 else f"crash, exit {code}")
                yield {**begun, "outcome": f"{kind}{_place(trace)}", "trace": trace[-4000:]}
                return
            report = json.loads(line)
            if "outcome" not in report:
                begun = report
            else:
                yield report
                begun = None

    def _line(self, running: bool) -> bytes:
        """The next line of the child; a `TimeoutError` for an input that takes too long."""
        assert self._process.stdout is not None
        begun, used = time.monotonic(), self._processor_time()
        while not select.select([self._process.stdout], [], [], 0.2)[0]:
            slow = self._processor_time() - used > self._parser.seconds
            large = status(self._process.pid, "VmRSS") > self._parser.memory + 4 * 2**30
            if running and (slow or large or time.monotonic() - begun > self._parser.waiting):
                os.kill(self._process.pid, signal.SIGABRT)  # writes where it is
                time.sleep(0.5)
                raise TimeoutError("memory: kept growing" if large else "hang")
        return self._process.stdout.readline()

    def _processor_time(self) -> float:
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return sum(map(int, stat[11:15])) / os.sysconf("SC_CLK_TCK")

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _place(trace: str) -> str:
    """The innermost line of this package in what faulthandler wrote."""
    for line in trace.splitlines():
        if "/unpool/" in line and "File" in line:
            path, _, rest = line.strip().removeprefix("File ").partition(", line ")
            return f" in {Path(path.strip(chr(34))).name}:{rest.split()[0]}"
    return ""


# In the child -------------------------------------------------------------------------------------


def attempt(parser: Parser, folder: Path, files: Files) -> dict[str, Any]:
    """Read an input: "accepted", "refused", or the fault with its traceback."""
    found: dict[str, Any] = {}
    try:
        parser.run(folder)
        found["outcome"] = "accepted"
    except UnpoolError as error:
        found["outcome"] = "refused"
        try:
            require_line(str(error))
        except AssertionError as fault:
            found |= {"outcome": f"{str(fault).partition(':')[0]}{_where(error)}"}
            found["trace"] = f"{fault}\n{traceback.format_exc()}"
        if _ran_out(error):
            found |= {
                "outcome": f"memory: none left{_where(error)}",
                "trace": traceback.format_exc(),
            }
    except BaseException as error:
        kind = "memory: none left" if _ran_out(error) else f"crash {type(error).__name__}"
        found = {"outcome": f"{kind}{_where(error)}", "trace": traceback.format_exc()[-6000:]}
    if not parser.writes and _read(folder) != files:
        found = {"outcome": "changed: the files are others afterwards"}
    return found


def _ran_out(error: BaseException | None) -> bool:
    """Whether an error comes from the limit of memory, at however many removes."""
    while error is not None:
        refused = type(error).__module__.startswith("av.")  # FFmpeg says so of sizes in a header
        torch = isinstance(error, RuntimeError) and "allocate memory" in str(error)
        if (isinstance(error, MemoryError) and not refused) or torch:
            return True
        error = error.__cause__ or error.__context__
    return False


def _where(error: BaseException) -> str:
    """The innermost line of the package that an error passed."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/src/unpool/" in f.filename]
    frames = frames or list(traceback.extract_tb(error.__traceback__))
    return f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def _read(folder: Path) -> Files:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def write_files(folder: Path, files: Files) -> None:
    """Write an input, in place of the one before."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def numbered_input(name: str, seed: int, number: int, valid: list[Files]) -> Files:
    """Input `number` of a parser; the first ones are the valid files."""
    random = Random(f"{name} {seed} {number}")
    return valid[number] if number < len(valid) else make_input(PARSERS[name], valid, random)


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse other programs and the network; our own helper is this interpreter."""
    if event in _NETWORK or (event in _PROGRAMS and arguments[0] != sys.executable):
        raise AssertionError(f"{event} {arguments[0]!r}")


def _show(message: Warning | str, category: type[Warning], file: str, *_: object) -> None:
    """Print the warnings of libraries, which are not for users; ours are."""
    if not issubclass(category, UserWarning) or "/site-packages/" in file:
        print(f"{category.__name__}: {message}", file=sys.stderr)


def status(process: int | str, name: str) -> int:
    """A size in bytes in /proc/PID/status."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0


def serve(arguments: list[str]) -> None:
    """Run inputs, from a number to a count or for ever, and write a line before and after each."""
    name, folder = arguments[0], Path(arguments[-1])
    seed, first, count = map(int, arguments[1:-1])
    output = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print
    parser = PARSERS[name]
    valid = valid_files(parser)
    write_files(folder, valid[0])
    parser.run(folder)  # loads all that it needs
    sys.addaudithook(_watch)
    warnings.simplefilter("always")
    warnings.showwarning = _show  # type: ignore[assignment]
    base = status("self", "VmRSS")
    limit = status("self", "VmData") + 9 * 2**30  # what asks for more than that gets an error
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    number = first
    while not count or number < count:
        files = numbered_input(name, seed, number, valid)
        write_files(folder, files)
        print(json.dumps({"number": number}), file=output, flush=True)
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again
        printed, before = os.fstat(2).st_size, time.process_time()
        found = attempt(parser, folder, files)
        found |= {"number": number, "seconds": time.process_time() - before}
        found["peak"] = max(0, status("self", "VmHWM") - base)
        if found["peak"] > parser.memory and found["outcome"] in ("accepted", "refused"):
            found["outcome"] = f"memory: more than {parser.memory >> 20} MiB"
        if os.fstat(2).st_size > printed and found["outcome"] in ("accepted", "refused"):
            text = os.pread(2, 2000, printed).decode(errors="replace")
            found |= {"outcome": f"printed {text.splitlines()[0][:80]!r}", "trace": text}
        if found["outcome"] not in ("accepted", "refused"):
            write_files(folder.with_name("faults") / str(number), files)
        print(json.dumps(found), file=output, flush=True)
        if found["outcome"].startswith("memory"):
            return  # the next child begins with a clean memory
        number += 1


if __name__ == "__main__":
    serve(sys.argv[1:])
