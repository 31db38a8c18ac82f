"""What the experiments have in common: a compact network, and a file that keeps what was found."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unpool.bench.machine import describe
from unpool.devices import find_device
from unpool.errors import OptionError
from unpool.files import atomic
from unpool.generate.batches import Views, lessons
from unpool.generate.train import build, fit
from unpool.models import GenerativeNet
from unpool.recipes import Generation, Rate

COMPACT = Generation(
    "compact",
    (Rate(800, 1e-3),),
    size=64,
    code=128,
    shared=256,
    widths=(96, 64, 32),
    mask_widths=(32, 24, 16),
    mask_maps=1,
    initialization="xavier",
    batch=32,
    plain=1.0,
    optimizer="adamw",
    bias_lr=1.0,
    warmup=50,
    falling=True,
)
"""A network for a minute or two on two cores; no image is transformed."""

Progress = Callable[[int, int, str], object]
"""Called with how many steps are done, how many there will be, and what is being done."""


class Experiment:
    """A file of results; each is kept as soon as it is there, and never worked out again.

    Args:
        path: of the file, which is made if it is not there.
        protocol: what the results depend on.

    Raises:
        OptionError: the file is damaged, or has results by another protocol.
    """

    def __init__(self, path: Path, protocol: Mapping[str, Any]) -> None:
        self.path, self.protocol = path, dict(protocol)
        self.results: dict[str, dict[str, Any]] = {}
        self.machine = describe()
        if not path.exists():
            return
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            known, self.results = before["protocol"], dict(before["results"])
            self.machine = before["machine"]
        except (ValueError, TypeError, KeyError):
            raise OptionError(f"{path} is damaged; move it away to begin anew") from None
        if known != self.protocol:
            raise OptionError(
                f"{path} has results of {_told(known)}, and these would be of "
                f"{_told(self.protocol)}; move it away, or take the same"
            )

    def keep(self, name: str, found: dict[str, Any]) -> None:
        """Add a result to the file."""
        self.results[name] = found
        self.write()

    def write(self, **conclusions: Any) -> None:
        """Write the file, with what was concluded from the results."""
        told = {"protocol": self.protocol, "machine": self.machine, "results": self.results}
        with atomic(self.path) as temporary:
            temporary.write_text(json.dumps({**told, **conclusions}, indent=1) + "\n", "utf-8")


def learn(
    views: Views,
    learned: NDArray[np.int64],
    styles: int,
    recipe: Generation,
    device: str,
    tick: Callable[[int], object],
) -> GenerativeNet:
    """A network that has learned from some views.

    Args:
        views: all there are.
        learned: numbers of those to learn from.
        styles: how many the network is to know.
        recipe: how.
        device: "auto", "cpu", "cuda" or "cuda:n".
        tick: called with the number of each step when it is done.
    """
    torch.manual_seed(recipe.seed)
    net = build(recipe, styles).to(find_device(device))
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for step in fit(net, lessons(views, learned, recipe, recipe.batch), recipe):
        tick(step.n)
    return net


def ticker(progress: Progress | None, i: int, count: int, steps: int, name: str) -> Any:
    """What tells `progress` of the steps of training i of several."""

    def tick(n: int) -> None:
        if progress is not None:
            progress(i * steps + n, count * steps, name)

    return tick


def _told(protocol: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in dict(protocol).items())
