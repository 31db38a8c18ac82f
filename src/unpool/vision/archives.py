"""Images inside tar files, as in the shards of WebDataset, and behind URLs, as of an S3 bucket.

A tar file is listed once, by its headers; each image is then read from its place in the file, so
that processes share the work on one file. URLs need fsspec, and for some protocols a package that
it names, such as s3fs.
"""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple

from unpool.errors import ImageError, OptionError
from unpool.limits import MAX_IMAGE_STREAM, MAX_TAR_MEMBERS
from unpool.vision.opening import SUFFIXES

TAR = ".tar"
"""The suffix of files that are read as tar files."""


class Place(NamedTuple):
    """Where the bytes of an image are, if not in a file of its own."""

    file: str  #: a path or a URL
    member: str = ""  #: its name in a tar file
    offset: int = 0
    size: int | None = None  #: None: up to the end
    held: bytes | None = None  #: what is there, if it has been read

    def __str__(self) -> str:
        return f"{self.file}/{self.member}" if self.member else self.file

    def read(self) -> bytes:
        """The bytes of the image, or an `ImageError`."""
        if self.held is not None:
            return self.held
        if (self.size or 0) > MAX_IMAGE_STREAM:
            raise ImageError(f"has more than {MAX_IMAGE_STREAM} bytes; wanted an image")
        with _opened(self.file) as file:
            file.seek(self.offset)
            content = file.read(MAX_IMAGE_STREAM + 1 if self.size is None else self.size)
        if len(content) > MAX_IMAGE_STREAM:
            raise ImageError(f"has more than {MAX_IMAGE_STREAM} bytes; wanted an image")
        if len(content) < (self.size or 0):
            raise ImageError(f"is cut short, as {self.file} is; copy or download it again")
        return content


def is_url(text: str) -> bool:
    """Whether a text names something for fsspec, such as s3://bucket/photos.

    >>> is_url("s3://bucket/cat.jpg"), is_url("C://cat.jpg"), is_url("in/cat.jpg")
    (True, False, False)
    """
    protocol, mark, _ = text.partition("://")
    return bool(mark) and len(protocol) > 1 and protocol.replace("+", "").isalnum()


def find_urls(text: str) -> list[tuple[str, PurePosixPath]]:
    """The URLs of images and tar files that one names, and their paths below it.

    Args:
        text: the URL of a file, a folder or, with `*`, of several.

    Raises:
        OptionError: fsspec or the package for the protocol is missing, or the place cannot be read.
    """
    if find_spec("fsspec") is None:
        raise OptionError(f"got {text}; URLs need fsspec: pip install 'unpool[scale]'")
    from fsspec.core import url_to_fs

    known = (*SUFFIXES, TAR)
    try:
        system, path = url_to_fs(text)
        if "*" in path:
            files, root = system.glob(path), path.partition("*")[0].rpartition("/")[0]
        elif system.isdir(path):
            files, root = system.find(path), path.rstrip("/")
        else:
            return [(text, PurePosixPath(path.rpartition("/")[2]))]
        files = sorted(file for file in files if file.lower().endswith(known))
        urls = [system.unstrip_protocol(file) for file in files]
    except Exception as error:  # each file system raises its own
        reason = f"{type(error).__name__}: {error}"
        raise OptionError(f"got {text}, which cannot be listed ({reason}); check it") from None
    below = [file.removeprefix(root).lstrip("/") for file in files]
    return [(url, PurePosixPath(name)) for url, name in zip(urls, below, strict=True)]


def find_members(file: str) -> Iterator[tuple[Place, PurePosixPath] | str]:
    """The images in a tar file, with their paths in it, in order; at damage, at last what it is.

    Links, and files with other suffixes, such as the labels of WebDataset, are passed over.

    Args:
        file: a path or a URL; compressed files are refused.
    """
    count = 0
    try:
        with _opened(file) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep all
                name = PurePosixPath(member.name)
                if not member.isreg() or member.issparse() or name.suffix.lower() not in SUFFIXES:
                    continue
                if (count := count + 1) > MAX_TAR_MEMBERS:
                    yield f"{file}: has more than {MAX_TAR_MEMBERS} images; split it"
                    return
                parts = [part for part in name.parts if part not in ("..", "/")]
                place = Place(file, member.name, member.offset_data, member.size)
                yield place, PurePosixPath(*parts)
    except (tarfile.TarError, ValueError, EOFError) as error:
        cure = "wanted a tar file, not compressed; copy or download it again"
        yield f"{file}: is damaged after {count} images ({error}); {cure}"
    except ImageError as error:
        yield f"{file}: {error}"


@contextmanager
def _opened(file: str) -> Iterator[IO[Any]]:
    """A file or a URL, opened to read bytes; failures become an `ImageError`."""
    try:
        if is_url(file):
            import fsspec

            with fsspec.open(file, "rb") as stream:
                yield stream
        else:
            with open(file, "rb") as stream:
                yield stream
    except (ImageError, tarfile.TarError, ValueError, EOFError):
        raise
    except Exception as error:  # each file system raises its own
        raise ImageError(f"cannot be read ({error}); check the path or the address") from None
