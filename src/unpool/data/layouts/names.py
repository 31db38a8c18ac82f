"""The names of the classes of a data set."""

import re
from pathlib import Path

from unpool.data.layouts.layout import Layout, Names
from unpool.data.layouts.listing import read_lines
from unpool.errors import DataError
from unpool.vision.images import VOID

_VOID_NAME = re.compile(r"(unlabell?ed|void|ignored?)\b", re.IGNORECASE)


def class_names(layout: Layout) -> Names | None:
    """The classes from `classes.txt`, a `DataError` if it is wrong, or by the layout; or None."""
    listed = layout.root / "classes.txt"
    return read_names(listed) if listed.is_file() and not layout.outlines else layout.names


def read_names(path: Path) -> Names:
    """Read a `classes.txt`: one name per line, whose number (from 0) is the class id.

    If the last line begins with Unlabelled, void or ignore, its id is void.

    Raises:
        DataError: a line is empty, a name occurs twice, or there are not 2 to 255 names.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "classes.txt")
    >>> _ = path.write_text("road\\ncar\\nUnlabelled\\n")
    >>> read_names(path)
    Names(classes=['road', 'car'], void=2)
    """
    classes, void = read_lines(path), VOID
    if classes and _VOID_NAME.match(classes[-1]):
        void = len(classes) - 1
        del classes[-1]
    if not 2 <= len(classes) <= VOID:
        raise DataError(f"got {len(classes)} names in {path}; wanted 2 to {VOID}, one per line")
    if "" in classes:
        raise DataError(
            f"got an empty line {classes.index('') + 1} in {path}; wanted a name, since the "
            "line's number is the class id: write one, or remove the line if no id is unused"
        )
    if twice := [name for i, name in enumerate(classes) if name in classes[:i]]:
        raise DataError(f"got {twice[0]!r} twice in {path}; give every class a name of its own")
    return Names(classes, void)


def numbered_classes(highest: int) -> list[str]:
    """Default names of classes, from 0 to the highest id of the masks.

    >>> numbered_classes(2)
    ['background', 'class 1', 'class 2']
    """
    return ["background", *(f"class {i}" for i in range(1, max(highest, 1) + 1))]
