"""The API of the page Results: a training run, or the output of a run over many images; read only.

The folder is that which the server was started with. Only files that it lists are read: images in
`plots/` of a training run, and results in the ledger of a run over images. None outside is.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from unpool.errors import WeightsError
from unpool.files import HIDDEN, read_json, strict
from unpool.limits import MAX_LISTED, MAX_SERVED_PIXELS
from unpool.serve import options
from unpool.serve.applications import JPEG, PNG
from unpool.serve.intake import query_options
from unpool.serve.refusals import Refusal

if TYPE_CHECKING:
    from unpool.serve.studio.studio import Studio
    from unpool.vision.images import Pixels

_POINTS = 400  # of a curve
_SIDE = 320  # of a thumbnail
_PAGE = 60
_TYPES = {".png": PNG, ".jpg": JPEG}
_ABOUT = ("recipe", "network", "steps", "size")  # of the recipe of a training run

_ITEMS = (
    options.Option("class", options.text, "label"),
    options.Option("least", options.number(0, 1)),
    options.Option("failed", options.flag),
    options.Option("first", options.whole(0, MAX_LISTED)),
)
_IMAGE = (
    options.Option("name", options.text),
    options.Option("file", options.text),
    options.Option("small", options.flag),
)

Item = dict[str, Any]
"""What is known of an image: `name`, and `labels` with their fractions, or `error`; `files`."""


class Results:
    """The routes of the page Results.

    Args:
        studio: what all pages share.
    """

    def __init__(self, studio: "Studio") -> None:
        self.folder = studio.settings.results
        self._known: tuple[Any, dict[str, Item]] = None, {}

    async def describe(self, request: Request) -> Response:
        """`/api/folder`: what the folder is, and all but its images."""
        return await _answer(self.about)

    async def matching(self, request: Request) -> Response:
        """`/api/folder/items`: images that match a filter, some at a time."""
        given = options.parse(query_options(request), _ITEMS)
        return await _answer(lambda: select(self.items(), **given))

    async def image(self, request: Request) -> Response:
        """`/api/folder/image`: an image that the folder lists."""
        given = options.parse(query_options(request), _IMAGE)
        content, media_type = await asyncio.to_thread(self.read, **given)
        return Response(content, media_type=media_type)

    @property
    def root(self) -> Path:
        """The folder; refused without one."""
        if self.folder is None:
            raise Refusal(404, "got no folder with results; start the studio with --results FOLDER")
        return self.folder

    def about(self) -> dict[str, Any]:
        """What the folder is: `kind`, `name`, `facts`, `classes`, and curves or failures."""
        about = {"name": self.root.resolve().name}
        if (self.root / HIDDEN / "manifest").is_dir():
            return {**about, **describe_batch(self.root, self.items().values())}
        return {**about, **describe_run(self.root)}

    def items(self) -> dict[str, Item]:
        """The images of the folder by name, read again when its ledger has changed."""
        ledger = sorted((self.root / HIDDEN / "ledger").glob("*.jsonl"))
        key = [(path, stat.st_mtime_ns, stat.st_size) for path in ledger for stat in [path.stat()]]
        if self._known[0] != key:
            self._known = key, list_items(self.root)
        return self._known[1]

    def read(self, file: str, name: str = "", small: bool = False) -> tuple[bytes, str]:
        """An image that the folder lists, as it is or as a thumbnail; and its media type."""
        known = self.items().get(name, {"files": []})["files"] if name else plots(self.root)
        path = (self.root / file).resolve()
        inside = path.is_relative_to(self.root.resolve()) and path.is_file()
        if file not in known or not inside or path.suffix not in _TYPES:
            raise Refusal(404, f"got {file[:200]!r}, which is no image of these results")
        if small:
            return thumbnail(path), JPEG
        return path.read_bytes(), _TYPES[path.suffix]


def routes(studio: "Studio") -> list[Route]:
    """The routes of the page."""
    results = Results(studio)
    return [
        Route("/api/folder", results.describe),
        Route("/api/folder/items", results.matching),
        Route("/api/folder/image", results.image),
    ]


async def _answer(make: Callable[[], Any]) -> Response:
    return JSONResponse(strict(await asyncio.to_thread(make)))


# ---- results of many images ----------------------------------------------------------------------


def list_items(folder: Path) -> dict[str, Item]:
    """The finished and failed images of the newest run into a folder, at most `MAX_LISTED`."""
    from unpool.batch.ledger import lines
    from unpool.batch.status import newest

    found = dict[str, Item]()
    for line in lines(folder, newest(folder)["procedure"]):
        name, record = line["name"], line.get("record")
        if name not in found and len(found) >= MAX_LISTED:
            continue
        if isinstance(line.get("error"), str):
            found[name] = {"name": name, "error": line["error"], "files": []}
        elif isinstance(record, dict):
            labels = _numbers(record.get("labels"))
            facts = {k: record[k] for k in ("size", "seconds", "confidence") if k in record}
            found[name] = {"name": name, "labels": labels, **facts, "files": _images(line)}
    return found


def _images(line: Mapping[str, Any]) -> list[str]:
    """The images among the files of an item: what is best to look at first, then the others."""
    files = [file for file in line.get("files") or [] if isinstance(file, str)]
    files = [f for f in files if PurePosixPath(f).suffix in _TYPES and not f.startswith(".")]
    return sorted(files, key=lambda file: -PurePosixPath(file).name.count("."))


def _numbers(value: Any) -> dict[str, float]:
    """The numbers of a mapping."""
    pairs = value.items() if isinstance(value, dict) else ()
    return {str(k): float(v) for k, v in pairs if type(v) in (int, float) and math.isfinite(v)}


def select(
    items: Mapping[str, Item],
    *,
    label: str = "",
    least: float = 0.0,
    failed: bool = False,
    first: int = 0,
) -> dict[str, Any]:
    """The items with a class of a least fraction, or those that failed: `total`, and a page.

    >>> items = {"a": {"name": "a", "labels": {"cat": 0.2}}, "b": {"name": "b", "error": "broken"}}
    >>> select(items, label="cat", least=0.1)
    {'total': 1, 'items': [{'name': 'a', 'labels': {'cat': 0.2}}]}
    """
    found = [
        item
        for item in items.values()
        if ("error" in item) == failed
        and (failed or not label or item["labels"].get(label, -1.0) >= least)
    ]
    if label and not failed:
        found.sort(key=lambda item: -item["labels"][label])
    return {"total": len(found), "items": found[first : first + _PAGE]}


def describe_batch(folder: Path, items: Iterable[Item]) -> dict[str, Any]:
    """How far the run is, and for each class the number of images and its mean fraction in them."""
    from unpool.batch.status import status

    found = status(folder)
    fractions = dict[str, list[float]]()
    for item in items:
        for name, fraction in item.get("labels", {}).items():
            fractions.setdefault(name, []).append(fraction)
    often = sorted(fractions.items(), key=lambda one: -len(one[1]))
    rows = [[name, len(some), sum(some) / len(some)] for name, some in often]
    facts = {k: v for k, v in found.items() if k not in ("failures", "shards") and v is not None}
    table = {"columns": ["class", "images", "mean fraction"], "rows": rows}
    return {"kind": "images", "facts": facts, "classes": table, "curves": {}, "plots": []}


# ---- a training run ------------------------------------------------------------------------------


def describe_run(folder: Path) -> dict[str, Any]:
    """The recipe, the final figures, the figures of each class, the curves and plots of a run."""
    if not (folder / "config.json").is_file():
        raise Refusal(
            404,
            f"got {folder.resolve().name}, neither a training run nor results of images; start the "
            "studio with another folder",
        )
    recipe, summary = (_object(folder / name) for name in ("config.json", "eval/summary.json"))
    facts = {k: recipe[k] for k in _ABOUT if isinstance(recipe.get(k), str | int)}
    facts |= {k: v for k, v in summary.items() if type(v) in (int, float, str)}
    by_class = [k for k, v in summary.items() if isinstance(v, dict) and _numbers(v)]
    names = list(dict.fromkeys(name for k in by_class for name in summary[k]))
    rows = [[name, *(summary[k].get(name) for k in by_class)] for name in names]
    notes = [note for note in summary.get("notes") or [] if isinstance(note, str)]
    return {
        "kind": "training",
        "facts": facts,
        "notes": notes,
        "classes": {"columns": ["class", *(k.replace("_", " ") for k in by_class)], "rows": rows},
        "curves": curves(folder),
        "plots": plots(folder),
    }


def _object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is none."""
    found = read_json(path, WeightsError) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def plots(folder: Path) -> list[str]:
    """The images that a training run has made, relative to its folder."""
    return [f"plots/{path.name}" for path in sorted((folder / "plots").glob("*.png"))]


def curves(folder: Path) -> dict[str, list[list[float]]]:
    """The numbers in `metrics.jsonl` by name: points of step and value, at most 400 of each.

    Of more points, each is the mean of several.
    """
    from unpool.training.run import read_metrics

    found = dict[str, list[tuple[int, float]]]()
    for record in read_metrics(folder):
        for name, value in _numbers(record).items():
            if name != "n":
                found.setdefault(name, []).append((record["n"], value))
    return {name: [*_thinned(points)] for name, points in found.items() if len(points) > 1}


def _thinned(points: list[tuple[int, float]]) -> Iterator[list[float]]:
    size = -(-len(points) // _POINTS)
    for start in range(0, len(points), size):
        steps, values = zip(*points[start : start + size], strict=True)
        yield [steps[-1], sum(values) / len(values)]


# ---- images --------------------------------------------------------------------------------------


def thumbnail(path: Path) -> bytes:
    """An image as a JPEG of a long side of at most 320 pixels."""
    from PIL import Image

    from unpool.vision.images import encode_image, read_image

    image: Pixels = read_image(path, max_pixels=MAX_SERVED_PIXELS)
    small = Image.fromarray(image)
    small.thumbnail((_SIDE, _SIDE))
    return encode_image(small, ".jpg")
