"""Recipes of networks that draw: the authors' and ours."""

from dataclasses import dataclass, replace
from typing import Any

from unpool.errors import OptionError
from unpool.recipes.overrides import from_json, require_between, to_json


@dataclass(frozen=True)
class Rate:
    """A part of a training run: how long, and how fast."""

    steps: int
    lr: float


@dataclass(frozen=True)
class Generation:
    """Everything that the training of a network that draws depends on, besides the data."""

    name: str
    rates: tuple[Rate, ...]

    # the network, see `GenerativeNet`
    size: int = 128  #: side of the images
    streams: int = 2  #: 2, or 1 for the deep variant
    code: int = 512  #: width of the branches for style, view and transformation
    shared: int = 1024  #: width of the layers after them
    widths: tuple[int, ...] | None = None  #: maps of the RGB stream, or the only one
    mask_widths: tuple[int, ...] | None = None  #: maps of the mask's stream
    mask_maps: int | None = None  #: channels of the mask
    start: str | None = None  #: weights to begin with; layers that do not fit are new
    initialization: str = "orthogonal"  #: of new layers: or "xavier" or "he"

    # what is seen
    batch: int = 128  #: images of a step
    accumulate: int = 1  #: parts of a batch that are passed one after the other
    held_out: tuple[int, ...] = ()  #: azimuths by number, 0 to 30, that are never learned from
    teachers: tuple[str, ...] = ()  #: weights of networks whose drawings are learned from, too
    teachers_share: float = 0.5  #: of a batch, that teachers draw, where there are any
    spread: tuple[float, float] = (0.0, 1.0)  #: factor of the ranges, at first and at last
    gamma: float = 1e-5  #: how fast it comes near the last, by steps
    translate: float = 0.1  #: largest change, part of the side
    rotate: float = 0.2  #: radians
    zoom: float = 0.3  #: as a logarithm
    zoom_mean: float = 0.0
    squeeze: float = 0.1  #: as a logarithm
    brightness: float = 0.7  #: as a logarithm
    saturation: float = 0.7  #: as a logarithm
    hue: float = 1.5  #: radians
    inside: bool = True  #: transformations show nothing beyond the image's border
    plain: float = 0.0  #: fraction of the images that are not transformed

    # how it is learned
    rgb_weight: float = 10.0  #: of the squared error of colors inside the mask
    mask_weight: float = 1.0  #: of that of the mask
    overlap_weight: float = 0.0  #: of 1 - IoU of an image's mask, see `drawing_loss`
    background: float = 1.0  #: weight of the error of colors where there is no mask
    optimizer: str = "sgd"  #: or "adamw", which is Adam: nothing decays
    momentum: float = 0.9  #: of SGD
    eps: float = 1e-8  #: of Adam
    bias_lr: float = 2.0  #: learning rate of biases, relative to that of filters
    warmup: int = 0  #: steps in which the learning rate rises
    falling: bool = False  #: rates fall on a cosine to 2 %, rather than by steps
    clip: float | None = None  #: largest norm of the gradient
    bf16: bool = True  #: bfloat16 arithmetic where the hardware has it
    seed: int = 0

    # what is kept
    validate_every: int = 500  #: steps
    save_every: int = 500  #: steps
    int8: bool = False  #: weights are stored in a quarter of the size, see `save_pretrained`

    @property
    def steps(self) -> int:
        """How many steps the training has."""
        return sum(rate.steps for rate in self.rates)

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain values for `config.json` and the model card."""
        return to_json(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Generation":
        """A recipe as `to_json` wrote it.

        Raises:
            OptionError: a field that recipes do not have, or that is missing.
        """
        return from_json(cls, values)


CHAIRS_STAGE_1 = Generation("chairs-stage1", (Rate(250_000, 2e-4), Rate(50_000, 1e-4)), size=64)
"""The published training at 64 pixels. Dosovitskiy, Springenberg, Brox 2015, section 4."""

CHAIRS_STAGE_2 = Generation(
    "chairs-stage2", (Rate(100, 1e-5),), start="runs/chairs-stage1/weights", spread=(0.2, 1.0)
)
"""The published second stage: the last uconvs make way for new ones, of 128 pixels."""

CHAIRS_STAGE_3 = Generation(
    "chairs-stage3",
    (Rate(20_000, 5e-5), Rate(10_000, 1e-5), Rate(20_000, 2e-6)),
    start="runs/chairs-stage2/weights",
    spread=(0.2, 1.0),
)
"""The published third stage, at 128 pixels."""

CHAIRS_128 = Generation(
    "chairs-128",
    (Rate(500_000, 2e-3), Rate(200_000, 1e-3), Rate(100_000, 5e-4), Rate(100_000, 2e-4)),
    batch=64,
    spread=(0.1, 1.0),
    zoom=0.2,
    zoom_mean=0.2,
    rgb_weight=0.1,
    mask_weight=0.01,
)
"""The authors' later training, at 128 pixels from the beginning.

Its first weights are orthogonal, as in the paper: from "xavier" these rates run away at once.
"""

CHAIRS_DEEP = Generation(
    "chairs-deep",
    (Rate(500_000, 5e-4),),
    streams=1,
    initialization="he",
    rgb_weight=1.0,
    mask_weight=0.1,
    optimizer="adamw",
    eps=1e-6,
    bias_lr=1.0,
)
"""The one-stream deep variant with Adam. Dosovitskiy et al. 2017."""

CHAIRS = Generation(
    "chairs",
    (Rate(12_000, 1e-3),),
    code=256,
    shared=512,
    widths=(128, 128, 64, 32),
    mask_widths=(128, 96, 64, 32),
    mask_maps=1,
    initialization="xavier",
    batch=32,
    held_out=(4, 9, 14, 19, 24, 29),  # every fifth
    spread=(0.1, 0.5),
    gamma=1e-3,
    inside=False,
    plain=0.3,
    mask_weight=10.0,
    background=0.05,
    optimizer="adamw",
    bias_lr=1.0,
    warmup=100,
    falling=True,
    validate_every=300,
    save_every=300,
    int8=True,
)
"""A compact network, from nothing: 65 chairs at 128 pixels, an hour on two CPU cores."""

CHAIRS_LONGER = replace(
    CHAIRS,
    name="chairs-longer",
    rates=(Rate(6_000, 6e-4),),
    start="runs/chairs/weights",
    spread=(0.4, 0.4),
    plain=0.5,
)
"""`CHAIRS`, learning on: fewer transformations, more plain views."""

CHAIRS_RANGES = replace(
    CHAIRS,
    name="chairs-ranges",
    rates=(Rate(10_000, 8e-4),),
    start="runs/chairs/weights",
    spread=(1.0, 1.0),
    plain=0.15,
    seed=1,
)
"""`CHAIRS`, learning on: transformations as strong as the published."""

CHAIRS_ONE_STREAM = replace(
    CHAIRS,
    name="chairs-one-stream",
    rates=(Rate(14_000, 1e-3),),
    streams=1,
    widths=(192, 160, 80, 40),
    mask_widths=None,
)
"""A compact one-stream deep variant, from nothing."""

CHAIRS_TAUGHT = replace(
    CHAIRS,
    name="chairs-taught",
    rates=(Rate(12_000, 5e-4),),
    start="runs/chairs-longer/weights",
    spread=(0.5, 0.5),
    plain=0.5,
    overlap_weight=10_000.0,
    teachers=tuple(
        f"runs/{recipe.name}/weights"
        for recipe in (CHAIRS_LONGER, CHAIRS_RANGES, CHAIRS_ONE_STREAM)
    ),
)
"""The default weights: `CHAIRS_LONGER`, learning on, half of it from what three networks draw."""

GENERATIONS = {
    recipe.name: recipe
    for recipe in (
        CHAIRS,
        CHAIRS_STAGE_1,
        CHAIRS_STAGE_2,
        CHAIRS_STAGE_3,
        CHAIRS_128,
        CHAIRS_DEEP,
        CHAIRS_LONGER,
        CHAIRS_RANGES,
        CHAIRS_ONE_STREAM,
        CHAIRS_TAUGHT,
    )
}
"""What is trained to draw, by name."""

_INF = float("inf")

_BOUNDS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(["batch", "accumulate", "validate_every", "save_every"], (1, _INF)),
    **dict.fromkeys(["code", "shared", "widths", "mask_widths", "mask_maps"], (1, _INF)),
    **dict.fromkeys(["seed", "warmup", "gamma"], (0, _INF)),
    **dict.fromkeys(["rgb_weight", "mask_weight", "overlap_weight"], (0, _INF)),
    **dict.fromkeys(["zoom", "squeeze", "brightness", "saturation", "hue", "rotate"], (0, 10)),
    **dict.fromkeys(["spread", "translate", "plain", "background", "teachers_share"], (0, 1)),
    "size": (16, 1024),
    "streams": (1, 2),
    "held_out": (0, 30),
    "zoom_mean": (-10, 10),
    "momentum": (0, 0.999),
    "eps": (1e-16, 1),
    "bias_lr": (0, 100),
    "clip": (1e-9, _INF),
}
_BOUNDS_OF_RATE: dict[str, tuple[float, float]] = {"steps": (1, _INF), "lr": (0, 10)}


def require_generation(recipe: Generation) -> None:
    """Refuse values with which no training can be done, see `unpool.recipes.require_bounds`."""
    require_between(recipe, _BOUNDS)
    for i, rate in enumerate(recipe.rates):
        require_between(rate, _BOUNDS_OF_RATE, f"rates.{i}.")
    if not recipe.rates:
        raise OptionError("got a recipe without rates; wanted one or more")
