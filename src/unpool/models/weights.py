"""Weights on disk: a folder of `model.safetensors` and `card.json`.

The card says what the weights are: architecture and arguments, class names, palette, input
normalization, recipe, data and licenses, the command, the measured figures, and the sha256 of the
tensors. Nothing is ever unpickled except plain tensors (`weights_only=True`).
"""

import hashlib
import json
import pickle
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from unpool.errors import OptionError, WeightsError
from unpool.files import atomic
from unpool.models.deconvnet import DeconvNet
from unpool.models.vgg import MEAN_BGR, Trunk

__all__ = ["MODELS", "from_pretrained", "list_pretrained", "load_vgg", "save_pretrained"]

MODELS: dict[str, type[DeconvNet]] = {"DeconvNet": DeconvNet}

_SCALE = "::scale"  #: suffix of the per-channel scales of an int8 tensor
_TORCHVISION_MEAN, _TORCHVISION_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def save_pretrained(
    model: nn.Module, folder: str | Path, card: dict[str, Any], *, int8: bool = False
) -> Path:
    """Write a model's weights and card, so that `from_pretrained` rebuilds it.

    Args:
        model: one of `MODELS`.
        folder: made if it is missing; both files are replaced whole.
        card: what is to be said besides `format`, `architecture` and `sha256`, which are added;
            `arguments` are those of the constructor.
        int8: store every filter as int8 with a scale for each output channel, a quarter of the
            size; the loaded weights are the rounded ones.

    Returns:
        The folder.

    Raises:
        WeightsError: a class that is not in `MODELS`.
    """
    folder, architecture = Path(folder), type(model).__name__
    if architecture not in MODELS:
        raise WeightsError(f"got a {architecture}; weights are saved of {', '.join(MODELS)}")
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    if int8:
        tensors = _quantize(model, tensors)
    path = folder / "model.safetensors"
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
        digest = _sha256(temporary)
    card = {"format": 1, "architecture": architecture, **card, "sha256": digest}
    with atomic(folder / "card.json") as temporary:
        temporary.write_text(json.dumps(card, indent=1) + "\n")
    return folder


def from_pretrained(source: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Rebuild a saved model.

    Args:
        source: the name of weights that ship with the package (`list_pretrained`), or a folder
            written by `save_pretrained`.

    Returns:
        The model in evaluation mode, fp32, and its card.

    Raises:
        WeightsError: no such weights, a damaged or altered file, or tensors that do not fit the
            architecture exactly.
    """
    folder = _find(source)
    card = _read_card(folder / "card.json")
    path = folder / "model.safetensors"
    if not path.is_file():
        raise WeightsError(f"found {folder}/card.json but no model.safetensors; copy both files")
    digest = _sha256(path)
    if digest != card["sha256"]:
        raise WeightsError(
            f"{path} has sha256 {digest[:12]}… but its card says {card['sha256'][:12]}…; the file "
            "is damaged or belongs to another card: copy both again"
        )
    model = _build(card, folder)
    _load_exactly(model, _read_tensors(path), path)
    return model.eval(), card


def list_pretrained() -> list[str]:
    """Names of the weights that ship with the package."""
    folder = resources.files("unpool") / "pretrained"
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if (entry / "card.json").is_file())


def load_vgg(model: DeconvNet, path: str | Path, inputs: str = "caffe") -> list[str]:
    """Initialize the trunk, and the code layers where they fit, from VGG weights.

    Args:
        model: its trunk must have as many convolutions of the same sizes.
        path: a state dict with torchvision's names (`features.0.weight` ...), as safetensors or
            as a `torch.save` file of plain tensors; with batch norm or without.
        inputs: what the weights were trained on: "caffe" (BGR 0..255 minus the mean, as here) or
            "torchvision" (RGB 0..1, normalized); the first filters are converted.

    Returns:
        The names of the layers that were set.

    Raises:
        WeightsError: the file is unreadable, or its convolutions do not fit the trunk.
    """
    if inputs not in ("caffe", "torchvision"):
        raise OptionError(f"got inputs={inputs!r}; it is 'caffe' or 'torchvision'")
    state = _read_tensors(Path(path))
    targets = _parametric(model.trunk)
    numbers = sorted({int(k.split(".")[1]) for k in state if k.startswith("features.")})
    sources = [
        {
            k.rpartition(".")[2]: v.float()
            for k, v in state.items()
            if k.startswith(f"features.{n}.")
        }
        for n in numbers
    ]
    normalized = any("running_mean" in source for source in sources)
    if not normalized:
        targets = {k: v for k, v in targets.items() if not isinstance(v, nn.BatchNorm2d)}
    if len(sources) != len(targets):
        raise WeightsError(
            f"got {len(sources)} VGG layers in {path}; this trunk has {len(targets)}: "
            "pass the weights of the same configuration"
        )
    if inputs == "torchvision":
        _to_bgr(sources[0])
    for (name, layer), source in zip(targets.items(), sources, strict=True):
        _load_exactly(layer, source, f"{path} ({name})")
    if not normalized:
        _reset_norm(model.trunk)  # the identity: the trunk computes what VGG computes
    return [*targets, *_load_code(model, state, path)]


def _load_code(model: DeconvNet, state: dict[str, Tensor], path: str | Path) -> list[str]:
    """fc6 and fc7 from the classifier, as convolutions, where the code has their widths."""
    if model.code is None or "classifier.0.weight" not in state:
        return []
    loaded = []
    for name, source in (("fc6", "classifier.0"), ("fc7", "classifier.3")):
        layer = model.code.get_submodule(name)
        weight, bias = state[f"{source}.weight"], state[f"{source}.bias"]
        shape = layer.get_parameter("weight").shape
        if weight.numel() != shape.numel():
            raise WeightsError(
                f"got {source} of {tuple(weight.shape)} in {path}; {name} is {tuple(shape)}: "
                "build the network with code=4096, size=224, or leave the classifier out"
            )
        parts = {"weight": weight.float().view(shape), "bias": bias.float()}
        _load_exactly(layer, parts, f"{path} ({name})")
        loaded.append(name)
    return loaded


def _parametric(module: nn.Module) -> dict[str, nn.Module]:
    """Convolutions and batch norms by their papers' names, in order."""
    return {
        name.rpartition(".")[2]: layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)
    }


def _reset_norm(trunk: Trunk) -> None:
    for layer in trunk.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()


def _to_bgr(first: dict[str, Tensor]) -> None:
    """Rewrite filters for RGB (x / 255 - mean) / std as filters for BGR x - MEAN_BGR."""
    mean, std = (torch.tensor(v) for v in (_TORCHVISION_MEAN, _TORCHVISION_STD))
    weight = first["weight"] / (255 * std).view(1, 3, 1, 1)
    shift = torch.tensor(MEAN_BGR).flip(0) - 255 * mean
    first["bias"] = first["bias"] + (weight * shift.view(1, 3, 1, 1)).sum((1, 2, 3))
    first["weight"] = weight.flip(1)


def _find(source: str | Path) -> Path:
    folder = Path(source)
    if (folder / "card.json").is_file():
        return folder
    if str(source) in list_pretrained():
        return Path(str(resources.files("unpool") / "pretrained" / str(source)))
    known = ", ".join(list_pretrained()) or "none"
    if folder.suffix == ".caffemodel":
        raise WeightsError(f"got {folder}; convert it first: unpool convert {folder} FOLDER")
    raise WeightsError(
        f"got weights {str(source)!r}; wanted a folder with card.json and model.safetensors, or "
        f"the name of weights that ship with the package ({known})"
    )


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read the card {path}: {error}; copy it again") from None
    missing = {"format", "architecture", "arguments", "sha256"} - set(card)
    if not isinstance(card, dict) or missing:
        raise WeightsError(f"the card {path} lacks {', '.join(sorted(missing))}; copy it again")
    if card["format"] != 1:
        raise WeightsError(f"the card {path} is of format {card['format']}; this version reads 1")
    return card


def _build(card: dict[str, Any], folder: Path) -> nn.Module:
    kind = MODELS.get(card["architecture"])
    if kind is None:
        raise WeightsError(
            f"the card in {folder} names the architecture {card['architecture']!r}; this version "
            f"knows {', '.join(MODELS)}"
        )
    try:
        with torch.device("meta"):
            model = kind(**card["arguments"])
    except (TypeError, OptionError) as error:
        raise WeightsError(f"the card in {folder} has arguments that do not fit: {error}") from None
    return model


def _load_exactly(module: nn.Module, tensors: dict[str, Tensor], source: object) -> None:
    """Load with strict names and shapes; tensors replace those of a meta module."""
    wanted = {k: v.shape for k, v in module.state_dict().items()}
    wrong = [f"{k} is missing" for k in wanted if k not in tensors and "num_batches" not in k]
    wrong += [f"{k} is not wanted" for k in tensors if k not in wanted]
    wrong += [
        f"{k} is {tuple(tensors[k].shape)}, wanted {tuple(shape)}"
        for k, shape in wanted.items()
        if k in tensors and tensors[k].shape != shape
    ]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise WeightsError(
            f"the tensors of {source} do not fit: {'; '.join(wrong[:3])}{more}; "
            "pass the weights of this architecture and these arguments"
        )
    meta = any(p.is_meta for p in module.parameters())
    module.load_state_dict(tensors, strict=meta, assign=meta)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return _dequantize({k: file.get_tensor(k) for k in file.keys()})  # noqa: SIM118
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"cannot read {path}: {reason}; wanted a safetensors file, or a torch file that holds "
            "nothing but tensors"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"got {path} with more than named tensors; save its state_dict()")
    return state


def _quantize(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Filters as int8 with one fp32 scale for each output channel; the rest as it is."""
    stored = dict(tensors)
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            continue
        weight = tensors[f"{name}.weight"]
        axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
        rest = [d for d in range(4) if d != axis]
        scale = (weight.abs().amax(rest, keepdim=True) / 127).clamp_min(1e-12)
        stored[f"{name}.weight"] = (weight / scale).round().to(torch.int8)
        stored[f"{name}.weight{_SCALE}"] = scale
    return stored


def _dequantize(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        k: v.float() * tensors[k + _SCALE] if k + _SCALE in tensors else v
        for k, v in tensors.items()
        if not k.endswith(_SCALE)
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
