"""Run exported networks (written by `unpool.export.write`) in ONNX Runtime or OpenVINO."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor

from unpool.cards import EXPORTED, Card, read_card
from unpool.errors import OptionError, ShapeError, WeightsError, require_choice
from unpool.files import read_bytes, sha256
from unpool.limits import MAX_PARAMETERS
from unpool.models.weights import Network, build_empty
from unpool.recipes.presets import PRECISIONS

Run = Callable[[Tensor], Any]

ENGINES = {"onnx": "onnxruntime", "openvino": "openvino"}
"""The package that runs each format. Reading a `.pt2` can run code, so none is read."""

PARTS = {"onnx": [".onnx"], "openvino": [".xml", ".bin"], "torch-export": [".pt2"]}
"""The endings of the files of each format."""


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
        self.path = path = Path(path)
        self.card = read_card(path)
        self.format = EXPORTED[path.suffix]
        if self.format not in ENGINES:
            raise WeightsError(
                f"got {path}, a file for torch.export.load, which can run code and is not read "
                "here; export to .onnx or .xml, or give the weights that it was exported from"
            )
        self.engine = ENGINES[self.format]
        self._require_options(path, precision, device, exact)
        plan = build_empty(self.card)
        if not isinstance(plan, Network):
            raise WeightsError(
                f"the card of {path} names the architecture {self.card.architecture!r}, which does "
                "not segment; export a network that does, such as a DeconvNet"
            )
        _require_whole(path, self.card, self.format)
        self._plan, self.architecture = plan.eval(), self.card.architecture
        self.classes, self.size, self.trunk, self.fc = plan.classes, plan.size, plan.trunk, plan.fc
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        require_engine(self.engine, path)
        self._run, self._process = _START[self.format](path, self.dtype), os.getpid()

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, classes, H, W), float32, for images (N, 3, H, W) made by `prepare`.

        Raises:
            ShapeError: images of a size that the network cannot take.
            OptionError: this process was forked after the file was loaded.
        """
        if os.getpid() != self._process:
            raise OptionError(
                f"got a process that was forked after an exported network was loaded, without the "
                f"threads of {self.engine}; load the network in each worker"
            )
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
        try:
            y = torch.from_numpy(np.asarray(self._run(x)))
        except Exception as error:  # the engine's, for another graph than the card's
            raise _unreadable(self.path, error) from None
        wanted = (len(x), self.classes, *x.shape[2:])
        if y.shape != wanted or y.dtype != torch.float32:
            raise WeightsError(
                f"got scores of {tuple(y.shape)} {y.dtype} from {self.path}; wanted {wanted} "
                "float32, as its card says: copy both again, or export it again"
            )
        return y

    def _require_options(self, path: Path, precision: str, device: str, exact: bool) -> None:
        got = f"for {path}, an exported network"
        require_choice("precision", precision, PRECISIONS)
        if precision == "int8":
            raise OptionError(
                f"got precision int8 {got}, which is for weights; leave it out, or give those it "
                "was exported from"
            )
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


def fixed_side(model: Network | Exported) -> int | None:
    """The only image side that a network with code layers is exported for; None if any will do.

    It could decode larger images, but was never trained on them.
    """
    return model.size if model.fc is not None else None


def least_side(model: Network | Exported) -> int:
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
    if not isinstance(digests, dict) or digests.keys() != set(PARTS[kind]):
        raise WeightsError(
            f"got {path}, which its card does not list; copy both again, or export it again"
        )
    for suffix, digest in digests.items():
        part = path.with_suffix(suffix)
        if not part.is_file():
            raise WeightsError(f"got {path} without {part.name}; copy both into one folder")
        if part.stat().st_size > 8 * MAX_PARAMETERS:
            raise WeightsError(f"got {part}, larger than any network; copy both again")
        if (found := sha256(part)) != digest:
            raise WeightsError(
                f"{part} has sha256 {found[:12]}… but its card says {str(digest)[:12]}…; the file "
                "is damaged or belongs to another card: copy both again"
            )


def _start_onnx(path: Path, dtype: torch.dtype) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # errors are raised, too
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        ports = session.get_inputs(), session.get_outputs()
        _require_ports(*([port.name for port in part] for part in ports))
    except Exception as error:
        raise _unreadable(path, error) from None
    return lambda x: session.run(["scores"], {"image": x.numpy()})[0]


def _start_openvino(path: Path, dtype: torch.dtype) -> Run:
    import openvino

    bf16 = dtype == torch.bfloat16
    hints = {
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        # OpenVINO tries the readers of other formats, which print, on what is not its own
        if ElementTree.fromstring(read_bytes(path, WeightsError)).tag != "net":
            raise ValueError("it is not a network of OpenVINO")
        network = openvino.Core().compile_model(path, "CPU", hints)
        _require_ports(*([port.any_name for port in p] for p in (network.inputs, network.outputs)))
    except Exception as error:
        raise _unreadable(path, error) from None
    if bf16 and network.get_property("INFERENCE_PRECISION_HINT") != openvino.Type.bf16:
        raise OptionError(
            f"got precision bf16 for {path}, which the processor does not have; leave it out"
        )
    return lambda x: network({"image": x.numpy()})["scores"]


_START: dict[str, Callable[[Path, torch.dtype], Run]] = {
    "onnx": _start_onnx,
    "openvino": _start_openvino,
}


def _require_ports(inputs: list[str], outputs: list[str]) -> None:
    if (inputs, outputs) != (["image"], ["scores"]):
        raise ValueError(f"it takes {inputs} and gives {outputs}, rather than image and scores")


def _unreadable(path: Path, error: Exception) -> WeightsError:
    lines = [line for line in str(error).splitlines() if line and "Exception from" not in line]
    reason = next(iter(lines), type(error).__name__)
    return WeightsError(f"cannot read {path}: {reason}; export it again, with these versions")
