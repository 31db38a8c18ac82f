"""Find the files of a data set: the supported layouts and their splits.

    VOC      JPEGImages/ID.jpg  SegmentationClass/ID.png  ImageSets/Segmentation/SPLIT.txt
             SegmentationClassAug/ID.png is used where SegmentationClass has no mask, as in the
             list trainaug; SegmentationObject/ID.png has the objects
    SBD      img/ID.jpg  cls/ID.mat  inst/ID.mat  SPLIT.txt, possibly all in dataset/
             (Hariharan et al., Semantic contours from inverse detectors, ICCV 2011)
    COCO     annotations/instances_SPLIT2017.json, with images in SPLIT2017/, images/SPLIT2017/ or
             images/
    CamVid   SPLIT/ID.png  SPLITannot/ID.png
    plain    images/...  masks/...  with equal names, optionally instances/... for the objects;
             splits are lists (SPLIT.txt beside them) or folders (images/SPLIT/...); with neither,
             every fifth image is "val" and the others are "train"

A list has one id per line: the path of an image below the images folder, with or without suffix.
All layouts except COCO may have a `classes.txt`, see `read_names`.
"""

import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from unpool.data.coco import Annotations, Outlines, find_annotations, read_annotations, without_year
from unpool.errors import DataError
from unpool.vision.images import VOID

VOC_CLASSES = (  # noqa: SIM905 - the formatter would put each name of a list on its own line
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor"
).split()

CAMVID_CLASSES = (  # noqa: SIM905
    "Sky Building Pole Road Pavement Tree SignSymbol Fence Car Pedestrian Bicyclist"
).split()

_VOID_NAME = re.compile(r"(unlabell?ed|void|ignored?)\b", re.IGNORECASE)

_IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_MASKS = (".png", ".bmp", ".tif", ".tiff", ".gif")
_USUAL = ("train", "val", "test", "trainval", "trainaug")


class Names(NamedTuple):
    """The classes of a data set."""

    classes: list[str]  #: names by id; the first is the background
    void: int = VOID  #: the id besides 255 that means void in the files


class Folder(NamedTuple):
    """The images or the masks of a data set."""

    path: Path
    suffixes: tuple[str, ...]
    files: Mapping[str, list[Path]]  #: by id; more than one per id is an error
    tail: str = ""  #: added to the first part of an id: CamVid's "annot"

    def home(self, name: str) -> Path:
        """The path of an id without suffix, whether the file exists or not."""
        first, *rest = name.split("/")
        return self.path.joinpath(first + self.tail, *rest)

    def file(self, name: str) -> Path:
        """The file of an id; a `DataError` if there is none, or more than one."""
        found, home = self.files.get(name, []), self.home(name)
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(path.name for path in found)
            got = f"found {len(found)} files for {name!r} in {self.path}"
            raise DataError(f"{got} ({names}); keep one of them")
        raise DataError(
            f"found no file for {name!r} in {home.parent if self.tail else self.path}; wanted "
            f"that name with one of {' '.join(self.suffixes)}"
        )


class Layout(NamedTuple):
    """The files of a data set."""

    root: Path
    images: Folder
    masks: Folder  #: without files in COCO
    instances: Folder | None = None  #: object masks of some or all images
    outlines: Mapping[str, Outlines] = {}  #: COCO's annotations, by id
    lists: Path | None = None  #: the folder of lists, if there can be any
    groups: Mapping[str, list[str]] = {}  #: ids by split, from folders or annotations
    names: Names | None = None  #: of the classes, unless a classes.txt has others
    orphans: tuple[tuple[Path, int], ...] = ()  #: COCO files: number of annotations without image

    def mask(self, name: str) -> Path | Outlines:
        """The mask of an id; a `DataError` if there is none, or more than one."""
        return self.outlines[name] if name in self.outlines else self.masks.file(name)

    def objects(self, name: str) -> Path | None:
        """The object mask of an id, None without one; a `DataError` if there is more than one."""
        found = self.instances
        return found.file(name) if found and name in found.files else None


def find_files(root: str | Path, split: str | None = None) -> Layout:
    """Find the images and masks of a data set; they need not match.

    Only the annotations of `split` are read in COCO, if given.

    Raises:
        DataError: the folder has none of the layouts, or no image.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"got {root}, which is not a folder; pass the root of the data set")
    layout = _find(root, split)
    if not layout.images.files and not layout.outlines:
        got = f"got {layout.images.path} without images"
        raise DataError(f"{got}; wanted files ending in {' '.join(_IMAGES)}")
    return layout


def list_splits(layout: Layout) -> list[str]:
    """The splits of a data set, sorted: its lists, else its folders, else train and val."""
    texts = layout.lists.glob("*.txt") if layout.lists else ()
    lists = sorted(path.stem for path in texts if _is_list(path, layout))
    return lists or sorted(layout.groups) or ["train", "val"]


def split_names(layout: Layout, split: str) -> list[str]:
    """The ids of a split: from a list, from a folder, or by the default rule.

    A line of a list that names no image is returned as it is.

    Raises:
        DataError: there is no such split.
    """
    listed = _list(layout, split)
    if listed and listed.is_file() and split != "classes":
        return [_id(line, layout) for line in _lines(listed) if line]
    found = sorted(layout.outlines or layout.images.files)
    if split == "all":
        return found
    if split in layout.groups:
        return layout.groups[split]
    known = list_splits(layout)
    if split in known:
        return [name for i, name in enumerate(found) if (i % 5 == 4) == (split == "val")]
    raise _no_split(layout.root, split, known, listed)


def why_empty(layout: Layout, split: str) -> str:
    """The message for a split without images."""
    if (listed := _list(layout, split)) and listed.is_file():
        return f"has no images; write their ids to {listed}"
    if split in layout.groups:
        return f"has no images; put them into {layout.images.path / split}"
    n = len(layout.images.files)
    return (
        "has no images: without lists and folders val is every fifth image, and there "
        f"{'are' if n > 1 else 'is'} {n} in all; add images until there are 5, write the ids of "
        f"both splits to train.txt and val.txt in {layout.lists}, or use all images (split=all; "
        "for a training run, val=all)"
    )


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
    classes, void = _lines(path), VOID
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


def _find(root: Path, split: str | None) -> Layout:
    """The first layout that matches the folder."""
    annotated = {path.name.removesuffix("annot") for path in root.glob("*annot") if path.is_dir()}
    if (root / "JPEGImages").is_dir():
        return _voc(root)
    if (root / "images").is_dir() and (root / "masks").is_dir():
        return _plain(root)
    if annotations := find_annotations(root):
        return _coco(root, annotations, split)
    for base in (root, root / "dataset"):
        if (base / "img").is_dir() and (base / "cls").is_dir():
            return _sbd(base)
    if splits := sorted(name for name in annotated if (root / name).is_dir()):
        return _camvid(root, splits)
    if (root / "images").is_dir():
        return _plain(root)
    raise DataError(
        f"got {root}, which has neither JPEGImages/ (VOC) nor images/ (plain), nor img/ and cls/ "
        "(SBD), annotations/instances_*.json (COCO), or train/ and trainannot/ (CamVid): pass the "
        "folder that contains them, or move the images to images/ and the masks to masks/"
    )


def _voc(root: Path) -> Layout:
    masks, more = (_folder(root / f"SegmentationClass{tail}", _MASKS) for tail in ("", "Aug"))
    if not masks.path.is_dir() and more.path.is_dir():
        masks = more
    masks = _masks(masks)._replace(files={**more.files, **masks.files})
    images, objects = _folder(root / "JPEGImages", _IMAGES), _objects(root / "SegmentationObject")
    lists, names = root / "ImageSets/Segmentation", Names(list(VOC_CLASSES))
    return Layout(root, images, masks, objects, lists=lists, names=names)


def _plain(root: Path) -> Layout:
    images, masks = _folder(root / "images", _IMAGES), _masks(_folder(root / "masks", _MASKS))
    groups: dict[str, list[str]] = {
        path.name: []
        for path in images.path.iterdir()
        if path.is_dir() and not path.name.startswith(".")
    }
    for name in sorted(images.files):
        if (first := name.split("/")[0]) != name:
            groups[first].append(name)
    return Layout(root, images, masks, _objects(root / "instances"), lists=root, groups=groups)


def _sbd(root: Path) -> Layout:
    if find_spec("scipy") is None:
        raise DataError(f"got {root}, whose .mat files need SciPy; pip install 'unpool[sbd]'")
    images, masks = _folder(root / "img", _IMAGES), _folder(root / "cls", (".mat",))
    objects = _objects(root / "inst", (".mat",))
    return Layout(root, images, masks, objects, lists=root, names=Names(list(VOC_CLASSES)))


def _camvid(root: Path, splits: list[str]) -> Layout:
    images: dict[str, list[Path]] = {}
    masks: dict[str, list[Path]] = {}
    groups = {}
    for split in splits:
        found, annotated = _folder(root / split, _IMAGES), _folder(root / f"{split}annot", _MASKS)
        groups[split] = [f"{split}/{name}" for name in sorted(found.files)]
        for files, folder in ((images, found), (masks, annotated)):
            files.update((f"{split}/{name}", paths) for name, paths in folder.files.items())
    names = Names(list(CAMVID_CLASSES), len(CAMVID_CLASSES))
    folders = Folder(root, _IMAGES, images), Folder(root, _MASKS, masks, "annot")
    return Layout(root, *folders, groups=groups, names=names)


def _coco(root: Path, annotations: Mapping[str, Path], split: str | None) -> Layout:
    if split is not None and split != "all":
        named = annotations.get(split, root / f"annotations/instances_{split}.json")
        if not named.is_file():
            raise _no_split(root, split, sorted(annotations), None)
        annotations = {split: named}
    read = {name: read_annotations(path) for name, path in sorted(annotations.items())}
    homes = {name: _home(root, annotations[name], found) for name, found in read.items()}
    below = all((root / "images") in (home, home.parent) for home in homes.values())
    base = root / "images" if below else root
    outlines: dict[str, Outlines] = {}
    images: dict[str, list[Path]] = {}
    groups: dict[str, list[str]] = {}
    for name, found in read.items():
        paths = [homes[name] / image for image in found.images]
        groups[name] = [path.relative_to(base).with_suffix("").as_posix() for path in paths]
        outlines |= zip(groups[name], found.images.values(), strict=True)
        for key, path in zip(groups[name], paths, strict=True):
            if path.is_file() and path not in images.get(key, []):
                images.setdefault(key, []).append(path)
    return Layout(
        root,
        Folder(base, _IMAGES, images),
        Folder(root / "annotations", (".json",), {}),
        outlines=outlines,
        groups=groups,
        names=Names(["background", *_categories(annotations, read)]),
        orphans=tuple((annotations[name], found.orphans) for name, found in read.items()),
    )


def _categories(annotations: Mapping[str, Path], read: Mapping[str, Annotations]) -> list[str]:
    """The names of the categories, which all COCO files of a data set must share."""
    first, *others = read
    for other in others:
        if read[other].categories != read[first].categories:
            got = f"got {annotations[other]} with other categories than {annotations[first]}"
            raise DataError(f"{got}; give all files the same list")
    return list(read[first].categories.values())


def _home(root: Path, path: Path, found: Annotations) -> Path:
    """The folder of the images of a COCO file: the first one that contains any."""
    split = path.stem.removeprefix("instances_")
    names = split, without_year(split)
    homes = [root / name for name in (*names, *(f"images/{name}" for name in names), "images", "")]
    homes = [home for home in homes if home.is_dir()]  # at least root
    image = next(iter(found.images), "")
    return next((home for home in homes if (home / image).is_file()), homes[0])


def _lines(path: Path) -> list[str]:
    """The lines of a text file in UTF-8, stripped, without empty lines at the end."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"got {path}, which is not text in UTF-8 ({error}); save it as UTF-8"
        ) from error
    return [line.strip() for line in text.rstrip().splitlines()]


def _masks(folder: Folder) -> Folder:
    """Check that the folder of the masks exists."""
    if not (path := folder.path).is_dir():
        got = f"got {path.parent} without {path.name}/"
        raise DataError(f"{got}; put the masks there, named like the images")
    return folder


def _objects(path: Path, suffixes: tuple[str, ...] = _MASKS) -> Folder | None:
    return _folder(path, suffixes) if path.is_dir() else None


def _folder(root: Path, suffixes: tuple[str, ...]) -> Folder:
    """The files below a folder, which need not exist."""
    files: dict[str, list[Path]] = {}
    for parent, folders, names in os.walk(root, followlinks=True):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        for path in (Path(parent, name) for name in sorted(names) if not name.startswith(".")):
            if path.suffix.lower() in suffixes:
                files.setdefault(path.relative_to(root).with_suffix("").as_posix(), []).append(path)
    return Folder(root, suffixes, files)


def _no_split(root: Path, split: str, known: list[str], listed: Path | None) -> DataError:
    got = f"got split {split!r} of {root}; there are {', '.join([*known, 'all'])}"
    write = f", or write the ids to {listed}" if listed else ""
    return DataError(f"{got}: pass one of them{write}")


def _list(layout: Layout, split: str) -> Path | None:
    return layout.lists and layout.lists / f"{split}.txt"


def _is_list(path: Path, layout: Layout) -> bool:
    """Whether a text file lists images, by its name or first line; a readme does not."""
    if path.stem in (*_USUAL, "classes"):
        return path.stem in _USUAL
    try:
        first = next(filter(None, _lines(path)), "")
    except DataError:
        return False
    return _id(first, layout) in layout.images.files


def _id(line: str, layout: Layout) -> str:
    """The image named by a line, which may have a suffix, or more words after the name."""
    for name in (line, *line.split()[:1]):
        stem, _, suffix = name.rpartition(".")
        if name in layout.images.files:
            return name
        if f".{suffix.lower()}" in _IMAGES and stem in layout.images.files:
            return stem
    return line
