"""Cards: what weights say of themselves, beside their tensors in `card.json`.

Nothing here needs torch, so that `unpool info` answers at once.
"""

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from unpool.errors import WeightsError

MODES = ("whole", "instance")
AGGREGATIONS = ("max", "mean")
"""How an image can be segmented; see `unpool.segment.segmenter`."""

EXPORTED = {".onnx": "onnx", ".xml": "openvino", ".pt2": "torch-export"}
"""The endings of exported networks, and their formats; see `unpool.export.write`."""


def find_weights(source: str | Path) -> Path:
    """The folder of saved weights.

    Args:
        source: a folder, a run folder, or the name of weights that ship with the package.

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
            f"got {folder}, an exported network, which only segments; give the weights it was made "
            "of, by name or folder"
        )
    known = ", ".join(list_pretrained()) or "none"
    if folder.suffix == ".caffemodel":
        raise WeightsError(f"got {folder}; convert it first: unpool convert {folder} FOLDER")
    raise WeightsError(
        f"got weights {str(source)!r}; wanted a folder with card.json and model.safetensors, or "
        f"the name of weights that ship with the package ({known})"
    )


def list_pretrained() -> list[str]:
    """Names of the weights that ship with the package."""
    folder = resources.files("unpool") / "pretrained"
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if (entry / "card.json").is_file())


def read_card(source: str | Path) -> dict[str, Any]:
    """The card of saved weights, or of an exported network; tensors are not read.

    Args:
        source: as of `find_weights`; or an exported file, whose card lies beside it; or a card.

    Raises:
        WeightsError: no such weights, or a card that cannot be used.

    >>> read_card("objects")["architecture"]
    'DeconvNet'
    """
    path = _find_card(source)
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"cannot read the card {path}: {error}; copy it again") from None
    if not isinstance(card, dict):
        raise WeightsError(f"the card {path} is not a JSON object; copy it again")
    kinds = {"format": int, "architecture": str, "arguments": dict, "sha256": str}
    if bad := [name for name, kind in kinds.items() if not isinstance(card.get(name), kind)]:
        raise WeightsError(f"the card {path} lacks {', '.join(bad)}; copy it again")
    if card["format"] != 1:
        raise WeightsError(f"the card {path} is of format {card['format']}; this version reads 1")
    return card


def find_partner(source: str | Path) -> Path:
    """The folder of the weights that go with others in an ensemble.

    Their card names them by `"partner"`: a path relative to the folder of the card, or the name of
    weights that ship with the package.

    Args:
        source: as of `read_card`.

    Raises:
        WeightsError: the card names no partner, or one that is not there.
    """
    partner = read_card(source).get("partner")
    if not isinstance(partner, str) or not partner:
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


def settings(card: dict[str, Any], classes: int, source: object) -> dict[str, Any]:
    """What a card says to a segmenter; checked, for cards are written by hand, too.

    Args:
        card: of `read_card`.
        classes: how many the network has.
        source: where the card is from, for the messages.

    Returns:
        Arguments of `Segmenter`: `classes`, and those of `palette`, `mean`, `long_side`, `mode`,
        `aggregate` and `presence_threshold` that the card has.

    Raises:
        WeightsError: a value that cannot be used.
    """
    inputs = card.get("input", {})
    names = ("palette", "long_side", "mode", "aggregate", "presence_threshold")
    values: dict[str, Any] = {name: card[name] for name in names if name in card}
    values["classes"] = card.get("classes") or [f"class {i}" for i in range(classes)]
    if not isinstance(inputs, dict) or "mean" in inputs:
        values["mean"] = inputs["mean"] if isinstance(inputs, dict) else inputs
    checks: dict[str, tuple[Callable[[Any], bool], str]] = {
        "classes": (lambda v: _holds(v, classes, _is_text), f"{classes} names"),
        "palette": (_is_palette, "up to 256 colors [red, green, blue], 0 to 255"),
        "mean": (lambda v: _holds(v, 3, _is_number), "three numbers: blue, green, red"),
        "long_side": (lambda v: type(v) is int and v > 0, "pixels, 1 or more"),
        "mode": (lambda v: v in MODES, " or ".join(MODES)),
        "aggregate": (lambda v: v in AGGREGATIONS, " or ".join(AGGREGATIONS)),
        "presence_threshold": (lambda v: _is_number(v) and 0 <= v <= 1, "a probability, 0 to 1"),
    }
    for name, value in values.items():
        fits, wanted = checks[name]
        if not fits(value):
            raise WeightsError(
                f"got {name} {str(value)[:60]} in the card of {source}; wanted {wanted}: correct "
                "card.json, or copy the weights again"
            )
    if "mean" in values:
        values["mean"] = tuple(values["mean"])
    return values


def _as_path(source: object) -> Path:
    if not isinstance(source, str | Path):
        raise WeightsError(
            f"got weights of type {type(source).__name__}; wanted a name, or the path of a folder"
        )
    return Path(source)


def _find_card(source: str | Path) -> Path:
    path = _as_path(source)
    if path.suffix == ".json" and path.is_file():
        return path
    if path.suffix not in EXPORTED or path.is_dir():
        return find_weights(source) / "card.json"
    if not path.is_file():
        raise WeightsError(f"got {path}, which does not exist; make it with unpool export")
    card = path.with_suffix(".card.json")
    if not card.is_file():
        raise WeightsError(f"got {path} without its card {card.name}; copy both into one folder")
    return card


def _holds(value: Any, count: int, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple) and len(value) == count and all(map(fits, value))


def _is_palette(value: Any) -> bool:
    colors = value if isinstance(value, list) and len(value) <= 256 else [value]
    return all(_holds(color, 3, range(256).__contains__) for color in colors)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e6  # which NaN is not
