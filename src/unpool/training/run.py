"""The run folder of a training run: all that a run needs to go on and to be judged.

    config.json      the recipe              checkpoints/last.pt   to go on from
    arguments.json   the data and its splits, for resuming
    env.json         what it ran on          checkpoints/best.pt   the best network by validation
    metrics.jsonl    a record a line         weights/              for `Segmenter.from_pretrained`
    plots/           curves, predictions     eval/summary.json     the final figures

A run that segments and has a `start` keeps what it began with in `checkpoints/start.pt`. A
classifier's run has `checkpoints/epochs/NNN.safetensors`, too, and its confusion matrix in
`eval/confusion.csv`. One that learns to draw has no `best.pt`; `plots/drawings.png` has true views
above what is drawn of them.

Of several processes, the first alone writes.
"""

import json
import platform
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError
from torch import nn

import unpool
from unpool import distributed
from unpool.errors import DataError, OptionError, TrainingError, WeightsError
from unpool.files import atomic, json_line, write_json
from unpool.recipes.recipe import AnyRecipe
from unpool.training.loop import Progress, Step

_CHECKPOINT = "checkpoints/last.pt"
_ARGUMENTS = "arguments.json"
# what `atomic` leaves of a file that was being written when the process was killed
_LEFTOVER = re.compile(r"\.\w+\.[a-z0-9_]{8}\.(pt|json|jsonl|npz|png|safetensors)")


class Validation(NamedTuple):
    """A record of one validation."""

    n: int  #: steps done
    phase: str
    miou: float


class Accuracy(NamedTuple):
    """A record of one validation of a classifier."""

    n: int  #: steps done
    epoch: int  #: epochs done
    top1: float  #: fraction of the images whose class is the most probable
    top5: float  #: fraction of those whose class is among the five most probable


class Likeness(NamedTuple):
    """A record of one validation of a network that draws."""

    n: int  #: steps done
    mse: float  #: squared error of colors 0 to 1, over the pixels inside the true masks
    iou: float  #: of drawn and true masks, the pixels of all views together
    iou_mean: float  #: the mean over the views


class Preparation(NamedTuple):
    """How far the proposals of the training images are found."""

    done: int
    total: int


Report = Callable[[Step | Validation | Preparation], None]

Learning = TypeVar("Learning", bound=nn.Module)
Record = TypeVar("Record", Step, Validation, Accuracy, Likeness)


class Run(Generic[AnyRecipe, Learning]):
    """A run folder, and the state of what is trained in it.

    Args:
        folder: it must hold no run unless `resume`.
        recipe: of the run.
        classes: names by class id.
        learner: gets the state of the last checkpoint, if there is one.
        resume: go on from the last checkpoint.
        tensorboard: write records for TensorBoard as well, into `tensorboard/`.
        arguments: what the run was started with besides its recipe, see `read_arguments`.

    Raises:
        OptionError: the folder holds a run and `resume` is not given, or one by another recipe.
        DataError: the run in it was begun on other classes.
        WeightsError: its checkpoint cannot be read.
        TrainingError: the folder cannot be written to.
    """

    def __init__(
        self,
        folder: Path,
        recipe: AnyRecipe,
        classes: list[str],
        learner: Learning,
        *,
        resume: bool = False,
        tensorboard: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.recipe, self.classes, self.learner = folder, recipe, classes, learner
        self.checkpoint = folder / _CHECKPOINT
        self.best_path, self.start_path = (
            self.checkpoint.with_name(f"{name}.pt") for name in ("best", "start")
        )
        if not resume and begun(folder):
            raise OptionError(
                f"{folder} holds a run already; pass resume=True to go on, or another folder"
            )
        self.progress, self.best, self.stale = Progress(), -1.0, 0
        self.optimizer_state: dict[str, Any] | None = None
        self.notes: list[str] = []
        if resume and begun(folder):
            self._restore()
        step, first = self.progress.step, distributed.rank() == 0
        self.writer = _tensorboard(folder, step) if tensorboard and first else None
        if first:
            with writing(folder):
                self._clean_up()
                write_json(folder / "config.json", recipe.to_json())
                write_json(folder / _ARGUMENTS, {"kind": recipe.kind, **(arguments or {})})
                write_json(folder / "env.json", environment())

    @property
    def tired(self) -> bool:
        """Whether the last validations brought nothing better, and the recipe's patience is out."""
        patience = getattr(self.recipe, "patience", None)
        return patience is not None and self.stale >= patience

    def note(self, text: str) -> None:
        """Warn of what is amiss but no reason to stop; it stands in the summary, too."""
        self.notes.append(text)
        if distributed.rank() == 0:
            warnings.warn(text, stacklevel=3)

    def log(self, record: Record, report: Callable[[Record], None] | None) -> None:
        """Add a record to `metrics.jsonl`."""
        if distributed.rank() == 0:
            path = self.folder / "metrics.jsonl"
            with writing(path), path.open("a") as file:
                file.write(json_line(record._asdict()) + "\n")
            if self.writer is not None:
                for name, value in record._asdict().items():
                    if isinstance(value, float):
                        self.writer.add_scalar(name, value, record.n)
            if report is not None:
                report(record)

    def judge(self, score: float, complete: bool = True) -> None:
        """Keep the network if it is complete and the best so far."""
        if complete and score > self.best:
            self.best, self.stale = score, 0
            if distributed.rank() == 0:
                save_state(self.best_path, {"model": self.learner.state_dict()})
        elif complete:
            self.stale += 1

    def save(self) -> None:
        """Write what the run needs to go on from here."""
        distributed.copy_from_first(self.learner)
        optimizer = self.progress.optimizer
        assert optimizer is not None
        state = {
            "recipe": json.dumps(self.recipe.to_json()),
            "classes": self.classes,
            "step": self.progress.step,
            "best": self.best,
            "stale": self.stale,
            "model": self.learner.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        if distributed.rank() == 0:
            save_state(self.checkpoint, state)
        distributed.barrier()

    def take_best(self) -> None:
        """Go back to the best network, if there is one."""
        distributed.barrier()
        if self.best_path.exists():
            self.learner.load_state_dict(load_state(self.best_path)["model"])

    def close(self) -> None:
        """Let TensorBoard's records reach the disk."""
        if self.writer is not None:
            self.writer.close()

    def _clean_up(self) -> None:
        """Remove what a killed run has left: halves of files, and all since its last checkpoint."""
        for path in self.folder.rglob(".*"):
            if _LEFTOVER.fullmatch(path.name):
                path.unlink()
        if not begun(self.folder):
            self.best_path.unlink(missing_ok=True)
            self.start_path.unlink(missing_ok=True)
        _forget_after(self.folder / "metrics.jsonl", self.progress.step)

    def _restore(self) -> None:
        state = load_state(self.checkpoint)
        if "optimizer" not in state:
            raise WeightsError(
                f"{self.checkpoint} is a network alone, not a checkpoint to go on from; put back a "
                "copy, or begin a new run in another folder"
            )
        if not self._is_own(json.loads(state["recipe"])):
            raise OptionError(
                f"{self.folder} was begun with another recipe (see its config.json); resume with "
                "the same one, or begin a new run"
            )
        if state["classes"] != self.classes:
            raise DataError(f"{self.folder} was begun on other classes; resume on the same data")
        self.learner.load_state_dict(state["model"])
        self.progress.step, self.best = state["step"], state["best"]
        self.stale = state.get("stale", 0)
        self.optimizer_state = state["optimizer"]
        if self.best >= 0:
            load_state(self.best_path)  # what cannot be read is better known now than at the end

    def _is_own(self, recipe: dict[str, Any]) -> bool:
        """Whether a recipe is that of this run."""
        try:
            return type(self.recipe).from_json(recipe) == self.recipe
        except OptionError:  # of a training run of another kind
            return False


def read_arguments(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recipe of a run, as plain values, and the arguments that it was started with.

    Raises:
        OptionError: the folder holds no run that can be resumed.
        WeightsError: its files are damaged.
    """
    if not begun(folder):
        raise OptionError(
            f"got {folder}, which holds no run with a checkpoint; pass the folder of an "
            "interrupted run, or begin a new one with a recipe and data"
        )
    try:
        recipe, arguments = (
            json.loads((folder / name).read_text(encoding="utf-8"))
            for name in ("config.json", _ARGUMENTS)
        )
        arguments["data"], arguments["kind"]
        return recipe, arguments
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"cannot read how {folder} was started ({type(error).__name__}: {error}); resume with "
            "the recipe and the data"
        ) from None


def begun(folder: Path) -> bool:
    """Whether there is a run to go on with: one that has come to its first checkpoint."""
    return (folder / _CHECKPOINT).exists()


def environment() -> dict[str, Any]:
    """What a run ran on."""
    return {
        "unpool": unpool.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "processes": distributed.world(),
    }


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell what it means for a training run that `path` cannot be written.

    Raises:
        TrainingError: the disk is full, or writing has failed in another way.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch.save makes RuntimeErrors
        causes = [e for e in (error, error.__context__) if isinstance(e, OSError)]
        reason = causes[0].strerror or causes[0] if causes else error
        raise TrainingError(
            f"cannot write {path}: {reason}; nothing is lost up to the last checkpoint: make room "
            "and resume"
        ) from error


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write the state of a training run atomically.

    Raises:
        TrainingError: it cannot be written; what was there before is as it was.
    """
    with writing(path), atomic(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def load_state(path: Path) -> dict[str, Any]:
    """Read the state of a training run that we wrote.

    Raises:
        WeightsError: it cannot be read, or is not what was written.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():  # torch.load does not look at the checksums
                raise ValueError(f"{damaged} is damaged")
        state = torch.load(path, map_location="cpu", weights_only=True)
        state["model"]  # of all states
        return state
    except Exception as error:  # a damaged file fails in many ways
        raise WeightsError(
            f"cannot read the checkpoint {path} ({type(error).__name__}: {error}); put back a "
            "copy, or begin a new run in another folder"
        ) from None


def curves_missing(figure: str = "plots/curves.png") -> str:
    """Why curves cannot be drawn into a figure; nothing if they can."""
    if find_spec("matplotlib") is not None:
        return ""
    return f"{figure} is left out, for want of matplotlib: pip install matplotlib"


def draw_curves(folder: Path, *measures: Mapping[str, str]) -> None:
    """Draw loss and validations over the steps into `plots/curves.png`; this takes matplotlib.

    Args:
        folder: the run's.
        measures: what the validations measured, by its name in `metrics.jsonl`, and what to call
            it; those of one scale together. The mean IoU when not given.
    """
    from matplotlib.figure import Figure

    panels = [{"loss": "loss"}, *(measures or [{"miou": "mean IoU on val"}])]
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    figure = Figure(figsize=(4.5 * len(panels), 3.5), layout="constrained")
    for axes, names in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for name, title in names.items():
            points = [(r["n"], r[name]) for r in records if name in r]
            if points:
                marker = "" if name == "loss" else "."
                axes.plot(*zip(*points, strict=True), linewidth=1, marker=marker, label=title)
        axes.set(xlabel="step", title=", ".join(names.values()))
        axes.grid(alpha=0.3)
        if len(axes.get_lines()) > 1:
            axes.legend()
    with atomic(folder / "plots/curves.png") as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def _tensorboard(folder: Path, step: int) -> Any:
    """A writer for the records after a step; those that were written before are void."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise OptionError(
            "TensorBoard is not installed; install it: pip install tensorboard"
        ) from None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)


def _forget_after(path: Path, step: int) -> None:
    """Drop the records that a killed run had written after its last checkpoint."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
        with atomic(path) as temporary:
            kept = [line for line in lines if json.loads(line)["n"] <= step]
            temporary.write_text("".join(f"{line}\n" for line in kept))
