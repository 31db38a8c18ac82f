"""Collections of 3-D models, and the data sets of views rendered from them."""

import itertools
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unpool.errors import DataError, OptionError
from unpool.files import fold_name, write_bytes, write_json
from unpool.rendering.archives import unpack
from unpool.rendering.dataset import AZIMUTHS, ELEVATIONS, read_credits, read_records, view_name
from unpool.rendering.meshes import ENDINGS, read_mesh
from unpool.rendering.render import render_views
from unpool.rendering.triangles import Mesh, rotate_mesh
from unpool.vision.images import encode_png

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
    """A model file."""

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
        state = "which is of another kind" if source.exists() else "which is not there"
        raise DataError(f"got {source}, {state}; pass {kinds}")


def read_model(model: Model, up: str = "y") -> Mesh:
    """Read a model and set it upright; `up` is the axis that points up in its file, `y` or `z`.

    Raises:
        DataError: the file cannot be used, or `rotation` in the manifest is not a rotation matrix:
            nine numbers, row by row, that multiply points from the left.
        OptionError: another axis.
    """
    if up not in _UP:
        raise OptionError(f"got up={up!r}; wanted one of {', '.join(_UP)}")
    mesh = rotate_mesh(read_mesh(model.path), _UP[up])
    if not (text := model.record.get("rotation")):
        return mesh
    with suppress(ValueError):
        rotation = np.array(str(text).split(), np.float64).reshape(3, 3)
        rotation = np.clip(rotation, -2, 2)  # no overflow
        orthogonal = np.allclose(rotation @ rotation.T, np.eye(3), 0, 0.01)
        if orthogonal and np.linalg.det(rotation) > 0:  # a negative one would mirror
            return rotate_mesh(mesh, rotation)
    wanted = "nine numbers, the rows of a rotation matrix"
    raise DataError(f"the manifest gives {model.style} the rotation {text!r}; wanted {wanted}")


def write_style(
    mesh: Mesh, folder: Path, size: int, progress: Callable[[int, int], object] | None = None
) -> int:
    """Render the 62 views of the public set into `folder/renders`; returns their number.

    Args:
        folder: of the style; files of the same names are replaced.
        size: side of the images in pixels.
        progress: called with views written, and views in total.
    """
    views = [(azimuth, elevation) for elevation in ELEVATIONS for azimuth in AZIMUTHS]
    for number, image in enumerate(render_views(mesh, views, size)):
        write_bytes(folder / "renders" / view_name(number, *views[number]), encode_png(image))
        if progress:
            progress(number + 1, len(views))
    return len(views)


def write_credits(root: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Update `styles.json`, the credits of the styles in a folder.

    Records, as of `Model.credits`, replace those of the same `style`; empty ones are ignored.
    """
    known = {record["style"]: record for record in read_credits(root)}
    known |= {record["style"]: dict(record) for record in records if record}
    if known:
        write_json(root / "styles.json", [known[style] for style in sorted(known)])


def _find(source: Path, root: Path) -> list[Model]:
    """The models below a folder."""
    models = (p for p in root.rglob("*") if p.suffix.lower() in ENDINGS and p.is_file())
    paths = sorted(p for p in models if "/." not in f"/{p.relative_to(root).as_posix()}")
    listed: dict[Path, Mapping[str, Any]] = {}
    for manifest in sorted(root.rglob("manifest.json")):
        for record in read_records(manifest, "id", "obj"):
            path = manifest.parent / record["id"] / record["obj"]
            if not _is_inside(path, root):
                name = repr(f"{record['id']}/{record['obj']}"[:100])
                got = f"{manifest.name} of {source} lists {name}, which leads out of its folder"
                raise DataError(f"{got} or cannot be a name; correct the manifest")
            listed[path] = record
    if not (paths or listed):
        raise DataError(f"got {source} without models; wanted files ending in {' '.join(ENDINGS)}")
    count = Counter(path.parent for path in paths)
    found: dict[str, Model] = {}
    for path in sorted({*paths, *listed}):
        record = listed.get(path, {})
        own = path.parent.name if count[path.parent] == 1 and path.parent != root else path.stem
        style = _free(_plain(record.get("id", own)), found)
        name = path.relative_to(root).as_posix()
        found[fold_name(style)] = Model(style, path, name, record)
    return sorted(found.values())


def _is_inside(path: Path, root: Path) -> bool:
    """Whether a path is below a folder; not so if the system has no such names."""
    try:
        path.is_file()
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, ValueError):
        return False


def _plain(name: str) -> str:
    """A name that is safe for a folder."""
    return re.sub(r"[^\w.+-]+", "_", name)[:100].strip("._") or "model"


def _free(name: str, taken: Mapping[str, Model]) -> str:
    """A name that is not taken, also on file systems that ignore case."""
    names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    return next(free for free in names if fold_name(free) not in taken)
