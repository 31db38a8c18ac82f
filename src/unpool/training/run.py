"""The run folder of a training run.

    config.json      the recipe              checkpoints/last.pt   for resuming
    arguments.json   the data and options    checkpoints/best.pt   the best network by validation
    env.json         the environment         weights/              tensors and a card
    metrics.jsonl    a record per line       eval/summary.json     the final figures
    plots/           curves, predictions

Segmentation with a warm start stores the initial weights in `checkpoints/start.pt`. Classification
also writes `checkpoints/epochs/NNN.safetensors` and `eval/confusion.csv`. Generation has no
`best.pt`; `plots/views.png` shows rendered views above generated ones.

Of several processes, only the first writes.
"""

import json
import math
import platform
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

import unpool
from unpool import distributed
from unpool.errors import DataError, OptionError, TrainingError, WeightsError, require_path
from unpool.files import (
    atomic,
    drafts,
    json_line,
    read_json,
    read_json_lines,
    require_regular,
    write_json,
)
from unpool.limits import MAX_METRICS
from unpool.models.tensors import describe_failure, load_torch, require_tensors
from unpool.models.weights import require_fit, save_pretrained
from unpool.recipes import KINDS, Recipe
from unpool.temporary import leftovers, remove
from unpool.training.loop import LoopState
from unpool.vision.images import Pixels, write_image

_CHECKPOINT = "checkpoints/last.pt"
_ARGUMENTS = "arguments.json"


_ENTRIES: dict[str, Callable[[Any], bool]] = {
    "optimizer": lambda v: isinstance(v, dict),
    # not isinstance: True is an int, too
    "since_best": lambda v: type(v) is int,
    "best": lambda v: type(v) in (int, float) and not math.isnan(v),
    "step": lambda v: type(v) is int and v >= 0,
    "recipe": lambda v: isinstance(v, str),
    "classes": lambda v: isinstance(v, list),
}
"""The entries of a checkpoint besides its network."""

Record = Any
"""A named tuple of plain values whose first one is `n`, the steps done."""


class Run:
    """A run folder, and the state of the training in it.

    Args:
        folder: it must hold no run unless `resume`.
        recipe: of the run.
        classes: names by class id.
        learner: gets the state of the last checkpoint, if there is one.
        resume: continue from the last checkpoint.
        tensorboard: write records for TensorBoard as well, into `tensorboard/`.
        arguments: of the task besides its recipe, see `read_arguments`.

    Raises:
        OptionError: the folder holds a run and `resume` is not given, or one by another recipe.
        DataError: the run in it was started on other classes.
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
        self.best_path = self.checkpoint.with_name("best.pt")
        self.start_path = self.checkpoint.with_name("start.pt")
        if not resume and has_checkpoint(folder):
            raise OptionError(
                f"{folder} holds a run already; pass resume=True to go on, or another folder"
            )
        self.state, self.best, self.since_best = LoopState(), -math.inf, 0
        self.optimizer_state: dict[str, Any] | None = None
        self.notes: list[str] = []
        if resume and has_checkpoint(folder):
            self._restore()
        self.is_main = distributed.is_main_process()  #: whether this process writes
        write_events = tensorboard and self.is_main
        self.writer = _tensorboard(folder, self.state.step) if write_events else None
        if self.is_main:
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
        """Warn of a problem that does not end the run; the summary lists it, too."""
        self.notes.append(text)
        if self.is_main:
            warnings.warn(text, stacklevel=_depth())

    def log(self, record: Record, report: Callable[[Any], None] | None) -> None:
        """Add a record to `metrics.jsonl`."""
        if self.is_main:
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
            if self.is_main:
                save_state(self.best_path, {"model": self.learner.state_dict()})
        else:
            self.since_best += 1

    def save(self) -> None:
        """Write a checkpoint for resuming."""
        # statistics of batch norm differ between processes
        distributed.copy_from_first(self.learner)
        optimizer = self.state.optimizer
        assert optimizer is not None
        state = {
            "recipe": json_line(self.recipe.to_json()),
            "classes": self.classes,
            "step": self.state.step,
            "best": self.best,
            "since_best": self.since_best,
            "model": self.learner.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        if self.is_main:
            save_state(self.checkpoint, state)
        distributed.barrier()

    def load_best(self) -> None:
        """Load the weights of the best validation, if one was kept."""
        distributed.barrier()
        if self.best_path.exists():
            self._load(load_state(self.best_path)["model"], self.best_path)

    def save_weights(self, net: nn.Module, card: dict[str, Any], int8: bool = False) -> None:
        """Write the trained network with its card into `weights/`."""
        if self.is_main:
            with writing(self.folder / "weights"):
                save_pretrained(net, self.folder / "weights", card, int8=int8)
        distributed.barrier()

    def save_tensors(self, name: str) -> None:
        """Write the network's current tensors to a `.safetensors` file below the folder."""
        path, state = self.folder / name, self.learner.state_dict()
        tensors = {k: v.detach().cpu().contiguous() for k, v in state.items()}
        with writing(path), drafts(path.parent, path.name) as draft:
            save_file(tensors, draft / path.name, metadata={"format": "pt"})

    def save_image(self, name: str, image: Pixels) -> None:
        """Write an image (H, W, 3) below the folder."""
        with self.writing():
            write_image(self.folder / name, image)

    def writing(self) -> AbstractContextManager[None]:
        """A context in which errors of writing become a `TrainingError`."""
        return writing(self.folder)

    def close(self) -> None:
        """Flush the records of TensorBoard."""
        if self.writer is not None:
            self.writer.close()

    def _clean_up(self) -> None:
        """Remove what a killed run left: partial files, and records after its last checkpoint."""
        for folder in (self.folder, *filter(Path.is_dir, self.folder.rglob("*"))):
            for path in leftovers(folder, unknown=True):  # of this run, on another host
                remove(path)
        if not has_checkpoint(self.folder):
            # those of a run that ended before its first checkpoint
            self.best_path.unlink(missing_ok=True)
            self.start_path.unlink(missing_ok=True)
        _truncate_metrics(self.folder, self.state.step)

    def _restore(self) -> None:
        state = load_state(self.checkpoint)
        if wrong := [k for k, fits in _ENTRIES.items() if k not in state or not fits(state[k])]:
            raise WeightsError(
                f"{self.checkpoint} holds a network without its {wrong[0]}; restore a copy of "
                "the checkpoint, or start a new run in another folder"
            )
        if not self._is_own(state["recipe"]):
            raise OptionError(
                f"{self.folder} was started with another recipe (see its config.json); resume with "
                "the same one, or start a new run"
            )
        if state["classes"] != self.classes:
            raise DataError(f"{self.folder} was started on other classes; resume on the same data")
        self._load(state["model"], self.checkpoint)
        self.state.step = state["step"]
        self.best, self.since_best = state["best"], state["since_best"]
        self.optimizer_state = state["optimizer"]
        if self.best > -math.inf:  # fail now, rather than at the end, if it is damaged
            require_fit(self.learner, load_state(self.best_path)["model"], self.best_path)

    def _load(self, tensors: dict[str, Any], path: Path) -> None:
        require_fit(self.learner, tensors, path)
        self.learner.load_state_dict(tensors)

    def _is_own(self, recipe: str) -> bool:
        """Whether a recipe is that of this run."""
        try:
            return type(self.recipe).from_json(json.loads(recipe)) == self.recipe
        except (ValueError, RecursionError):  # no recipe, or one of another class
            return False


def read_arguments(folder: Path) -> tuple[Recipe, dict[str, Any]]:
    """The recipe and the other arguments of the task that a run was started with.

    Raises:
        OptionError: the folder holds no run that can be resumed.
        WeightsError: its files are damaged.
    """
    require_run(folder)
    try:
        recipe, arguments = (
            read_json(folder / name, WeightsError) for name in ("config.json", _ARGUMENTS)
        )
        data = arguments["data"]
        for part in data if isinstance(data, list) and data else [data]:
            require_path("data", part)
        if wrong := [k for k, v in arguments.items() if not _is_plain(v)]:
            raise ValueError(f"{wrong[0]} in {_ARGUMENTS} is no plain value")
        return KINDS[arguments.pop("kind")].from_json(recipe), arguments
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"cannot read the recipe and arguments of {folder} ({type(error).__name__}: {error}); "
            "pass the recipe and the data to resume"
        ) from None


def _is_plain(value: object) -> bool:
    """Whether a value can be an argument of a task: plain, or several texts."""
    if isinstance(value, list):
        return all(isinstance(text, str) for text in value)
    return isinstance(value, str | int | None)


def require_run(folder: Path) -> None:
    """Refuse to resume a folder without a run; without a checkpoint, it restarts at step 0."""
    if not has_run(folder):
        raise OptionError(
            f"got {folder}, which holds no run to resume; pass the folder of an interrupted run, "
            "or start a new one with a recipe and data"
        )


def has_run(folder: Path) -> bool:
    """Whether a folder holds a run to resume, with a checkpoint or interrupted before the first."""
    finished = (folder / "eval/summary.json").exists()
    return has_checkpoint(folder) or ((folder / _ARGUMENTS).exists() and not finished)


def has_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a run with a checkpoint."""
    return (folder / _CHECKPOINT).exists()


def environment() -> dict[str, Any]:
    """Versions, machine, threads and processes of this run."""
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
    """Turn errors of writing `path` into a `TrainingError` that says how to continue."""
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
    """Write a checkpoint atomically; the previous one stays if that fails."""
    with writing(path), atomic(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def load_state(path: Path) -> dict[str, Any]:
    """Read a checkpoint that `save_state` wrote, or raise a `WeightsError`.

    Its entry `model` is a state dict of finite tensors.
    """
    require_regular(path, WeightsError)
    try:
        state = load_torch(path)
        require_tensors(state["model"], path)  # every checkpoint has it
        return dict(state)
    except WeightsError:
        raise
    except Exception as error:  # a damaged file fails in many ways
        raise WeightsError(
            f"cannot read the checkpoint {path} ({type(error).__name__}: "
            f"{describe_failure(error)}); put back a copy, or start a new run in another folder"
        ) from None


def _depth() -> int:
    """The stack level of the first caller outside this package, for warnings."""
    frame, depth, package = sys._getframe(1), 1, str(Path(unpool.__file__).parent)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        frame, depth = frame.f_back, depth + 1
    return depth


def _tensorboard(folder: Path, step: int) -> Any:
    """A TensorBoard writer that discards earlier records after a step."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise OptionError(
            "TensorBoard is not installed; install it: pip install tensorboard"
        ) from None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)


def read_metrics(folder: Path) -> Iterator[dict[str, Any]]:
    """The records of `metrics.jsonl`, without lines that are cut or damaged."""
    path = folder / "metrics.jsonl"
    if path.exists():
        if path.stat().st_size > MAX_METRICS:
            raise WeightsError(f"got {path} of more than {MAX_METRICS:,} bytes; remove it")
        for _, record in read_json_lines(path, WeightsError):
            if type(record.get("n")) is int:
                yield record


def _truncate_metrics(folder: Path, step: int) -> None:
    """Drop the records of `metrics.jsonl` that are later than a step."""
    if (path := folder / "metrics.jsonl").exists():
        with atomic(path) as temporary, temporary.open("w") as file:
            kept = (record for record in read_metrics(folder) if record["n"] <= step)
            file.writelines(json_line(record) + "\n" for record in kept)
