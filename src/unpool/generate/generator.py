"""Draw objects with a network that knows their styles, views and transformations."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unpool.devices import find_device
from unpool.errors import OptionError, ShapeError
from unpool.generate.codes import Codes, Style, as_changes, as_degrees, as_styles, encoded, nearest
from unpool.generate.result import Drawn, postprocess
from unpool.generate.transformations import Ranges, Transformation, beyond
from unpool.generate.weights import load_generative
from unpool.models.generator import GenerativeNet, encode_view

_AT_ONCE = 32  # images, so that memory stays small


class Generator:
    """Draws objects with one network.

    Args:
        model: a trained network.
        styles: names of its K styles.
        elevations: the lowest and highest that it was trained with, in degrees; images of views
            beyond them carry a note.
        ranges: of the transformations it was trained with, if they are known; images of others
            carry a note.
        device: "auto", "cpu", "cuda" or "cuda:n".

    Raises:
        OptionError: not as many names as the network has styles, or the same name twice.

    Dosovitskiy, Springenberg, Brox 2015: "Learning to generate chairs with convolutional neural
    networks".
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
                f"got {len(set(styles))} different names for a network of {model.styles} styles"
            )
        self.device = find_device(device)
        self.model = model.eval().to(self.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.styles = list(styles)
        self.size: int = model.size  #: side of the images
        self.elevations = (min(elevations), max(elevations))
        self.ranges = ranges

    @classmethod
    def from_pretrained(cls, source: str | Path = "chairs", *, device: str = "auto") -> "Generator":
        """A generator with saved weights.

        Args:
            source: the name of weights that ship with the package, or a folder of weights.
            device: as of the class.

        Raises:
            WeightsError: no such weights, a damaged file or card, or weights of another network.
        """
        model, styles, elevations, card = load_generative(source)
        ranges = _ranges(card.get("recipe"))
        return cls(model, styles, elevations=elevations, ranges=ranges, device=device)

    def view(
        self,
        style: Style,
        *,
        azimuth: float = 0.0,
        elevation: float = 20.0,
        transformation: Transformation | Sequence[float] | Tensor | None = None,
    ) -> Drawn:
        """Draw one image.

        Args:
            style: a name, a number, or fractions of several styles.
            azimuth: in degrees; 360 is 0.
            elevation: in degrees, any.
            transformation: how the image is moved, turned, scaled and colored; or its 28 encoded
                numbers.

        Returns:
            The image; with a note, where what was asked lies beyond what was trained.

        Raises:
            OptionError: no such style (the nearest are named), or a number that is not finite.
        """
        return self.draw(style, azimuth, elevation, transformation)[0]

    def draw(
        self,
        style: Style | Sequence[Style],
        azimuth: float | Sequence[float] = 0.0,
        elevation: float | Sequence[float] = 20.0,
        transformation: Any = None,
    ) -> list[Drawn]:
        """Draw several images in one batch.

        Args:
            style: one for all, or one an image.
            azimuth: likewise, in degrees.
            elevation: likewise, in degrees.
            transformation: likewise; None for no change.

        Raises:
            OptionError: as of `view`, or lists of differing lengths.
        """
        codes, notes = self.codes(style, azimuth, elevation, transformation)
        return postprocess(*self.compute(codes), notes)

    def grid(
        self,
        styles: Sequence[Style],
        azimuths: Sequence[float],
        elevation: float = 20.0,
        transformation: Any = None,
    ) -> list[list[Drawn]]:
        """Draw each style (a row) from each azimuth (a column)."""
        each = [style for style in styles for _ in azimuths]
        around = [azimuth for _ in styles for azimuth in azimuths]
        drawn = self.draw(each, around, elevation, transformation)
        columns = len(azimuths)
        return [drawn[i : i + columns] for i in range(0, len(drawn), columns)]

    def codes(
        self,
        style: Style | Sequence[Style],
        azimuth: float | Sequence[float] = 0.0,
        elevation: float | Sequence[float] = 20.0,
        transformation: Any = None,
    ) -> tuple[Codes, list[str]]:
        """What the network draws images from, and what is to be said of each; as of `draw`."""
        wholes: list[Any] = [as_styles(style)]
        wholes += [as_degrees("azimuth", azimuth), as_degrees("elevation", elevation)]
        wholes.append(as_changes(transformation))
        count = max(map(len, wholes))
        if any(len(whole) not in (1, count) for whole in wholes) or not all(wholes):
            lengths = ", ".join(str(len(whole)) for whole in wholes)
            raise OptionError(
                f"got {lengths} styles, azimuths, elevations and transformations; wanted one of "
                "each for all images, or one an image"
            )
        styles, azimuths, elevations, changes = (w * count if len(w) == 1 else w for w in wholes)
        wrapped = torch.tensor([a % 360 for a in azimuths])
        codes = Codes(
            torch.stack([self.code(style) for style in styles]),
            encode_view(wrapped, torch.tensor(elevations)),
            torch.stack([encoded(change, self.model.numbers) for change in changes]),
        )
        asked = zip(codes.style, elevations, codes.transformation, strict=True)
        return codes, [self._note(*one) for one in asked]

    def code(self, style: Style) -> Tensor:
        """A style as the network takes it, (K,): one-hot, or the fractions of several.

        Raises:
            OptionError: no such style (the nearest are named), or no share.
            ShapeError: fractions of all styles, of which there are not K.
        """
        if isinstance(style, Tensor):
            if style.shape != (len(self.styles),) or not style.isfinite().all():
                raise ShapeError(
                    f"got fractions {tuple(style.shape)}; wanted ({len(self.styles)},), all finite"
                )
            return style.float()
        shares = style if isinstance(style, Mapping) else {style: 1.0}
        numbers = all(isinstance(s, int | float) and math.isfinite(s) for s in shares.values())
        if not (shares and numbers):
            raise OptionError(f"got the shares {dict(shares)}; wanted a number for each style")
        code = torch.zeros(len(self.styles))
        for name, share in shares.items():
            code[self.find(name)] += share
        return code

    def find(self, style: str | int) -> int:
        """The number of a style.

        Raises:
            OptionError: no such style; the nearest are named.
        """
        if isinstance(style, int) and not isinstance(style, bool) and 0 <= style < len(self.styles):
            return style
        if style in self.styles:
            return self.styles.index(style)
        if isinstance(style, str) and style.isdecimal():
            return self.find(int(style))
        if isinstance(style, int):
            raise OptionError(f"got style {style}; they are numbered 0 to {len(self.styles) - 1}")
        raise OptionError(f"got style {style!r}; {nearest(str(style), self.styles)}")

    @torch.inference_mode()
    def compute(self, codes: Codes, *, at_once: int = _AT_ONCE) -> tuple[Tensor, Tensor]:
        """RGB (N, 3, S, S) and mask (N, C, S, S) as the network gives them, fp32, on the CPU."""
        parts = zip(*(torch.split(part.to(self.device), at_once) for part in codes), strict=True)
        found = [self.model(*part) for part in parts]
        rgb, mask = (torch.cat(each).float().cpu() for each in zip(*found, strict=True))
        return rgb, mask

    def _note(self, style: Tensor, elevation: float, transformation: Tensor) -> str:
        """What of an image lies beyond what was trained."""
        low, high = self.elevations
        told = []
        if not low <= elevation <= high:
            told.append(f"elevation {elevation:g} is beyond the {low:g} to {high:g}")
        if self.ranges is not None:
            told += beyond(transformation, self.ranges)
        if told:
            told[-1] += " of the training"
        if abs((total := float(style.sum())) - 1) > 1e-3:
            told.append(f"the fractions of the styles add up to {total:g}, rather than 1")
        return "; ".join(told)


def _ranges(recipe: Any) -> Ranges | None:
    """Those of a card's recipe at the end of the training; None where it does not tell."""
    try:
        values = {name: float(recipe[name]) for name in Ranges._fields}
        spread = float(recipe["spread"][1])
    except (TypeError, ValueError, KeyError, IndexError):
        return None
    mean = values.pop("zoom_mean")
    return Ranges(**{name: spread * value for name, value in values.items()}, zoom_mean=mean)
