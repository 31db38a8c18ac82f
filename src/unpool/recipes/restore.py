"""Recipes of networks that deblur: ours, and those of the papers."""

from dataclasses import KW_ONLY, dataclass
from typing import Annotated, ClassVar

from unpool.errors import OptionError
from unpool.recipes.recipe import (
    Batch,
    Count,
    Fraction,
    LearningRate,
    OneOf,
    Positive,
    Range,
    Recipe,
    Weight,
    Whole,
)

_Level = Annotated[float, Range(0, 1)]

NETWORKS = OneOf("IRDNet", "BlindNet", "CRCNet", "MSResNet", "SRN")
"""The networks that deblur; only the first is given the PSF."""

_COLOR = ("MSResNet", "SRN")  # those that may take three channels at once
_MULTIPLES = {"BlindNet": 8, "MSResNet": 4, "SRN": 16}  # of the sides of crops


@dataclass(frozen=True)
class RestorationRecipe(Recipe):
    """Hyperparameters of the training of a network that deblurs.

    Sharp images are blurred by random PSFs, the same all over the image, and get Gaussian noise.
    """

    kind: ClassVar[str] = "restoration"
    task: ClassVar[str] = "unpool.restore.train:RestorationTask"

    steps: Count
    lr: LearningRate
    _: KW_ONLY

    # the network, see `unpool.models.deblur` and `unpool.models.multiscale`
    network: Annotated[str, NETWORKS] = "IRDNet"
    width: Count | None = None  #: number of channels; None: that of the network
    blocks: Count | None = None  #: number of residual blocks, or units; None: that of the network
    channels: Annotated[int, Range(1, 3)] = 1  #: of the images; 3 for MSResNet and SRN
    components: tuple[Count, ...] = (1, 4, 16, 64, 256, 1024)  #: steps of `IRDNet`
    variation: bool = False  #: whether `IRDNet` also takes the image of least total variation
    lstm: bool = False  #: of `SRN`
    start: str | None = None  #: weights of a warm start, of the same network

    # data
    patch: Annotated[int, Range(16, 1024)] = 80  #: side of the training crops
    margin: Annotated[int, Range(0, 512)] = 0
    """Width of the border of crops that three batches of four leave out, of `IRDNet`: crops have
    more border than images."""
    crops: Count = 2  #: number of crops from an image before the next is read
    halved: Fraction = 0.4  #: fraction of crops of twice the side, halved by averaging
    psf_side: Annotated[int, Range(3, 127)] = 21  #: largest side of the PSFs, odd
    psfs: tuple[Weight, Weight, Weight, Weight] = (0.55, 0.15, 0.15, 0.15)
    """How often shakes, Gaussians, disks and straight motions are drawn, relative to each other."""
    psf: str | None = None  #: the only PSF, such as "motion:13,30" or a file; None: random ones
    psf_noise: _Level = 0.0  #: standard deviation of errors in each value of the given PSF
    noise: tuple[_Level, _Level] = (0.002, 0.03)  #: lowest and highest standard deviation
    rounded: Fraction = 0.0  #: fraction of blurred images that are rounded to 8 bits
    jpeg: Fraction = 0.0  #: fraction of blurred images that are compressed as JPEG
    held_out: Whole = 8  #: images to validate on, a quarter of the data at most

    # optimization
    batch: Batch = 8
    optimizer: Annotated[str, OneOf("adamw", "sgd")] = "adamw"
    loss: Annotated[str, OneOf("l1", "mse", "psnr", "crcnet")] = "l1"
    scale_weight: Weight = 1.0  #: of the loss at each coarser scale, for networks of several
    drops: tuple[Count, ...] = ()  #: steps at which the learning rate is multiplied by `drop`
    drop: Fraction = 0.5
    power: Positive | None = None  #: the learning rate falls to 0 as (1 - n / steps) ** power
    validate_every: Count | None = 1000

    # weights
    int8: bool = False  #: weights are stored in a quarter of the size, see `save_pretrained`

    def check(self) -> None:
        """Check that the recipe can be trained, see `Recipe.check`."""
        super().check()
        if self.psf_side % 2 == 0:
            raise OptionError(f"got psf_side={self.psf_side} in a recipe; wanted an odd number")
        if not 0 < self.noise[0] <= self.noise[1]:
            raise OptionError(f"got noise={self.noise} in a recipe; wanted two, above 0, rising")
        if self.psf is None and not any(self.psfs):
            raise OptionError("got psfs of 0 in a recipe; wanted at least one above 0, or a psf")
        if self.channels not in ((1, 3) if self.network in _COLOR else (1,)):
            wanted = "1 or 3" if self.network in _COLOR else "1"
            raise OptionError(
                f"got channels={self.channels} for {self.network} in a recipe; wanted {wanted}"
            )
        if self.patch % (multiple := _MULTIPLES.get(self.network, 1)):
            raise OptionError(
                f"got patch={self.patch} for {self.network} in a recipe; wanted a multiple of "
                f"{multiple}"
            )
        if 2 * self.margin >= self.patch or self.margin % 2:
            raise OptionError(
                f"got margin={self.margin} for patch={self.patch} in a recipe; wanted an even "
                "number below half of it"
            )
        if self.lstm and self.network != "SRN":
            raise OptionError(f"got lstm for {self.network} in a recipe, which has none")


DEBLUR_GIVEN = RestorationRecipe(
    "deblur-given",
    3_000,
    1e-3,
    components=(1, 4, 16, 64, 256, 1024, 4096, 16384),
    variation=True,
    patch=136,
    margin=20,
    batch=4,
    crops=1,
    noise=(0.001, 0.03),
    rounded=0.3,
    weight_decay=1e-4,
    warmup=30,
    clip=1.0,
    schedule="cosine",
)
"""For known PSFs; half of the noise is below 0.0055. The default weights: two shorter runs."""

DEBLUR_BLIND = RestorationRecipe(
    "deblur-blind",
    8_000,
    1e-3,
    network="BlindNet",
    psfs=(1.0, 0.0, 0.0, 0.0),
    noise=(0.002, 0.015),
    scale_weight=0.5,
    weight_decay=1e-4,
    warmup=30,
    clip=1.0,
    schedule="cosine",
    int8=True,
)
"""For unknown camera shakes up to 20 pixels."""

CRCNET = RestorationRecipe(
    "crcnet",
    20_000,
    1e-3,
    network="CRCNet",
    psf="shake:0,31",
    patch=48,
    batch=32,
    noise=(0.002, 0.002),
    halved=0.0,
    loss="crcnet",
    drops=tuple(range(1000, 20_000, 1000)),
    drop=0.8,
    bf16=False,
)
"""One network for one PSF. Li Si-Yao et al. 2018; rates and loss from the released code."""

MSRESNET = RestorationRecipe(
    "msresnet",
    131_000,
    1e-4,
    network="MSResNet",
    channels=3,
    patch=256,
    batch=16,
    crops=1,
    halved=0.0,
    drops=(65_500, 98_250, 117_900),
    noise=(0.002, 0.008),
)
"""Nah, Kim, Lee 2017, as in the authors' PyTorch code, but on blur made here. Wants a GPU."""

SRN = RestorationRecipe(
    "srn",
    524_000,
    1e-4,
    network="SRN",
    channels=3,
    patch=256,
    batch=16,
    crops=1,
    halved=0.0,
    loss="mse",
    power=0.3,
    noise=(0.002, 0.008),
)
"""Tao et al. 2018, rates from the released code, but on blur made here. Wants a GPU."""
