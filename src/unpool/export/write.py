"""Export a network to a file for other engines: ONNX, OpenVINO or torch.export.

The exported graph is float32, with batch norm folded and the switches in the phase form (see
`Switches`), so it needs no unpooling operator. A file is kept only if its label maps agree with
those of PyTorch.
"""

import importlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.export import ExportedProgram

from unpool.cards import EXPORTED, Card, find_weights, read_card
from unpool.errors import OptionError, WeightsError, require_choice
from unpool.export.runtime import PARTS, Exported, fixed_side, least_side, require_engine
from unpool.files import drafts, is_draft, sha256
from unpool.models import CRFRNN, MEAN_BGR, Network, from_pretrained, prepare
from unpool.models.fast import fold
from unpool.models.tensors import require_finite_output
from unpool.ops.deconv import as_convolution
from unpool.vision.boxes import resize
from unpool.vision.images import Pixels, read_image

if TYPE_CHECKING:
    from unpool import Progress

FORMATS = tuple(EXPORTED.values())

TOLERANCE = 1e-4
"""The largest fraction of pixels whose label may differ from PyTorch's."""

LARGEST = 2**31
"""The size limit of ONNX files, in bytes: they are protobuf messages."""

_NEEDS = {
    "onnx": ["onnx", "onnxscript", "onnxruntime"],
    "openvino": ["onnx", "onnxscript", "openvino"],
    "torch-export": [],
}
_CARD = ".card.json"  # moved into place last: it vouches for the others
_AXES = {0: "batch", 2: "height", 3: "width"}


class Written(NamedTuple):
    """An exported file, and the result of its verification."""

    file: str
    card: str
    format: str
    weights: str
    input: str  #: the image sizes that it takes
    bytes: int  #: the size of the file, or of both files
    images: int  #: number of images labeled by PyTorch and by the engine
    pixels: int  #: number of pixels in them
    different: int  #: number of pixels whose label differs from PyTorch's, fp32
    note: str | None = None  #: what of the weights is not in the file


def export(
    weights: str | Path,
    output: str | Path,
    format: str | None = None,
    *,
    progress: "Progress" = lambda done, total, doing: None,
) -> Written:
    """Write a network and its card for another engine, verify the file, and describe it.

    It takes any number of images at once, of any size; a network with code layers is exported for
    its design size only. Of a CRF-RNN, the FCN is exported, without the CRF, and the card says so:
    its lattice has another size for each image.

    Args:
        weights: the name of weights that ship with the package, or a folder of weights.
        output: NAME.onnx, NAME.xml (and NAME.bin) or NAME.pt2. The card is written to
            NAME.card.json, which exports of the same weights share.
        format: "onnx", "openvino" or "torch-export"; by default, from the suffix of `output`.
        progress: called before each step.

    Raises:
        OptionError: the format is unknown, the file exists, or a package is not installed.
        WeightsError: the weights cannot be used, or the exported labels differ from PyTorch's at
            more than one pixel in 10,000; then nothing is kept.

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
    progress(0, 3, "tracing")
    model, card = from_pretrained(weights)
    _require_network(model, card, weights, format)
    model, card, note = _without_crf(model, card)
    others = _require_target(output, format, card)
    names = [output.with_suffix(ending).name for ending in (*PARTS[format], _CARD)]
    with _drafts(output, names) as folder:
        draft = folder / output.name
        program = trace(model)
        progress(1, 3, "writing")
        with _silence():
            _WRITE[format](program, draft)
        parts = [draft.with_suffix(ending) for ending in PARTS[format]]
        about: dict[str, Any] = {
            "input": _sizes(model),
            "sha256": {part.suffix: sha256(part) for part in parts},
            "versions": _versions(format),
        }
        # the runtime reads the card, so it is written before the file is verified
        card = replace(_moved(card, weights, output), exports={**others, format: about})
        written = draft.with_suffix(_CARD)
        card.write(written)
        progress(2, 3, "verifying")
        about["verified"] = checked = _verify(model, draft, card)
        card.write(written)
        size = sum(part.stat().st_size for part in parts)
    progress(3, 3, "done")
    beside = str(output.with_suffix(_CARD))
    return Written(
        str(output), beside, format, str(weights), about["input"], size, **checked, note=note
    )


def trace(model: Network) -> ExportedProgram:
    """Trace a network into a graph: batch norm folded, switches in the phase form.

    The program is for any number of images (N, 3, H, W), float32, as `prepare` makes them. H and W
    are free, unless the network has code layers: see `fixed_side`.
    """
    net = fold(model).requires_grad_(False)
    net.trunk.form = "phase"
    _replace_deconvolutions(net)
    for weight in net.parameters():  # engines expect contiguous weights
        weight.data = weight.data.clone(memory_format=torch.contiguous_format)
    side, least = fixed_side(model), least_side(model)
    axes = [0] if side is not None else [0, 2, 3]
    # an odd example size, so that the tracer does not specialize on divisibility
    size = (side, side) if side is not None else (2 * least + 11, 3 * least + 5)
    with torch.no_grad(), _silence():
        free = dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
        program = torch.export.export(net, (torch.zeros(2, 3, *size),), dynamic_shapes=(free,))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names files of this machine
    for symbol, bounds in program.range_constraints.items():
        if bounds.lower > least:  # the tracer excludes maps of a single cell, which work too
            program.range_constraints[symbol] = type(bounds)(least, bounds.upper)
    program.example_inputs = None  # they would be pickled into the file
    return program


def _replace_deconvolutions(net: nn.Module) -> None:
    """Replace deconvolutions of stride 1 by the equal convolutions, which engines run faster."""
    for name, layer in net.named_children():
        _replace_deconvolutions(layer)
        if not isinstance(layer, nn.ConvTranspose2d) or layer.stride != (1, 1):
            continue
        if layer.padding == (0, 0):  # fc6-deconv: as a convolution it would mostly see zeros
            continue
        kernel = layer.kernel_size[0]
        pad = kernel - 1 - int(layer.padding[0])
        convolution = nn.Conv2d(layer.in_channels, layer.out_channels, kernel, padding=pad)
        convolution.weight = nn.Parameter(as_convolution(layer.weight), requires_grad=False)
        convolution.bias = layer.bias
        net._modules[name] = convolution


@contextmanager
def _silence() -> Iterator[None]:
    """Suppress the warnings and logs of the exporters, none of which a user can act on."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


@contextmanager
def _drafts(output: Path, names: list[str]) -> Iterator[Path]:
    """`drafts` beside the output; folders made for it go, too, if nothing is kept."""
    new = [folder for folder in (output.parent, *output.parent.parents) if not folder.exists()]
    stack = ExitStack()
    try:
        draft = stack.enter_context(drafts(output.parent, *names))
    except OSError as error:
        raise OptionError(
            f"got {output}, whose folder cannot be made or written to ({error.strerror}); choose "
            "another output"
        ) from None
    try:
        with stack:
            yield draft
    except BaseException:
        with suppress(OSError):  # another process may have put something there
            for folder in new:
                folder.rmdir()
        raise


def _format(output: Path, format: str | None) -> str:
    known = ", ".join(f"{kind} ({ending})" for ending, kind in EXPORTED.items())
    implied = EXPORTED.get(output.suffix)
    if format is not None:
        require_choice("format", format, FORMATS)
    if implied is None or format not in (None, implied):
        asked = "" if format is None else f" for format {format}"
        raise OptionError(f"got {output}{asked}; the formats and their suffixes are {known}")
    return implied


def _require_network(model: nn.Module, card: Card, weights: object, format: str) -> None:
    if not isinstance(model, Network):
        raise WeightsError(
            f"got {weights}, a {type(model).__name__}, which does not segment; give the weights of "
            "a network that does, such as a DeconvNet"
        )
    if not card.ready:
        raise WeightsError(f"got {weights}, a {card.note or 'network still to be trained'}")
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    if format != "torch-export" and size >= LARGEST:
        raise OptionError(
            f"got {weights}, of {size / 1e9:.1f} GB, for format {format}, which is made from an "
            "ONNX file, at most 2 GB; choose the format torch-export"
        )


def _without_crf(model: Network, card: Card) -> tuple[Network, Card, str | None]:
    """The part of a network that other engines can run, its card, and what is left out."""
    if not isinstance(model, CRFRNN):
        return model, card, None
    net, note = model.net, "the FCN of a CRF-RNN, without its CRF: labels differ"
    return net, replace(card, architecture="FCN", arguments=net.arguments, note=note), note


def _require_target(output: Path, format: str, card: Card) -> dict[str, Any]:
    """Refuse to overwrite files; return the entries of other formats in an existing card."""
    killed = is_draft(output.parent, output.with_suffix(_CARD).name)  # while it moved its files
    for ending in PARTS[format]:
        if (part := output.with_suffix(ending)).exists() and not killed:
            raise OptionError(f"got {output}, but {part} is there already; choose another name")
    path = output.with_suffix(_CARD)
    if not path.exists():
        return {}
    there = read_card(path)
    if not there.exports or there.sha256 != card.sha256:
        raise OptionError(
            f"got {output}, but {path} is there already, of other weights; choose another name"
        )
    return {k: v for k, v in there.exports.items() if k != format}


def _write_onnx(program: ExportedProgram, path: Path) -> None:
    *_, image = (node for node in program.graph.nodes if node.op == "placeholder")
    shape = image.meta["val"].shape
    free = {k: v for k, v in _AXES.items() if not isinstance(shape[k], int)}
    names: dict[str, Any] = {"input_names": ["image"], "output_names": ["scores"]}
    options: dict[str, Any] = {"dynamic_shapes": (free,), "external_data": False, "verbose": False}
    torch.onnx.export(program, (), path, **names, **options)


def _write_openvino(program: ExportedProgram, path: Path) -> None:
    import openvino

    onnx = path.with_suffix(".onnx")
    _write_onnx(program, onnx)
    network = openvino.Core().read_model(onnx)
    openvino.save_model(network, path, compress_to_fp16=False)  # switches need full precision
    del network  # it keeps the file open
    onnx.unlink()


_WRITE: dict[str, Callable[[ExportedProgram, Path], None]] = {
    "onnx": _write_onnx,
    "openvino": _write_openvino,
    "torch-export": torch.export.save,
}


def _sizes(model: Network) -> str:
    side = fixed_side(model)
    size = f"{side} x {side}" if side is not None else f"any size from {least_side(model)}"
    return f"any number of images of {size} pixels"


def _versions(format: str) -> dict[str, str]:
    names = ["unpool", "torch", *_NEEDS[format]]
    return {name: str(importlib.import_module(name).__version__) for name in names}


def _moved(card: Card, weights: str | Path, output: Path) -> Card:
    """The card with a relative path to a partner rewritten for the folder of the output."""
    if card.partner and (folder := find_weights(weights) / card.partner).is_dir():
        return replace(card, partner=Path(os.path.relpath(folder, output.parent)).as_posix())
    return card


# ---- verification --------------------------------------------------------------------------------


def _verify(model: Network, path: Path, card: Card) -> dict[str, int]:
    """Compare the labels of the file with those of PyTorch, fp32; counts images and pixels."""
    exported = _load(path)
    photos = pixels = different = 0
    for images in _batches(model, card.long_side or 320):
        x = prepare(torch.from_numpy(images), card.mean or MEAN_BGR)
        with torch.inference_mode():
            ours, theirs = model(x), exported(x)
        require_finite_output("scores", ours, theirs)
        differs = ours.argmax(1) != theirs.argmax(1)
        photos, pixels = photos + len(images), pixels + differs.numel()
        different += int(differs.sum())
    if different > TOLERANCE * pixels:
        raise WeightsError(
            f"{path.name} gives other labels than PyTorch at {different} of {pixels} pixels "
            f"({different / pixels:.3%}) of {photos} images, more than {TOLERANCE:.2%}; "
            "nothing was kept: try another format, and please report it"
        )
    return {"images": photos, "pixels": pixels, "different": different}


def _load(path: Path) -> Callable[[Tensor], Tensor]:
    if path.suffix != ".pt2":
        return Exported(path)
    # Reading a .pt2 can run code, but this one was just written here. Its guards refuse images of
    # a single cell of the last map, which work as well.
    return torch.export.load(path).module(check_guards=False)


def _batches(model: Network, long_side: int) -> Iterator[Pixels]:
    """Images (N, H, W, 3) as in use: a batch of square crops, then whole images one by one."""
    images = [*_noise(), *_photos()]
    if model.size is not None:
        side = model.size, model.size
        yield np.stack([_resized(image, *side) for image in images])
        if fixed_side(model) is not None:
            return
    for image in images:
        yield resize(image, long_side, least=least_side(model))[None]


def _noise() -> Iterator[Pixels]:
    """Blurred noise, in landscape and portrait format."""
    random = np.random.RandomState(0)  # the same numbers in every version of NumPy
    for height, width in ((375, 500), (500, 333)):
        coarse = random.randint(0, 256, (height // 25, width // 25, 3)).astype(np.uint8)
        yield _resized(coarse, height, width)


def _photos() -> Iterator[Pixels]:
    """The photos that ship with scikit-image, where it is installed."""
    with suppress(ModuleNotFoundError):
        folder = Path(str(resources.files("skimage"))) / "data"
        paths = (folder / f"{name}.png" for name in ("astronaut", "chelsea", "coffee"))
        yield from (read_image(path) for path in paths if path.is_file())


def _resized(image: Pixels, height: int, width: int) -> Pixels:
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    return np.array(resized)
