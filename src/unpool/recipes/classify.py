"""Recipes of networks that classify."""

from dataclasses import KW_ONLY, dataclass
from typing import Annotated, ClassVar

from unpool.errors import OptionError
from unpool.recipes.recipe import Count, Dropout, LearningRate, OneOf, Positive, Range, Recipe

_Side = Annotated[int, Range(32, 4096)]


@dataclass(frozen=True)
class ClassificationRecipe(Recipe):
    """How a classifier is trained."""

    kind: ClassVar[str] = "classification"
    task: ClassVar[str] = "unpool.classify.train:ClassificationTask"
    options: ClassVar[tuple[str, ...]] = ("split", "val")

    _: KW_ONLY

    # the network
    network: Annotated[str, OneOf("ZFNet", "AlexNet")] = "ZFNet"
    widths: tuple[Count, ...] = (96, 256, 384, 384, 256)  #: number of maps of conv1 to conv5
    code: Count | None = 4096  #: width of fc6 and fc7; None for a network without them
    size: _Side = 224  #: side of the crops that the network sees
    dropout: Dropout = 0.5  #: fraction of the values of fc6 and fc7 that training sets to zero
    deviation: Annotated[float, Range(0, 1)] | None = 0.01
    """Standard deviation of the initial filters; None for He initialization."""

    # what is seen
    enlarged: _Side = 256  #: side to which an image's middle square is resized before the crop
    corners: bool = True  #: crops are its corners and center only, else any part of it
    flip: bool = True

    # how it is learned
    epochs: Count = 70  #: how often each image is seen
    lr: LearningRate = 0.01  #: peak learning rate
    plateau: Count | None = 3
    """Validations without a better one after which the learning rate falls tenfold; None: never."""
    rms: Positive | None = 0.1  #: largest RMS of a filter of a convolution, which is renormalized
    validate_every: Count | None = None

    # what is kept
    keep: tuple[Count, ...] = (1, 2, 5, 10, 20, 30, 40, 64)  #: epochs whose weights are kept

    def check(self) -> None:
        """Refuse values with which no training is possible, see `Recipe.check`."""
        super().check()
        if self.enlarged < self.size:
            raise OptionError(
                f"got enlarged={self.enlarged} and size={self.size}; a crop of that size is "
                "cut from the enlarged image: set enlarged to the size or more"
            )


ZFNET = ClassificationRecipe("zfnet")
"""The published training of ZFNet on ImageNet. Zeiler, Fergus 2014, section 3.

The learning rate falls on a plateau, where the paper lowers it by hand; the channels' means are
subtracted, rather than each pixel's.
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
