"""Find images by the names that files of annotations give them.

Such names come from other machines: absolute, with backslashes, or as addresses. They are resolved
by their trailing parts among the images of the data set, so that nothing outside of it is read.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from unpool.data.layouts.listing import IMAGES, list_folder
from unpool.files import fold_name

_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")  # Label Studio puts this before the names of uploads


class Photos:
    """The images below a folder.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> (root / "images").mkdir()
    >>> (root / "images/a b.jpg").touch()
    >>> photos = Photos(root)
    >>> for name in ("A b.JPG", "C:\\\\data\\\\a b.jpg", "https://x.org/a%20b.jpg?v=1"):
    ...     print([path.name for path in photos.find(name, root)])
    ['a b.jpg']
    ['a b.jpg']
    ['a b.jpg']
    """

    def __init__(self, root: Path) -> None:
        paths = [path for found in list_folder(root, IMAGES).files.values() for path in found]
        self.paths = set(paths)
        self._named: defaultdict[str, list[Path]] = defaultdict(list)
        for path in sorted(paths):
            self._named[fold_name(path.name)].append(path)

    def find(self, name: str, home: Path) -> list[Path]:
        """The image of a name: the one below `home`, else those with most of its trailing parts.

        Several paths mean that the name is ambiguous.
        """
        for parts in (split_path(name), split_path(unquote(name))):
            if parts and (path := home.joinpath(*parts)) in self.paths:
                return [path]
            if found := self._nearest(parts, home):
                return found
        return []

    def _nearest(self, parts: Sequence[str], home: Path) -> list[Path]:
        if not parts:
            return []
        *folders, last = parts
        found = self._named.get(fold_name(last), [])
        if not found and (uploaded := _UPLOADED.match(last)):
            found = self._named.get(fold_name(last[uploaded.end() :]), [])
        ranks = [(_shared(path.parent.parts, folders), home in path.parents) for path in found]
        return [path for path, rank in zip(found, ranks, strict=True) if rank == max(ranks)]


def split_path(name: str) -> list[str]:
    """The parts of a path or an address, without those that lead elsewhere.

    >>> split_path("..\\\\images\\\\a.jpg"), split_path("s3://bucket/a.jpg#x")
    (['images', 'a.jpg'], ['bucket', 'a.jpg'])
    >>> split_path("/data/local-files/?d=images/a.jpg")
    ['images', 'a.jpg']
    """
    _, local, path = name.partition("/?d=")  # Label Studio's local files
    if not local:
        scheme, address, path = name.partition("://")
        path = re.split("[?#]", path)[0] if address and scheme.isalnum() else name
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    if parts and re.fullmatch("[A-Za-z]:", parts[0]):
        del parts[0]
    up = [i for i, part in enumerate(parts) if part == ".."]
    return parts[up[-1] + 1 :] if up else parts


def _shared(found: Sequence[str], wanted: Sequence[str]) -> int:
    """The number of equal parts at the end, in any letter case."""
    n = 0
    for one, other in zip(reversed(found), reversed(wanted), strict=False):
        if fold_name(one) != fold_name(other):
            break
        n += 1
    return n
