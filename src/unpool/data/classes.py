"""Class names and ids of masks."""

import re
from pathlib import Path
from typing import NamedTuple

from unpool.errors import DataError

VOID = 255
"""The id of pixels that training and evaluation ignore."""

VOC_CLASSES = (  # noqa: SIM905 - the formatter would put each name of a list on its own line
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor"
).split()

CAMVID_CLASSES = (  # noqa: SIM905
    "Sky Building Pole Road Pavement Tree SignSymbol Fence Car Pedestrian Bicyclist"
).split()

_VOID_NAME = re.compile(r"(unlabell?ed|void|ignored?)\b", re.IGNORECASE)


class Names(NamedTuple):
    """The classes of a data set."""

    classes: list[str]  #: names by id; the first is the background
    void: int = VOID  #: the id besides 255 that means void in the files


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


def read_lines(path: Path) -> list[str]:
    """The lines of a text file in UTF-8, stripped, without empty lines at the end."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"got {path}, which is not text in UTF-8 ({error}); save it as UTF-8"
        ) from error
    return [line.strip() for line in text.rstrip().splitlines()]
