"""Run exported networks (written by `unpool.export.write`) in ONNX Runtime or OpenVINO."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from unpool.cards import EXPORTED, Card, read_card
from unpool.errors import OptionError, ShapeError, WeightsError, require_choice
from unpool.files import sha256
from unpool.models.weights import Network, build_empty
from unpool.recipes.presets import PRECISIONS

Run = Callable[[Tensor], Tensor]

ENGINES = {"onnx": "onnxruntime", "openvino": "openvino"}
"""The package that runs each format. Reading a `.pt2` can run code, so none is read."""


class Exported:
    """A network in a file, run by an engine on the CPU; `Segmenter` takes it like any other.

    The engine uses as many threads as PyTorch when it starts: `torch.get_num_threads()`.

    Args:
        path: NAME.onnx, or NAME.xml with NAME.bin; with the card NAME.card.json beside it.
        precision: "fp32", "bf16" (OpenVINO only), or "auto", which is fp32.
        device: "auto" or "cpu".
        exact: not supported, since the arithmetic is the engine's.

    Attributes:
        card, architecture: the model card, and the class name of the network.
        engine: "onnxruntime" or "openvino".
        dtype: the dtype of the arithmetic.
        classes, size, trunk, fc: those of the network, on the meta device.

    Raises:
        WeightsError: the file or its card is missing, damaged, or of another kind.
        OptionError: the engine is not installed, or cannot do what is asked.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        precision: str = "auto",
        device: str = "auto",
        exact: bool = False,
    ) -> None:
        path = Path(path)
        self.card = read_card(path)
        self.format = EXPORTED[path.suffix]
        if self.format not in ENGINES:
            raise WeightsError(
                f"got {path}, a file for torch.export.load, which can run code and is not read "
                "here; export to .onnx or .xml, or give the weights that it was exported from"
            )
        self.engine = ENGINES[self.format]
        self._require_options(path, precision, device, exact)
        _require_whole(path, self.card, self.format)
        plan = build_empty(self.card)
        if not isinstance(plan, Network):
            raise WeightsError(
                f"the card of {path} names the architecture {self.card.architecture!r}, which does "
                "not segment; export a DeconvNet or an FCN"
            )
        self._plan, self.architecture = plan, self.card.architecture
        self.classes, self.size, self.trunk, self.fc = plan.classes, plan.size, plan.trunk, plan.fc
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        require_engine(self.engine, path)
        self._run = _START[self.format](path, self.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, classes, H, W), float32, for images (N, 3, H, W) made by `prepare`."""
        x = x.float().contiguous()  # engines take NCHW only
        self.trunk.require_size(x)
        if self.size is None:
            self._plan(x.to("meta"))  # raises for sizes that the code layers of an FCN cannot take
        side = fixed_side(self._plan)
        if side is not None and x.shape[2:] != (side, side):
            raise ShapeError(
                f"got input of shape {tuple(x.shape)}; a network with code layers is exported for "
                f"one size, (N, 3, {side}, {side}): resize the image"
            )
        return self._run(x)

    def _require_options(self, path: Path, precision: str, device: str, exact: bool) -> None:
        got = f"for {path}, an exported network"
        require_choice("precision", precision, PRECISIONS)
        if precision == "bf16" and self.format != "openvino":
            raise OptionError(
                f"got precision bf16 {got}, which {self.engine} runs in fp32; leave it out, or "
                "export it to a name that ends in .xml"
            )
        cure = "leave it out, or give the weights it was exported from"
        if device not in ("auto", "cpu"):
            raise OptionError(f"got device {device!r} {got}, which is run on the CPU; {cure}")
        if exact:
            raise OptionError(f"got exact {got}, whose arithmetic is that of {self.engine}; {cure}")


def fixed_side(model: Network) -> int | None:
    """The only image side that a network with code layers is exported for; None if any will do.

    It could decode larger images, but was never trained on them.
    """
    return model.size if model.fc is not None else None


def least_side(model: Network) -> int:
    """The smallest image side: one cell of the last pooled map."""
    return int(2 ** len(model.trunk.table))


def is_exported(source: object) -> bool:
    """Whether `source` names an exported network rather than weights.

    >>> is_exported("cats.onnx"), is_exported("objects")
    (True, False)
    """
    path = Path(str(source))
    return path.suffix in EXPORTED and not path.is_dir()


def require_engine(package: str, wanted: object) -> None:
    """Raise an `OptionError` unless a package that `wanted` needs is installed."""
    if importlib.util.find_spec(package) is None:
        raise OptionError(
            f'got {wanted}, which needs {package}; install it: pip install "unpool[export]"'
        )


def _require_whole(path: Path, card: Card, kind: str) -> None:
    """Refuse files whose digests are not those in the card."""
    entry = card.exports.get(kind)
    digests = entry.get("sha256") if isinstance(entry, dict) else None
    if not isinstance(digests, dict) or path.suffix not in digests:
        raise WeightsError(
            f"got {path}, which its card does not list; copy both again, or export it again"
        )
    for suffix, digest in digests.items():
        part = path.with_suffix(suffix)
        if not part.is_file():
            raise WeightsError(f"got {path} without {part.name}; copy both into one folder")
        if (found := sha256(part)) != digest:
            raise WeightsError(
                f"{part} has sha256 {found[:12]}… but its card says {str(digest)[:12]}…; the file "
                "is damaged or belongs to another card: copy both again"
            )


def _start_onnx(path: Path, dtype: torch.dtype) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise _unreadable(path, error) from None
    return lambda x: torch.from_numpy(session.run(["scores"], {"image": x.numpy()})[0])


def _start_openvino(path: Path, dtype: torch.dtype) -> Run:
    import openvino

    bf16 = dtype == torch.bfloat16
    hints = {
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        network = openvino.Core().compile_model(path, "CPU", hints)
    except Exception as error:
        raise _unreadable(path, error) from None
    if bf16 and network.get_property("INFERENCE_PRECISION_HINT") != openvino.Type.bf16:
        raise OptionError(
            f"got precision bf16 for {path}, which the processor does not have; leave it out"
        )
    return lambda x: torch.from_numpy(network(x.numpy())["scores"])


_START: dict[str, Callable[[Path, torch.dtype], Run]] = {
    "onnx": _start_onnx,
    "openvino": _start_openvino,
}


def _unreadable(path: Path, error: Exception) -> WeightsError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return WeightsError(f"cannot read {path}: {reason}; export it again, with these versions")
