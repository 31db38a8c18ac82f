"""`unpool bench segment`: a network on the crops of an image, in its fast form and as written.

What bounds it is arithmetic, nearly all of it convolutions. So the work that the layers ask for,
divided by the time, is shown as a fraction of the quickest convolution that the machine does in the
same run.
"""

import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unpool.bench.images import photos
from unpool.bench.machine import describe, peaks, yardsticks
from unpool.bench.memory import alone, gigabytes
from unpool.bench.rounds import Progress, Work, in_turn, paired, require_positive, spread, timed
from unpool.devices import bf16_pays
from unpool.errors import OptionError
from unpool.models import DeconvNet, from_pretrained, prepare
from unpool.segment.aggregate import cut
from unpool.segment.segmenter import Segmenter
from unpool.segment.timings import measuring
from unpool.vision.boxes import Crop

AS_WRITTEN = "as written"

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_SIZE = (375, 500)  # of the image
_SLOWLY = 3  # crops a round of the network as written


def measure(
    crops: int = 50,
    weights: str | None = None,
    rounds: int = 5,
    *,
    memory: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Seconds a crop, and what fraction of the machine's limit that is.

    Three variants take turns: the network *as written* in fp32, crop by crop, with batch norm, in
    the layout of PyTorch's default (of three crops a round at most, since its time a crop does
    not depend on their number); and its fast form in *fp32* and *bf16*, as `Segmenter.crops` runs
    it. Where the hardware has no bf16, there is no such variant.

    Args:
        crops: of a round.
        weights: of a DeconvNet, by name or folder; the published network with random weights
            when not given.
        rounds: how many are counted.
        memory: measure the peak memory of a whole image in a process for each variant, too.
        progress: called before each part.

    Returns:
        Plain values: `ratio`, how many times as quick as the network as written bf16 is (fp32 where
        there is no bf16), `ratio_fp32`, `share_of_peak` (of bf16; None without it) and
        `share_of_peak_fp32`, of the convolution rate; and what they are made of.
        `processor_share` is 1 where the threads ran all the time, less where others wanted the
        cores, or threads waited.

    Raises:
        OptionError: a number below 1, or weights of a network that does not take crops.
    """
    require_positive(crops=crops, rounds=rounds)
    names = ["fp32", "bf16"] if bf16_pays(torch.device("cpu")) else ["fp32"]
    held = {}
    for i, name in enumerate([AS_WRITTEN, *names] if memory else []):
        if progress is not None:
            progress(i, 1 + len(names), f"memory, {name}")
        loading, segmenting = alone(segment_once, name, weights, crops)
        held[name] = {"loading": gigabytes(loading), "segmenting": gigabytes(segmenting)}
    net = _network(weights)
    sticks = yardsticks([_DTYPES[name] for name in names])
    works = _works(net, names, crops) | {name: stick.work for name, stick in sticks.items()}
    start = time.perf_counter(), time.process_time()
    seconds = in_turn(works, rounds, progress=progress)
    passed, computed = time.perf_counter() - start[0], time.process_time() - start[1]
    return {
        **_compare(net, seconds, peaks(sticks, seconds)),
        "network": weights or "the published one, random weights",
        "crops": crops,
        "crops_as_written": min(crops, _SLOWLY),
        "rounds": rounds,
        "memory_gb": held,
        "processor_share": round(computed / passed / torch.get_num_threads(), 3),
        "machine": describe(),
    }


def multiply_adds(net: nn.Module, size: int) -> int:
    """Multiplications with an addition in all convolutions and deconvolutions, for one image.

    Args:
        net: on any device; best on "meta", where nothing is computed.
        size: side of the image.

    >>> multiply_adds(nn.Conv2d(3, 8, 3, padding=1), 10) == 10 * 10 * 3 * 3 * 3 * 8
    True
    """
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal total  # each cell that a filter is laid on meets each of its weights
        cells = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        total += cells.shape[-2] * cells.shape[-1] * layer.get_parameter("weight").numel()

    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        with torch.no_grad():
            net(torch.empty(1, 3, size, size, device=next(net.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return total


def segment_once(variant: str, weights: str | None, crops: int) -> Iterator[None]:
    """Load, then segment a photo instance-wise; for the memory of both."""
    image, net = next(iter(photos(_SIZE).values())), _network(weights)
    if variant == AS_WRITTEN:
        segmenter = _segmenter(net, exact=True, consume=True)
        crops, batch = min(crops, _SLOWLY), 1
    else:
        segmenter, batch = _segmenter(net, precision=variant, consume=True), None
    del net
    yield
    segmenter(image, mode="instance", proposals=crops, batch=batch)


def _works(net: DeconvNet, names: list[str], crops: int) -> dict[str, Work]:
    """A work for each variant; each gives the seconds of one crop."""
    image, squares = next(iter(photos(_SIZE).values())), _squares(crops)
    works = {AS_WRITTEN: _as_written(net, image, squares[:_SLOWLY])}
    for name in names:
        works[name] = _fast(_segmenter(net, precision=name), image, squares)
    return works


def _as_written(net: DeconvNet, image: NDArray[np.uint8], squares: NDArray[np.int64]) -> Work:
    crops = [Crop((b[0], b[1], b[2], b[3]), net.size).take(image) for b in squares.tolist()]
    x = prepare(torch.from_numpy(np.stack(crops))).contiguous()

    @torch.inference_mode()
    def run() -> None:
        for crop in x:
            net(crop[None])

    return lambda: timed(run)() / len(x)


def _fast(segmenter: Segmenter, image: NDArray[np.uint8], squares: NDArray[np.int64]) -> Work:
    side = segmenter.side
    assert side is not None  # a DeconvNet takes crops

    def run() -> float:
        with measuring() as spent:
            for _, images in cut(image, squares, side, segmenter.quickest_batch()):
                segmenter.infer(images)
        return spent["network"] / len(squares)

    return run


def _compare(
    net: DeconvNet, seconds: dict[str, list[float]], peak: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    with torch.device("meta"):
        work = 2 * multiply_adds(type(net)(**net.arguments).eval(), net.size)
    variants = {name: seconds[name] for name in (AS_WRITTEN, *_DTYPES) if name in seconds}
    ratios = {name: paired(variants[AS_WRITTEN], each) for name, each in variants.items()}
    shares: dict[str, float | None] = {"bf16": None}
    for name in variants.keys() & _DTYPES.keys():
        rate = work / statistics.median(variants[name]) / 1e9
        shares[name] = round(rate / peak[f"convolution {name}"]["rate"], 3)
    best = ratios.get("bf16", ratios["fp32"])
    return {
        "ratio": best["median"],
        "ratio_range": [best["low"], best["high"]],
        "ratio_fp32": ratios["fp32"]["median"],
        "ratio_fp32_range": [ratios["fp32"]["low"], ratios["fp32"]["high"]],
        "share_of_peak": shares["bf16"],
        "share_of_peak_fp32": shares["fp32"],
        "seconds_per_crop": {name: spread(each) for name, each in variants.items()},
        "gflop_per_crop": round(work / 1e9, 2),
        "peak": peak,
    }


def _network(weights: str | None) -> DeconvNet:
    if weights is None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return DeconvNet().eval()
    net, _ = from_pretrained(weights)
    if not isinstance(net, DeconvNet):
        raise OptionError(
            f"got weights of {type(net).__name__}, which does not take crops; pass those of a "
            "DeconvNet"
        )
    return net


def _segmenter(net: DeconvNet, **options: Any) -> Segmenter:
    return Segmenter(net, [str(i) for i in range(net.classes)], device="cpu", **options)


def _squares(count: int) -> NDArray[np.int64]:
    """Squares here and there in the image, of all sizes."""
    random = np.random.default_rng(0)
    side = random.integers(40, max(_SIZE), (count, 1))
    corner = random.integers(0, _SIZE[::-1], (count, 2)) - side // 2
    return np.hstack([corner, corner + side])
