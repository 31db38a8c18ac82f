"""Weights on disk: a folder of `model.safetensors` and `card.json`.

Nothing is ever unpickled except plain tensors (`weights_only=True`).
"""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from unpool.cards import Card, find_weights, read_card
from unpool.cards import list_pretrained as list_pretrained  # the room offers it, too
from unpool.errors import WeightsError, require_choice
from unpool.files import drafts, sha256
from unpool.models.classifiers import VGG, AlexNet, Classifier, SqueezeNet, ZFNet
from unpool.models.deconvnet import DeconvNet
from unpool.models.fcn import FCN, Interpolation
from unpool.models.generator import GenerativeNet
from unpool.models.vgg import MEAN_BGR

Network = DeconvNet | FCN
"""A network that segments."""

_Saved = Network | Classifier | GenerativeNet

MODELS: dict[str, type[_Saved]] = {
    "DeconvNet": DeconvNet,
    "FCN": FCN,
    "AlexNet": AlexNet,
    "ZFNet": ZFNet,
    "VGG": VGG,
    "SqueezeNet": SqueezeNet,
    "GenerativeNet": GenerativeNet,
}
"""The networks that are saved and rebuilt, by the names in their cards."""

INPUTS = ("caffe", "torchvision")
"""What the weights of `load_vgg` were trained on."""

_TENSORS = "model.safetensors"
FILES = (_TENSORS, "card.json")
"""The files of saved weights, as they are written."""

_SCALE = "::scale"  #: suffix of the per-channel scales of an int8 tensor


def save_pretrained(
    model: nn.Module, folder: str | Path, card: Card | Mapping[str, Any], *, int8: bool = False
) -> Path:
    """Write a model's weights and card, so that `from_pretrained` rebuilds it.

    Args:
        model: one of `MODELS`.
        folder: created if missing; both files are replaced, or neither.
        card: a card or its entries, plain values as in JSON; `architecture`, `arguments` and
            `sha256` are filled in. A `WeightsError` for entries that cannot be used.
        int8: store every filter but those of interpolation as int8 with a scale for each output
            channel, a quarter of the size; the loaded weights are the rounded ones.

    Returns:
        The folder.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> _ = save_pretrained(FCN(2, ((1, 4),) * 3, 8), folder, {"classes": ["ground", "cat"]})
    >>> from_pretrained(folder)[1].classes
    ['ground', 'cat']
    """
    folder, architecture = Path(folder), type(model).__name__
    if not isinstance(model, _Saved) or type(model) is not MODELS.get(architecture):
        raise WeightsError(f"got a {architecture}; weights are saved of {', '.join(MODELS)}")
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    if int8:
        tensors = _quantize(model, tensors)
    entries = dict(card.to_dict() if isinstance(card, Card) else card)
    entries |= {"format": 1, "architecture": architecture, "arguments": model.arguments}
    with drafts(folder, *FILES) as draft:
        save_file(tensors, draft / _TENSORS, metadata={"format": "pt"})
        entries["sha256"] = sha256(draft / _TENSORS)
        Card.from_dict(entries, folder).write(draft / "card.json")
    return folder


def from_pretrained(source: str | Path) -> tuple[Any, Card]:
    """Rebuild a saved model, one of `MODELS`, in evaluation mode, fp32; with its card.

    Args:
        source: the name of weights that ship with the package (`list_pretrained`), or a folder
            written by `save_pretrained`.

    Raises:
        WeightsError: no such weights, a damaged file, or tensors that do not fit exactly.
    """
    folder, card = find_weights(source), read_card(source)
    path = folder / _TENSORS
    try:
        digest = sha256(path)
    except OSError as error:
        raise WeightsError(
            f"found {folder}/card.json but cannot read {_TENSORS} ({error.strerror}); copy both"
        ) from None
    if digest != card.sha256:
        raise WeightsError(
            f"{path} has sha256 {digest[:12]}… but its card says {card.sha256[:12]}…; the file "
            "is damaged or belongs to another card: copy both again"
        )
    model, tensors = build_empty(card), _read_tensors(path)
    _require_fit(model, tensors, path)
    model.load_state_dict({k: _as_fp32(v) for k, v in tensors.items()}, assign=True)
    return model.eval(), card


def load_tensors(model: nn.Module, path: str | Path) -> None:
    """Load a state dict, from safetensors or a `torch.save` file of plain tensors.

    The model is changed wholly or, after a `WeightsError` (the file is unreadable, names or shapes
    are not those of the model), not at all.
    """
    tensors = _read_tensors(Path(path))
    _require_fit(model, tensors, path)
    model.load_state_dict({k: _as_fp32(v) for k, v in tensors.items()})


def load_vgg(model: Network | VGG, path: str | Path, inputs: str = "caffe") -> list[str]:
    """Initialize the trunk, and the fully connected layers where they fit, from VGG weights.

    Weights without batch norm leave the trunk's as the identity, so that it computes what VGG
    computes. Weights with it were trained with another `eps` than the authors': 1e-5.

    Args:
        model: its trunk must have as many convolutions of the same sizes. It is changed wholly or,
            after an error, not at all. fc6 and fc7 are set both or neither; fc8, which a `VGG` has,
            where there are as many classes.
        path: a state dict with torchvision's names (`features.0.weight` ...), as of `load_tensors`;
            with batch norm or without.
        inputs: what the weights were trained on: "caffe" (BGR 0..255 minus the mean, as here) or
            "torchvision" (RGB 0..1, normalized); the first filters are converted.

    Returns:
        The names of the layers that were set.

    Raises:
        WeightsError: the file is unreadable, or its convolutions do not fit the trunk.
    """
    require_choice("inputs", inputs, INPUTS)
    state = _read_tensors(Path(path))
    sources = _numbered(state)
    trunk = model.features if isinstance(model, VGG) else model.trunk
    normalized = any("running_mean" in source for source in sources)
    kinds = nn.Conv2d | nn.BatchNorm2d if normalized else nn.Conv2d
    layers = {  # by the papers' names, in order
        name.rpartition(".")[2]: layer
        for name, layer in trunk.named_modules()
        if isinstance(layer, kinds)
    }
    if len(sources) != len(layers):
        raise WeightsError(
            f"got {len(sources)} VGG layers in {path}; this trunk has {len(layers)}: "
            "pass the weights of the same configuration"
        )
    found = list(zip(layers.items(), sources, strict=True)) + _find_code(model, state)
    for (name, layer), source in found:
        _require_fit(layer, source, f"{path} ({name})")
    if inputs == "torchvision":
        _to_bgr(sources[0])
    for (_, layer), source in found:
        layer.load_state_dict(source, strict=False)
    for norm in trunk.modules():
        if not normalized and isinstance(norm, nn.BatchNorm2d):
            norm.reset_parameters()
    return [name for (name, _), _ in found]


def _numbered(state: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The layers `features.0`, `features.1` ... that have tensors, in order."""
    layers: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        parts = key.split(".")
        if len(parts) == 3 and parts[0] == "features" and parts[1].isdecimal():
            layers.setdefault(int(parts[1]), {})[parts[2]] = _as_fp32(value)
    return [layers[number] for number in sorted(layers)]


def _find_code(
    model: Network | VGG, state: dict[str, Tensor]
) -> list[tuple[tuple[str, nn.Module], dict[str, Tensor]]]:
    """fc6, fc7 and fc8 from the classifier, as convolutions if need be, where they fit."""
    code = model.classifier if isinstance(model, VGG) else model.code
    layers = {} if code is None else dict(code.named_children())
    found: list[tuple[tuple[str, nn.Module], dict[str, Tensor]]] = []
    for name, source in (("fc6", "classifier.0"), ("fc7", "classifier.3"), ("fc8", "classifier.6")):
        weight, bias = state.get(f"{source}.weight"), state.get(f"{source}.bias")
        if name not in layers or weight is None or bias is None:
            break
        shape = layers[name].get_parameter("weight").shape
        if weight.shape != (shape[0], shape[1:].numel()) or bias.shape != shape[:1]:
            break
        parts = {"weight": _as_fp32(weight).view(shape), "bias": _as_fp32(bias)}
        found.append(((name, layers[name]), parts))
    return found if len(found) > 1 else []


def _to_bgr(first: dict[str, Tensor]) -> None:
    """Rewrite filters for RGB (x / 255 - mean) / std as filters for BGR x - MEAN_BGR."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    weight = first["weight"] / (255 * std).view(1, 3, 1, 1)
    shift = torch.tensor(MEAN_BGR).flip(0) - 255 * mean
    first["bias"] = first["bias"] + (weight * shift.view(1, 3, 1, 1)).sum((1, 2, 3))
    first["weight"] = weight.flip(1)


def build_empty(card: Card) -> Any:
    """The network that a card describes, on the meta device: without memory for its weights.

    Raises a `WeightsError` if the architecture is unknown, or its arguments do not fit.
    """
    kind = MODELS.get(card.architecture)
    if kind is None:
        raise WeightsError(
            f"the card of {card.path} names the architecture {card.architecture!r}; this version "
            f"knows {', '.join(MODELS)}"
        )
    try:
        with torch.device("meta"):
            return kind(**card.arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"the card of {card.path} has arguments that do not fit: {error}; copy it again"
        ) from None


def _require_fit(module: nn.Module, tensors: dict[str, Tensor], source: object) -> None:
    """Names, shapes and kinds (integers or not) must be those of the module."""
    wanted = module.state_dict()
    wrong = [f"{k} is missing" for k in wanted if k not in tensors and "num_batches" not in k]
    wrong += [f"{k} is not wanted" for k in tensors if k not in wanted]
    wrong += [
        f"{k} is {_kind(tensors[k])}, wanted {_kind(v)}"
        for k, v in wanted.items()
        if k in tensors and _kind(tensors[k]) != _kind(v)
    ]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise WeightsError(
            f"the tensors of {source} do not fit: {'; '.join(wrong[:3])}{more}; "
            "pass the weights of this architecture and these arguments"
        )


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)}{'' if tensor.is_floating_point() else ' of integers'}"


def _as_fp32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return _dequantize(_read_safetensors(path))
        with warnings.catch_warnings(action="ignore"):  # the error says it all
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of any kind: a damaged pickle can break anywhere
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        if isinstance(error, pickle.UnpicklingError):  # its message advises to load it unsafely
            reason = "it holds other things than tensors, or is damaged"
        raise WeightsError(
            f"cannot read {path}: {reason}; wanted a safetensors file, or a torch file that holds "
            "nothing but tensors"
        ) from None
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    ):
        raise WeightsError(f"got {path} with more than named tensors; save its state_dict()")
    return state


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors, each in its own memory, so that each can be freed on its own."""
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
    tensors = {}
    for name in names:  # a file that stays open stays in memory as far as it was read
        with safe_open(path, framework="pt") as file:
            tensors[name] = file.get_tensor(name).clone()
    return tensors


def _quantize(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Filters as int8 with one fp32 scale for each output channel; the rest as it is."""
    stored = dict(tensors)
    for name, layer in model.named_modules():
        filters = isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
        if not filters or isinstance(layer, Interpolation):  # small, and exact where bilinear
            continue
        weight = tensors[f"{name}.weight"]
        axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
        rest = [d for d in range(weight.dim()) if d != axis]
        scale = (weight.abs().amax(rest, keepdim=True) / 127).clamp_min(1e-12)
        stored[f"{name}.weight"] = (weight / scale).round().to(torch.int8)
        stored[f"{name}.weight{_SCALE}"] = scale
    return stored


def _dequantize(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        k: v.float() * tensors[k + _SCALE].expand_as(v) if k + _SCALE in tensors else v
        for k, v in tensors.items()
        if not k.endswith(_SCALE)
    }
