"""The generator: images of objects from their style, the view and a transformation."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from unpool.devices import find_device
from unpool.errors import OptionError, ShapeError, WeightsError, suggest
from unpool.generate.result import GeneratedImage, postprocess
from unpool.generate.transformations import Ranges, Transformation, out_of_range
from unpool.models import GenerativeNet, encode_view, from_pretrained
from unpool.models.tensors import require_finite_output

_BATCH = 32  # images per forward pass, which bounds the memory

Style: TypeAlias = str | int | Mapping[Any, float] | Tensor
"""A style by its name or index; or fractions of several, {"A": 1, "B": -1, "C": 1} for A - B + C;
or fractions of all styles, (K,)."""

_ONE = (str, int, Mapping, Tensor)  # a single style


class Codes(NamedTuple):
    """The inputs of the network for N images."""

    style: Tensor  #: (N, K) one-hot, or fractions
    view: Tensor  #: (N, 4) sine and cosine of elevation and azimuth
    transformation: Tensor  #: (N, 28); zero is no change


class Generator:
    """A generative network and the names of its styles.

    Args:
        styles: names of its K styles.
        elevations: of the training views, in degrees; images of views beyond them carry a note.
        ranges: of the transformations in training, if known; images with larger ones carry a note.
        device: "auto", "cpu", "cuda" or "cuda:n".

    Raises:
        OptionError: another number of names than the network has styles, or a name occurs twice.

    Dosovitskiy, Springenberg & Brox 2015, "Learning to generate chairs with convolutional neural
    networks".

    >>> Generator.from_pretrained("chairs").view(0, azimuth=30)
    GeneratedImage(128 x 128)
    """

    def __init__(
        self,
        model: GenerativeNet,
        styles: Sequence[str],
        *,
        elevations: Sequence[float] = (20.0, 30.0),
        ranges: Ranges | None = None,
        device: str = "auto",
    ) -> None:
        if len(styles) != model.styles or len(set(styles)) != len(styles):
            raise OptionError(
                f"got {len(set(styles))} different names for a network of {model.styles} styles; "
                "wanted one for each: pass the styles of its card"
            )
        self.device = find_device(device)
        self.model = model.eval().to(self.device)
        # the memory format in which convolutions are fastest
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.styles = list(styles)
        self.size: int = model.size  #: side of the images in pixels
        self.elevations = (min(elevations), max(elevations))
        self.ranges = ranges

    def __repr__(self) -> str:
        return f"Generator({len(self.styles)} styles, {self.size} x {self.size}, {self.device})"

    @classmethod
    def from_pretrained(cls, source: str | Path = "chairs", *, device: str = "auto") -> "Generator":
        """Load a generator: weights that ship with the package, by name, or a folder of weights.

        Raises:
            WeightsError: no such weights, a damaged file or card, or weights of another network.
        """
        net, card = from_pretrained(source)
        if not isinstance(net, GenerativeNet):
            raise WeightsError(
                f"got {source}, weights of a {card.architecture}, which generates no images; "
                "use weights of a GenerativeNet, such as chairs"
            )
        styles = card.styles or [f"style {i}" for i in range(net.styles)]
        elevations, ranges = card.elevations or (20.0, 30.0), _ranges(card.recipe)
        return cls(net, styles, elevations=elevations, ranges=ranges, device=device)

    def view(
        self,
        style: Style,
        *,
        azimuth: float = 0.0,
        elevation: float = 20.0,
        transformation: Transformation | Sequence[float] | Tensor | None = None,
    ) -> GeneratedImage:
        """Generate one image, with a note where the request lies beyond the training data.

        Args:
            style: a name, an index, or fractions of several styles.
            azimuth: in degrees; 360 is 0.
            elevation: in degrees, any.
            transformation: a `Transformation`, or its 28 encoded numbers.

        Raises:
            OptionError: no such style, a number that is not finite, or several images at once.
        """
        codes, notes = self.encode(style, azimuth, elevation, transformation)
        if len(notes) > 1:
            raise OptionError(
                f"got a request for {len(notes)} images; wanted one: call generate for a list"
            )
        return postprocess(*self.predict(codes), notes)[0]

    def generate(
        self,
        style: Style | Sequence[Style],
        azimuth: float | Sequence[float] = 0.0,
        elevation: float | Sequence[float] = 20.0,
        transformation: Any = None,
    ) -> list[GeneratedImage]:
        """Generate several images: as `view`, with one of each for all images, or one per image.

        Raises:
            OptionError: as for `view`, or lists of different lengths.
        """
        codes, notes = self.encode(style, azimuth, elevation, transformation)
        return postprocess(*self.predict(codes), notes)

    def grid(
        self,
        styles: Sequence[Style],
        azimuths: Sequence[float],
        elevation: float = 20.0,
        transformation: Any = None,
    ) -> list[list[GeneratedImage]]:
        """Generate each style (a row) from each azimuth (a column)."""
        rows, turns = _as_styles(styles), _as_degrees("azimuths", azimuths)
        columns = len(turns)
        each = [style for style in rows for _ in turns]
        images = self.generate(each, turns * len(rows), elevation, transformation)
        return [images[i : i + columns] for i in range(0, len(images), columns)]

    def encode(
        self,
        style: Style | Sequence[Style],
        azimuth: float | Sequence[float] = 0.0,
        elevation: float | Sequence[float] = 20.0,
        transformation: Any = None,
    ) -> tuple[Codes, list[str]]:
        """The inputs of the network and a note for each image; arguments as for `generate`."""
        columns: list[list[Any]] = [
            _as_styles(style),
            _as_degrees("azimuth", azimuth),
            _as_degrees("elevation", elevation),
            _as_transformations(transformation),
        ]
        count = max(map(len, columns))
        if any(len(column) not in (1, count) for column in columns) or not all(columns):
            lengths = ", ".join(str(len(column)) for column in columns)
            raise OptionError(
                f"got {lengths} styles, azimuths, elevations and transformations; wanted one of "
                "each, or one per image"
            )
        styles, azimuths, elevations, changes = (c * count if len(c) == 1 else c for c in columns)
        wrapped = torch.tensor([a % 360 for a in azimuths])  # whole turns cost precision in fp32
        codes = Codes(
            torch.stack([self.style_code(style) for style in styles]),
            encode_view(wrapped, torch.tensor(elevations)),
            torch.stack([_encode_transformation(c, self.model.numbers) for c in changes]),
        )
        asked = zip(codes.style, elevations, codes.transformation, strict=True)
        return codes, [self._note(*one) for one in asked]

    def style_code(self, style: Style) -> Tensor:
        """A style as the network takes it, (K,): one-hot, or fractions of several styles."""
        count = len(self.styles)
        if isinstance(style, Tensor):
            if style.shape != (count,) or not style.isfinite().all():
                shape = tuple(style.shape)
                raise ShapeError(f"got fractions of shape {shape}; wanted ({count},), all finite")
            return style.float()
        mixture = style if isinstance(style, Mapping) else {style: 1.0}
        numbers = all(isinstance(f, int | float) and math.isfinite(f) for f in mixture.values())
        if not (mixture and numbers):
            got = f"the fractions {dict(mixture)}"
            raise OptionError(f"got {got}; wanted a finite number for each style")
        code = torch.zeros(count)
        for name, fraction in mixture.items():
            code[self.style_index(name)] += fraction
        return code

    def style_index(self, style: str | int) -> int:
        """The index of a style, given by its name or index."""
        if isinstance(style, int) and not isinstance(style, bool) and 0 <= style < len(self.styles):
            return style
        if style in self.styles:
            return self.styles.index(style)
        if isinstance(style, str) and style.isdecimal():
            return self.style_index(int(style))
        if isinstance(style, int):
            raise OptionError(f"got style {style}; wanted an index, 0 to {len(self.styles) - 1}")
        raise OptionError(f"got style {style!r}; {suggest(style, self.styles)}")

    @torch.inference_mode()
    def predict(self, codes: Codes, *, batch: int = _BATCH) -> tuple[Tensor, Tensor]:
        """The raw outputs of the network: RGB (N, 3, S, S) and mask (N, C, S, S), fp32, on the CPU.

        At most `batch` images are generated per forward pass. Raises a `WeightsError` if values are
        not finite.
        """
        parts = zip(*(torch.split(part.to(self.device), batch) for part in codes), strict=True)
        outputs = [self.model(*part) for part in parts]
        rgb, mask = (torch.cat(each).float().cpu() for each in zip(*outputs, strict=True))
        require_finite_output("an image", rgb, mask)
        return rgb, mask

    def _note(self, style: Tensor, elevation: float, transformation: Tensor) -> str:
        """A note on what in a request lies beyond the training data; "" if nothing does."""
        low, high = self.elevations
        notes = []
        if not low <= elevation <= high:
            notes.append(f"elevation {elevation:g} is beyond the {low:g} to {high:g}")
        if self.ranges is not None:
            notes += out_of_range(transformation, self.ranges)
        if notes:
            notes[-1] += " of the training"
        if abs((total := float(style.sum())) - 1) > 1e-3:
            notes.append(f"the fractions of the styles add up to {total:g}, not 1")
        return "; ".join(notes)


def parse_style(text: str, styles: Sequence[str] = ()) -> Style:
    """Parse a style: a name or an index, or fractions of several such as "A=1,B=-1,C=1".

    Args:
        text: what was typed.
        styles: known names, which may have a "=" in them.

    Raises:
        OptionError: a fraction that is not a number.

    >>> parse_style("stool"), parse_style("stool=0.5,armchair=0.5")
    ('stool', {'stool': 0.5, 'armchair': 0.5})
    """
    if "=" not in text or text in styles:
        return text
    mixture: dict[Any, float] = {}
    for part in text.split(","):
        name, _, fraction = (word.strip() for word in part.rpartition("="))
        try:
            mixture[name] = mixture.get(name, 0.0) + float(fraction)
        except ValueError:
            message = f"got {part!r} in the style {text!r}; wanted NAME=FRACTION, as in A=1,B=1"
            raise OptionError(message) from None
    return mixture


def _as_styles(style: Style | Sequence[Style]) -> list[Style]:
    if not isinstance(style, (*_ONE, Sequence)):
        raise OptionError(f"got the style {style!r}; wanted a name, an index, or fractions")
    return [style] if isinstance(style, _ONE) else list(style)


def _as_degrees(name: str, value: float | Sequence[float]) -> list[float]:
    try:
        degrees = [float(v) for v in ([value] if isinstance(value, str | int | float) else value)]
        if all(map(math.isfinite, degrees)):
            return degrees
    except (TypeError, ValueError):
        pass
    raise OptionError(f"got {name}={value!r}; wanted finite degrees: a number, or one per image")


def _as_transformations(transformation: Any) -> list[Any]:
    """A list of transformations, from one (or its numbers) or several."""
    several = isinstance(transformation, list) and not (
        transformation and isinstance(transformation[0], int | float)
    )
    return transformation if several else [transformation]


def _encode_transformation(transformation: Any, count: int) -> Tensor:
    """A transformation as the `count` numbers that the network takes; zeros for None."""
    if transformation is None:
        return torch.zeros(count)
    if isinstance(transformation, Transformation):
        transformation = transformation.encode()
    try:
        vector = torch.as_tensor(transformation, dtype=torch.float32).flatten()
    except (TypeError, ValueError, RuntimeError):
        got = f"got transformation={transformation!r}"
        raise OptionError(f"{got}; wanted a Transformation, or its {count} numbers") from None
    if (n := len(vector)) != count:
        raise ShapeError(f"got a transformation of ({n},); this network takes {count} numbers")
    if not vector.isfinite().all():
        raise OptionError(f"got the transformation {vector.tolist()}; wanted finite numbers")
    return vector


def _ranges(recipe: dict[str, Any]) -> Ranges | None:
    """The ranges at the end of training, from the recipe of a card; None if it has none."""
    try:
        values = {name: float(recipe[name]) for name in Ranges._fields}
        spread = float(recipe["spread"][1])
    except (TypeError, ValueError, KeyError, IndexError):
        return None
    mean = values.pop("zoom_mean")
    return Ranges(**{name: spread * value for name, value in values.items()}, zoom_mean=mean)
