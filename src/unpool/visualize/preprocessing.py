"""Load any model, with the preprocessing that it expects."""

import hashlib
import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from unpool.devices import find_device
from unpool.errors import ImageError, OptionError, WeightsError, suggest
from unpool.models import MEAN_BGR, Classifier, Deblur, GenerativeNet, SparseCoder, from_pretrained
from unpool.vision.boxes import Crops
from unpool.vision.images import Pixels, read_image

if TYPE_CHECKING:
    from unpool import Progress


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of a model; the defaults are those of most ImageNet models.

    The middle square of an image is resized to `enlarged` pixels, its center of `size` pixels is
    cropped, and the input is (pixels - mean) / std.

    Raises:
        OptionError: sizes below 1, or a mean or std of another length or out of range.

    >>> Preprocessing(112).enlarged, Preprocessing(mean=(0.5,), std=(0.5,)).mean
    (128, (0.5, 0.5, 0.5))
    """

    size: int = 224  #: side of the crop that the model sees, in pixels
    enlarged: int = 0  #: side to which the middle square is resized; 0 means 8/7 of the size
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  #: in the order of the channels, or one for all
    std: tuple[float, ...] = (0.229, 0.224, 0.225)  #: likewise
    order: Literal["RGB", "BGR"] = "RGB"  #: of the channels
    range: Literal[1, 255] = 1  #: the largest pixel value, before the mean is subtracted

    def __post_init__(self) -> None:
        fill = object.__setattr__  # the only way into a frozen dataclass
        fill(self, "enlarged", self.enlarged or round(self.size * 8 / 7))
        for name in ("mean", "std"):
            values = tuple(getattr(self, name))
            if len(values) not in (1, 3) or not all(map(np.isfinite, values)):
                raise OptionError(f"got {name}={values}; wanted three numbers, or one")
            fill(self, name, values * (3 // len(values)))
        if min(self.std) <= 0:
            raise OptionError(f"got std={self.std}; wanted numbers above 0")
        if self.range == 1 and max(map(abs, (*self.mean, *self.std))) > 10:
            raise OptionError(
                f"got mean={self.mean} and std={self.std} for pixels from 0 to 1; set range=255"
            )
        if min(self.size, self.enlarged) < 1:
            raise OptionError(f"got size={self.size}, enlarged={self.enlarged}; wanted 1 or more")

    def resized(self, size: int) -> "Preprocessing":
        """The same for another size, with `enlarged` in proportion."""
        return replace(self, size=size, enlarged=max(size, round(self.enlarged * size / self.size)))

    def crop(self, image: Pixels) -> Pixels:
        """The part of an image (H, W, 3) that the model sees, (size, size, 3) uint8, RGB."""
        return Crops(self.size, self.enlarged).center(image)

    def prepare(self, crops: Sequence[Pixels]) -> Tensor:
        """Convert crops to input of the model, (N, 3, size, size) float32.

        >>> gray = np.full((4, 4, 3), 51, np.uint8)
        >>> Preprocessing(4, 4, mean=(0.1,), std=(0.5,)).prepare([gray])[0, 0, 0, 0]
        tensor(0.2000)
        """
        pixels = torch.from_numpy(np.stack(crops))
        pixels = (pixels.flip(-1) if self.order == "BGR" else pixels).float() / (255 / self.range)
        return ((pixels - torch.tensor(self.mean)) / torch.tensor(self.std)).permute(0, 3, 1, 2)


PREPROCESSINGS = {
    "imagenet": Preprocessing(),
    "caffe": Preprocessing(mean=MEAN_BGR, std=(1.0,), order="BGR", range=255),
    "none": Preprocessing(mean=(0.0,), std=(1.0,)),
}
"""By name: RGB from 0 to 1, normalized by ImageNet's mean and standard deviation; BGR from 0 to 255
minus ImageNet's mean, as in Caffe; RGB from 0 to 1."""

Preprocess: TypeAlias = str | Preprocessing | Any
"""A name in `PREPROCESSINGS`, a `Preprocessing`, or the transforms of torchvision's weights."""


def find_preprocessing(preprocess: Preprocess) -> Preprocessing:
    """Look up a preprocessing by name, or read that of torchvision's `weights.transforms()`.

    Raises:
        OptionError: an unknown name, or another object.

    >>> find_preprocessing("caffe").order
    'BGR'
    """
    if isinstance(preprocess, Preprocessing):
        return preprocess
    if isinstance(preprocess, str):
        if preprocess not in PREPROCESSINGS:
            known = suggest(preprocess, PREPROCESSINGS)
            raise OptionError(f"got preprocess={preprocess!r}; {known}")
        return PREPROCESSINGS[preprocess]
    try:  # as torchvision.transforms._presets.ImageClassification
        (size,), (enlarged,) = preprocess.crop_size, preprocess.resize_size
        mean, std = tuple(preprocess.mean), tuple(preprocess.std)
    except (AttributeError, TypeError, ValueError):
        raise OptionError(
            f"got a {type(preprocess).__name__} as preprocessing; wanted one of "
            f"{', '.join(PREPROCESSINGS)}, a Preprocessing, or the transforms of torchvision's "
            "weights: describe yours as Preprocessing(size=..., mean=..., std=...)"
        ) from None
    return Preprocessing(size, enlarged, mean, std)


@dataclass(frozen=True)
class LoadedModel:
    """A model with its preprocessing."""

    model: nn.Module  #: in evaluation mode
    name: str  #: as it was given
    preprocessing: Preprocessing
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    classes: tuple[str, ...] = ()  #: their names, if the weights have them

    def find_class(self, name: str) -> int:
        """The number of a class given by its name or in digits; an `OptionError` if unknown."""
        if name in self.classes:
            return self.classes.index(name)
        if name.isdecimal():
            return int(name)
        hint = "its classes have no names: give a number"
        hint = suggest(name, self.classes) if self.classes else hint
        raise OptionError(f"got class {name!r} for {self.name}; {hint}")

    def class_name(self, number: int) -> str:
        """The name of a class, or its number if it has none."""
        return self.classes[number] if number < len(self.classes) else str(number)

    def read_crops(
        self, images: Sequence[Path], failed: dict[str, str], progress: "Progress | None" = None
    ) -> Iterator[tuple[Path, Pixels, tuple[int, int]]]:
        """Read images and crop what the model sees of them; unreadable ones are skipped.

        Yields:
            The file, the crop, (size, size, 3) uint8, RGB, and the height and width of the image.
            `failed` gets the unreadable files, with the reasons.

        Raises:
            ImageError: none of the images can be read.
        """
        count = 0
        for number, path in enumerate(images, 1):
            try:
                image = read_image(path)
            except ImageError as error:
                failed[str(path)] = str(error)
            else:
                count += 1
                yield path, self.preprocessing.crop(image), (image.shape[0], image.shape[1])
            if progress is not None:
                progress(number, len(images), "reading")
        if not count:
            reason = next(iter(failed.values()), "there are none")
            raise ImageError(f"none of {len(images)} images can be used: {reason}")

    def digest(self) -> str:
        """The SHA-256 of all that results depend on: tensors, layers and their code, preprocessing.

        Of functions that the code of the layers calls in other files it knows nothing.
        """
        model, found = self.model, hashlib.sha256()
        found.update(f"{model!r}{self.preprocessing!r}{self.classes!r}".encode("utf-8", "replace"))
        for module in sorted({type(layer).__module__ for layer in model.modules()}):
            with suppress(OSError):
                found.update(Path(getattr(sys.modules.get(module), "__file__", "")).read_bytes())
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    def prepare(self, crops: Sequence[Pixels]) -> Tensor:
        """Crops as input of the model, (N, 3, size, size), on its device."""
        return self.preprocessing.prepare(crops).to(self.device)

    def trial_image(self) -> Tensor:
        """A fixed noise image, (1, 3, size, size), to try the model on."""
        sides = self.preprocessing.size, self.preprocessing.size
        return self.prepare([np.random.default_rng(0).integers(0, 256, (*sides, 3), np.uint8)])


def load_model(
    weights: str | Path = "objects",
    torch_model: str | None = None,
    *,
    preprocess: Preprocess | None = None,
    size: int | None = None,
    device: str = "auto",
) -> LoadedModel:
    """Load a model with its preprocessing.

    Args:
        weights: as for `unpool.models.from_pretrained`, preprocessed as their card says.
            Segmentation networks see the whole middle square.
        torch_model: instead of weights, "package.module:factory"; the module may be in the current
            folder, and its code is run. The factory takes no arguments and returns the model with
            its weights loaded, or (model, preprocess).
        preprocess: of `torch_model`; that of the factory, or "imagenet", when not given.
        size: side of the input in pixels; that of the preprocessing when not given.
        device: "auto", "cpu", "cuda" or "cuda:n".

    Raises:
        OptionError: no such factory, one that fails, or a preprocessing that does not fit.
        WeightsError: no such weights, or weights that cannot be used.

    >>> load_model("objects").preprocessing.order
    'BGR'
    """
    where, classes = find_device(device), tuple[str, ...]()
    if torch_model is not None:
        model, own = _from_factory(torch_model)
        given = own if preprocess is None else preprocess
        chosen = find_preprocessing("imagenet" if given is None else given)
    elif preprocess is not None:
        raise OptionError(
            f"got preprocess={preprocess} for weights, whose card has the preprocessing; leave it "
            "out, or name a model with torch_model"
        )
    else:
        model, chosen, classes = _from_weights(weights)
    if size is not None:
        chosen = chosen.resized(size)
    return LoadedModel(model.to(where).eval(), torch_model or str(weights), chosen, where, classes)


def _from_weights(source: str | Path) -> tuple[nn.Module, Preprocessing, tuple[str, ...]]:
    """A model, the preprocessing of its card, and the names of its classes."""
    model, card = from_pretrained(source)
    if isinstance(model, GenerativeNet):
        raise WeightsError(
            f"got {source}, a network that generates images and takes none; pass weights that take "
            "images, such as 'objects', or use the analyses of unpool.generate"
        )
    if isinstance(model, SparseCoder):
        raise WeightsError(
            f"got {source}, a sparse coder, whose filters are learned for gray images; use unpool "
            "visualize parts, or take_apart of unpool.coding.parts"
        )
    if isinstance(model, Deblur):
        raise WeightsError(
            f"got {source}, a network that restores blurred images, which has no classes; pass "
            "weights that classify or segment, such as 'objects'"
        )
    size = card.input.get("size") or getattr(model, "size", None) or 224
    # a segmentation network sees the whole square
    enlarged = card.input.get("enlarged", 0 if isinstance(model, Classifier) else size)
    enlarged = max(size, enlarged) if enlarged else 0
    preprocessing = Preprocessing(size, enlarged, card.mean or MEAN_BGR, (1.0,), "BGR", 255)
    return model, preprocessing, tuple(card.class_names(model.classes))


def _from_factory(spec: str) -> tuple[nn.Module, Preprocess | None]:
    """The model that a factory returns, and its preprocessing if it returns that, too."""
    home, _, name = spec.partition(":")
    if not home or not name:
        raise OptionError(
            f"got model {spec!r}; wanted package.module:factory, such as nets:build for the "
            "function build() in nets.py in the current folder"
        )
    found: Any = _import(home, spec)
    for part in name.split("."):
        if not hasattr(found, part):
            public = [known for known in dir(found) if not known.startswith("_")]
            raise OptionError(
                f"got model {spec!r}; {home} has no {part!r}: {suggest(part, public)}"
            )
        found = getattr(found, part)
    if not isinstance(found, nn.Module) and callable(found):
        try:
            found = found()
        except Exception as error:
            raise OptionError(f"got model {spec!r}; {name}() fails: {_place(error)}") from error
    model, preprocess = found if type(found) is tuple and len(found) == 2 else (found, None)
    if not isinstance(model, nn.Module):
        raise OptionError(
            f"got model {spec!r}, which gives a {type(model).__name__}; wanted a function without "
            "arguments that returns a torch.nn.Module, or (module, preprocess)"
        )
    return model, preprocess


def _import(home: str, spec: str) -> Any:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(home)
    except ModuleNotFoundError as error:
        why = f"{home} needs {error.name}: install it"
        if f"{home}.".startswith(f"{error.name}."):
            why = (
                f"there is no module {error.name!r}, neither installed nor in {here}: check the "
                "name, or run this in its folder"
            )
        raise OptionError(f"got model {spec!r}; {why}") from None
    except Exception as error:
        raise OptionError(f"got model {spec!r}; {home} fails: {_place(error)}") from error


def _place(error: Exception) -> str:
    """The message of an error in a user's code, and where it was raised."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {text} ({last.filename}, line {last.lineno}); correct it"
