"""Convert `.caffemodel` files, or weights of this package, to a folder of weights."""

from pathlib import Path
from typing import Any, NamedTuple

from unpool.data.classes import VOC_CLASSES
from unpool.errors import OptionError
from unpool.files import sha256
from unpool.models import DeconvNet, Network, from_pretrained, save_pretrained
from unpool.models.caffemodel import BatchNorm, load_caffemodel
from unpool.models.vgg import MEAN_BGR
from unpool.vision.images import voc_palette


class Converted(NamedTuple):
    """The result of a conversion."""

    source: str
    weights: str  #: the folder, for `Segmenter.from_pretrained`
    parameters: int
    storage: str  #: of the filters, "fp32" or "int8"
    ready: bool  #: False if it must be trained before use
    note: str | None  #: the network in a Caffe file, and what remains to be done

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return self._asdict()


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
        source: a .caffemodel of DeconvNet, FCN or VGG-16, or a source of `from_pretrained`.
        target: a folder, new or empty.
        batch_norm: the meaning of batch norm in a .caffemodel, see `load_caffemodel`; by default
            "training" for names with "train_result" (the solver's), and "folded" for others.
        int8: store filters as int8, a quarter of the size.
        command: the command line, for the card.

    Raises:
        OptionError: the target exists and is not empty, or batch_norm is given for other weights.
        WeightsError: the source cannot be used.
    """
    source, target = Path(source), Path(target)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise OptionError(f"got {target}, which exists already; name a new folder")
    if source.is_file():
        guess: BatchNorm = "training" if "train_result" in source.name else "folded"
        model, card = _import(source, batch_norm or guess)
        card["command"] = command
    elif batch_norm is not None:
        raise OptionError(f"got batch_norm for {source}; it is for .caffemodel files: leave it out")
    else:
        model, card = from_pretrained(source)
    card["storage"] = "int8" if int8 else "fp32"
    save_pretrained(model, target, card, int8=int8)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    ready, note = card.get("ready", True), card.get("note")
    return Converted(str(source), str(target), parameters, card["storage"], ready, note)


def _import(path: Path, batch_norm: BatchNorm) -> tuple[Network, dict[str, Any]]:
    """The network in a Caffe file, and its card."""
    model, ready, note = load_caffemodel(path, batch_norm)
    k = model.classes
    return model, {
        "classes": VOC_CLASSES if k == len(VOC_CLASSES) else [f"class {i}" for i in range(k)],
        "palette": voc_palette()[:k].tolist(),
        "input": {"order": "BGR", "range": "0..255 minus mean", "mean": list(MEAN_BGR)},
        "mode": "instance" if isinstance(model, DeconvNet) else "whole",
        "ready": ready,
        "note": note,
        "source": {"file": path.name, "sha256": sha256(path)},
        "license": "that of the file's authors; of DeconvNet's: individual research use only, "
        "no redistribution",
        "figures": {},
    }
