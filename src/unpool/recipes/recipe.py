"""The base of all recipes: shared fields, JSON, and bounds of the values.

Bounds are written where the fields are: `batch: Annotated[int, Range(1)]`.
"""

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar, get_args, get_type_hints

from unpool.errors import OptionError, suggest
from unpool.files import strict
from unpool.recipes.overrides import from_json

AnyRecipe = TypeVar("AnyRecipe", bound="Recipe")


class Range(NamedTuple):
    """Bounds of a number."""

    low: float
    high: float = math.inf


class OneOf(tuple[str, ...]):
    """The choices of a field."""

    def __new__(cls, *choices: str) -> "OneOf":
        """A tuple of the choices."""
        return super().__new__(cls, choices)


Count = Annotated[int, Range(1, 10**9)]
Whole = Annotated[int, Range(0, 10**9)]
Weight = Annotated[float, Range(0, 1e9)]  #: weight of a loss, or weight decay
Fraction = Annotated[float, Range(0, 1)]
Batch = Annotated[int, Range(1, 2**16)]  #: beyond the largest that networks are trained with
Dropout = Annotated[float, Range(0, 0.999)]
LearningRate = Annotated[float, Range(0, 10)]
Positive = Annotated[float, Range(1e-9, 1e9)]


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of a training run. Each application has a subclass.

    A subclass refers to the task of its application by name, because recipes import no torch.
    """

    kind: ClassVar[str]  #: name of the application in run folders
    task: ClassVar[str]  #: "module:class" of its `unpool.training.task.Task`
    options: ClassVar[tuple[str, ...]] = ()  #: keyword arguments of that class, besides the data
    mixes: ClassVar[bool] = False  #: whether the data may be several folders

    name: str
    _: KW_ONLY

    # a step
    batch: Batch = 128  #: examples per step
    accumulate: Count = 1  #: sequential parts of a batch, to save memory
    bf16: bool = True  #: bfloat16 arithmetic where the hardware supports it
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0

    # the optimizer
    optimizer: Annotated[str, OneOf("adamw", "sgd")] = "sgd"
    momentum: Annotated[float, Range(0, 0.999)] = 0.9  #: momentum of SGD
    eps: Annotated[float, Range(1e-16, 1)] = 1e-8  #: eps of AdamW
    weight_decay: Weight = 0.0  #: of filters; biases do not decay
    bias_lr: Annotated[float, Range(0, 100)] = 1.0  #: factor of the learning rate of biases
    clip: Positive | None = None  #: largest norm of the gradient
    warmup: Whole = 0  #: steps of each phase in which the learning rate rises
    schedule: Annotated[str, OneOf("constant", "linear", "cosine")] = "constant"
    """The learning rate after the warmup; "linear" and "cosine" fall to 2 % of the peak."""

    # validation and checkpoints
    validate_every: Count | None = 500  #: steps; None: at the end, of classifiers each epoch
    patience: Count | None = None  #: validations without a better one before early stopping
    save_every: Count = 500  #: steps between checkpoints; each validation saves one, too

    def make_task(self, data: str | Path | Sequence[str], **options: Any) -> Any:
        """The `unpool.training.task.Task` of this recipe. Imports its application.

        Args:
            data: what the task is trained on: a folder, or several if the recipe `mixes` them.
            **options: those of `options`; the task has defaults.
        """
        for name, value in options.items():
            if name not in self.options:
                raise OptionError(
                    f"got {name}={value} for the recipe {self.name}, which takes "
                    f"{', '.join(self.options) or 'no such options'}; leave it out"
                )
        if not isinstance(data, str | Path):
            if len(data) > 1 and not self.mixes:
                raise OptionError(
                    f"got data={[*data]} for the recipe {self.name}, which takes one folder"
                )
            data = [*map(str, data)] if self.mixes else data[0]
        module, _, kind = self.task.partition(":")
        return getattr(importlib.import_module(module), kind)(data, self, **options)

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain values for `config.json` and the model card."""
        return {name: strict(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls: type[AnyRecipe], values: Mapping[str, Any]) -> AnyRecipe:
        """The recipe of plain values, see `to_json`; missing fields get their defaults."""
        return from_json(cls, values)

    def check(self) -> None:
        """Refuse values that are out of bounds or contradict one another."""
        check_fields(self)


def check_fields(part: Any, prefix: str = "") -> None:
    """Refuse fields of a dataclass, and items of its tuples, that are out of bounds.

    Args:
        part: a dataclass with `Range` or `OneOf` in its annotations. None is always valid.
        prefix: of the names in messages.
    """
    hints = get_type_hints(type(part), include_extras=True)
    for name in (field.name for field in fields(part)):
        value, bounds = getattr(part, name), _bounds(hints[name])
        items = value if isinstance(value, tuple) else (value,)
        for i, item in enumerate(items):
            if is_dataclass(item):
                check_fields(item, f"{prefix}{name}.{i}.")
            elif isinstance(bounds, Range) and item is not None:
                if not bounds.low <= item <= bounds.high:
                    low, high = f"{bounds.low:g}", f"{bounds.high:g}"
                    wanted = f"{low} to {high}"
                    if bounds.high > 1e4:  # a limit of what is sane, no choice
                        wanted = f"{low} or more" if item < bounds.low else f"at most {high}"
                    raise OptionError(f"got {prefix}{name}={value} in a recipe; wanted {wanted}")
            elif isinstance(bounds, OneOf) and item is not None and item not in bounds:
                raise OptionError(f"got {prefix}{name}={item} in a recipe; {suggest(item, bounds)}")


def _bounds(hint: Any) -> Range | OneOf | None:
    """The bounds in an annotation, also inside `tuple[...]` and `| None`."""
    for item in (*getattr(hint, "__metadata__", ()), *get_args(hint)):
        found = item if isinstance(item, Range | OneOf) else _bounds(item)
        if found is not None:
            return found
    return None
