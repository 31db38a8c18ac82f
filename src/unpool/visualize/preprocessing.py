"""A model to look into, ours or anybody's, and images as it takes them."""

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unpool.cards import settings
from unpool.devices import find_device
from unpool.errors import OptionError, WeightsError
from unpool.models import Classifier, GenerativeNet, from_pretrained
from unpool.models.vgg import MEAN_BGR
from unpool.vision.boxes import Crops

_SIZE, _ENLARGED = 224, 256
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB, of 0..1


@dataclass(frozen=True)
class Inputs:
    """How an image becomes what a model takes.

    The middle square is resized, and the center of that is what the model sees: (pixels - mean) /
    std. The defaults are those of most models that learned from ImageNet.
    """

    size: int = _SIZE  #: side of what is seen, in pixels
    enlarged: int = _ENLARGED  #: side to which the middle square is resized
    mean: tuple[float, ...] = _MEAN  #: in the order of the colors
    std: tuple[float, ...] = _STD  #: likewise
    order: Literal["RGB", "BGR"] = "RGB"  #: of the colors
    range: Literal[1, 255] = 1  #: pixels go from 0 to this before the mean is subtracted

    def crop(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What the model sees of an image (H, W, 3): (size, size, 3) uint8, RGB."""
        return Crops(self.size, self.enlarged).center(image)

    def prepare(self, crops: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Crops as the model takes them, (N, 3, size, size) float32.

        >>> gray = np.full((4, 4, 3), 51, np.uint8)
        >>> Inputs(4, 4, mean=(0.1,) * 3, std=(0.5,) * 3).prepare([gray])[0, 0, 0, 0]
        tensor(0.2000)
        """
        pixels = torch.from_numpy(np.stack(crops))
        if self.order == "BGR":
            pixels = pixels.flip(-1)
        scaled = pixels.float() / (255 / self.range)
        return ((scaled - torch.tensor(self.mean)) / torch.tensor(self.std)).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Subject:
    """A model to look into."""

    model: nn.Module  #: in evaluation mode
    name: str  #: as it was given
    inputs: Inputs
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    classes: tuple[str, ...] = ()  #: names by number, where the weights tell them

    def find_class(self, name: str) -> int:
        """The number of a class, by its name or number.

        Raises:
            OptionError: there is no such name; the nearest, or some, are told.
        """
        if name in self.classes:
            return self.classes.index(name)
        if name.isdecimal():
            return int(name)
        if not self.classes:
            hint = "the model tells no names: give a number"
        elif near := difflib.get_close_matches(name, self.classes, 3):
            hint = f"near it: {', '.join(near)}"
        else:
            hint = f"there are {', '.join(self.classes[:3])} ..."
        raise OptionError(f"got class {name!r}, which {self.name} does not know; {hint}")

    def class_name(self, number: int) -> str:
        """The name of a class, or its number where the weights tell no names."""
        return self.classes[number] if number < len(self.classes) else str(number)

    def prepare(self, crops: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Crops as the model takes them, (N, 3, size, size), on its device."""
        return self.inputs.prepare(crops).to(self.device)

    def trial(self) -> Tensor:
        """An image of noise, (1, 3, size, size), the same each time, to try the model on."""
        sides = self.inputs.size, self.inputs.size
        return self.prepare([np.random.default_rng(0).integers(0, 256, (*sides, 3), np.uint8)])


def load_subject(
    weights: str | Path = "objects",
    torch_model: str | None = None,
    *,
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    order: Literal["rgb", "bgr"] | None = None,
    range: Literal[1, 255] | None = None,
    device: str = "auto",
) -> Subject:
    """Load a model to look into.

    Args:
        weights: of `unpool.models.from_pretrained`; the card says how images are prepared. A
            network that segments sees the middle square.
        torch_model: instead of weights, "package.module:factory", or a module in the current
            folder. The factory is called without arguments and gives the model, with its weights
            loaded. This runs the code of that module.
        size: side of the images in pixels; 224 when neither this nor the card says otherwise. Of
            a foreign model, its middle square is resized to 8/7 of that first.
        mean: what is subtracted from the pixels of a foreign model, for each color or one for all;
            the mean of ImageNet when not given.
        std: by what they are then divided; likewise.
        order: of the colors of a foreign model.
        range: whether mean and std are of pixels 0..1 or 0..255.
        device: "auto", "cpu", "cuda" or "cuda:n".

    Raises:
        OptionError: no such factory, one that fails, or values that do not fit.
        WeightsError: no such weights, or weights that cannot be used.

    >>> load_subject("objects").inputs.order
    'BGR'
    """
    where = find_device(device)
    typed: dict[str, Any] = {"mean": mean, "std": std, "order": order, "range": range}
    if torch_model is not None:
        model = _made(torch_model)
        inputs = _foreign(size, **typed)
        return Subject(model.to(where).eval(), torch_model, inputs, where)
    if idle := [f"--{name}" for name, value in typed.items() if value is not None]:
        raise OptionError(
            f"got {' and '.join(idle)} with weights, whose card says how images are prepared; "
            "leave that out, or name a model with --torch-model"
        )
    model, card = from_pretrained(weights)
    if isinstance(model, GenerativeNet):
        raise WeightsError(
            f"got {weights}, a network that draws images and sees none; look into it with "
            "`unpool generate unit`, `mask` or `filters`"
        )
    card = {name: value for name, value in card.items() if name != "mode"}  # any will do here
    told = settings(card, model.classes, weights)
    inputs = _own(model, card, told, weights, size)
    return Subject(model.to(where), str(weights), inputs, where, tuple(told["classes"]))


# ---- our own -------------------------------------------------------------------------------------


def _own(
    model: nn.Module,
    card: dict[str, Any],
    told: dict[str, Any],
    source: str | Path,
    size: int | None,
) -> Inputs:
    """What the card says of images, or else the network."""
    sides = card.get("input")
    sides = sides if isinstance(sides, dict) else {}
    designed = sides.get("size") or getattr(model, "size", None) or _SIZE
    enlarged = sides.get("enlarged")
    if enlarged is None:
        enlarged = _enlarged(designed) if isinstance(model, Classifier) else designed
    if any(type(side) is not int or side < 1 for side in (designed, enlarged)):
        raise WeightsError(
            f"got size {designed} and enlarged {enlarged} in the card of {source}; wanted pixels, "
            "1 or more: correct card.json, or copy the weights again"
        )
    side = size or designed
    enlarged = round(enlarged * side / designed)
    mean = told.get("mean", MEAN_BGR)
    return Inputs(side, max(side, enlarged), mean, (1.0,) * 3, "BGR", 255)


# ---- foreign ones --------------------------------------------------------------------------------


def _foreign(
    size: int | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    order: Literal["rgb", "bgr"] | None,
    range: Literal[1, 255] | None,
) -> Inputs:
    side, top = size or _SIZE, range or 1
    flip = -1 if order == "bgr" else 1
    center = _three("mean", mean) or tuple(top * v for v in _MEAN[::flip])
    spread = _three("std", std) or tuple(top * v for v in _STD[::flip])
    if top == 1 and max(map(abs, (*center, *spread))) > 10:
        raise OptionError(
            f"got mean {_listed(center)} and std {_listed(spread)} of pixels 0 to 1; pass --range "
            "255, and both of pixels 0 to 255"
        )
    if min(spread) <= 0:
        raise OptionError(f"got std {_listed(spread)}; wanted numbers above 0")
    return Inputs(side, _enlarged(side), center, spread, "BGR" if order == "bgr" else "RGB", top)


def _enlarged(side: int) -> int:
    return round(side * _ENLARGED / _SIZE)


def _three(name: str, values: Sequence[float] | None) -> tuple[float, ...] | None:
    if values is None:
        return None
    if len(values) not in (1, 3) or not all(map(np.isfinite, values)):
        raise OptionError(f"got {name} {_listed(values)}; wanted three numbers, or one for all")
    return tuple(values) if len(values) == 3 else (values[0],) * 3


def _listed(values: Sequence[float]) -> str:
    return ",".join(f"{v:g}" for v in values)


def _made(spec: str) -> nn.Module:
    """The model that a factory gives, the factory being in an installed module or a local one."""
    home, _, name = spec.partition(":")
    if not home or not name:
        raise OptionError(
            f"got model {spec!r}; wanted package.module:factory, such as nets:build for the "
            "function build() in nets.py in the current folder"
        )
    found: Any = _imported(home, spec)
    for part in name.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), 3)
            hint = f"near it: {', '.join(near)}" if near else "look for its name there"
            raise OptionError(f"got model {spec!r}; {home} has no {name!r} ({hint})")
        found = getattr(found, part)
    if not isinstance(found, nn.Module) and callable(found):
        try:
            found = found()
        except Exception as error:
            raise OptionError(f"got model {spec!r}; {name}() fails: {_place(error)}") from error
    if not isinstance(found, nn.Module):
        raise OptionError(
            f"got model {spec!r}, which gives a {type(found).__name__}; wanted a function without "
            "arguments that returns a torch.nn.Module"
        )
    return found


def _imported(home: str, spec: str) -> Any:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(home)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{home}.".startswith(f"{error.name}."):
            raise OptionError(
                f"got model {spec!r}; {home} needs {error.name}: install it"
            ) from None
        raise OptionError(
            f"got model {spec!r}; there is no module {error.name!r}, neither installed nor in "
            f"{here}: check the name, or run this in its folder"
        ) from None
    except Exception as error:
        raise OptionError(f"got model {spec!r}; {home} fails: {_place(error)}") from error


def _place(error: Exception) -> str:
    """What went wrong in a user's code, and where."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {text} ({last.filename}, line {last.lineno}); correct it"
