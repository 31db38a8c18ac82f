"""Recipes of segmentation networks: the authors' and ours."""

from dataclasses import KW_ONLY, dataclass, replace
from typing import Annotated, Any, ClassVar

from unpool.errors import OptionError
from unpool.limits import MAX_PAD, MAX_SIDE, MAX_SMOOTHING
from unpool.recipes.recipe import (
    Batch,
    Count,
    Dropout,
    Fraction,
    LearningRate,
    OneOf,
    Positive,
    Range,
    Recipe,
    Weight,
    Whole,
)

_Side = Annotated[int, Range(32, MAX_SIDE)]
_Pad = Annotated[int, Range(1, MAX_PAD)]
_LongSide = Annotated[int, Range(0, MAX_SIDE)]
_Enlarged = Annotated[int, Range(0, 8192)]
_Iterations = Annotated[int, Range(0, 100)]

NETWORKS = ("DeconvNet", "FCN", "SegNet", "SegNetBasic", "DeepLab", "CRFRNN")
"""The networks that a recipe can name."""


@dataclass(frozen=True)
class Phase:
    """A part of a training run: decoder depth, steps, learning rates, crops."""

    name: str
    stages: Count  #: number of decoder stages in use, from the coarsest
    steps: Count  #: optimizer steps
    lr: LearningRate
    """Peak learning rate of the newest stage and its head, of the CRF in a CRF-RNN, or of score
    layers and branches in a DeepLab."""
    older_lr: LearningRate = 0.0
    """Peak learning rate of earlier decoder stages and their heads, of the FCN (without trunk) in a
    CRF-RNN, or of fc6 and fc7 in a DeepLab."""
    trunk_lr: LearningRate = 0.0  #: learning rate of the trunk's convolutions; 0 freezes them
    trunk_from: Count = 1  #: the first trunk stage that is trained
    sources: tuple[
        Annotated[str, OneOf("views", "pasted", "objects", "proposals", "images", "crops")], ...
    ] = ("views",)  #: sources of the training crops, in turn
    drop_every: Count | None = None
    """Steps between tenfold drops of the learning rate, in place of the recipe's schedule."""


@dataclass(frozen=True)
class SegmentationRecipe(Recipe):
    """Hyperparameters of a segmentation network's training."""

    kind: ClassVar[str] = "segmentation"
    task: ClassVar[str] = "unpool.segment.train:SegmentationTask"
    mixes: ClassVar[bool] = True
    options: ClassVar[tuple[str, ...]] = (
        *("split", "val", "trunk_weights", "trunk_inputs", "by_color", "crowd", "soft"),
    )

    phases: tuple[Phase, ...]
    _: KW_ONLY

    # the network
    network: Annotated[str, OneOf(*NETWORKS)] = "DeconvNet"
    trunk: str | tuple[tuple[int, int], ...] = "vgg16"
    """A name, or the number of convolutions and of their maps for each stage."""
    code: Count | None = 4096  #: width of the code layers; None for a network without them
    size: _Side = 224  #: side of the training crops, and the network's design size
    bn_eps: Annotated[float, Range(0, 1)] = 1e-9  #: eps of batch norm
    stride: int = 8  #: stride of an FCN's scores: 8, 16 or 32
    window: Count = 7
    """Side of the kernel of fc6 in an FCN or DeepLab, and of a SegNetBasic's filters."""
    dilation: Count = 12  #: dilation of fc6 in a DeepLab
    pool_kernel: Annotated[int, Range(2, 3)] = 3  #: side of the pooling windows of a DeepLab
    pool_average: bool = True  #: a DeepLab has an average pooling before fc6
    multi_scale: bool = False  #: a DeepLab adds scores of finer maps
    wide_head: bool = False  #: a SegNet has one more layer before the scores
    pad: _Pad = 100  #: zeros around the image in an FCN; 1 pads fc6 instead
    at_once: bool = False  #: train all skips of an FCN together
    iterations: tuple[_Iterations, _Iterations] = (5, 10)
    """Mean-field iterations of a CRF-RNN, in training and in evaluation."""
    centered: bool = True  #: subtract the mean of ImageNet from the pixels
    start: str | None = None  #: weights of a warm start; score layers for other classes are new
    average_with_start: Fraction = 0.0  #: weight of `start` in the averaged final weights
    tied: bool = True  #: deconvolutions start as the trunk's transposed filters, else Gaussian

    # crops and augmentation
    batch: Batch = 16  #: crops per step
    crop_long_side: tuple[_Enlarged, _Enlarged] = (224, 448)
    """Range of an enlarged view's long side, pixels; (0, 0): in proportion to `long_side`."""
    aspect: Fraction = 0.15  #: largest change of a view's aspect ratio, as a logarithm
    flip: bool = True
    balance: Fraction = 0.0  #: classes in a smaller fraction of the images give more crops
    paste: Annotated[int, Range(0, 1000)] = 2  #: most objects of other images pasted into a crop
    color: Fraction = 0.2  #: largest change of brightness, contrast and saturation
    image_size: tuple[_Side, _Side] = (360, 480)
    """Height and width to which whole images are resized, the source "images"."""
    enlarged: _Side = 250  #: side to which the window around an object is resized before cropping
    overlap: Fraction = 0.5  #: smallest IoU with an object of a proposal to train on
    repetition: Fraction = 1.0
    """1 makes classes equally frequent among windows, 0 keeps their frequencies."""

    # weights of classes in the loss
    median_frequency: Fraction = 0.0
    """Power of the weights of median frequency balancing: 1 as published, 0 for none."""
    class_weights: tuple[Weight, ...] = ()  #: instead: a weight for each class, by id

    # soft labels of another network, if the data has any
    distill: Weight = 0.0  #: weight of the loss of distillation
    distill_temperature: Positive = 2.0
    distill_without: tuple[str, ...] = ()  #: classes on which the other network is poor

    # optimization
    optimizer: Annotated[str, OneOf("adamw", "sgd")] = "adamw"
    weight_decay: Weight = 0.01
    decay_norm: bool = False  #: batch norm decays too
    decay_shift: bool = True  #: with decay_norm, its shift as well as its scale
    warmup: Whole = 20
    schedule: Annotated[str, OneOf("constant", "linear", "cosine")] = "linear"
    clip: Positive | None = 5.0
    dropout: Dropout = 0.0  #: dropout of the trunk's last maps
    coarse_weight: Weight = 0.3  #: weight of the loss at each coarser stage's head
    compatibility_lr: Annotated[float, Range(0, 100)] = 0.1
    """Factor of the learning rate of a CRF-RNN's compatibility matrix, relative to its kernels'."""
    trunk_norm: bool = False  #: train the trunk's batch norm, with the statistics of batches
    checkpointing: bool = False  #: recompute activations in the backward pass, to save memory

    # validation and weights
    validate_every: Count | None = 80
    save_every: Count = 40
    statistics_passes: Count = 40  #: batches for the final statistics of batch norm
    long_side: _LongSide = 320
    """Long side at which whole images are segmented; 0: the median of the training images'."""
    aggregate: Annotated[str, OneOf("max", "mean")] = "max"  #: of overlapping crops, on the card
    smoothing: Annotated[float, Range(0, MAX_SMOOTHING)] = 0.0
    """Of the scores, on the card, see `unpool.segment.smoothing`."""
    presence_threshold: Fraction = 0.0  #: on the card, see `unpool.segment.postprocessing`

    def check(self) -> None:
        """Check that the recipe can be trained, see `Recipe.check`."""
        super().check()
        if self.crop_long_side != (0, 0) and min(self.crop_long_side) < 8:
            got = f"got crop_long_side={list(self.crop_long_side)}"
            raise OptionError(f"{got}; wanted 8 pixels or more, or [0, 0]")
        if self.crop_long_side[0] > self.crop_long_side[1]:
            raise OptionError(
                f"got crop_long_side={list(self.crop_long_side)}; wanted the smaller one first"
            )
        if self.average_with_start and self.start is None:
            raise OptionError(
                f"got average_with_start={self.average_with_start} without start; set start, too"
            )
        if self.median_frequency and self.class_weights:
            raise OptionError(
                "got median_frequency and class_weights; set class_weights=[] or median_frequency=0"
            )
        if not self.phases or not all(phase.sources for phase in self.phases):
            raise OptionError(
                "got a recipe without phases, or a phase without sources; wanted both"
            )


OBJECTS = SegmentationRecipe(
    name="objects",
    code=None,  # see docs/log.md
    batch=12,
    dropout=0.2,
    balance=0.3,
    distill=0.7,
    distill_without=("bottle", "bus", "chair", "pottedplant"),
    long_side=384,
    aggregate="mean",
    presence_threshold=0.75,
    validate_every=90,
    save_every=30,
    phases=(
        Phase("14x14", 1, 120, 1e-3, sources=("views", "pasted")),
        Phase("14x14, trunk", 1, 150, 5e-4, trunk_lr=5e-5, trunk_from=4),
        Phase("28x28", 2, 400, 5e-4, 3e-4, trunk_lr=5e-5, trunk_from=4),
        Phase("56x56", 3, 80, 5e-4, 2e-4, trunk_lr=3e-5, trunk_from=4),
        Phase("112x112", 4, 50, 2e-4, 1e-4, trunk_lr=2e-5, trunk_from=4),
        Phase("224x224", 5, 360, 3e-4, 1.5e-4, 2e-5, 4, sources=("views", "proposals")),
    ),
)
"""The default weights `objects`: from coarse to fine, on the trunk of `objects-fcn8s`."""


CAFFE: dict[str, Any] = {
    "optimizer": "sgd",
    "bias_lr": 2.0,
    "warmup": 0,
    "schedule": "constant",
    "clip": None,
    "color": 0.0,
}
"""What the authors' Caffe solvers share: plain SGD, no changes of color."""


def _published(name: str, *phases: Phase) -> SegmentationRecipe:
    """The authors' solver; their Caffe adds the decay before it divides by `iter_size`."""
    return SegmentationRecipe(
        name,
        phases,
        tied=False,
        batch=64,
        accumulate=8,
        weight_decay=0.0005 / 8,
        decay_norm=True,
        coarse_weight=0.0,
        trunk_norm=True,
        validate_every=500,
        save_every=500,
        statistics_passes=501,
        **CAFFE,
    )


_STAGE_1 = Phase("stage 1", 5, 20_000, 0.01, 0.01, 0.01, sources=("objects",), drop_every=9_000)
_STAGE_2 = Phase("stage 2", 5, 40_000, 0.01, 0.01, 0.01, sources=("proposals",), drop_every=10_000)

FINETUNE = SegmentationRecipe(
    name="finetune",
    start="objects",
    code=None,
    batch=8,
    dropout=0.2,
    coarse_weight=0.0,
    median_frequency=0.5,
    warmup=10,
    long_side=0,
    smoothing=1.5,
    crop_long_side=(0, 0),
    validate_every=30,
    save_every=30,
    statistics_passes=20,
    phases=(
        Phase("14 x 14", 1, 60, 1e-3, trunk_lr=5e-5, trunk_from=4),
        Phase("28 x 28", 2, 60, 2e-4, 2e-4, 5e-5, 4),
        Phase("56 x 56", 3, 40, 2e-4, 2e-4, 5e-5, 4),
        Phase("112 x 112", 4, 30, 2e-4, 1e-4, 3e-5, 4),
        Phase("224 x 224", 5, 50, 2e-4, 1e-4, 3e-5, 4),
    ),
)
"""For classes other than those of `objects`, from a few dozen images, in minutes on a CPU."""

FCN8S = SegmentationRecipe(
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

OBJECTS_FCN8S = replace(
    FCN8S,
    name="objects-fcn8s",
    distill=0.7,
    distill_without=("bottle", "bus", "chair", "pottedplant"),
    dropout=0.3,
    presence_threshold=0.85,
    validate_every=250,
    phases=(
        Phase("frozen", 1, 130, 1e-3, sources=("views", "pasted")),
        Phase("all", 1, 370, 3e-4, trunk_lr=3e-5, trunk_from=4),
    ),
)
"""The default weights `objects-fcn8s`: thousands of images, and soft labels of another network."""

FINETUNE_FCN8S = replace(
    FCN8S,
    name="finetune-fcn8s",
    start="objects-fcn8s",
    batch=8,
    balance=0.0,
    dropout=0.2,
    long_side=0,
    crop_long_side=(0, 0),
    presence_threshold=0.0,
    validate_every=60,
    save_every=60,
    phases=(Phase("frozen", 1, 60, 1e-3), Phase("all", 1, 180, 5e-4, trunk_lr=3e-5, trunk_from=4)),
)
"""`FINETUNE` with an FCN-8s, whose steps are faster; for whole images only."""

DECONVNET = _published("deconvnet", _STAGE_1, _STAGE_2)
"""The published training: both stages, 64 crops a step. Noh, Hong, Han 2015, sections 4, 5.1."""

STAGE_1 = _published("deconvnet-stage1", _STAGE_1)
STAGE_2 = _published("deconvnet-stage2", _STAGE_2)
