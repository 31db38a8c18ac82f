"""Recipes of DecoupledNet, trained on masks of some images and the classes of all others."""

from dataclasses import KW_ONLY, dataclass
from typing import Annotated, ClassVar

from unpool.errors import OptionError
from unpool.limits import MAX_SIDE
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


@dataclass(frozen=True)
class DecoupledRecipe(Recipe):
    """Hyperparameters of both parts: classification on all images, segmentation on some masks.

    The second part freezes the trunk and the classifier.
    """

    kind: ClassVar[str] = "decoupled"
    task: ClassVar[str] = "unpool.segment.decoupled:DecoupledTask"
    options: ClassVar[tuple[str, ...]] = (
        *("split", "val", "trunk_weights", "trunk_inputs", "by_color", "crowd"),
    )

    _: KW_ONLY

    # strong labels
    strong: Count | None = None
    """Number of images for each class whose masks are used, drawn by the seed; None: all."""
    strong_split: str | None = None  #: only masks of this split of the data are used

    # the network
    trunk: str | tuple[tuple[int, int], ...] = "vgg16"
    """A name, or the number of convolutions and of their maps for each stage."""
    code: Count = 4096  #: width of the classifier's fc6 and fc7
    seg_code: Count = 2048  #: width of fc6-seg and fc7-seg
    size: _Side = 320  #: side of the crops, and design size of the network
    window: Count = 7  #: side of the kernels of fc6, fc6-seg and fc6-deconv
    stages: Count | None = None  #: number of decoder stages, from the coarsest; None for all
    bridge: Annotated[str, OneOf("average", "maximum")] = "average"
    """The pooling whose probability enters the bridge when images are segmented."""
    bn_eps: Annotated[float, Range(0, 1)] = 1e-9  #: eps of batch norm

    # the first part: classification
    classify_steps: Count = 6_000
    classify_lr: LearningRate = 0.001  #: peak learning rate of the classifier
    classify_trunk_lr: LearningRate = 0.001  #: learning rate of the trunk; 0 freezes it

    # the second part: segmentation
    segment_steps: Count = 17_500
    segment_lr: LearningRate = 0.01  #: peak learning rate
    drop_every: Count | None = None
    """Steps between tenfold drops of the learning rate in the second part, in place of the recipe's
    schedule."""

    # crops and augmentation
    batch: Batch = 64  #: crops per step
    enlarged: _Side = 350  #: side to which the window of an image is resized before cropping
    flip: bool = True
    color: Fraction = 0.0  #: largest change of brightness, contrast and saturation
    subset: Count = 3  #: largest number of classes that are foreground together
    proposals: Whole = 16  #: proposals for each subset of the classes in an image
    overlap: Fraction = 0.5  #: smallest overlap of a proposal with the foreground

    # optimization
    weight_decay: Weight = 0.0
    decay_norm: bool = False  #: batch norm decays too
    decay_shift: bool = True  #: with decay_norm, its shift as well as its scale
    clip: Positive | None = None
    dropout: Dropout = 0.0  #: dropout of the trunk's last maps at the input of either network
    statistics_passes: Count = 101  #: number of batches for the final statistics of batch norm

    def check(self) -> None:
        """Check that the recipe can be trained, see `Recipe.check`."""
        super().check()
        if self.enlarged < self.size:
            raise OptionError(
                f"got enlarged={self.enlarged} and size={self.size}; a crop of that size is cut "
                "from the enlarged window: set enlarged to the size or more"
            )


DECOUPLEDNET = DecoupledRecipe(
    "decouplednet",
    accumulate=16,
    weight_decay=0.0005 / 16,
    decay_norm=True,
    bias_lr=2.0,
    drop_every=10_000,
)
"""The published training run with all masks. Hong, Noh, Han 2015; the released solver.

Their Caffe adds the weight decay before dividing by `iter_size`. The authors did not release how
they trained the classifier; its steps and learning rates are ours.
"""

DECOUPLEDNET_SMALL = DecoupledRecipe(
    "decouplednet-small",
    strong=5,
    code=256,
    seg_code=256,
    size=160,
    window=3,
    stages=2,
    classify_steps=200,
    classify_lr=5e-4,
    classify_trunk_lr=0.0,
    segment_steps=300,
    segment_lr=1e-3,
    batch=12,
    enlarged=180,
    color=0.2,
    optimizer="adamw",
    weight_decay=0.01,
    clip=5.0,
    warmup=20,
    schedule="linear",
    dropout=0.2,
    statistics_passes=20,
    validate_every=100,
    save_every=20,
)
"""A narrow DecoupledNet for a few hundred images and five masks of each class, on a CPU."""
