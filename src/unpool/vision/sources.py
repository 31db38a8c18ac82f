"""What the command line takes as pictures, and what their results are called."""

import glob
import itertools
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, NoReturn

from unpool.errors import ImageError, OptionError
from unpool.vision.images import FORMATS

_SUFFIXES = {suffix for suffixes in FORMATS.values() for suffix in suffixes}


class Source(NamedTuple):
    """A picture to be read, and what its results are called in the output folder."""

    path: Path | None  # None is standard input
    name: PurePosixPath  # relative, without suffix; append to it, for it may hold dots


def find_images(inputs: Sequence[str]) -> list[Source]:
    """Find the pictures that files, folders, patterns, list files or `-` stand for.

    Of folders (searched to the bottom) and patterns (`*`, `?`, `[...]`, `**`), files with the
    suffix of a picture are taken, hidden ones left, and the tree below is kept in the names.
    A file named directly is taken whatever its suffix, but for `.txt`: that lists a file a line,
    relative to its own folder or else to the current one, with blank lines and `#` lines skipped.
    Pictures are not opened: a broken one is found too.

    Names differ even where case is ignored, so results never overwrite one another: where two
    would be `cat`, they become `cat_jpg` and `cat_png`, and then `cat_jpg_2`.

    Args:
        inputs: what the user typed, in this order.

    Returns:
        Every picture once, folders and patterns sorted by path.

    Raises:
        ImageError: an input that does not exist or stands for no picture.
        OptionError: no input.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ["cat.jpg", "cat.png", "dog.png", "notes.md"]:
    ...     (folder / name).touch()
    >>> [str(source.name) for source in find_images([str(folder)])]
    ['cat_jpg', 'cat_png', 'dog']
    """
    if not inputs:
        raise OptionError("got no input; name files, folders, patterns, list files, or -")
    found: dict[str, tuple[Path | None, PurePosixPath]] = {}
    for text in inputs:
        if text == "-":
            found.setdefault(text, (None, PurePosixPath("stdin")))
            continue
        for path, root in _expand(text):
            # without "..", so that no name climbs out of the output folder
            parts = [part for part in path.relative_to(root).parts if part != ".."]
            found.setdefault(os.path.abspath(path), (path, PurePosixPath(*parts)))
    names = _names([file for _, file in found.values()])
    return [Source(path, name) for (path, _), name in zip(found.values(), names, strict=True)]


def spare_inputs(sources: Sequence[Source], results: Sequence[Path]) -> None:
    """Refuse results that would take the place of an input, however the two paths are written.

    Raises:
        OptionError: a result is the same file as an input.
    """
    inputs = {_identity(source.path): source.path for source in sources if source.path}
    for result in results:
        if (identity := _identity(result)) and identity in inputs:
            raise OptionError(
                f"got the output {result}, which would overwrite the input {inputs[identity]}; "
                "choose another folder with -o"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _expand(text: str) -> Iterator[tuple[Path, Path]]:
    """Each picture of an input, with the folder that its name is relative to."""
    path = Path(text)
    if os.path.isdir(text):
        yield from _pictures(text, _walk(path), path)
    elif os.path.exists(text) and path.suffix.lower() == ".txt":
        yield from _listed(path)
    elif os.path.exists(text):  # before patterns: a file may be called cat[1].jpg
        yield path, path.parent
    elif glob.has_magic(text):
        matches = (Path(match) for match in glob.iglob(text, recursive=True))
        fixed = itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)
        yield from _pictures(text, (m for m in matches if not m.is_dir()), Path(*fixed))
    else:
        raise ImageError(f"{text}: does not exist; check the path")


def _pictures(text: str, files: Iterator[Path], root: Path) -> Iterator[tuple[Path, Path]]:
    pictures = sorted(file for file in files if file.suffix.lower() in _SUFFIXES)
    if not pictures:
        known = " ".join(sorted(_SUFFIXES))
        raise ImageError(f"{text}: holds no pictures ({known}); check the path")
    return ((picture, root) for picture in pictures)


def _walk(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> NoReturn:
        raise ImageError(f"{error.filename}: cannot be listed; change its permissions") from error

    for parent, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in files if not name.startswith("."))


def _listed(path: Path) -> Iterator[tuple[Path, Path]]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ImageError(f"{path}: is not a list of paths in UTF-8 ({error})") from error
    entries = {i: line.strip() for i, line in enumerate(lines, 1)}
    entries = {i: line for i, line in entries.items() if line and not line.startswith("#")}
    if not entries:
        raise ImageError(f"{path}: lists no pictures; write a path on each line")
    for i, line in entries.items():
        root = next((r for r in (path.parent, Path()) if os.path.isfile(r / line)), None)
        if root is None:
            raise ImageError(
                f"{path}, line {i}: {line} is not a file in {path.parent} or the current folder; "
                "correct or remove the line"
            )
        file = root / line
        yield file, file.parent if Path(line).is_absolute() else root


def _names(files: Sequence[PurePosixPath]) -> list[PurePosixPath]:
    """The files without suffix where that tells them apart; else `cat_jpg`, then `cat_jpg_2`."""
    plain = [file.with_suffix("") for file in files]
    wanted = Counter(map(_key, plain))
    # cat.overlay.jpg would give cat.overlay.png, which looks like a result of cat.jpg
    clear = {key for key, n in wanted.items() if n == 1 and not key.endswith(".overlay")}
    taken = set(clear)
    serial: Counter[str] = Counter()
    names = []
    for file, name in zip(files, plain, strict=True):
        if _key(name) not in clear:
            name = longer = name.with_name(name.name + file.suffix.replace(".", "_"))
            while _key(name) in taken:
                serial[_key(longer)] += 1
                name = longer.with_name(f"{longer.name}_{serial[_key(longer)] + 1}")
            taken.add(_key(name))
        names.append(name)
    return names


def _key(name: PurePosixPath) -> str:
    """What a file system that ignores case, or composes accents, takes for the same name."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(name)).casefold())
