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
All layouts except COCO may have a `classes.txt`, see `unpool.data.classes.read_names`.
"""

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from unpool.data.classes import CAMVID_CLASSES, VOC_CLASSES, Names, read_lines, read_names
from unpool.data.coco import Annotations, Outlines, find_annotations, read_annotations, without_year
from unpool.errors import DataError

_IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_MASKS = (".png", ".bmp", ".tif", ".tiff", ".gif")
_USUAL = ("train", "val", "test", "trainval", "trainaug")


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
        if not found:
            raise DataError(
                f"found no file for {name!r} in {home.parent if self.tail else self.path}; wanted "
                f"that name with one of {' '.join(self.suffixes)}"
            )
        if len(found) > 1:
            raise DataError(
                f"found {len(found)} files for {name!r} in {self.path} "
                f"({', '.join(path.name for path in found)}); keep one of them"
            )
        return found[0]


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

    Args:
        root: a folder in one of the layouts above.
        split: the only one needed, so that COCO's other files are not read.

    Raises:
        DataError: the folder has none of the layouts, or no image.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"got {root}, which is not a folder; pass the root of the data set")
    layout = _find(root, split)
    if not layout.images.files and not layout.outlines:
        raise DataError(
            f"got {layout.images.path} without images; wanted files ending in {' '.join(_IMAGES)}"
        )
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
        return [_id(line, layout) for line in read_lines(listed) if line]
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
    """The classes from `classes.txt` or by the layout; None if they have no names.

    Raises:
        DataError: `classes.txt` cannot be used.
    """
    listed = layout.root / "classes.txt"
    if listed.is_file() and not layout.outlines:
        return read_names(listed)
    return layout.names


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
        "(SBD), annotations/instances_*.json (COCO), or train/ and trainannot/ (CamVid); wanted "
        "one of these layouts: pass the folder that contains them, or move the images to images/ "
        "and the masks to masks/"
    )


def _voc(root: Path) -> Layout:
    masks, more = (_folder(root / f"SegmentationClass{tail}", _MASKS) for tail in ("", "Aug"))
    if not masks.path.is_dir() and more.path.is_dir():
        masks = more
    masks = _masks(masks)._replace(files={**more.files, **masks.files})
    return Layout(
        root,
        _folder(root / "JPEGImages", _IMAGES),
        masks,
        _objects(root / "SegmentationObject"),
        lists=root / "ImageSets/Segmentation",
        names=Names(list(VOC_CLASSES)),
    )


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
    if importlib.util.find_spec("scipy") is None:
        raise DataError(
            f"got {root}, an SBD folder, whose .mat files need SciPy; pip install 'unpool[sbd]'"
        )
    images, masks = _folder(root / "img", _IMAGES), _folder(root / "cls", (".mat",))
    objects = _objects(root / "inst", (".mat",))
    return Layout(root, images, masks, objects, lists=root, names=Names(list(VOC_CLASSES)))


def _camvid(root: Path, splits: list[str]) -> Layout:
    images: dict[str, list[Path]] = {}
    masks: dict[str, list[Path]] = {}
    groups = {}
    for split in splits:
        found = _folder(root / split, _IMAGES).files
        groups[split] = [f"{split}/{name}" for name in sorted(found)]
        images |= {f"{split}/{name}": paths for name, paths in found.items()}
        found = _folder(root / f"{split}annot", _MASKS).files
        masks |= {f"{split}/{name}": paths for name, paths in found.items()}
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
            raise DataError(
                f"got {annotations[other]} with other categories than {annotations[first]}; "
                "give all files the same list"
            )
    return list(read[first].categories.values())


def _home(root: Path, path: Path, found: Annotations) -> Path:
    """The folder of the images of a COCO file: the first one that contains any."""
    split = path.stem.removeprefix("instances_")
    names = split, without_year(split)
    homes = [root / name for name in (*names, *(f"images/{name}" for name in names), "images", "")]
    homes = [home for home in homes if home.is_dir()]  # at least root
    image = next(iter(found.images), "")
    return next((home for home in homes if (home / image).is_file()), homes[0])


def _masks(folder: Folder) -> Folder:
    """Check that the folder of the masks exists."""
    if not (path := folder.path).is_dir():
        raise DataError(
            f"got {path.parent} without {path.name}/; put the masks there, named like the images"
        )
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
    write = f", or write the ids to {listed}" if listed else ""
    return DataError(
        f"got split {split!r} of {root}; there are {', '.join([*known, 'all'])}: "
        f"pass one of them{write}"
    )


def _list(layout: Layout, split: str) -> Path | None:
    return layout.lists and layout.lists / f"{split}.txt"


def _is_list(path: Path, layout: Layout) -> bool:
    """Whether a text file lists images, by its name or first line; a readme does not."""
    if path.stem in (*_USUAL, "classes"):
        return path.stem in _USUAL
    try:
        first = next(filter(None, read_lines(path)), "")
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
