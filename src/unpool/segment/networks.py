"""Build the networks that recipes name."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from unpool.errors import OptionError
from unpool.models import CRFRNN, FCN, DeconvNet, DeepLab, Network, SegNet, SegNetBasic, trunk_table
from unpool.models.weights import build_network

if TYPE_CHECKING:
    from unpool.recipes.segment import SegmentationRecipe


def _deconvnet(r: "SegmentationRecipe", classes: int) -> DeconvNet:
    return build_network(DeconvNet, classes, r.trunk, r.code, r.size, r.bn_eps)


def _fcn(r: "SegmentationRecipe", classes: int) -> FCN:
    sizes = classes, r.trunk, r.code, r.stride
    return build_network(FCN, *sizes, r.pad, r.window, r.dropout, r.at_once)


def _segnet(r: "SegmentationRecipe", classes: int) -> SegNet:
    sizes = classes, r.trunk, r.bn_eps
    return build_network(SegNet, *sizes, r.dropout, wide_head=r.wide_head)


def _segnet_basic(r: "SegmentationRecipe", classes: int) -> SegNetBasic:
    table = trunk_table(r.trunk)
    sizes = table[0][1], r.window, len(table)
    if table != ((1, sizes[0]),) * len(table):
        raise OptionError(
            f"got the trunk {r.trunk} for a SegNetBasic; wanted one convolution a stage, all of as "
            "many maps, such as [[1, 64], [1, 64], [1, 64], [1, 64]]"
        )
    return build_network(SegNetBasic, classes, *sizes, r.bn_eps, r.dropout)


def _crfrnn(r: "SegmentationRecipe", classes: int) -> CRFRNN:
    sizes = classes, r.trunk, r.code, r.stride
    net = r.pad, r.window, r.dropout, r.at_once
    return build_network(CRFRNN, *sizes, *net, iterations=r.iterations)


def _deeplab(r: "SegmentationRecipe", classes: int) -> DeepLab:
    pooling = r.pool_kernel, r.pool_average, r.multi_scale
    sizes = classes, r.trunk, r.code, r.window, r.dilation
    net = build_network(DeepLab, *sizes, *pooling, dropout=r.dropout)
    whole = {f"image_size.{i}": side for i, side in enumerate(r.image_size)}
    used = {name for phase in r.phases for name in phase.sources}
    sides = ({"size": r.size} if used - {"images"} else {}) | (whole if "images" in used else {})
    for name, side in sides.items():
        if not net.fits(side):
            below = side - (side - 1 - net.first) % net.stride
            raise OptionError(
                f"got {name}={side} for a DeepLab, whose labels lie on a grid of {net.stride}n + "
                f"{net.first + 1} pixels; set {name}={below} or {name}={below + net.stride}"
            )
    return net


NETWORKS: dict[str, Callable[["SegmentationRecipe", int], Network]] = {
    "DeconvNet": _deconvnet,
    "FCN": _fcn,
    "SegNet": _segnet,
    "SegNetBasic": _segnet_basic,
    "CRFRNN": _crfrnn,
    "DeepLab": _deeplab,
}
"""Functions that build the network of a recipe for a number of classes, by name."""
