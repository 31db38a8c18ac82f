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
import math
import platform
import re
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

import unpool
from unpool import distributed
from unpool.errors import DataError, OptionError, TrainingError, WeightsError
from unpool.files import atomic, json_line, write_json
from unpool.recipes import Recipe
from unpool.training.loop import LoopState

_CHECKPOINT = "checkpoints/last.pt"
_ARGUMENTS = "arguments.json"
# what `atomic` leaves of a file that was being written when the process was killed
_LEFTOVER = re.compile(r"\.\w+\.[a-z0-9_]{8}\.(pt|json|jsonl|npz|png|safetensors)")


Record = Any
"""A named tuple of plain values whose first one is `n`, the steps done."""


class Run:
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
        recipe: Recipe,
        classes: list[str],
        learner: nn.Module,
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
        self.state, self.best, self.since_best = LoopState(), -math.inf, 0
        self.optimizer_state: dict[str, Any] | None = None
        self.notes: list[str] = []
        if resume and begun(folder):
            self._restore()
        step, first = self.state.step, distributed.rank() == 0
        self.writer = _tensorboard(folder, step) if tensorboard and first else None
        if first:
            with writing(folder):
                self._clean_up()
                write_json(folder / "config.json", recipe.to_json())
                write_json(folder / _ARGUMENTS, {"kind": recipe.kind, **(arguments or {})})
                write_json(folder / "env.json", environment())

    @property
    def stopped_early(self) -> bool:
        """Whether early stopping has triggered."""
        patience = self.recipe.patience
        return patience is not None and self.since_best >= patience

    def note(self, text: str) -> None:
        """Warn of what is amiss but no reason to stop; it stands in the summary, too."""
        self.notes.append(text)
        if distributed.rank() == 0:
            warnings.warn(text, stacklevel=_depth())

    def log(self, record: Record, report: Callable[[Any], None] | None) -> None:
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

    def keep_best(self, score: float) -> None:
        """Keep the network if its score is the best so far."""
        if score > self.best:
            self.best, self.since_best = score, 0
            if distributed.rank() == 0:
                save_state(self.best_path, {"model": self.learner.state_dict()})
        else:
            self.since_best += 1

    def save(self) -> None:
        """Write what the run needs to go on from here."""
        distributed.copy_from_first(self.learner)
        optimizer = self.state.optimizer
        assert optimizer is not None
        state = {
            "recipe": json.dumps(self.recipe.to_json()),
            "classes": self.classes,
            "step": self.state.step,
            "best": self.best,
            "stale": self.since_best,
            "model": self.learner.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        if distributed.rank() == 0:
            save_state(self.checkpoint, state)
        distributed.barrier()

    def load_best(self) -> None:
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
        _forget_after(self.folder / "metrics.jsonl", self.state.step)

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
        self.state.step = state["step"]
        # runs of earlier versions begin at -1, where no score was lower
        self.best = -math.inf if state["best"] == -1 else state["best"]
        self.since_best = state.get("stale", 0)
        self.optimizer_state = state["optimizer"]
        if self.best > -math.inf:
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


def _depth() -> int:
    """The stack level of the first caller outside this package, for warnings."""
    frame, depth, package = sys._getframe(1), 1, str(Path(unpool.__file__).parent)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        frame, depth = frame.f_back, depth + 1
    return depth


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
