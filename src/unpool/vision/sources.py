"""Find the images named by inputs of the command line, and name their results."""

import glob
import itertools
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeAlias

from unpool.errors import ImageError, OptionError, one_line
from unpool.files import fold_name, read_text
from unpool.limits import MAX_LIST
from unpool.vision.archives import TAR, Place, find_members, find_urls, is_url
from unpool.vision.images import SUFFIXES, Pixels, read_image
from unpool.vision.video import VIDEOS

_CAMERAS = """
    .heic .heics .heif .hif .jxl .jxr .wdp .hdp .jls .jps .bpg .flif .3fr .arw .cr2 .cr3 .crw .dcr
    .dng .erf .fff .gpr .iiq .kdc .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl .srf .sr2 .srw
    .x3f
"""
_PROGRAMS = """
    .ai .cdr .cur .dcx .dds .dib .emf .eps .exr .hdr .icns .ico .kra .pfm .psb .psd .qoi .ras
    .svg .svgz .wbmp .wmf .xbm .xcf .xpm
"""
_SCIENCE = """
    .czi .dcm .djvu .ecw .fit .fits .fts .lif .mha .nd2 .ndpi .nii .nrrd .sid .svs .vsi
"""
_UNREAD = {*(_CAMERAS + _PROGRAMS + _SCIENCE).split(), *VIDEOS}
"""The suffixes of images that are not read, which are counted and reported."""


class Source(NamedTuple):
    """An image to read, and the name of its results in the output folder."""

    path: Path | None  #: None for standard input, and for an image at a `place`
    name: PurePosixPath  #: relative, without suffix; append suffixes, since it may contain dots
    place: Place | None = None  #: in a tar file, or behind a URL
    file_name: str = ""  #: in files about many images, see `with_file_names`

    def __str__(self) -> str:
        return "-" if self.is_stdin else str(self.path or self.place)

    @property
    def is_stdin(self) -> bool:
        """Whether it is standard input."""
        return self.path is None and self.place is None

    @property
    def is_video(self) -> bool:
        """Whether it is a video by its suffix."""
        return self.path is not None and self.path.suffix.lower() in VIDEOS

    def content(self) -> Path | bytes:
        """The file of the image, or its bytes if it has none; those of standard input once."""
        if self.path is not None:
            return self.path
        return sys.stdin.buffer.read() if self.place is None else self.place.read()

    def held(self) -> "Source":
        """The same with the bytes of its place in memory, which are then read once."""
        if self.place is None:
            return self
        return self._replace(place=self.place._replace(held=self.place.read()))

    def read(self) -> Pixels:
        """The upright image, (H, W, 3) uint8 RGB, or an `ImageError`."""
        return read_image(sys.stdin.buffer if self.is_stdin else self.content())


class Unusable(NamedTuple):
    """An input, or a line of a list, that names no image."""

    source: str  #: as typed, or as in the list
    error: str  #: the reason, and what to do


class Unread(NamedTuple):
    """A folder or pattern with images of formats that are not read."""

    source: str  #: as typed
    suffixes: tuple[tuple[str, int], ...]  #: and their numbers of files

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in self.suffixes)
        return f"{self.source}: {kinds} not read; convert them to JPEG or PNG"


class Found(NamedTuple):
    """The images and unusable entries found for some inputs."""

    sources: list[Source]
    unusable: list[Unusable]
    unread: Sequence[Unread] = ()


class Shard(NamedTuple):
    """A part of the images, of several that are worked on apart."""

    number: int  #: from 1
    of: int

    def __str__(self) -> str:
        return f"{self.number}-of-{self.of}"


# an image and the folder its name is relative to; or what is behind a URL, and its name
_Item: TypeAlias = tuple[Path, Path] | tuple[Place, PurePosixPath] | Unusable | Unread


def find_images(
    inputs: Sequence[str],
    output: Path | None = None,
    *,
    videos: bool = False,
    archives: bool = False,
    shard: Shard | None = None,
) -> Found:
    """Find the images named by files, folders, patterns, list files or `-`, each once.

    Folders (searched recursively) and patterns (`*`, `?`, `[...]`, `**`) give their files with the
    suffix of an image, sorted by path, except hidden ones and those in the output folder, which are
    results of an earlier run; names keep the tree below. A file named directly is taken whatever
    its place and suffix, except `.txt`: this lists one file per line, relative to its own folder or
    else to the current one; blank lines and lines with `#` are skipped. Images are not opened, so
    broken ones are found, too. Images of formats that are not read, such as HEIC, are counted.
    With `videos`, folders and patterns give videos, too, which `Source.read` does not read.

    With `archives`, the images in tar files are found, and URLs. Names in shards/1.tar begin with
    `1/`. A folder gives its tar files if it has no images.

    With a `shard`, every n-th image or tar file is taken, so that the shards of the same inputs
    are all of them, each once, under the same names.

    Names differ even if case is ignored, so results never overwrite one another: two images named
    `cat` become `cat_jpg` and `cat_png`, and then `cat_jpg_2`.

    Raises:
        ImageError, OptionError: no input names an image; there is no input.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ["cat.jpg", "cat.png", "dog.png", "notes.md"]:
    ...     (folder / name).touch()
    >>> [str(source.name) for source in find_images([str(folder)]).sources]
    ['cat_jpg', 'cat_png', 'dog']
    """
    if not inputs:
        raise OptionError("got no input; name files, folders, patterns, list files, or -")
    suffixes = {*SUFFIXES, *(VIDEOS if videos else ())}
    found: dict[str, tuple[Path | Place | None, PurePosixPath]] = {}
    unusable: dict[Unusable, None] = {}
    unread: dict[Unread, None] = {}
    for text in inputs:
        if text == "-":
            found.setdefault(text, (None, PurePosixPath("stdin")))
            continue
        for item in _expand(text, output, suffixes, archives):
            match item:
                case Unusable():
                    unusable[item._replace(error=one_line(item.error))] = None
                case Unread():
                    unread[item] = None
                case Place() as place, PurePosixPath() as name:
                    found.setdefault(str(place), (place, name))
                case Path() as path, Path() as root:
                    # without "..", so that no name leaves the output folder
                    parts = [part for part in path.relative_to(root).parts if part != ".."]
                    found.setdefault(os.path.abspath(path), (path, PurePosixPath(*parts)))
    if not found:
        first, *others = unusable
        more = f" ({len(others)} more cannot be used)" if others else ""
        raise ImageError(first.error + more)
    names = _names([file for _, file in found.values()])
    places = [
        (at, name, archives and file.suffix.lower() == TAR)
        for (at, file), name in zip(found.values(), names, strict=True)
    ]
    _require_no_folders([name for _, name, is_tar in places if is_tar], names)
    sources = []
    for at, name, is_tar in places[shard.number - 1 :: shard.of] if shard else places:
        for one in _members(str(at), name) if is_tar else [_source(at, name)]:
            if isinstance(one, Unusable):
                unusable[one._replace(error=one_line(one.error))] = None
            else:
                sources.append(one)
    return Found(sources, list(unusable), list(unread))


def _require_no_folders(tars: Sequence[PurePosixPath], names: Sequence[PurePosixPath]) -> None:
    """Refuse a tar file beside a folder of its name, as results of both would be mixed."""
    folders = {fold_name(tar) for tar in tars}
    for name in names if folders else []:
        if inside := next((p for p in name.parents if fold_name(p) in folders), None):
            raise OptionError(f"got {inside}{TAR} and a folder {inside}; rename one of them")


def _source(at: Path | Place | None, name: PurePosixPath) -> Source:
    return Source(None, name, at) if isinstance(at, Place) else Source(at, name)


def _members(file: str, name: PurePosixPath) -> Iterator[Source | Unusable]:
    """The images in a tar file."""
    places, files = list[Place](), list[PurePosixPath]()
    for found in find_members(file):
        if isinstance(found, str):
            yield Unusable(file, found)
        else:
            places.append(found[0])
            files.append(found[1])
    if not places:
        yield Unusable(file, f"{file}: holds no images ({' '.join(SUFFIXES)}); check the path")
    for place, inside in zip(places, _names(files), strict=True):
        yield Source(None, name / inside, place)


def with_file_names(sources: Sequence[Source]) -> list[Source]:
    """The same with the names of images in files about many: relative, or paths if not unique.

    >>> sources = [Source(Path("in/cat.jpg"), PurePosixPath("cat"))]
    >>> with_file_names(sources)[0].file_name
    'cat.jpg'
    """
    files = [s.path or (s.place and PurePosixPath(s.place.member or s.place.file)) for s in sources]
    names = [
        str(s.name.parent / f.name if f else s.name) for s, f in zip(sources, files, strict=True)
    ]
    count = Counter(names)
    return [
        source._replace(
            file_name=source.path.as_posix() if source.path and count[name] > 1 else name
        )
        for source, name in zip(sources, names, strict=True)
    ]


def spare_inputs(sources: Sequence[Source], results: Sequence[Path]) -> None:
    """Raise an `OptionError` if a result is the same file as an input, however it is written."""
    inputs = {_identity(source.path): source.path for source in sources if source.path}
    for result in results:
        if (identity := _identity(result)) and identity in inputs:
            got = f"got the output {result}, which would overwrite the input {inputs[identity]}"
            raise OptionError(f"{got}; choose another output folder")


def _identity(path: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        return (stat := path.stat()).st_dev, stat.st_ino
    return None


def _expand(text: str, output: Path | None, suffixes: set[str], archives: bool) -> Iterator[_Item]:
    """Each image of an input, with the folder its name is relative to."""
    path = Path(text)
    if archives and is_url(text):
        yield from _remote(text)
    elif os.path.isdir(text):
        yield from _images(text, path, _walk(path), output, suffixes, archives)
    elif os.path.exists(text) and path.suffix.lower() == ".txt":
        yield from _listed(path, archives)
    elif os.path.exists(text):  # before patterns: a file may be called cat[1].jpg
        yield path, path.parent
    elif glob.has_magic(text):
        matches = (Path(match) for match in glob.iglob(text, recursive=True))
        fixed = itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)
        files = (match for match in matches if not match.is_dir())
        yield from _images(text, Path(*fixed), files, output, suffixes, archives)
    else:
        yield Unusable(text, f"{text}: does not exist; check the path")


def _remote(text: str) -> Iterator[_Item]:
    """The images and tar files behind a URL."""
    try:
        found = find_urls(text)
    except OptionError as error:
        yield Unusable(text, str(error))
        return
    if not found:
        yield Unusable(text, f"{text}: holds no images ({' '.join(SUFFIXES)}); check the address")
    yield from ((Place(url), name) for url, name in found)


def _images(
    text: str,
    root: Path,
    files: Iterator[Path | Unusable],
    output: Path | None,
    suffixes: set[str],
    archives: bool,
) -> Iterator[_Item]:
    """The images of a search below a folder, and the folders that could not be read."""
    unusable, images, others = list[Unusable](), list[Path](), list[Path]()
    tars = list[Path]()
    for file in files:
        if isinstance(file, Unusable):
            unusable.append(file)
        elif file.suffix.lower() in suffixes:
            images.append(file)
        elif file.suffix.lower() == TAR:
            tars.append(file)
        elif file.suffix.lower() in _UNREAD:
            others.append(file)
    if archives and not images:
        images = tars
    taken = _outside(images, root, output)
    counts = Counter(file.suffix.lower() for file in _outside(others, root, output))
    unread = Unread(text, tuple(sorted(counts.items())))
    if images and not taken:
        reason = f"has no images but those in the output folder {output}; choose another"
        unusable.append(Unusable(text, f"{text}: {reason}"))
    elif counts and not (images or unusable):
        unusable.append(Unusable(text, str(unread)))
    elif counts:
        yield unread
    elif not (images or unusable):
        known = " ".join(sorted(suffixes))
        unusable.append(Unusable(text, f"{text}: holds no images ({known}); check the path"))
    yield from unusable
    yield from ((image, root) for image in sorted(taken))


def _outside(files: list[Path], root: Path, output: Path | None) -> list[Path]:
    """The files outside the output folder, if the search started at or above it."""
    real = os.path.realpath  # unlike Path.resolve, it takes links in a circle
    if output is None or not Path(real(output)).is_relative_to(real(root)):
        return files
    folders = {file.parent for file in files}
    inside = {folder for folder in folders if Path(real(folder)).is_relative_to(real(output))}
    return [file for file in files if file.parent not in inside]


def _walk(folder: Path) -> Iterator[Path | Unusable]:
    locked: list[str] = []
    for parent, folders, files in os.walk(folder, onerror=lambda e: locked.append(e.filename)):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in files if not name.startswith("."))
    for name in locked:
        yield Unusable(name, f"{name}: cannot be listed; change its permissions")


def _listed(path: Path, archives: bool) -> Iterator[_Item]:
    """The files of a list, and the lines that name none."""
    got, folders = f"got {path}, read as a list of images", f"{path.parent} or the current folder"
    try:
        lines = read_text(path, ImageError, MAX_LIST).splitlines()
    except ImageError as error:
        yield Unusable(str(path), str(error))
        return
    entries = [(i, line.strip()) for i, line in enumerate(lines, 1)]
    entries = [(i, line) for i, line in entries if line and not line.startswith("#")]
    known = False
    missing = []
    for i, line in entries:
        if archives and is_url(line):
            known = True
            yield from _remote(line)
            continue
        for root in (path.parent, Path()):
            if os.path.isfile(file := root / line):
                known = True
                yield file, file.parent if Path(line).is_absolute() else root
                break
        else:
            missing.append((line, f"line {i} ({line[:60]}) is not a file in {folders}"))
    if known:
        for line, reason in missing:
            yield Unusable(line, f"{got}; {reason}: correct or remove it")
    else:  # probably no list at all: one complaint, not one per line
        reason = missing[0][1] if missing else "it has no lines"
        others = ", nor is any other line" if len(missing) > 1 else ""
        yield Unusable(str(path), f"{got}; {reason}{others}: write a path on each line")


def _names(files: Sequence[PurePosixPath]) -> list[PurePosixPath]:
    """The names without suffix where they are unique; else `cat_jpg`, then `cat_jpg_2`."""
    plain = [file.with_suffix("") for file in files]
    wanted = Counter(map(fold_name, plain))
    # the mask of cat.overlay.jpg, cat.overlay.png, would look like a result of cat.jpg
    clear = {key for key, n in wanted.items() if n == 1 and not key.endswith(".overlay")}
    taken = set(clear)
    serial: Counter[str] = Counter()
    names = []
    for file, name in zip(files, plain, strict=True):
        if fold_name(name) not in clear:
            name = longer = name.with_name(name.name + file.suffix.replace(".", "_"))
            while fold_name(name) in taken:
                serial[fold_name(longer)] += 1
                name = longer.with_name(f"{longer.name}_{serial[fold_name(longer)] + 1}")
            taken.add(fold_name(name))
        names.append(name)
    return names
