"""Recipes of classifiers."""

from dataclasses import KW_ONLY, dataclass
from typing import Annotated, ClassVar

from unpool.errors import OptionError
from unpool.recipes.recipe import Count, Dropout, LearningRate, OneOf, Positive, Range, Recipe

_Side = Annotated[int, Range(32, 4096)]


@dataclass(frozen=True)
class ClassificationRecipe(Recipe):
    """Hyperparameters of a classifier's training."""

    kind: ClassVar[str] = "classification"
    task: ClassVar[str] = "unpool.classify.train:ClassificationTask"
    options: ClassVar[tuple[str, ...]] = ("split", "val")

    _: KW_ONLY

    # the network
    network: Annotated[str, OneOf("ZFNet", "AlexNet")] = "ZFNet"
    widths: tuple[Count, ...] = (96, 256, 384, 384, 256)  #: channels of conv1 to conv5
    code: Count | None = 4096  #: width of fc6 and fc7; None for a network without them
    size: _Side = 224  #: side of the input crops
    dropout: Dropout = 0.5  #: of fc6 and fc7
    norm: Annotated[str, OneOf("batch", "deconv")] | None = None
    """Batch norm, or network deconvolution, which learns most in the first epochs."""
    deviation: Annotated[float, Range(0, 1)] | None = 0.01
    """Standard deviation of the initial filters; None for He initialization."""

    # augmentation
    enlarged: _Side = 256  #: side to which an image's central square is resized before the crop
    corners: bool = True  #: crop at its corners and center only, else anywhere
    flip: bool = True

    # optimization
    epochs: Count = 70  #: passes over the data
    lr: LearningRate = 0.01  #: peak learning rate
    plateau: Count | None = 3
    """Validations without a better one before the learning rate drops tenfold; None: never."""
    rms: Positive | None = 0.1  #: filters of convolutions are renormalized to this RMS at most
    validate_every: Count | None = None

    # checkpoints
    keep: tuple[Count, ...] = (1, 2, 5, 10, 20, 30, 40, 64)  #: epochs whose weights are stored

    def check(self) -> None:
        """Check that the recipe can be trained, see `Recipe.check`."""
        super().check()
        if self.enlarged < self.size:
            raise OptionError(
                f"got enlarged={self.enlarged} and size={self.size}; a crop of that size is "
                "cut from the enlarged image: set enlarged to the size or more"
            )


ZFNET = ClassificationRecipe("zfnet")
"""The published training of ZFNet on ImageNet. Zeiler, Fergus 2014, section 3.

The learning rate drops on a plateau, where the paper lowers it by hand; the mean of each channel is
subtracted, in place of the mean of each pixel.
"""

ZFNET_SMALL = ClassificationRecipe(
    "zfnet-small",
    widths=(48, 96, 128, 128, 96),
    code=256,
    size=96,
    deviation=None,
    batch=64,
    enlarged=108,
    corners=False,
    epochs=64,
    optimizer="adamw",
    lr=1e-3,
    weight_decay=0.01,
    warmup=20,
    schedule="linear",
    plateau=None,
    clip=5.0,
)
"""A narrow ZFNet for a few thousand small images, in minutes on a CPU."""
