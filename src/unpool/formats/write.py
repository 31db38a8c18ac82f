"""The files of a folder of results in the formats of labeling tools.

Some formats have a file for each image, others one for all. The latter are put together at the end,
from a part for each image in the hidden folder `.unpool/parts`. So a run that was interrupted and
goes on has all images in them, those of the first run too.
"""

import json
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from unpool.errors import DataError
from unpool.files import HIDDEN, atomic, json_line, read_json, write_bytes
from unpool.formats import coco, label_studio
from unpool.formats.geojson import to_geojson
from unpool.formats.labelme import labels_txt, to_labelme
from unpool.formats.yolo import data_yaml, to_yolo
from unpool.limits import MAX_PART
from unpool.vision.georeference import read_georeference

if TYPE_CHECKING:
    from unpool.formats.objects import Objects
    from unpool.vision.images import Pixels

SUFFIXES = {"labelme": ".json", "yolo": ".txt", "geojson": ".geojson"}
"""The formats with a file for each image, and what is appended to its name."""

COLLECTED = {"coco": "annotations.coco.json", "labelstudio": "label_studio.json"}
"""The formats with one file for all images, and its name."""

_LISTS = {"coco": ("images", "annotations"), "labelstudio": ("predictions",)}

BESIDE = {"labelme": "labels.txt", "yolo": "data.yaml", "labelstudio": "label_studio.xml"}
"""The formats with a file about the classes, and its name."""


def write_image(
    output: Path,
    name: PurePosixPath,
    formats: Collection[str],
    objects: "Objects",
    image: Path | None,
    file_name: str,
    tolerance: float = 0.0,
) -> dict[str, str]:
    """Write the files of an image, and its parts of the files of the folder.

    Args:
        output: the folder for the results.
        name: of the image's results in it, without suffix.
        formats: some of `unpool.recipes.presets.RESULTS`.
        objects: of the image.
        image: the file of the image; None if it has none.
        file_name: of the image, relative to the folder of all images.
        tolerance: by how many pixels polygons may be simplified.

    Returns:
        The paths of the files by format.
    """
    files = {k: Path(f"{output / name}{suffix}") for k, suffix in SUFFIXES.items() if k in formats}
    for key, path in files.items():
        match key:
            case "labelme":
                where = _relative(image, path.parent, file_name)
                content = json.dumps(to_labelme(objects, where, tolerance=tolerance))
            case "yolo":
                content = to_yolo(objects, tolerance=tolerance)
            case _:
                place = read_georeference(image)
                content = json.dumps(to_geojson(objects, place, tolerance=tolerance))
        write_bytes(path, content.encode())
    for key in COLLECTED.keys() & formats:
        part: dict[str, Any] = coco.to_coco(objects, file_name)
        if key == "labelstudio":
            address = label_studio.local_file(_below_root(image, name, file_name))
            part = label_studio.to_label_studio(objects, address)
        write_bytes(_part(output, name, key), json_line(part).encode())
    return {key: str(path) for key, path in files.items()}


def forget_image(output: Path, name: PurePosixPath) -> None:
    """Remove the parts of an image that an earlier run left, before it is worked on again."""
    for key in COLLECTED:
        _part(output, name, key).unlink(missing_ok=True)


def write_folder(
    output: Path,
    names: Sequence[PurePosixPath],
    formats: Collection[str],
    classes: Sequence[str],
    palette: "Pixels | None" = None,
) -> list[Path]:
    """Write the files of the folder, of those images that have their parts.

    Args:
        output: the folder for the results.
        names: of the images' results in it, without suffix.
        formats: some of `unpool.recipes.presets.RESULTS`.
        classes: names by class id.
        palette: (256, 3) uint8, RGB by class id, for the labeling config.

    Returns:
        The paths of the files.
    """
    written = []
    for key in COLLECTED:
        if key in formats:
            parts = _parts(output, names, key)
            pieces = coco.merged(parts, classes) if key == "coco" else label_studio.merged(parts)
            with (
                atomic(output / COLLECTED[key]) as temporary,
                temporary.open("w", encoding="utf-8") as file,
            ):
                file.writelines(pieces)
            written.append(output / COLLECTED[key])
    texts = {
        "labelme": labels_txt(classes),
        "yolo": data_yaml(classes),
        "labelstudio": label_studio.labeling_config(classes, palette),
    }
    for key, name in BESIDE.items():
        if key in formats:
            write_bytes(output / name, texts[key].encode())
            written.append(output / name)
    return written


def image_files(stem: Path, formats: Collection[str]) -> list[Path]:
    """The files that `write_image` writes for an image, without the parts."""
    return [Path(f"{stem}{suffix}") for key, suffix in SUFFIXES.items() if key in formats]


def folder_files(output: Path, formats: Collection[str]) -> list[Path]:
    """The files that `write_folder` writes."""
    files = [*COLLECTED.items(), *BESIDE.items()]
    return [output / name for key, name in files if key in formats]


def _part(output: Path, name: PurePosixPath, key: str) -> Path:
    return Path(f"{output / HIDDEN / 'parts' / name}.{key}.json")


def _parts(output: Path, names: Iterable[PurePosixPath], key: str) -> Iterator[dict[str, Any]]:
    for name in names:
        path = _part(output, name, key)
        if path.exists():
            found = read_json(path, DataError, MAX_PART)
            lists = [found.get(k) if isinstance(found, dict) else None for k in _LISTS[key]]
            if not all(isinstance(v, list) and all(isinstance(e, dict) for e in v) for v in lists):
                raise DataError(f"got {path}, which was changed; remove it, and segment again")
            yield found


def _relative(image: Path | None, folder: Path, file_name: str) -> str:
    """The path of an image as labelme follows it, from the folder of the JSON file."""
    if image is None:
        return file_name
    try:
        return Path(os.path.relpath(image, folder)).as_posix()
    except ValueError:  # on another drive of Windows
        return image.absolute().as_posix()


def _below_root(image: Path | None, name: PurePosixPath, file_name: str) -> str:
    """The path of an image with the folder of all images as its first part, for Label Studio."""
    if image is None:
        return file_name
    root = image.absolute().parents[len(name.parts) - 1].resolve()
    return (root.name / name.parent / image.name).as_posix()
