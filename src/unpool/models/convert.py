"""Convert weights to a folder: those of this package, and networks from Caffe files."""

from pathlib import Path
from typing import Any, NamedTuple

from unpool.data.layouts import VOC_CLASSES
from unpool.errors import OptionError
from unpool.files import is_draft, sha256
from unpool.models import MEAN_BGR, DeconvNet, Network, from_pretrained, save_pretrained
from unpool.models.caffe import BatchNorm, load_format
from unpool.models.weights import FILES
from unpool.temporary import leftovers
from unpool.vision.images import voc_palette


class Converted(NamedTuple):
    """The result of a conversion."""

    source: str
    weights: str  #: the folder, for `Segmenter.from_pretrained`
    parameters: int
    storage: str  #: of the filters, "fp32" or "int8"
    ready: bool  #: False if it must be trained before use
    note: str | None  #: the network in a Caffe file, and what remains to be done


def convert(
    source: str | Path,
    target: str | Path,
    *,
    batch_norm: BatchNorm | None = None,
    int8: bool = False,
    command: str = "",
) -> Converted:
    """Write a folder of weights.

    Args:
        source: a .caffemodel or .pth file, see `load_caffemodel`, or a source of `from_pretrained`.
        target: a folder, new or empty.
        batch_norm: the meaning of batch norm in a .caffemodel, see `load_caffemodel`; by default
            "training" for names with "train_result" or "_iter_" (the solver's), and "folded" for
            others.
        int8: store filters as int8, a quarter of the size.
        command: the command line, for the card.

    Raises:
        OptionError: the target exists and is not empty (but for what a killed conversion left), or
            batch_norm is given for other weights.
        WeightsError: the source cannot be used.
    """
    source, target = Path(source), Path(target)
    if target.exists() and not (target.is_dir() and _is_free(target)):
        raise OptionError(f"got {target}, which exists already; name a new folder")
    if source.is_file():
        solver = "train_result" in source.name or "_iter_" in source.name
        guess: BatchNorm = "training" if solver else "folded"
        model, entries = _import(source, batch_norm or guess)
        entries["command"] = command
    else:
        model, card = from_pretrained(source)
        if batch_norm is not None:
            raise OptionError(
                f"got batch_norm for {source}; it is for .caffemodel files: leave it out"
            )
        entries = card.to_dict()
    storage = "int8" if int8 else "fp32"
    save_pretrained(model, target, {**entries, "storage": storage}, int8=int8)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    ready, note = entries.get("ready", True), entries.get("note")
    return Converted(str(source), str(target), parameters, storage, ready, note)


def _is_free(folder: Path) -> bool:
    """Whether a folder has nothing but what a killed conversion left."""
    found = {path.name for path in set(folder.iterdir()).difference(leftovers(folder))}
    return not found or (found == {FILES[0]} and is_draft(folder, FILES[1]))


def _import(path: Path, batch_norm: BatchNorm) -> tuple[Network, dict[str, Any]]:
    """The network in a Caffe file, and the entries of its card."""
    (model, ready, note), format = load_format(path, batch_norm)
    k = model.classes
    classes, palette = [f"class {i}" for i in range(k)], voc_palette()[:k].tolist()
    if k == len(VOC_CLASSES):
        classes = VOC_CLASSES
    elif k == len(format.labels):
        classes, palette = [name for name, _ in format.labels], [list(c) for _, c in format.labels]
    return model, {
        "classes": classes,
        "palette": palette,
        "input": {"order": "BGR", "range": "0..255 minus mean", "mean": list(MEAN_BGR)},
        "mode": "instance" if isinstance(model, DeconvNet) else "whole",
        "ready": ready,
        "note": note,
        "source": {"file": path.name, "sha256": sha256(path)},
        "license": "that of the file's authors",
        **format.card,
    }
