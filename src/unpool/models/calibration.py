"""Calibrate the int8 form of a network: measure its maps on images, and choose its layers.

The scale of a map is the one with the least squared error of rounding and cutting off. Layers stay
in floating point, the one with the largest error first, until enough labels equal those of fp32.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from unpool.errors import OptionError
from unpool.models.fast import Fast, accelerate
from unpool.models.int8 import (
    LARGEST,
    Scale,
    Scales,
    integer_form,
    layers_of,
    quantize,
    require_int8,
    to_int8,
)

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.models.weights import Network

AGREEMENT = 0.95  #: fraction of pixels that must keep the label of fp32

_SAMPLED = 4096  # values of each map
_CUTS = torch.linspace(0.3, 1, 36)  # of the largest value, where values may be cut off


class _Seen(NamedTuple):
    """What a layer read and wrote, by batch."""

    low: list[float]  #: smallest values of the input
    high: list[float]  #: largest values of the input
    largest: list[float]  #: values of the output
    samples: list[Tensor]  #: of the output


@torch.no_grad()
def calibrate(
    net: "Network",
    batches: Sequence[Tensor],
    *,
    agreement: float = AGREEMENT,
    floating_point: Collection[str] = (),
    progress: "Progress | None" = None,
) -> Scales:
    """Find the scales of a network's maps, and the layers that stay in floating point.

    Args:
        net: a trained network, one of `unpool.models.int8.NETWORKS`; it is not changed.
        batches: of images (N, 3, H, W) made by `prepare`, such as the network will see; of any
            sizes. A few dozen images are enough.
        agreement: the fraction of pixels whose labels must equal those of fp32.
        floating_point: names of layers that stay in floating point in any case.
        progress: called after each step.

    Returns:
        The scales, and under `measured` the fraction of equal labels, the number of images, and
        the layers that stay in floating point.

    Raises:
        OptionError: another network, no images, or labels that stay different.

    >>> from unpool.models import DeconvNet
    >>> net = DeconvNet(2, trunk=((1, 4),), code=None, size=32).eval()
    >>> scales = calibrate(net, [torch.randn(2, 3, 32, 32)], agreement=0)
    >>> list(scales.layers)
    ['trunk.stages.0.conv1_1', 'decoder.0.deconv1_1', 'seg-score-voc']
    """
    require_int8(net)
    if not batches:
        raise OptionError("got no images to calibrate int8 on; pass a few dozen")
    fast = accelerate(net)
    layers = layers_of(fast)
    able = {
        name for name, layer in layers.items() if isinstance(layer, Fast) or layer is fast.score
    }
    able -= set(floating_point)
    say = progress or (lambda done, total, doing: None)
    seen, labels = _observe(fast, layers, batches, say)
    sources = _sources(seen)
    errors: dict[str, float] = {}
    while True:
        scales = _scales(layers, seen, sources, able)
        form = to_int8(net, Scales(scales))
        equal = [
            float((form(x).argmax(1) == y).float().mean())
            for x, y in zip(batches, labels, strict=True)
        ]
        measured = sum(equal) / len(equal)
        if measured >= agreement:
            break
        errors = errors or _errors(fast, layers, scales, batches[0])
        left = [name for name, scale in scales.items() if scale.int8]
        if not left:
            raise OptionError(
                f"got a network of whose labels {measured:.1%} stay the same without int8 layers; "
                f"wanted {agreement:.1%}: calibrate it on images like those it was trained on"
            )
        worst = max(left, key=errors.__getitem__)
        able.discard(worst)
        say(len(left), len(layers), f"{measured:.2%} of the labels equal, without {worst}")
    facts = {"labels_equal": round(measured, 5), "images": sum(len(x) for x in batches)}
    floating = [name for name in seen if name not in scales or not scales[name].int8]
    return Scales(scales, measured={**facts, "floating_point": floating})


def _observe(
    fast: "Network", layers: dict[str, nn.Module], batches: Sequence[Tensor], say: "Progress"
) -> tuple[dict[str, _Seen], list[Tensor]]:
    """What each layer reads and writes, in the order of their use, and the labels."""
    seen: dict[str, _Seen] = {}
    random = torch.Generator().manual_seed(0)

    def look(name: str, x: Tensor, y: Tensor) -> None:
        one = seen.setdefault(name, _Seen([], [], [], []))
        one.low.append(float(x.min()))
        one.high.append(float(x.max()))
        one.largest.append(float(y.max()))
        values = y.flatten()
        one.samples.append(values[torch.randint(len(values), (_SAMPLED,), generator=random)])

    labels = []
    with _watching(layers, look):
        for i, x in enumerate(batches):
            labels.append(fast(x).argmax(1))
            say(i + 1, len(batches), "measuring maps")
    return seen, labels


@contextmanager
def _watching(
    layers: dict[str, nn.Module], look: Callable[[str, Tensor, Tensor], None]
) -> Iterator[None]:
    """Show each layer's input and output to a function."""

    def hook(name: str) -> Callable[..., None]:
        return lambda layer, inputs, y: look(name, inputs[0], y)

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _sources(seen: dict[str, _Seen]) -> dict[str, str]:
    """The layer before each layer, which wrote what it reads.

    Between them are poolings, unpoolings, and perhaps a factor, as of `FCN.at_once`: all keep the
    largest value, up to this factor, of all batches. It tells one map from all others.
    """
    found: dict[str, str] = {}
    names = list(seen)
    for i, name in enumerate(names):
        factors = {}
        for source in reversed(names[:i]):
            pairs = zip(seen[name].high, seen[source].largest, strict=True)
            ratios = [high / largest if largest > 0 else 0.0 for high, largest in pairs]
            if 0 < max(ratios) <= min(ratios) * (1 + 1e-6):
                factors[source] = ratios[0]
        if factors:
            found[name] = min(factors, key=lambda source: abs(factors[source] - 1))
    return found


def _scales(
    layers: dict[str, nn.Module], seen: dict[str, _Seen], sources: dict[str, str], able: set[str]
) -> dict[str, Scale]:
    """The scales of all layers but those that neither read nor write integers.

    Those that are `able` compute with integers. Of them, those with a ReLU write integers if it is
    known who reads them.
    """
    readers = set(sources.values())
    rectified = {n for n in seen if isinstance(layer := layers[n], Fast) and layer.relu}
    steps = {name: _step(seen[name]) for name in rectified & readers}
    scales = {}
    for name in seen:
        source = sources.get(name)
        output = steps[name] if name in able and name in steps else None
        if source in steps and (source in able or isinstance(layers[name], Fast)):
            if name in able or source in able:
                scales[name] = Scale(steps[source], 0, output, name in able)
        elif name in able and isinstance(layers[name], Fast):
            low, high = min(0.0, *seen[name].low), max(0.0, *seen[name].high)
            scale = max(high - low, 1e-6) / LARGEST
            scales[name] = Scale(scale, round(-low / scale), output)
    return scales


def _step(seen: _Seen) -> float:
    """The scale of a map with the least squared error."""
    values, largest = torch.cat(seen.samples), max(seen.largest)
    errors = []
    for cut in _CUTS.tolist():
        scale = cut * largest / LARGEST
        errors.append(float((quantize(values, scale) * scale - values).square().mean()))
    return float(_CUTS[int(torch.tensor(errors).argmin())]) * largest / LARGEST


def _errors(
    fast: "Network", layers: dict[str, nn.Module], scales: dict[str, Scale], batch: Tensor
) -> dict[str, float]:
    """The error of each layer in int8 on a batch, relative to its output."""
    errors: dict[str, float] = {}
    forms = {
        name: integer_form(layers[name], scale._replace(output=None), torch.float32)
        for name, scale in scales.items()
        if scale.int8
    }

    def look(name: str, x: Tensor, y: Tensor) -> None:
        if name in forms:
            read = quantize(x, *scales[name][:2])
            errors[name] = float((forms[name](read).float() - y).norm() / y.norm())

    with _watching(layers, look):
        fast(batch)
    return errors
