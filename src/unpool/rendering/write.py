"""Collections of 3-D models, and the data sets of views rendered from them."""

import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from unpool.errors import DataError, OptionError
from unpool.files import atomic, write_json
from unpool.rendering.archives import unpack
from unpool.rendering.dataset import AZIMUTHS, ELEVATIONS, view_name
from unpool.rendering.meshes import ENDINGS, Mesh, read_mesh, rotate_mesh
from unpool.rendering.render import render_views

LICENSES = {
    "BlendSwap-CC-0": "CC0",
    "BlendSwap-CC-BY": "CC-BY 3.0",
    "KatorLegaz": "CC-BY 3.0 US",
    "Scopia": "CC-BY 3.0",
}
"""Licenses of the furniture libraries of Sweet Home 3D, whose manifests only name the library."""

_UP = {"y": np.eye(3), "z": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])}
_CREDITS = ("name", "category", "creator", "library", "license")


class Model(NamedTuple):
    """A model file and its entry in the manifest."""

    style: str  #: name of its folder of views: plain, and unique
    path: Path
    name: str  #: path of the file in the folder or zip file
    record: Mapping[str, Any]  #: its entry in the manifest; empty if there is none

    def credits(self) -> dict[str, str]:
        """Its entry in `styles.json`: authors and license; empty without a manifest."""
        if not self.record:
            return {}
        facts = {key: str(self.record[key]) for key in _CREDITS if self.record.get(key)}
        if license := LICENSES.get(facts.get("library", "")):
            facts.setdefault("license", license)
        return {"style": self.style, **facts}


@contextmanager
def open_models(source: Path) -> Iterator[list[Model]]:
    """Find the models in a zip file or folder (recursively), or a single one; none is opened.

    Where a folder has a `manifest.json`, a list of objects with `id` (the folder of a model) and
    `obj` (its file there), styles are named by the ids; otherwise by the folder if it holds a
    single model, or by the file. Zip files are unpacked into a temporary folder.

    Args:
        source: a zip file, a folder, or a model file.

    Yields:
        The models, sorted by style; files that a manifest lists may be missing.

    Raises:
        DataError: the source is missing, has no models, or is a zip file that is refused.
    """
    if source.is_dir():
        yield _find(source, source)
    elif source.suffix.lower() == ".zip" and source.is_file():
        with tempfile.TemporaryDirectory(prefix="unpool-") as name:
            unpack(source, Path(name))
            yield _find(source, Path(name))
    elif source.suffix.lower() in ENDINGS and source.is_file():
        yield [Model(_plain(source.stem), source, source.name, {})]
    else:
        kinds = f"a .zip, a folder, or a model file ({' '.join(ENDINGS)})"
        state = "which is of another kind" if source.is_file() else "which is not there"
        raise DataError(f"got {source}, {state}; pass {kinds}")


def read_model(model: Model, up: str = "y") -> Mesh:
    """Read a model and set it upright.

    Args:
        model: from `open_models`.
        up: the axis that points up in its file, `y` or `z`.

    Raises:
        DataError: the file cannot be used, or `rotation` in the manifest is not a rotation matrix:
            nine numbers, row by row, that multiply points from the left.
        OptionError: another axis, or trimesh is not installed.
    """
    if up not in _UP:
        raise OptionError(f"got up={up!r}; wanted one of {', '.join(_UP)}")
    mesh = rotate_mesh(read_mesh(model.path), _UP[up])
    if not (text := model.record.get("rotation")):
        return mesh
    try:
        rotation = np.array(str(text).split(), np.float64).reshape(3, 3)
        proper = np.linalg.det(rotation) > 0 and np.allclose(
            rotation @ rotation.T, np.eye(3), 0, 0.01
        )
    except ValueError:
        proper = False
    if not proper:
        raise DataError(
            f"the manifest gives {model.style} the rotation {text!r}; wanted nine numbers, the "
            "rows of a rotation matrix"
        )
    return rotate_mesh(mesh, rotation)


def write_style(
    mesh: Mesh, folder: Path, size: int, progress: Callable[[int, int], object] | None = None
) -> int:
    """Render the 62 views of the public set into `folder/renders`.

    Args:
        mesh: of the object.
        folder: of the style; files of the same names are replaced.
        size: side of the images in pixels.
        progress: called with views written, and views in total.

    Returns:
        The number of images.
    """
    views = [(azimuth, elevation) for elevation in ELEVATIONS for azimuth in AZIMUTHS]
    for number, image in enumerate(render_views(mesh, views, size)):
        with atomic(folder / "renders" / view_name(number, *views[number])) as temporary:
            Image.fromarray(image).save(temporary, "PNG")
        if progress:
            progress(number + 1, len(views))
    return len(views)


def write_credits(root: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Update `styles.json`, the credits of the styles in a folder.

    Args:
        root: the folder of the styles.
        records: from `Model.credits`; they replace those of the same `style`, and empty ones are
            ignored.
    """
    known = {record["style"]: record for record in read_credits(root)}
    known |= {record["style"]: dict(record) for record in records if record}
    if known:
        write_json(root / "styles.json", [known[style] for style in sorted(known)])


def read_credits(root: Path) -> list[dict[str, Any]]:
    """The credits of the styles in a folder, see `write_credits`; empty without `styles.json`.

    Raises:
        DataError: `styles.json` is damaged.
    """
    path = root / "styles.json"
    return [dict(record) for record in _read_list(path, "style")] if path.is_file() else []


def _find(source: Path, root: Path) -> list[Model]:
    """The models below a folder."""
    paths = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in ENDINGS
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    listed: dict[Path, Mapping[str, Any]] = {}
    for manifest in sorted(root.rglob("manifest.json")):
        for record in _read_list(manifest, "id", "obj"):
            path = manifest.parent / record["id"] / record["obj"]
            if not path.resolve().is_relative_to(root.resolve()):
                raise DataError(
                    f"{manifest.name} of {source} lists {record['id']}/{record['obj']}, which "
                    "leads out of its folder; correct the manifest"
                )
            listed[path] = record
    if not (paths or listed):
        raise DataError(f"got {source} without models; wanted files ending in {' '.join(ENDINGS)}")
    count = Counter(path.parent for path in paths)
    models: dict[str, Model] = {}
    for path in sorted({*paths, *listed}):
        record = listed.get(path, {})
        own = path.parent.name if count[path.parent] == 1 and path.parent != root else path.stem
        style = _free(_plain(record.get("id", own)), models)
        name = path.relative_to(root).as_posix()
        models[style.casefold()] = Model(style, path, name, record)
    return sorted(models.values())


def _plain(name: str) -> str:
    """A name that is safe for a folder."""
    return re.sub(r"[^\w.+-]+", "_", name)[:100].strip("._") or "model"


def _free(name: str, taken: Mapping[str, Model]) -> str:
    """A name that is not taken, also on file systems that ignore case."""
    number, free = 1, name
    while free.casefold() in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def _read_list(path: Path, *keys: str) -> Sequence[Mapping[str, Any]]:
    """Read a JSON list of objects with strings under these keys."""
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        good = all(isinstance(record[key], str) for record in records for key in keys)
    except (ValueError, TypeError, KeyError, RecursionError):
        good = False
    if not good:
        raise DataError(
            f"{path.name} is not a list of objects with {' and '.join(keys)}; correct or delete it"
        )
    return list(records)
