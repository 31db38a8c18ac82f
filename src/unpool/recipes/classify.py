"""Recipes of networks that classify."""

from dataclasses import dataclass
from typing import Any

from unpool.errors import OptionError
from unpool.recipes.overrides import from_json, require_between, to_json


@dataclass(frozen=True)
class Classification:
    """Everything that the training of a classifier depends on, besides the data."""

    name: str

    # the network
    network: str = "ZFNet"  #: or "AlexNet"
    widths: tuple[int, ...] = (96, 256, 384, 384, 256)  #: number of maps of conv1 to conv5
    code: int | None = 4096  #: width of fc6 and fc7; None for a network without them
    size: int = 224  #: side of the crops that the network sees
    dropout: float = 0.5  #: fraction of the values of fc6 and fc7 that training sets to zero
    deviation: float | None = 0.01  #: of the first filters; None: by each layer's inputs, as He

    # what is seen
    batch: int = 128  #: crops of a step
    accumulate: int = 1  #: parts of a batch that are passed one after the other
    enlarged: int = 256  #: side to which the middle square of an image is resized before that
    corners: bool = True  #: crops are its corners and center only, else any part of it
    flip: bool = True

    # how it is learned
    epochs: int = 70  #: how often each image is seen; each epoch ends with a validation
    optimizer: str = "sgd"  #: or "adamw"
    lr: float = 0.01  #: peak learning rate
    momentum: float = 0.9  #: of SGD
    weight_decay: float = 0.0
    warmup: int = 0  #: steps in which the learning rate rises
    plateau: int | None = 3  #: epochs without a better one until it falls tenfold; None: a line
    rms: float | None = 0.1  #: to which the filters of convolutions are renormalized; None: not
    clip: float | None = None  #: largest norm of the gradient
    bf16: bool = True  #: bfloat16 arithmetic where the hardware has it
    seed: int = 0

    # what is kept
    patience: int | None = None  #: epochs without a better one, after which the run ends
    save_every: int = 500  #: steps; and after each epoch
    keep: tuple[int, ...] = (1, 2, 5, 10, 20, 30, 40, 64)  #: epochs whose weights are kept

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain values for `config.json` and the model card."""
        return to_json(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Classification":
        """A recipe as `to_json` wrote it.

        Raises:
            OptionError: a field that recipes do not have, or that is missing.
        """
        return from_json(cls, values)


ZFNET = Classification("zfnet")
"""The published training of ZFNet on ImageNet. Zeiler, Fergus 2014, section 3.

The rate is lowered where the paper lowers it by hand; the channels' means are subtracted, rather
than each pixel's.
"""

ZFNET_SMALL = Classification(
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
    plateau=None,
    clip=5.0,
)
"""A narrow ZFNet for a few thousand small images, in minutes on a CPU."""

CLASSIFICATIONS = {recipe.name: recipe for recipe in (ZFNET, ZFNET_SMALL)}
"""What is trained to classify, by name."""

_INF = float("inf")

_BOUNDS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(["batch", "accumulate", "epochs", "save_every", "patience"], (1, _INF)),
    **dict.fromkeys(["plateau", "keep", "widths", "code"], (1, _INF)),
    **dict.fromkeys(["seed", "warmup", "weight_decay"], (0, _INF)),
    **dict.fromkeys(["dropout", "momentum"], (0, 0.999)),
    **dict.fromkeys(["size", "enlarged"], (32, 4096)),
    **dict.fromkeys(["rms", "clip"], (1e-9, _INF)),
    "deviation": (0, 1),
    "lr": (0, 10),
}


def require_classification(recipe: Classification) -> None:
    """Refuse values with which no training can be done, see `unpool.recipes.require_bounds`."""
    require_between(recipe, _BOUNDS)
    if recipe.enlarged < recipe.size:
        raise OptionError(
            f"got enlarged={recipe.enlarged} and size={recipe.size}; a crop of that size is "
            "cut from the enlarged image: set enlarged to the size or more"
        )
