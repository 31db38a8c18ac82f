"""A parser with every fault, to see that each is found."""

import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from tests.fuzz.harness import serve
from tests.fuzz.parsers import PARSERS, Parser
from unpool.errors import DataError, UnpoolError


class _TwoLinesError(UnpoolError):
    def __str__(self) -> str:
        return "one\ntwo"


def _run(folder: Path) -> None:
    (path,) = folder.iterdir()
    match path.read_text():
        case "refuse":
            raise DataError("got this; wanted that: do so")
        case "crash":
            raise KeyError("x")
        case "abort":
            os.abort()
        case "leave":
            os._exit(3)
        case "hang":
            while True:
                pass
        case "wait":
            time.sleep(60)
        case "memory":
            np.ones(2**23)
        case "error of memory":
            try:
                raise MemoryError
            except MemoryError:
                raise DataError("got a large file") from None
        case "two lines":
            raise _TwoLinesError
        case "program":
            subprocess.run(["/bin/true"])
        case "print":
            print("a line of a library", file=sys.stderr)
        case "warn":
            warnings.warn("of a library", RuntimeWarning, stacklevel=1)
        case "change":
            path.write_text("other")


FAULTS = {
    "crash": "crash KeyError",
    "abort": "crash by signal 6",
    "leave": "crash, exit 3",
    "hang": "hang",
    "wait": "hang",
    "memory": "memory: more than 32 MiB",
    "error of memory": "memory: none left",
    "two lines": "a message of several lines",
    "print": "printed 'a line of a library'",
    "warn": "printed 'RuntimeWarning: of a library'",
    "program": "crash AssertionError",
    "change": "changed: the files are others afterwards",
}
"""What the parser does by the text in its file, and what the harness says."""

PARSERS["faulty"] = Parser(
    lambda: [{"a.txt": text.encode()} for text in ("accept", "refuse", *FAULTS, "accept")],
    _run,
    damaged=(),
    seconds=2.0,  # a slow machine may take one for the memory
    waiting=4.0,
    memory=2**25,
)

if __name__ == "__main__":
    serve(sys.argv[1:])
