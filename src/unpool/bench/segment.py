"""`unpool bench segment`: a network on the crops of an image, in its fast form and as written.

The limit is arithmetic, nearly all of it convolutions. So the operations of the layers divided by
the time are shown as a fraction of the rate of the fastest convolution in the same run.
"""

import statistics
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from unpool.bench import harness
from unpool.bench.memory import alone, gigabytes
from unpool.cards import read_card
from unpool.devices import bf16_pays, find_int8_obstacle
from unpool.errors import OptionError, require_choice
from unpool.models import DeconvNet, Network, from_pretrained, prepare
from unpool.models.calibration import calibrate
from unpool.models.int8 import Scales
from unpool.segment.aggregate import crop_squares
from unpool.segment.segmenter import Segmenter
from unpool.segment.timings import measuring

if TYPE_CHECKING:
    from unpool import Progress

AS_WRITTEN = "as written"

_SIZE = (375, 500)  # of the image
_SIDE = 224  # of a crop for networks without a size of their own, which segment whole images
_SLOWLY = 3  # crops per round for the network as written


def measure(
    crops: int = 50,
    weights: str | None = None,
    rounds: int = 5,
    *,
    precision: str = "auto",
    memory: bool = True,
    progress: "Progress" = harness.silent,
) -> dict[str, Any]:
    """Seconds per crop, and the rate as a fraction of the machine's fastest convolution.

    Three variants take turns: the network *as written* in fp32, crop by crop, with batch norm, in
    PyTorch's default memory layout (at most three crops per round, because its time per crop does
    not depend on their number); and its fast form in *fp32* and *bf16*, as `Segmenter.infer` runs
    it. Without bf16 instructions there is no bf16 variant. *int8* is a fourth, if it is the
    precision.

    Args:
        crops: per round.
        weights: by name or folder; by default random ones of the published DeconvNet. Networks that
            take any size get crops of 224 pixels.
        precision: "auto", or "int8" to measure it, too; its scales are those of the weights, or of
            a few crops for random ones.
        memory: also measure the peak memory of segmenting an image, in a process per variant, but
            not of int8.

    Returns:
        `ratio`, how many times as fast as the network as written the last variant is: int8, or else
        bf16, or else fp32; `fraction_of_peak`, its fraction of the convolution rate of the same
        precision (None for fp32); with int8 `ratio_to_bf16`, how many times as fast as bf16 it is;
        `ratio_fp32`, `fraction_of_peak_fp32` and, with int8, the same for bf16; and the figures
        behind these. `processor_fraction` is 1 if the threads ran all the time, and less if other
        processes used the cores or threads waited.

    Raises:
        OptionError: a number below 1, weights of a network that does not segment, or int8 where it
            does not pay.
    """
    harness.require_positive(crops=crops, rounds=rounds)
    require_choice("precision", precision, ("auto", "int8"))
    names = ["fp32", "bf16"] if bf16_pays(torch.device("cpu")) else ["fp32"]
    held = {}
    for i, name in enumerate([AS_WRITTEN, *names] if memory else []):
        progress(i, 1 + len(names), f"memory, {name}")
        loading, segmenting = alone(segment_once, name, weights, crops)
        held[name] = {"loading": gigabytes(loading), "segmenting": gigabytes(segmenting)}
    net, scales = _network(weights), None
    if precision == "int8":
        if obstacle := find_int8_obstacle(torch.device("cpu")):
            raise OptionError(f"cannot measure int8: {obstacle}; leave the precision out")
        names, scales = [*names, "int8"], _scales(net, weights)
    sticks = harness.yardsticks(names)
    works = _works(net, names, crops, scales)
    works |= {name: stick.work for name, stick in sticks.items()}
    start = time.perf_counter(), time.process_time()
    seconds = harness.in_turn(works, rounds, progress=progress)
    passed, computed = time.perf_counter() - start[0], time.process_time() - start[1]
    return {
        **_compare(net, seconds, harness.peaks(sticks, seconds)),
        "network": weights or "the published one, random weights",
        "crops": crops,
        "crops_as_written": min(crops, _SLOWLY),
        "rounds": rounds,
        "memory_gb": held,
        "processor_fraction": round(computed / passed / torch.get_num_threads(), 3),
        "machine": harness.describe(),
    }


def operations(net: Network) -> int:
    """The floating-point operations of all layers for one crop; a multiply-add counts as two."""
    with torch.device("meta"):  # shapes only
        copy, crop = type(net)(**net.arguments).eval(), torch.empty(1, 3, *[_side(net)] * 2)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy(crop)
    return counter.get_total_flops()


def segment_once(variant: str, weights: str | None, crops: int) -> Iterator[None]:
    """Load, then segment a photo, in crops if the network can, to measure the memory of both."""
    image, net = next(iter(harness.photos(_SIZE).values())), _network(weights)
    if variant == AS_WRITTEN:
        segmenter = _segmenter(net, exact=True, consume=True)
        crops, batch = min(crops, _SLOWLY), 1
    else:
        segmenter, batch = _segmenter(net, precision=variant, consume=True), None
    by_crops = isinstance(net, DeconvNet)
    del net
    yield
    if by_crops:
        segmenter(image, mode="instance", proposals=crops, batch=batch)
    else:
        segmenter(image)


def _scales(net: Network, weights: str | None) -> Scales:
    """The scales of weights, or of random ones on a few crops, whose labels mean nothing."""
    if weights is not None:
        return Scales.read(weights, read_card(weights).sha256)
    image = next(iter(harness.photos(_SIZE).values()))
    parts = crop_squares(image, _squares(4), _side(net), 2)
    return calibrate(net, [prepare(torch.from_numpy(crops)) for _, crops in parts], agreement=0)


def _works(
    net: Network, names: list[str], crops: int, scales: Scales | None = None
) -> dict[str, harness.Work]:
    """A work for each variant, which returns the seconds per crop."""
    image, squares = next(iter(harness.photos(_SIZE).values())), _squares(crops)
    works = {AS_WRITTEN: _as_written(net, image, squares[:_SLOWLY])}
    for name in names:
        segmenter = _segmenter(net, precision=name, scales=scales)
        works[name] = _fast(segmenter, _side(net), image, squares)
    return works


def _as_written(net: Network, image: NDArray[np.uint8], squares: NDArray[np.int64]) -> harness.Work:
    ((_, crops),) = crop_squares(image, squares, _side(net), len(squares))
    x = prepare(torch.from_numpy(crops)).contiguous()

    @torch.inference_mode()
    def run() -> None:
        for crop in x:
            net(crop[None])

    return lambda: harness.timed(run)() / len(x)


def _fast(
    segmenter: Segmenter, side: int, image: NDArray[np.uint8], squares: NDArray[np.int64]
) -> harness.Work:
    def run() -> float:
        with measuring() as spent:
            for _, images in crop_squares(image, squares, side, segmenter.quickest_batch(side)):
                segmenter.infer(images)
        return spent["network"] / len(squares)

    return run


def _compare(
    net: Network, seconds: dict[str, list[float]], peak: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    work = operations(net)
    variants = {name: seconds[name] for name in (AS_WRITTEN, *harness.DTYPES) if name in seconds}
    ratios = {name: harness.paired(variants[AS_WRITTEN], each) for name, each in variants.items()}
    fractions: dict[str, float] = {}
    for name in variants.keys() & harness.DTYPES.keys():
        rate = work / statistics.median(variants[name]) / 1e9
        fractions[name] = round(rate / peak[f"convolution {name}"]["rate"], 3)
    best = list(variants)[-1]
    found: dict[str, Any] = {"ratio": ratios[best]["median"], "ratio_range": _range(ratios[best])}
    found |= {"ratio_fp32": ratios["fp32"]["median"], "ratio_fp32_range": _range(ratios["fp32"])}
    found["fraction_of_peak"] = None if best == "fp32" else fractions[best]
    found["fraction_of_peak_fp32"] = fractions["fp32"]
    if best == "int8" and "bf16" in variants:
        to_bf16 = harness.paired(variants["bf16"], variants["int8"])
        found |= {"ratio_to_bf16": to_bf16["median"], "ratio_to_bf16_range": _range(to_bf16)}
        found |= {
            "ratio_bf16": ratios["bf16"]["median"],
            "fraction_of_peak_bf16": fractions["bf16"],
        }
    return {
        **found,
        "seconds_per_crop": {name: harness.spread(each) for name, each in variants.items()},
        "gflop_per_crop": round(work / 1e9, 2),
        "peak": peak,
    }


def _range(spread: dict[str, float]) -> list[float]:
    return [spread["low"], spread["high"]]


def _side(net: Network) -> int:
    return net.size or _SIDE


def _network(weights: str | None) -> Network:
    if weights is None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return DeconvNet().eval()
    net, _ = from_pretrained(weights)
    if not isinstance(net, Network):
        raise OptionError(
            f"got weights of {type(net).__name__}, which does not segment; wanted a DeconvNet or "
            "another network that does"
        )
    return net


def _segmenter(net: Network, **options: Any) -> Segmenter:
    return Segmenter(net, [str(i) for i in range(net.classes)], device="cpu", **options)


def _squares(count: int) -> NDArray[np.int64]:
    """Random squares (N, 4) of all sizes, x0, y0, x1, y1 in pixels."""
    random = np.random.default_rng(0)
    side = random.integers(40, max(_SIZE), (count, 1))
    corner = random.integers(0, _SIZE[::-1], (count, 2)) - side // 2
    return np.hstack([corner, corner + side])
