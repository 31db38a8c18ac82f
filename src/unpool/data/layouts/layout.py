"""What a layout consists of: the images, the masks, the splits and the classes of a data set."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from unpool.vision.images import VOID

if TYPE_CHECKING:
    from unpool.data.layouts.listing import Folder
    from unpool.data.outlines import Crowd, Outlines


Color: TypeAlias = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""


class Names(NamedTuple):
    """The classes of a data set."""

    classes: list[str]  #: names by id; the first is the background
    void: int = VOID  #: the id besides 255 that means void in the files
    colors: Mapping[int, Color] = {}  #: by id, also of void, in color-coded masks; empty if unknown
    file: Path | None = None  #: where the names stand; None if they are those of the layout
    assumed: str = ""  #: the data set whose names were taken for want of a file


class Note(NamedTuple):
    """Something about the files of a data set that a user should know."""

    kind: str  #: a short slug, such as "crowds"
    file: Path
    message: str


class Layout(NamedTuple):
    """The files of a data set."""

    root: Path
    images: "Folder"
    masks: "Folder"  #: without files in COCO
    instances: "Folder | None" = None  #: object masks of some or all images
    outlines: Mapping[str, "Outlines"] = {}  #: COCO's annotations, by id
    lists: Path | None = None  #: the folder of lists, if there can be any
    groups: Mapping[str, list[str]] = {}  #: ids by split, from folders or annotations
    names: Names | None = None  #: of the classes, unless a classes.txt has others
    format: str = ""  #: the name of the layout
    notes: tuple[Note, ...] = ()  #: what a user should know of how the files were read

    def mask(self, name: str) -> "Path | Outlines":
        """The mask of an id; a `DataError` if there is none, or more than one."""
        return self.outlines[name] if name in self.outlines else self.masks.file(name)

    def mask_images(self) -> list[Path]:
        """All masks that are image files, sorted."""
        files = (path for paths in self.masks.files.values() for path in paths)
        return sorted(path for path in files if path.suffix.lower() != ".mat")

    def objects(self, name: str) -> Path | None:
        """The object mask of an id, None without one; a `DataError` if there is more than one."""
        found = self.instances
        return found.file(name) if found and name in found.files else None


class Request(NamedTuple):
    """What is wanted of a folder."""

    root: Path
    split: str | None = None  #: only this one is needed
    crowd: "Crowd | None" = None  #: see `unpool.data.coco.read_annotations`


class Format(NamedTuple):
    """A layout that is recognized, one row of the table in `unpool.data.layouts.find`."""

    name: str  #: shown to users
    tree: tuple[str, ...]  #: what a folder must have, see `find_splits`
    read: Callable[[Request], Layout]
    accepts: Callable[[Path], bool] | None = None  #: decides by contents, instead of the tree
