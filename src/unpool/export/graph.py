"""Networks as programs of `torch.export`: graphs of plain operators, without classes of ours.

They are what files for other engines are made of, and a format of their own, `.pt2`. Reading such
a file, `torch.export.load` unpickles, loads libraries and evaluates expressions where the file asks
for it. A network of ours asks for none of it, so a file that does is refused.
"""

import json
import logging
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from unpool.errors import WeightsError
from unpool.models import Network
from unpool.models.fast import fold
from unpool.ops.deconv import as_convolution

# what the archive, its graph, and the sizes of tensors in it may be made of
_MEMBER = re.compile(
    r"data/weights/(weight_\d+|model_weights_config\.json)|models/model\.json|"
    r"data/constants/(tensor_\d+|model_constants_config\.json)|data/sample_inputs/model\.pt|"
    r"archive_format|archive_version|byteorder|\.data/\w+|\.format_version|\.storage_alignment"
)
_OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!from_file)\w+\.\w+|"
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|neg|eq|ne|ge|gt|le|lt|and_|or_|getitem)"
)
_EXPRESSION = re.compile(
    r"([\s(),+*/<>=-]|\d+|'[su]\d+'|\b[su]\d+\b|"
    r"\b(Add|Mul|Pow|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|Symbol|Integer|Rational|Eq|Ne|Equality"
    r"|Unequality|StrictGreaterThan|GreaterThan|StrictLessThan|LessThan|And|Or|Not|integer|positive"
    r"|nonnegative|True|False)\b)*"
)


def fixed_side(model: Network) -> int | None:
    """The side of the only images that a network with code layers takes; None if any size does.

    (Larger ones could be decoded, too, but were never trained.)
    """
    return model.size if model.fc is not None else None


def least_side(model: Network) -> int:
    """The least side of images: a cell of the last pooled map."""
    return int(2 ** len(model.trunk.table))


def trace(model: Network) -> ExportedProgram:
    """The graph of a network for other engines: batch norm folded, switches in the phase form.

    Args:
        model: trained; it stays as it is.

    Returns:
        A program for any number of images (N, 3, H, W) as `prepare` makes them, fp32; H and W
        are free, unless the network has code layers: see `fixed_side`.
    """
    net = fold(model).requires_grad_(False)
    net.trunk.form = "phase"
    _turn(net)
    for weight in net.parameters():  # strides as of any other program's
        weight.data = weight.data.clone(memory_format=torch.contiguous_format)
    side, least = fixed_side(model), least_side(model)
    axes = [0] if side is not None else [0, 2, 3]
    # a size that is neither a multiple of anything nor an exception
    height, width = (side, side) if side is not None else (2 * least + 11, 3 * least + 5)
    with torch.no_grad(), silence():
        free = dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
        program = torch.export.export(
            net, (torch.zeros(2, 3, height, width),), dynamic_shapes=(free,)
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names files of this machine
    for symbol, bounds in program.range_constraints.items():
        if bounds.lower > least:  # the tracer leaves out maps of a single cell, which are as good
            program.range_constraints[symbol] = type(bounds)(least, bounds.upper)
    program.example_inputs = None  # they would be pickled
    return program


def _turn(net: nn.Module) -> None:
    """Make plain convolutions of the deconvolutions that are ones, which engines run faster."""
    for name, layer in net.named_children():
        _turn(layer)
        if not isinstance(layer, nn.ConvTranspose2d) or layer.stride != (1, 1):
            continue
        kernel, padding = layer.kernel_size[0], layer.padding[0]
        if padding == 0:  # fc6-deconv: as a convolution it would mostly see zeros
            continue
        assert isinstance(padding, int)
        turned = nn.Conv2d(
            layer.in_channels, layer.out_channels, kernel, padding=kernel - 1 - padding
        )
        turned.weight = nn.Parameter(as_convolution(layer.weight), requires_grad=False)
        turned.bias = layer.bias
        net._modules[name] = turned


def load_program(path: Path) -> Callable[[Tensor], Tensor]:
    """A network in a `.pt2`, to be called.

    Raises:
        WeightsError: it holds more than a network.
    """
    _require_harmless(path)
    module = torch.export.load(path).module(check_guards=False)  # guards are code, too

    @torch.inference_mode()
    def run(x: Tensor) -> Tensor:
        return module(x)

    return run


@contextmanager
def silence() -> Iterator[None]:
    """Without the warnings of exporters, none of which a user could heed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


def _require_harmless(path: Path) -> None:
    """Refuse a file of `torch.export` that holds more than tensors and a graph of plain operators.

    Raises:
        WeightsError: it holds pickled objects, libraries, operators or expressions of other kinds.
    """
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]
        members = [name.removeprefix(f"{root}/") for name in archive.namelist()]
        odd = [name for name in members if not _MEMBER.fullmatch(name)]
        odd += [name for name in set(members) if members.count(name) > 1]
        if archive.getinfo(f"{root}/data/sample_inputs/model.pt").file_size:
            odd.append("sample inputs, which are pickled")
        for name in (name for name in members if name.endswith(".json")):
            odd += _odd_values(json.loads(archive.read(f"{root}/{name}")))
    if odd:
        raise WeightsError(
            f"got {path}, which holds more than a network: {odd[0][:60]}; such files can run "
            "anything: take one that unpool export wrote"
        )


def _odd_values(tree: object) -> Iterator[str]:
    """What in a tree of JSON would be unpickled, called or evaluated, and is not of a network."""
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(node)
        if not isinstance(node, dict):
            continue
        stack.extend(node.values())
        if node.get("use_pickle"):
            yield f"{node.get('path_name')}, which is pickled"
        for key in ("target", "as_operator"):
            if isinstance(name := node.get(key), str) and not _OPERATOR.fullmatch(name):
                yield f"the operator {name}"
        if isinstance(text := node.get("expr_str"), str) and not _EXPRESSION.fullmatch(text):
            yield f"the expression {text}"
        if isinstance(ranges := node.get("range_constraints"), dict):
            yield from (
                f"the symbol {name}" for name in ranges if not re.fullmatch(r"[su]\d+", name)
            )
