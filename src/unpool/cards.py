"""Model cards: the facts about weights, in `card.json` beside their tensors.

Nothing here needs torch, so that `unpool info` answers at once.
"""

import hashlib
import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

from unpool.errors import WeightsError, suggest
from unpool.files import read_json, require_regular, write_json
from unpool.limits import MAX_DEPTH, MAX_SIDE, MAX_SMOOTHING
from unpool.recipes.presets import NORMALIZATIONS, DenseCRF, Kernel

MODES = ("whole", "instance", "tiles")
"""How an image can be segmented; see `unpool.segment.segmenter`."""

AGGREGATIONS = ("max", "mean")
"""How overlapping crops can be merged; see `unpool.segment.aggregate.Aggregate`."""

EXPORTED = {".onnx": "onnx", ".xml": "openvino", ".pt2": "torch-export"}
"""The endings of exported networks, and their formats; see `unpool.export.write`."""


@dataclass(frozen=True)
class Card:
    """The card of saved weights or of an exported network.

    The defaults stand for entries that a card lacks, and are not written.
    """

    architecture: str  #: the class of the network, a name in `unpool.models.MODELS`
    arguments: dict[str, Any]  #: of its constructor
    sha256: str  #: of `model.safetensors`
    classes: list[str] | None = None  #: names by class id
    palette: list[list[int]] | None = None  #: [red, green, blue] by class id, 0 to 255
    styles: list[str] | None = None  #: of a generator
    elevations: list[float] | None = None  #: that a generator was trained on, in degrees
    input: dict[str, Any] = field(default_factory=dict)  #: mean (BGR), order, range, size, enlarged
    long_side: int | None = None  #: of whole images, in pixels
    mode: str | None = None  #: of segmentation, one of `MODES`
    aggregate: str | None = None  #: of overlapping crops, one of `AGGREGATIONS`
    presence_threshold: float | None = None  #: classes that are nowhere as probable are left out
    smoothing: float | None = None  #: of the scores, see `unpool.segment.smoothing`
    crf: dict[str, Any] | None = None  #: the arguments of a `DenseCRF`, for crf="auto"
    temperature: dict[str, float] | None = None  #: of the logits by mode, for the confidence
    recipe: dict[str, Any] = field(default_factory=dict)  #: with which the network was trained
    license: str | None = None
    figures: dict[str, Any] = field(default_factory=dict)  #: measured, by data and protocol
    partner: str | None = None  #: for an ensemble: a folder relative to the card's, or a name
    ensemble_weight: float | None = None  #: of this network in the mean with its partner
    ready: bool = True  #: False if the network must be trained before use
    note: str | None = None
    exports: dict[str, Any] = field(default_factory=dict)  #: sha256, versions ... by format
    more: dict[str, Any] = field(default_factory=dict)  #: all other entries
    path: str = field(default="", compare=False)  #: where it was read, for messages

    @classmethod
    def from_dict(cls, entries: object, path: object) -> "Card":
        """Check the entries of a card, which may have been written by hand; null is no entry.

        Raises a `WeightsError` that names the `path` if one is missing or cannot be used.

        >>> Card.from_dict({"format": 1, "architecture": "VGG"}, "cats")
        Traceback (most recent call last):
        unpool.errors.WeightsError: the card of cats lacks arguments, sha256; copy it again
        """
        if not isinstance(entries, dict):
            raise WeightsError(f"the card of {path} is not a JSON object; copy it again")
        required = {"format": int, "architecture": str, "arguments": dict, "sha256": str}
        if bad := [k for k, kind in required.items() if not isinstance(entries.get(k), kind)]:
            raise WeightsError(f"the card of {path} lacks {', '.join(bad)}; copy it again")
        if entries["format"] != 1:
            raise WeightsError(
                f"the card of {path} is of format {entries['format']}; this version reads 1"
            )
        names = {f.name for f in fields(cls)} - {"more", "path"}
        known = {k: v for k, v in entries.items() if k in names and v is not None}
        more = {k: v for k, v in entries.items() if k not in {*names, "format"}}
        _check(known, _rules(known["arguments"]), path)
        _check(known.get("input", {}), _INPUT, path)
        _check(known["arguments"], {"size": _INPUT["size"]}, path)
        return cls(**known, more=more, path=str(path))

    def to_dict(self) -> dict[str, Any]:
        """The entries as plain values, without those that have their defaults."""
        entries: dict[str, Any] = {"format": 1}
        for f in fields(self):
            default = f.default if f.default_factory is MISSING else f.default_factory()
            if f.name not in ("more", "path") and getattr(self, f.name) != default:
                entries[f.name] = getattr(self, f.name)
        return entries | self.more

    def write(self, path: str | Path) -> None:
        """Write the card as JSON, atomically; a `WeightsError` for values that JSON cannot hold."""
        try:
            write_json(path, self.to_dict())
        except (TypeError, ValueError) as error:
            raise WeightsError(f"got a card with a value that JSON cannot hold: {error}") from None

    @property
    def mean(self) -> tuple[float, float, float] | None:
        """The mean that is subtracted from pixels: blue, green, red, 0 to 255."""
        if "mean" not in self.input:
            return None
        blue, green, red = self.input["mean"]
        return blue, green, red

    @property
    def held_out(self) -> list[int]:
        """The azimuths, by number, that a generator has not been trained on."""
        numbers: Any = self.recipe.get("held_out")
        return numbers if _are(numbers, lambda n: type(n) is int) else []

    def class_names(self, count: int) -> list[str]:
        """The names of the classes; "class 0" ... if the card has none."""
        return self.classes or [f"class {i}" for i in range(count)]

    def segmentation(self, classes: int) -> dict[str, Any]:
        """Arguments of `Segmenter` for a number of classes, as far as the card has them.

        Raises a `WeightsError` if the mode is not one of segmentation, or classes share a name.
        """
        different: _Rule = (lambda v: len(set(v)) == len(v), f"{classes} different names")
        _check({"classes": self.class_names(classes)}, {"classes": different}, self.path)
        if self.mode is not None:
            _check({"mode": self.mode}, {"mode": _one_of(MODES)}, self.path)
        sizes = ("palette", "mean", "long_side")
        names = (*sizes, "mode", "aggregate", "smoothing", "presence_threshold", "temperature")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.crf is not None:
            kernels = tuple(Kernel(*kernel) for kernel in self.crf["kernels"])
            given["crf"] = DenseCRF(**{**self.crf, "kernels": kernels})
        return {"classes": self.class_names(classes), **given}


def find_weights(source: str | Path) -> Path:
    """The folder of saved weights, or of a run, or of weights that ship with the package.

    Raises:
        WeightsError: no such weights.
    """
    folder = _as_path(source)
    if (folder / "card.json").is_file():
        return folder
    if (folder / "weights/card.json").is_file():  # a run folder
        return folder / "weights"
    if str(source) in list_pretrained():
        return Path(str(resources.files("unpool") / "pretrained" / str(source)))
    if folder.suffix in EXPORTED:
        raise WeightsError(
            f"got {folder}, an exported network, which can only segment; give the weights it was "
            "exported from, by name or folder"
        )
    if folder.suffix == ".caffemodel" and folder.exists():
        require_regular(folder, WeightsError)
        raise WeightsError(f"got {folder}; convert it first: unpool convert {folder} FOLDER")
    if folder.suffix == ".caffemodel":
        raise WeightsError(f"got {folder}, which does not exist; check the path")
    raise WeightsError(
        f"got weights {str(source)!r}; wanted a folder with card.json and model.safetensors, or "
        f"the name of weights that ship with the package: {suggest(source, list_pretrained())}"
    )


def list_pretrained() -> list[str]:
    """Names of the weights that ship with the package."""
    folder = resources.files("unpool") / "pretrained"
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if (entry / "card.json").is_file())


def read_card(source: str | Path) -> Card:
    """Read the card of saved weights or of an exported network, without its tensors.

    Args:
        source: as of `find_weights`; or an exported file with its card beside it; or a card.

    >>> read_card("objects").architecture
    'DeconvNet'
    """
    entries = read_json(_find_card(source), WeightsError)
    if not _is_plain(entries, MAX_DEPTH):
        raise WeightsError(
            f"the card of {source} has NaN, Infinity, or entries in more than {MAX_DEPTH} levels; "
            "copy it again"
        )
    return Card.from_dict(entries, source)


def weights_digest(source: str | Path) -> str:
    """The SHA-256 of the card of weights, which has that of the tensors, and of their partner's.

    >>> len(weights_digest("objects"))
    64
    """
    cards = [read_card(source)]
    if cards[0].partner:
        with suppress(WeightsError):  # without a partner there is no ensemble
            cards.append(read_card(find_partner(source)))
    entries = json.dumps([card.to_dict() for card in cards], sort_keys=True)
    return hashlib.sha256(entries.encode()).hexdigest()


def find_partner(source: str | Path) -> Path:
    """The folder of the weights that go with others in an ensemble, by the `partner` of their card.

    Raises:
        WeightsError: the card names no partner, or one that is not there.
    """
    partner = read_card(source).partner
    if not partner:
        raise WeightsError(
            f"got weights {str(source)!r}, whose card names no partner for an ensemble; write "
            '"partner": "FOLDER" into card.json, FOLDER being that of FCN weights of the same '
            "classes, as seen from the card's, or take other weights"
        )
    folder = _find_card(source).parent / partner
    try:
        return folder if (folder / "card.json").is_file() else find_weights(partner)
    except WeightsError:
        raise WeightsError(
            f"got weights {str(source)!r}, whose card names the partner {partner!r}, and there are "
            f"no weights in {folder}; put them there, or correct the card"
        ) from None


def _as_path(source: object) -> Path:
    if not isinstance(source, str | Path):
        raise WeightsError(
            f"got weights of type {type(source).__name__}; wanted a name, or the path of a folder"
        )
    if "\0" in str(source):
        raise WeightsError(f"got weights {str(source)!r} with a NUL byte; correct the name")
    return Path(source)


def _find_card(source: str | Path) -> Path:
    path = _as_path(source)
    if path.suffix == ".json" and path.is_file():
        return path
    if path.suffix not in EXPORTED or path.is_dir():
        return find_weights(source) / "card.json"
    if not path.exists():
        raise WeightsError(f"got {path}, which does not exist; make it with unpool export")
    require_regular(path, WeightsError)
    card = path.with_suffix(".card.json")
    if not card.is_file():
        raise WeightsError(f"got {path} without its card {card.name}; copy both into one folder")
    return card


# ---- checks of entries ---------------------------------------------------------------------------

_PIXELS = f"pixels, 1 to {MAX_SIDE}"
_Rule = tuple[Callable[[Any], bool], str]
"""Whether a value fits, and what is wanted."""


def _check(entries: dict[str, Any], rules: dict[str, _Rule], path: object) -> None:
    for name, (fits, wanted) in rules.items():
        if name in entries and not fits(entries[name]):
            raise WeightsError(
                f"got {name} {str(entries[name])[:60]} in the card of {path}; wanted {wanted}: "
                "correct card.json, or copy the weights again"
            )


def _rules(arguments: dict[str, Any]) -> dict[str, _Rule]:
    """The rules of all entries, for a network with these arguments of its constructor."""
    classes, styles = arguments.get("classes"), arguments.get("styles")
    return {
        "classes": (lambda v: _are(v, _is_text, classes), f"{classes or 'a list of'} names"),
        "palette": (_is_palette, "up to 256 colors [red, green, blue], 0 to 255"),
        "styles": (
            lambda v: _are(v, _is_text, styles) and len(set(v)) == len(v),
            f"{styles or 'a list of'} different names",
        ),
        "elevations": (lambda v: bool(v) and _are(v, _is_number), "degrees, such as [20, 30]"),
        "long_side": (_is_side, _PIXELS),
        "aggregate": _one_of(AGGREGATIONS),
        "smoothing": (
            lambda v: _is_number(v) and 0 <= v <= MAX_SMOOTHING,
            f"a standard deviation in pixels, 0 to {MAX_SMOOTHING}",
        ),
        "presence_threshold": (lambda v: _is_number(v) and 0 <= v <= 1, "a probability, 0 to 1"),
        "ensemble_weight": (lambda v: _is_number(v) and 0 <= v <= 1, "a number from 0 to 1"),
        "crf": (_is_crf, 'an object with "kernels", such as [[3, 3], [20, 5, 3]]'),
        "temperature": (
            lambda v: _is_object(v) and _are([*v.values()], lambda t: _is_number(t) and t > 0),
            'numbers above 0 by mode, such as {"whole": 1.2}',
        ),
        "ready": (lambda v: isinstance(v, bool), "true or false"),
        **dict.fromkeys(("mode", "license", "note", "partner"), (_is_text, "text")),
        **dict.fromkeys(("input", "recipe", "figures", "exports"), (_is_object, "an object {...}")),
    }


def _is_plain(value: Any, levels: int) -> bool:
    """Whether a value from a file is finite, and nested in at most so many levels."""
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return levels > 0 and all(_is_plain(part, levels - 1) for part in parts)
    return not isinstance(value, float) or math.isfinite(value)


def _one_of(choices: tuple[str, ...]) -> _Rule:
    return lambda value: value in choices, " or ".join(choices)


def _are(value: Any, fits: Callable[[Any], bool], count: int | None = None) -> bool:
    """Whether a value is a list of values that fit, and of that length if one is given."""
    return isinstance(value, list | tuple) and count in (None, len(value)) and all(map(fits, value))


def _is_crf(value: Any) -> bool:
    """Whether a value is the arguments of a `DenseCRF`, in bounds."""
    if not _is_object(value) or not set(value) <= set(DenseCRF._fields):
        return False
    kernels = value.get("kernels")
    return (
        _are(kernels, _is_kernel)
        and 1 <= len(kernels) <= 8
        and type(value.get("iterations", 10)) is int
        and value.get("iterations", 10) in range(101)
        and value.get("normalization", "none") in NORMALIZATIONS
        and _is_number(value.get("prune", 0))
        and 0 <= value.get("prune", 0) < 1
        and (value.get("clip", 1) is None or _is_number(value.get("clip", 1)))
        and (value.get("clip") is None or 0 < value["clip"] <= 1)
    )


def _is_kernel(value: Any) -> bool:
    """Whether a value is the arguments of a `Kernel`; the color's may be missing or null."""
    if not isinstance(value, list | tuple) or not 2 <= len(value) <= 3:
        return False
    numbers = [v for i, v in enumerate(value) if i < 2 or v is not None]
    return _are(numbers, lambda v: _is_number(v) and v >= 0) and all(
        numbers[i] > 0 for i in (0, 2) if i < len(numbers)
    )


def _is_palette(value: Any) -> bool:
    return _are(value, lambda color: _are(color, range(256).__contains__, 3)) and len(value) <= 256


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e6  # which NaN is not


def _is_side(value: Any) -> bool:
    return type(value) is int and 0 < value <= MAX_SIDE


_INPUT: dict[str, _Rule] = {
    "mean": (lambda v: _are(v, _is_number, 3), "three numbers: blue, green, red"),
    "size": (_is_side, _PIXELS),
    "enlarged": (lambda v: v == 0 or _is_side(v), _PIXELS),
}
