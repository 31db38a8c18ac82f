"""Recipes of generators: the authors' and ours."""

from dataclasses import KW_ONLY, dataclass, replace
from typing import Annotated, ClassVar

from unpool.errors import OptionError
from unpool.recipes.recipe import Count, Fraction, LearningRate, OneOf, Range, Recipe, Weight

_Change = Annotated[float, Range(0, 10)]


@dataclass(frozen=True)
class Rate:
    """A number of steps and their learning rate."""

    steps: Count
    lr: LearningRate


@dataclass(frozen=True)
class GenerationRecipe(Recipe):
    """Hyperparameters of a generator's training."""

    kind: ClassVar[str] = "generation"
    task: ClassVar[str] = "unpool.generate.train:GenerationTask"

    rates: tuple[Rate, ...]
    _: KW_ONLY

    # the network, see `GenerativeNet`
    size: Annotated[int, Range(16, 1024)] = 128  #: side of the images
    streams: Annotated[int, Range(1, 2)] = 2  #: 2, or 1 for the deep variant
    code: Count = 512  #: width of the branches for style, view and transformation
    shared: Count = 1024  #: width of the layers after them
    widths: tuple[Count, ...] | None = None  #: channels of the RGB stream, or the only one
    mask_widths: tuple[Count, ...] | None = None  #: channels of the mask stream
    mask_maps: Count | None = None  #: channels of the mask
    start: str | None = None  #: weights of a warm start; layers of other shapes are new
    initialization: Annotated[str, OneOf("orthogonal", "xavier", "he")] = "orthogonal"

    # data and augmentation
    held_out: tuple[Annotated[int, Range(0, 30)], ...] = ()
    """Indices of azimuths that are not trained on."""
    teachers: tuple[str, ...] = ()  #: weights of networks to distill
    teacher_fraction: Fraction = 0.5  #: of a batch that teachers generate, if there are any
    spread: tuple[Fraction, Fraction] = (0.0, 1.0)  #: first and last factor of the ranges
    gamma: Weight = 1e-5  #: rate at which the factor approaches the last, per step
    translate: Fraction = 0.1  #: largest change, as a fraction of the side
    rotate: _Change = 0.2  #: radians
    zoom: _Change = 0.3  #: as a logarithm
    zoom_mean: Annotated[float, Range(-10, 10)] = 0.0
    squeeze: _Change = 0.1  #: as a logarithm
    brightness: _Change = 0.7  #: as a logarithm
    saturation: _Change = 0.7  #: as a logarithm
    hue: _Change = 1.5  #: radians
    inside: bool = True  #: transformations stay inside the image's border
    plain: Fraction = 0.0  #: fraction of the images that are not transformed

    # optimization
    rgb_weight: Weight = 10.0  #: of the squared error of colors inside the mask
    mask_weight: Weight = 1.0  #: of that of the mask
    overlap_weight: Weight = 0.0  #: of 1 - IoU of an image's mask, see `generation_loss`
    background: Fraction = 1.0  #: weight of the error of colors where there is no mask
    bias_lr: Annotated[float, Range(0, 100)] = 2.0

    # weights
    int8: bool = False  #: weights are stored in a quarter of the size, see `save_pretrained`

    @property
    def steps(self) -> int:
        """The number of steps."""
        return sum(rate.steps for rate in self.rates)

    def check(self) -> None:
        """Check that the recipe can be trained, see `Recipe.check`."""
        super().check()
        if not self.rates:
            raise OptionError("got a recipe without rates; wanted one or more")
        if self.patience is not None:
            raise OptionError(
                f"got patience={self.patience}, but the weights after the last step are kept; "
                "leave it out"
            )


CHAIRS_STAGE_1 = GenerationRecipe(
    "chairs-stage1", (Rate(250_000, 2e-4), Rate(50_000, 1e-4)), size=64
)
"""The published training at 64 pixels. Dosovitskiy, Springenberg, Brox 2015, section 4."""

CHAIRS_STAGE_2 = GenerationRecipe(
    "chairs-stage2", (Rate(100, 1e-5),), start="runs/chairs-stage1/weights", spread=(0.2, 1.0)
)
"""The published second stage: new last uconvs, for 128 pixels."""

CHAIRS_STAGE_3 = GenerationRecipe(
    "chairs-stage3",
    (Rate(20_000, 5e-5), Rate(10_000, 1e-5), Rate(20_000, 2e-6)),
    start="runs/chairs-stage2/weights",
    spread=(0.2, 1.0),
)
"""The published third stage, at 128 pixels."""

CHAIRS_128 = GenerationRecipe(
    "chairs-128",
    (Rate(500_000, 2e-3), Rate(200_000, 1e-3), Rate(100_000, 5e-4), Rate(100_000, 2e-4)),
    batch=64,
    spread=(0.1, 1.0),
    zoom=0.2,
    zoom_mean=0.2,
    rgb_weight=0.1,
    mask_weight=0.01,
)
"""The authors' later training, at 128 pixels from the start.

The initial weights are orthogonal, as in the paper: with "xavier" these rates diverge at once.
"""

CHAIRS_DEEP = GenerationRecipe(
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

CHAIRS = GenerationRecipe(
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
    schedule="cosine",
    validate_every=300,
    save_every=300,
    int8=True,
)
"""A compact network from random weights: 65 chairs at 128 pixels, an hour on two CPU cores."""

CHAIRS_LONGER = replace(
    CHAIRS,
    name="chairs-longer",
    rates=(Rate(6_000, 6e-4),),
    start="runs/chairs/weights",
    spread=(0.4, 0.4),
    plain=0.5,
)
"""`CHAIRS`, continued: fewer transformations, more plain views."""

CHAIRS_RANGES = replace(
    CHAIRS,
    name="chairs-ranges",
    rates=(Rate(10_000, 8e-4),),
    start="runs/chairs/weights",
    spread=(1.0, 1.0),
    plain=0.15,
    seed=1,
)
"""`CHAIRS`, continued: transformations as strong as the published."""

CHAIRS_ONE_STREAM = replace(
    CHAIRS,
    name="chairs-one-stream",
    rates=(Rate(14_000, 1e-3),),
    streams=1,
    widths=(192, 160, 80, 40),
    mask_widths=None,
)
"""A compact one-stream deep variant, from random weights."""

CHAIRS_DISTILLED = replace(
    CHAIRS,
    name="chairs-distilled",
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
"""The default weights: `CHAIRS_LONGER`, continued, half of it on the output of three networks."""
