"""Recipes of sparse coders: filters learned from images without labels."""

from dataclasses import KW_ONLY, dataclass, replace
from typing import Annotated, ClassVar

from unpool.errors import OptionError
from unpool.limits import MAX_SIDE
from unpool.recipes.recipe import Batch, Count, Positive, Range, Recipe, Whole

_WITHOUT_EFFECT = (
    *("optimizer", "momentum", "eps", "weight_decay", "bias_lr", "clip", "warmup", "schedule"),
    *("accumulate", "bf16", "patience"),
)


@dataclass(frozen=True)
class CoderLayer:
    """One layer, which is trained after the layers below it."""

    maps: Count  #: feature maps, one for each filter
    steps: Count  #: batches of crops from which its filters are learned
    lam: Positive = 3.0  #: weight of sparsity in these steps, high enough for structure to appear
    settling: Whole = 4  #: further steps, at the sparsity weight of the trained network


@dataclass(frozen=True)
class CodingRecipe(Recipe):
    """Hyperparameters of a sparse coder's training.

    Filters are fitted by conjugate gradients. Fields of the optimizer have no effect and are
    refused.
    """

    kind: ClassVar[str] = "coding"
    task: ClassVar[str] = "unpool.coding.train:CodingTask"

    layers: tuple[CoderLayer, ...]
    _: KW_ONLY

    # the network, see `SparseCoder`
    kernel: Annotated[int, Range(2, 64)] = 7  #: side of the filters
    pool: Annotated[int, Range(1, 64)] = 3  #: side of the pooling cells
    pair: Count = 2  #: neighboring maps in a cell
    lam: Positive = 0.5  #: weight of sparsity of the trained network
    iterations: Count = 60  #: iterations of coding in the trained network

    # data
    crop: Annotated[int, Range(16, 1024)] = 64  #: side of the training crops
    crops: Count = 4  #: number of crops from an image before the next is read
    long_side: Annotated[int, Range(16, MAX_SIDE)] = 480  #: larger images are reduced to it
    held_out: Whole = 8  #: images to validate on, a quarter of the data at most

    # a step
    batch: Batch = 32
    learning_iterations: Count = 10  #: iterations of coding during training
    gradients: Count = 3  #: conjugate gradient steps for the filters
    bf16: bool = False
    validate_every: Count | None = 10
    save_every: Count = 10

    def check(self) -> None:
        """Check that the recipe can be trained, see `Recipe.check`."""
        super().check()
        if not self.layers:
            raise OptionError("got a recipe without layers; wanted one or more")
        for name in _WITHOUT_EFFECT:
            value, default = getattr(self, name), type(self).__dataclass_fields__[name].default
            if value != default:
                raise OptionError(
                    f"got {name}={value}, but the filters of a coder are set by conjugate "
                    "gradients in single precision; leave it out"
                )


CODER = CodingRecipe("coder", (CoderLayer(16, 20),))
"""One layer, from any folder of images, in two minutes on a CPU."""

CODER_DEEP = replace(CODER, name="coder-deep", layers=(CoderLayer(16, 20), CoderLayer(32, 8)))
"""`CODER` with a second layer, whose steps take about five times as long."""
