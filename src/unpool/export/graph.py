"""Networks as graphs of plain operators, by `torch.export`: the common source of all formats.

The graph has no batch norm and no unpooling operator, so other engines need to know nothing of
this package.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.export import ExportedProgram

from unpool.models.fast import fold
from unpool.models.weights import Network, fixed_side
from unpool.ops.deconv import as_convolution


def least_side(model: Network) -> int:
    """The smallest image side: one cell of the last pooled map."""
    return int(2 ** len(model.trunk.table))


def trace(model: Network) -> ExportedProgram:
    """Trace a network into a graph: batch norm folded, switches in the phase form.

    Args:
        model: a trained network; it is not changed.

    Returns:
        A program for any number of images (N, 3, H, W), float32, as `prepare` makes them. H and W
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
    height, width = (side, side) if side is not None else (2 * least + 11, 3 * least + 5)
    with torch.no_grad(), silence():
        free = dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
        program = torch.export.export(
            net, (torch.zeros(2, 3, height, width),), dynamic_shapes=(free,)
        )
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
        kernel, padding = layer.kernel_size[0], layer.padding[0]
        if padding == 0:  # fc6-deconv: as a convolution it would mostly see zeros
            continue
        assert isinstance(padding, int)
        convolution = nn.Conv2d(
            layer.in_channels, layer.out_channels, kernel, padding=kernel - 1 - padding
        )
        convolution.weight = nn.Parameter(as_convolution(layer.weight), requires_grad=False)
        convolution.bias = layer.bias
        net._modules[name] = convolution


@contextmanager
def silence() -> Iterator[None]:
    """Suppress the warnings and logs of the exporters, none of which a user can act on."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
