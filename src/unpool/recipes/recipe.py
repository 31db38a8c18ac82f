"""The base of all recipes: the fields that they share, JSON, and the check of their values."""

import json
from collections.abc import Mapping
from dataclasses import KW_ONLY, asdict, dataclass
from typing import Annotated, Any, ClassVar, TypeVar

from unpool.recipes.bounds import (
    Count,
    OneOf,
    Positive,
    Range,
    Weight,
    Whole,
    check_fields,
)
from unpool.recipes.overrides import from_json

AnyRecipe = TypeVar("AnyRecipe", bound="Recipe")


@dataclass(frozen=True)
class Recipe:
    """Everything that a training run depends on, besides the data. Each application adds its own.

    A subclass names its application, so that this module need not import it.
    """

    kind: ClassVar[str]  #: of what is learned, for the run folder
    task: ClassVar[str]  #: "module:class" of the `unpool.training.task.Task` that goes by it
    options: ClassVar[tuple[str, ...]] = ()  #: keyword arguments of that task, besides the data

    name: str
    _: KW_ONLY

    # a step
    batch: Count = 128  #: examples of a step
    accumulate: Count = 1  #: parts of a batch that are passed one after the other, to save memory
    bf16: bool = True  #: bfloat16 arithmetic where the hardware has it
    seed: Whole = 0

    # the optimizer
    optimizer: Annotated[str, OneOf("adamw", "sgd")] = "sgd"
    momentum: Annotated[float, Range(0, 0.999)] = 0.9  #: of SGD
    eps: Annotated[float, Range(1e-16, 1)] = 1e-8  #: of AdamW
    weight_decay: Weight = 0.0  #: of filters; biases do not decay
    bias_lr: Annotated[float, Range(0, 100)] = 1.0  #: learning rate of biases, by that of filters
    clip: Positive | None = None  #: largest norm of the gradient
    warmup: Whole = 0  #: steps of each phase in which the learning rate rises
    schedule: Annotated[str, OneOf("constant", "linear", "cosine")] = "constant"
    """How the learning rate goes on from there; "linear" and "cosine" fall to 2 % of the peak."""

    # validation and checkpoints
    validate_every: Count | None = 500  #: steps; None: after each epoch
    patience: Count | None = None  #: early stopping after so many validations without a better one
    save_every: Count = 500  #: steps between checkpoints; each validation is followed by one, too

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain values for `config.json` and the model card."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values

    @classmethod
    def from_json(cls: type[AnyRecipe], values: Mapping[str, Any]) -> AnyRecipe:
        """A recipe from plain values, as of `to_json`; missing fields get their defaults.

        Raises:
            OptionError: an unknown field, or no name or phases.
        """
        return from_json(cls, values)

    def check(self) -> None:
        """Refuse values with which no training is possible.

        Raises:
            OptionError: a value that is too small, too large or unknown, or that contradicts
                another one.
        """
        check_fields(self)
