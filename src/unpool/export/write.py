"""Export a network to a file that other engines run: ONNX, OpenVINO, or torch.export.

What is exported is the network without batch norm, in fp32, with its switches in the phase form
(see `Switches`), so that no engine has to know of unpooling. Before a file is kept, it is run: its
label maps must be those of PyTorch.
"""

import importlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from unpool.cards import EXPORTED, find_weights, read_card, settings
from unpool.errors import OptionError, WeightsError
from unpool.export.graph import fixed_side, least_side, silence, trace
from unpool.export.runtime import Exported, require_engine, sha256
from unpool.files import atomic
from unpool.models import Network, from_pretrained, prepare
from unpool.models.vgg import MEAN_BGR
from unpool.vision.images import Pixels, read_image
from unpool.vision.sizes import resize

FORMATS = tuple(EXPORTED.values())

TOLERANCE = 1e-4
"""The largest fraction of pixels whose label may be another one than in PyTorch."""

LARGEST = 2**31
"""Bytes that an ONNX file may have."""

_ENDINGS = {"onnx": [".onnx"], "openvino": [".xml", ".bin"], "torch-export": [".pt2"]}
_NEEDS = {
    "onnx": ["onnx", "onnxscript", "onnxruntime"],
    "openvino": ["onnx", "onnxscript", "openvino"],
    "torch-export": [],
}
_AXES = {0: "batch", 2: "height", 3: "width"}

Progress = Callable[[int, int, str], None]
"""Called with the number of steps done, their total, and what is being done."""


class Written(NamedTuple):
    """What was exported, and how it was verified."""

    file: str
    card: str
    format: str
    weights: str
    input: str  #: the sizes of images that it takes
    bytes: int  #: of the file, or both files
    images: int  #: that PyTorch and the engine labeled
    pixels: int  #: in them
    different: int  #: of those pixels, how many got another label than in PyTorch, fp32


def export(
    weights: str | Path,
    output: str | Path,
    format: str | None = None,
    *,
    progress: Progress = lambda done, total, doing: None,
) -> Written:
    """Write a network for another engine, with its card, and verify it.

    Any number of images goes in at once; of any size, unless the network has code layers, which
    are exported for images of the design size.

    Args:
        weights: the name of weights that ship with the package, or a folder of weights.
        output: NAME.onnx, NAME.xml (and NAME.bin) or NAME.pt2. The card is written to
            NAME.card.json, which exports of the same weights share.
        format: "onnx", "openvino" or "torch-export"; told by the ending of `output` when not given.
        progress: called before each step.

    Returns:
        What was written. `Segmenter.from_pretrained(output)` runs it.

    Raises:
        OptionError: an unknown format, a file that is there already, or a package not installed.
        WeightsError: weights that cannot be used, or whose export gives other labels than PyTorch
            at more than one pixel in 10,000; nothing is kept of it.

    >>> import tempfile
    >>> from unpool.models import DeconvNet, save_pretrained
    >>> folder = Path(tempfile.mkdtemp())
    >>> weights = save_pretrained(DeconvNet(2, ((1, 4),), None, 32), folder / "weights", {})
    >>> export(weights, folder / "cats.pt2").different
    0
    """
    output = Path(output)
    format = _format(output, format)
    for package in _NEEDS[format]:
        require_engine(package, f"format {format}")
    total = 3
    progress(0, total, "tracing")
    model, card = from_pretrained(weights)
    _require_network(model, card, weights, format)
    others = _require_target(output, format, card)
    with _drafts(output) as folder:
        draft = folder / output.name
        program = trace(model)
        progress(1, total, "writing")
        with silence():
            _WRITE[format](program, draft)
        parts = [draft.with_suffix(ending) for ending in _ENDINGS[format]]
        about: dict[str, Any] = {
            "input": _sizes(model),
            "sha256": {part.suffix: sha256(part) for part in parts},
            "versions": _versions(format),
        }
        card = _moved(card, weights, output) | {"exports": {**others, format: about}}
        draft.with_suffix(".card.json").write_text(json.dumps(card))
        progress(2, total, "verifying")
        checked = _verify(model, draft, settings(card, model.classes, weights))
        about["verified"] = checked
        size = sum(part.stat().st_size for part in parts)
        _keep(parts, output, card)
    progress(3, total, "done")
    beside = output.with_suffix(".card.json")
    numbers = size, checked["images"], checked["pixels"], checked["different"]
    return Written(str(output), str(beside), format, str(weights), about["input"], *numbers)


@contextmanager
def _drafts(output: Path) -> Iterator[Path]:
    """A folder beside the output, gone at the end; so are new folders if nothing is kept."""
    new = [folder for folder in (output.parent, *output.parent.parents) if not folder.exists()]
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        drafts = tempfile.TemporaryDirectory(prefix=f".{output.stem}.", dir=output.parent)
    except OSError as error:
        raise OptionError(
            f"got {output}, whose folder cannot be made or written to ({error.strerror}); choose "
            "another with -o"
        ) from None
    try:
        with drafts as draft:
            yield Path(draft)
    except BaseException:
        with suppress(OSError):  # something is in it by now
            for folder in new:
                folder.rmdir()
        raise


def _format(output: Path, format: str | None) -> str:
    known = ", ".join(f"{kind} ({ending})" for ending, kind in EXPORTED.items())
    told = EXPORTED.get(output.suffix)
    if format is not None and format not in FORMATS:
        raise OptionError(f"got format {format!r}; it is one of {known}")
    if told is None or format not in (None, told):
        asked = "" if format is None else f" for format {format}"
        raise OptionError(f"got {output}{asked}; the formats and the endings of names are {known}")
    return told


def _require_network(model: nn.Module, card: dict[str, Any], weights: object, format: str) -> None:
    if not isinstance(model, Network):
        raise WeightsError(
            f"got {weights}, a {type(model).__name__}, which does not segment; give the weights of "
            "a DeconvNet or an FCN"
        )
    if not card.get("ready", True):
        raise WeightsError(f"got {weights}, a {card.get('note', 'network still to be trained')}")
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    if format != "torch-export" and size >= LARGEST:
        raise OptionError(
            f"got {weights}, of {size / 1e9:.1f} GB, for format {format}, which goes by way of "
            "ONNX, whose files hold 2 GB; choose the format torch-export"
        )


def _require_target(output: Path, format: str, card: dict[str, Any]) -> dict[str, Any]:
    """Refuse to write over files; gives what the card that is there says of other formats."""
    for ending in _ENDINGS[format]:
        if (part := output.with_suffix(ending)).exists():
            raise OptionError(f"got {output}, but {part} is there already; choose another name")
    path = output.with_suffix(".card.json")
    if not path.exists():
        return {}
    there = read_card(path)
    exports = there.get("exports")
    if not isinstance(exports, dict) or there["sha256"] != card["sha256"]:
        raise OptionError(
            f"got {output}, but {path} is there already, of other weights; choose another name"
        )
    return {k: v for k, v in exports.items() if k != format}


def _write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    *_, image = (node for node in program.graph.nodes if node.op == "placeholder")
    shape = image.meta["val"].shape
    torch.onnx.export(
        program,
        (),
        path,
        input_names=["image"],
        output_names=["scores"],
        dynamic_shapes=({k: v for k, v in _AXES.items() if not isinstance(shape[k], int)},),
        external_data=False,
        verbose=False,
    )


def _write_openvino(program: torch.export.ExportedProgram, path: Path) -> None:
    import openvino

    onnx = path.with_suffix(".onnx")
    _write_onnx(program, onnx)
    network = openvino.Core().read_model(onnx)
    openvino.save_model(network, path, compress_to_fp16=False)
    del network  # which reads the file as long as it lives
    onnx.unlink()


def _write_torch(program: torch.export.ExportedProgram, path: Path) -> None:
    torch.export.save(program, path)


_WRITE = {"onnx": _write_onnx, "openvino": _write_openvino, "torch-export": _write_torch}


def _sizes(model: Network) -> str:
    side = fixed_side(model)
    size = f"{side} x {side}" if side is not None else f"any size from {least_side(model)}"
    return f"any number of images of {size} pixels"


def _versions(format: str) -> dict[str, str]:
    names = ["unpool", "torch", *_NEEDS[format]]
    return {name: str(importlib.import_module(name).__version__) for name in names}


def _moved(card: dict[str, Any], weights: str | Path, output: Path) -> dict[str, Any]:
    """The card as it is to be read from elsewhere: a partner that is a path is seen from there."""
    partner = card.get("partner")
    if isinstance(partner, str) and (folder := find_weights(weights) / partner).is_dir():
        return {**card, "partner": Path(os.path.relpath(folder, output.parent)).as_posix()}
    return card


def _keep(parts: list[Path], output: Path, card: dict[str, Any]) -> None:
    """Move what was verified to its place; the card comes last, so that no other is read."""
    with ExitStack() as stack:
        temporary = stack.enter_context(atomic(output.with_suffix(".card.json")))
        temporary.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        for part in parts:
            part.replace(stack.enter_context(atomic(output.with_suffix(part.suffix))))


# ---- verification --------------------------------------------------------------------------------


def _verify(model: Network, path: Path, told: dict[str, Any]) -> dict[str, int]:
    """Run the file beside PyTorch, fp32: images, pixels, and how many labels are different.

    Raises:
        WeightsError: too many.
    """
    exported = Exported(path)
    photos = pixels = different = 0
    for images in _batches(model, told.get("long_side", 320)):
        x = prepare(torch.from_numpy(images), told.get("mean", MEAN_BGR))
        labels = _labels(model, x)
        differs = labels != _labels(exported, x)
        photos, pixels = photos + len(images), pixels + labels.numel()
        different += int(differs.sum())
    if different > TOLERANCE * pixels:
        raise WeightsError(
            f"{exported.engine} gives other labels than PyTorch at {different} of {pixels} pixels "
            f"({different / pixels:.3%}) of {photos} images, more than {TOLERANCE:.2%}; "
            "nothing was kept: try another format, and please report it"
        )
    return {"images": photos, "pixels": pixels, "different": different}


@torch.inference_mode()
def _labels(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return network(x).argmax(1)


def _batches(model: Network, long_side: int) -> Iterator[Pixels]:
    """Images (N, H, W, 3) as the network is to see them: crops together, and whole ones alone."""
    images = [*_drawn(), *_photos()]
    if model.size is not None:
        side = model.size, model.size
        yield np.stack([_resized(image, *side) for image in images])
        if fixed_side(model) is not None:
            return
    for image in images:
        yield resize(image, long_side, least=least_side(model))[None]


def _drawn() -> Iterator[Pixels]:
    """Blurred noise, high and wide."""
    random = np.random.RandomState(0)  # this stream of numbers is frozen
    for height, width in ((375, 500), (500, 333)):
        coarse = random.randint(0, 256, (height // 25, width // 25, 3)).astype(np.uint8)
        yield _resized(coarse, height, width)


def _photos() -> Iterator[Pixels]:
    """Photos that come with scikit-image, where it is installed."""
    try:
        folder = Path(str(resources.files("skimage"))) / "data"
    except ModuleNotFoundError:
        return
    for name in ("astronaut", "chelsea", "coffee"):
        if (path := folder / f"{name}.png").is_file():
            yield read_image(path)


def _resized(image: Pixels, height: int, width: int) -> Pixels:
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    return np.array(resized)
