"""Temporary files that name their process, so that those of killed processes can be removed.

Their names begin with `.unpool-`, whatever file they are for, and have at most 70 bytes.
"""

import functools
import hashlib
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = ".unpool-"
_PROCESS = re.compile(r"(?P<host>[0-9a-f]{12})-(?P<pid>\d{1,10})-(?P<start>\d{1,20})")
_SUFFIX = 20  # bytes; writers that go by the suffix know only short ones
_cleaned: set[str] = set()  # folders that this process has looked at


def process_name() -> str:
    """A name of this process that no other has, on any host: `HOST-PID-START`.

    >>> is_gone(process_name())
    False
    """
    pid = os.getpid()
    return f"{_host()}-{pid}-{_state(pid)[1]}"


def is_gone(name: str) -> bool | None:
    """Whether the process that gave itself this name has ended.

    None if that cannot be known: for a process of another host or container, one from before the
    last boot, and on Windows.
    """
    match = _PROCESS.fullmatch(name)
    if match is None or match["host"] != _host() or os.name != "posix":
        return None
    pid = int(match["pid"])
    try:
        os.kill(pid, 0)  # sends nothing
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # the process of another user
        pass
    state, start = _state(pid)
    return state in ("Z", "X") or start not in ("0", match["start"])  # "0": not known


def temporary_path(folder: Path, suffix: str = "") -> Path:
    """A new path in a folder; `leftovers` finds it after a kill.

    Args:
        folder: in which also what killed processes have left is removed, at the first call.
        suffix: of the file, left out if it is long.
    """
    if (key := os.path.abspath(folder)) not in _cleaned:
        _cleaned.add(key)
        for path in leftovers(folder):
            remove(path)
    ending = suffix if len(os.fsencode(suffix)) <= _SUFFIX else ""
    return folder / f"{_PREFIX}{process_name()}-{os.urandom(4).hex()}{ending}"


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """A folder within another, for the time of the context; `leftovers` finds it after a kill.

    >>> import tempfile
    >>> with temporary_folder(Path(tempfile.mkdtemp())) as drafts:
    ...     drafts.is_dir()
    True
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = temporary_path(folder)
    path.mkdir()
    try:
        yield path
    finally:
        remove(path)


def leftovers(folder: Path, *, unknown: bool = False) -> list[Path]:
    """The temporary files and folders in a folder whose processes were killed.

    Args:
        folder: need not exist.
        unknown: also those whose processes may live, on another host; not those that are known to.
    """
    try:
        names = [name for name in os.listdir(folder) if name.startswith(_PREFIX)]
    except OSError:  # none, or it may not be listed
        return []
    matches = [(name, _PROCESS.match(name, len(_PREFIX))) for name in names]
    gone = (True, None) if unknown else (True,)
    return [folder / name for name, process in matches if process and is_gone(process[0]) in gone]


def remove(path: Path) -> None:
    """Remove a temporary file or folder, if that can be done."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@functools.cache
def _host() -> str:
    """The host, its last boot and the container, within which a process id names one process."""
    facts = [platform.node()]
    with suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        facts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(facts).encode("utf-8", "replace")).hexdigest()[:12]


def _state(pid: int) -> tuple[str, str]:
    """The state of a process and when it started, since an id is used again; "", "0": unknown."""
    try:
        # the second field, the program in parentheses, may hold anything
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return fields[0].decode(), str(int(fields[19]))
    except (OSError, ValueError, IndexError):
        return "", "0"
