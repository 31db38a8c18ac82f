"""Weights on disk: a folder of `model.safetensors` and `card.json`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unpool.cards import Card, find_weights, read_card
from unpool.cards import list_pretrained as list_pretrained  # the room offers it, too
from unpool.errors import OptionError, WeightsError, first_line, require_choice
from unpool.files import drafts, require_regular, sha256
from unpool.limits import MAX_PARAMETERS, MAX_TEXT
from unpool.models.classifiers import VGG, AlexNet, Classifier, SqueezeNet, ZFNet
from unpool.models.coder import SparseCoder
from unpool.models.crfrnn import CRFRNN
from unpool.models.deblur import CRCNet, Deblur, IRDNet
from unpool.models.deconvnet import DeconvNet
from unpool.models.decouplednet import DecoupledNet
from unpool.models.deeplab import DeepLab, decimate
from unpool.models.fcn import FCN
from unpool.models.generator import GenerativeNet
from unpool.models.multiscale import SRN, BlindNet, MSResNet
from unpool.models.segnet import SegNet, SegNetBasic
from unpool.models.tensors import quantize, read_tensors, require_finite
from unpool.models.vgg import MEAN_BGR

Network = DeconvNet | FCN | SegNet | SegNetBasic | DeepLab | CRFRNN | DecoupledNet
"""A network that segments."""

Built = TypeVar("Built", bound=nn.Module)

_Saved = Network | Classifier | GenerativeNet | SparseCoder | Deblur

MODELS: dict[str, type[_Saved]] = {
    "DeconvNet": DeconvNet,
    "FCN": FCN,
    "SegNet": SegNet,
    "SegNetBasic": SegNetBasic,
    "DeepLab": DeepLab,
    "CRFRNN": CRFRNN,
    "DecoupledNet": DecoupledNet,
    "AlexNet": AlexNet,
    "ZFNet": ZFNet,
    "VGG": VGG,
    "SqueezeNet": SqueezeNet,
    "GenerativeNet": GenerativeNet,
    "SparseCoder": SparseCoder,
    "CRCNet": CRCNet,
    "IRDNet": IRDNet,
    "BlindNet": BlindNet,
    "MSResNet": MSResNet,
    "SRN": SRN,
}
"""The networks that are saved and rebuilt, by the names in their cards."""

INPUTS = ("caffe", "torchvision")
"""What the weights of `load_vgg` were trained on."""

_FIRST_BIASES = {
    "caffe": (0.7344, 0.0934, 0.0677, 0.8862, 0.2600, 0.6641),
    "torchvision": (0.4034, 0.3778, 0.4644, -0.3228, 0.3940, -0.3953),
}
"""They identify the two well-known VGG-16, whose filters are of the same magnitude."""

_TENSORS = "model.safetensors"
FILES = (_TENSORS, "card.json")
"""The files of saved weights, as they are written."""


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
    require_finite(tensors, f"a {architecture}")
    if int8:
        tensors = quantize(model, tensors)
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
    path, model = folder / _TENSORS, build_empty(card)
    # before anything is parsed, so that a damaged file is refused in one way
    if (digest := _digest(path, model)) != card.sha256:
        raise WeightsError(
            f"{path} has sha256 {digest[:12]}… but its card says {card.sha256[:12]}…; the file "
            "is damaged or belongs to another card: copy both again"
        )
    tensors = read_tensors(path)
    require_fit(model, tensors, path)
    # the tensors that were read become the parameters, which have no memory so far
    model.load_state_dict(tensors, assign=True)
    return model.eval(), card


def _digest(path: Path, model: nn.Module) -> str:
    """The SHA-256 digest of a file of tensors that is not larger than the network's could be."""
    try:
        size = require_regular(path, WeightsError).stat().st_size
        # 8 bytes a value, if it is stored in double precision
        if size > 8 * sum(value.numel() for value in model.state_dict().values()) + MAX_TEXT:
            raise WeightsError(f"got {path} of {size} bytes, more than the network's weights")
        return sha256(path)
    except (OSError, WeightsError) as error:
        raise WeightsError(
            f"found {path.parent}/card.json but cannot use {_TENSORS} ({error}); copy both"
        ) from None


def load_tensors(model: nn.Module, path: str | Path) -> None:
    """Load a state dict, from safetensors or a `torch.save` file of plain tensors.

    The model is changed wholly or, after a `WeightsError` (the file is unreadable, names or shapes
    are not those of the model), not at all.
    """
    tensors = read_tensors(path)
    require_fit(model, tensors, path)
    model.load_state_dict(tensors)


def load_vgg(
    model: Network | VGG, path: str | Path | Mapping[str, Tensor], inputs: str = "caffe"
) -> list[str]:
    """Initialize the trunk, and the fully connected layers where they fit, from VGG weights.

    Weights without batch norm leave the trunk's as the identity, so that it computes what VGG
    computes. Weights with it were trained with another `eps` than the authors': 1e-5.

    Args:
        model: its trunk must have as many convolutions of the same sizes. It is changed wholly or,
            after an error, not at all. fc6 and fc7 are set both or neither, in a `DeepLab` with
            every k-th filter and tap; fc8, which a `VGG` has, where there are as many classes.
        path: a state dict with torchvision's names (`features.0.weight` ...), as of `load_tensors`;
            with batch norm or without. Or the tensors themselves.
        inputs: what the weights were trained on: "caffe" (BGR 0..255 minus the mean, as here) or
            "torchvision" (RGB 0..1, normalized); the first filters are converted.

    Returns:
        The names of the layers that were set.

    Raises:
        WeightsError: the file is unreadable, or its convolutions do not fit the trunk.
        OptionError: unknown inputs, or the weights are the VGG-16 of the authors or of torchvision
            and were trained on other ones.
    """
    require_choice("inputs", inputs, INPUTS)
    state = dict(path) if isinstance(path, Mapping) else read_tensors(path)
    place = "the given tensors" if isinstance(path, Mapping) else path
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
            f"got {len(sources)} VGG layers in {place}; this trunk has {len(layers)}: "
            "pass the weights of the same configuration"
        )
    found = list(zip(layers.items(), sources, strict=True)) + _find_code(model, state)
    for (name, layer), source in found:
        require_fit(layer, source, f"{place} ({name})")
    _require_inputs(sources[0]["bias"], inputs, place)
    if inputs == "torchvision":
        _to_bgr(sources[0])
    for (_, layer), source in found:
        layer.load_state_dict(source, strict=False)
    # statistics of other filters say nothing about these
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
            layers.setdefault(int(parts[1]), {})[parts[2]] = value
    return [layers[number] for number in sorted(layers)]


def _find_code(
    model: Network | VGG, state: dict[str, Tensor]
) -> list[tuple[tuple[str, nn.Module], dict[str, Tensor]]]:
    """fc6, fc7 and fc8 from the classifier, as convolutions if need be, where they fit."""
    code = model.classifier if isinstance(model, VGG | DecoupledNet) else model.fc
    layers = {} if code is None else dict(code.named_children())
    found: list[tuple[tuple[str, nn.Module], dict[str, Tensor]]] = []
    for name, source in (("fc6", "classifier.0"), ("fc7", "classifier.3"), ("fc8", "classifier.6")):
        weight, bias = state.get(f"{source}.weight"), state.get(f"{source}.bias")
        if name not in layers or weight is None or bias is None:
            break
        shape = layers[name].get_parameter("weight").shape
        if isinstance(model, DeepLab):
            weight, bias = decimate(weight, bias, shape)
        if weight.shape != (shape[0], shape[1:].numel()) or bias.shape != shape[:1]:
            break
        parts = {"weight": weight.reshape(shape), "bias": bias}
        found.append(((name, layers[name]), parts))
    return found if len(found) > 1 else []


def _require_inputs(bias: Tensor, inputs: str, place: object) -> None:
    """Refuse a VGG-16, known by its first biases, that was trained on other inputs."""
    for own, values in _FIRST_BIASES.items():
        first = bias[: len(values)].float()
        same = len(first) == len(values) and torch.allclose(first, torch.tensor(values), 0, 2e-3)
        if same and own != inputs:
            raise OptionError(
                f"got {place}, the VGG-16 that was trained on the inputs of {own}, for those of "
                f"{inputs}; pass trunk_inputs={own}, or inputs={own} to load_vgg"
            )


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
        return plan(kind, **card.arguments)
    except Exception as error:  # the arguments come from a file, and can be anything
        reason = str(error)[:300] or type(error).__name__
        raise WeightsError(
            f"the card of {card.path} has arguments that do not fit: {reason}; copy it again"
        ) from None


def plan(kind: Callable[..., Built], *arguments: Any, **more: Any) -> Built:
    """A network on the meta device; an `OptionError` if it is too large to be built."""
    with torch.device("meta"):
        model = kind(*arguments, **more)
    if (count := sum(p.numel() for p in model.parameters())) > MAX_PARAMETERS:
        raise OptionError(
            f"got a {type(model).__name__} of {count:.3g} parameters; wanted at most "
            f"{MAX_PARAMETERS:.3g}: choose smaller widths, a smaller size or fewer classes"
        )
    return model


def build_network(kind: Callable[..., Built], *arguments: Any, **more: Any) -> Built:
    """A network with random weights; see `plan`, which takes no memory."""
    try:
        plan(kind, *arguments, **more)
    except (OverflowError, RuntimeError, TypeError) as error:  # PyTorch's, beyond 64 bits
        got = f"got sizes that no network can have ({first_line(error)})"
        raise OptionError(f"{got}; lower them") from None
    return kind(*arguments, **more)


def require_fit(module: nn.Module, tensors: dict[str, Tensor], source: object) -> None:
    """Raise a `WeightsError` unless names, shapes and kinds (integers or not) are the module's."""
    wanted = module.state_dict()
    wrong = [f"{k} is missing" for k in wanted if k not in tensors and "num_batches" not in k]
    wrong += [f"{k[:60]} is not wanted" for k in tensors if k not in wanted]
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
