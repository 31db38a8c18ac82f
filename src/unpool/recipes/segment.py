"""Recipes of networks that segment: the authors' and ours."""

from dataclasses import dataclass, replace
from typing import Any

from unpool.errors import OptionError
from unpool.recipes.overrides import from_json, require_between, to_json


@dataclass(frozen=True)
class Phase:
    """A part of a training run: how deep the decoder reaches, how long, and who learns how fast."""

    name: str
    stages: int  #: decoder stages in use, from the coarsest; the last one carries the newest head
    steps: int  #: optimizer steps
    lr: float  #: peak learning rate of the newest stage and its head
    older_lr: float = 0.0  #: of the decoder stages before it, and their heads
    trunk_lr: float = 0.0  #: of the trunk's convolutions; 0 keeps them as they are
    trunk_from: int = 1  #: the first trunk stage that learns
    sources: tuple[str, ...] = ("views",)  #: in turn: "views", "pasted", "objects", "proposals"
    drop_every: int | None = None  #: steps after which rates fall tenfold; None: a falling line


@dataclass(frozen=True)
class Recipe:
    """Everything that a training run depends on, besides the data."""

    name: str
    phases: tuple[Phase, ...]

    # the network
    network: str = "DeconvNet"  #: or "FCN"
    trunk: str = "vgg16"
    code: int | None = 4096  #: width of the code layers; None for a network without them
    size: int = 224  #: side of the training crops, and the network's design size
    bn_eps: float = 1e-9  #: of batch norm
    stride: int = 8  #: of an FCN's scores: 8, 16 or 32
    window: int = 7  #: side of the kernel of an FCN's fc6
    pad: int = 100  #: zeros around the image in an FCN; 1 pads fc6 instead
    at_once: bool = False  #: an FCN learns all its skips together
    start: str | None = None  #: weights to begin with; score layers that do not fit are new
    start_share: float = 0.0  #: the finished weights are a mean with those, which count this much
    tied: bool = True  #: deconvolutions begin as the trunk's transposed filters, else Gaussian

    # what is seen
    batch: int = 16  #: crops of a step
    accumulate: int = 1  #: parts of a batch that are passed one after the other
    crop_long_side: tuple[int, int] = (224, 448)  #: range of an enlarged view's long side, pixels
    aspect: float = 0.15  #: largest change of a view's aspect ratio, as a logarithm
    flip: bool = True
    balance: float = 0.0  #: classes in a smaller fraction of the images give more views
    paste: int = 2  #: objects of other images that a pasted view gets, at most
    color: float = 0.2  #: largest change of brightness, contrast and saturation
    enlarged: int = 250  #: side to which the window about an object is resized before its crop
    overlap: float = 0.5  #: least IoU of a proposal with an object, to be learned from
    repetition: float = 1.0  #: 1 makes classes equally frequent among windows, 0 leaves them

    # how it is learned
    optimizer: str = "adamw"  #: "adamw" or "sgd"
    weight_decay: float = 0.01
    decay_norm: bool = False  #: batch norm decays too
    bias_lr: float = 1.0  #: learning rate of biases, relative to that of filters
    momentum: float = 0.9  #: of SGD
    warmup: int = 20  #: steps of a phase in which the learning rate rises; then it falls linearly
    dropout: float = 0.0  #: fraction of the trunk's last maps that training sets to zero
    clip: float | None = 5.0  #: largest norm of the gradient
    coarse_weight: float = 0.3  #: weight of the loss at each coarser stage's head
    trunk_norm: bool = False  #: the trunk's batch norm learns, with the batches' statistics
    bf16: bool = True  #: bfloat16 arithmetic where the hardware has it
    checkpointing: bool = False  #: compute a stage's maps again for its gradient, to save memory
    seed: int = 0

    # what is kept
    validate_every: int = 80  #: steps
    patience: int | None = None  #: validations without a better one, after which the run ends
    save_every: int = 40  #: steps
    statistics_passes: int = 40  #: batches over which batch norm's statistics are taken at the end
    long_side: int = 320  #: long side at which whole images are segmented
    aggregate: str = "max"  #: how the weights want crops to be put together: "max" or "mean"
    presence_threshold: float = 0.0  #: how the weights leave out classes that are nowhere sure

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain values for `config.json` and the model card."""
        return to_json(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Recipe":
        """A recipe as `to_json` wrote it.

        Raises:
            OptionError: a field that recipes do not have, or that is missing.
        """
        return from_json(cls, values)


OBJECTS = Recipe(
    name="objects",
    code=None,  # 457 images do not train the fully connected code
    batch=12,
    dropout=0.2,
    balance=0.3,
    long_side=384,
    aggregate="mean",
    presence_threshold=0.75,
    phases=(
        Phase("14x14", stages=1, steps=320, lr=1e-3),
        Phase("28x28", stages=2, steps=150, lr=5e-4, older_lr=1e-4),
        Phase("56x56", stages=3, steps=120, lr=5e-4, older_lr=1e-4),
        Phase("112x112", stages=4, steps=120, lr=5e-4, older_lr=1e-4),
        Phase("224x224", 5, steps=320, lr=5e-4, older_lr=2e-4, trunk_lr=2e-5, trunk_from=4),
        Phase("polish", 5, steps=380, lr=3e-4, older_lr=3e-4, trunk_lr=3e-5, trunk_from=4),
        Phase("again", 5, steps=210, lr=2e-4, older_lr=2e-4, trunk_lr=3e-5, trunk_from=4),
    ),
)
"""20 kinds of objects, learned from a few hundred images on a CPU, from coarse to fine."""

OBJECTS_LONGER = replace(
    OBJECTS,
    name="objects-longer",
    start="runs/objects/weights",
    start_share=0.5,
    batch=8,
    repetition=0.25,
    coarse_weight=0.0,
    seed=1,
    phases=(Phase("all", 5, 1100, 3e-4, 3e-4, 3e-5, 4, sources=("views", "pasted", "proposals")),),
)
"""The default weights: `objects` trained on with proposals, and the mean of before and after."""


def _published(name: str, *phases: Phase) -> Recipe:
    """The authors' solver; their Caffe adds the decay before it divides by `iter_size`."""
    return Recipe(
        name,
        phases,
        tied=False,
        batch=64,
        accumulate=8,
        color=0.0,
        optimizer="sgd",
        weight_decay=0.0005 / 8,
        decay_norm=True,
        bias_lr=2.0,
        warmup=0,
        clip=None,
        coarse_weight=0.0,
        trunk_norm=True,
        validate_every=500,
        save_every=500,
        statistics_passes=501,
    )


_STAGE_1 = Phase("stage 1", 5, 20_000, 0.01, 0.01, 0.01, sources=("objects",), drop_every=9_000)
_STAGE_2 = Phase("stage 2", 5, 40_000, 0.01, 0.01, 0.01, sources=("proposals",), drop_every=10_000)

FINETUNE = Recipe(
    name="finetune",
    start="objects",
    code=None,
    batch=8,
    dropout=0.2,
    coarse_weight=0.0,
    long_side=384,
    validate_every=30,
    save_every=30,
    statistics_passes=20,
    phases=(Phase("all", 5, 150, 5e-4, 2e-4, 2e-5, 4),),
)
"""Other classes than those of `objects`, from a few dozen images, in minutes on a CPU."""

FCN8S = Recipe(
    name="fcn8s",
    network="FCN",
    code=512,
    window=3,
    pad=1,
    at_once=True,
    dropout=0.5,
    batch=12,
    balance=0.3,
    long_side=384,
    presence_threshold=0.75,
    validate_every=50,
    save_every=50,
    phases=(
        Phase("frozen", 1, 400, 1e-3, sources=("views", "pasted")),
        Phase("all", 1, 200, 2e-4, trunk_lr=1e-5, trunk_from=4),
    ),
)
"""FCN-8s, the partner of `objects` in the ensemble; narrow, for few images on a CPU."""

DECONVNET = _published("deconvnet", _STAGE_1, _STAGE_2)
"""The published training: both stages, 64 crops a step. Noh, Hong, Han 2015, sections 4, 5.1."""

STAGE_1 = _published("deconvnet-stage1", _STAGE_1)
STAGE_2 = _published("deconvnet-stage2", _STAGE_2)

RECIPES = {
    recipe.name: recipe
    for recipe in (OBJECTS, OBJECTS_LONGER, FINETUNE, FCN8S, DECONVNET, STAGE_1, STAGE_2)
}
"""What is trained to segment, by name."""

_INF = float("inf")

_BOUNDS: dict[str, tuple[float, float]] = {  # smallest and largest value, by name
    **dict.fromkeys(["batch", "accumulate", "validate_every", "save_every", "patience"], (1, _INF)),
    **dict.fromkeys(["statistics_passes", "window", "pad", "code", "long_side"], (1, _INF)),
    **dict.fromkeys(["seed", "warmup", "weight_decay", "coarse_weight", "paste"], (0, _INF)),
    **dict.fromkeys(
        ["flip", "balance", "overlap", "repetition", "color", "start_share", "presence_threshold"],
        (0, 1),
    ),
    **dict.fromkeys(["dropout", "momentum"], (0, 0.999)),
    "size": (32, 4096),
    "enlarged": (32, 4096),
    "bn_eps": (0, 1),
    "aspect": (0, 1),
    "bias_lr": (0, 100),
    "clip": (1e-9, _INF),
    "crop_long_side": (8, 8192),
}
_BOUNDS_OF_PHASE: dict[str, tuple[float, float]] = {
    **dict.fromkeys(["stages", "steps", "drop_every", "trunk_from"], (1, _INF)),
    **dict.fromkeys(["lr", "older_lr", "trunk_lr"], (0, 10)),
}


def require_segmentation(recipe: Recipe) -> None:
    """Refuse values with which no training can be done, see `unpool.recipes.require_bounds`."""
    require_between(recipe, _BOUNDS)
    for i, phase in enumerate(recipe.phases):
        require_between(phase, _BOUNDS_OF_PHASE, f"phases.{i}.")
    if recipe.crop_long_side[0] > recipe.crop_long_side[1]:
        raise OptionError(
            f"got crop_long_side={list(recipe.crop_long_side)}; wanted the smaller one first"
        )
    if recipe.start_share and recipe.start is None:
        raise OptionError(f"got start_share={recipe.start_share} without start; set start, too")
    if not recipe.phases or not all(phase.sources for phase in recipe.phases):
        raise OptionError("got a recipe without phases, or a phase without sources; wanted both")
