"""A task, and the one shell of a training run: every application trains by this."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Generic, NamedTuple

import torch

from unpool import distributed
from unpool.devices import find_device
from unpool.files import write_json
from unpool.recipes import Recipe
from unpool.training.curves import curves_missing, plot_curves
from unpool.training.loop import Objective, Part, fit, parts_of
from unpool.training.run import Record, Run, begun, writing

Report = Callable[[Any], None]
"""Called with every `Step`, every record of a validation, and every `Preparation`."""


class Preparation(NamedTuple):
    """How far the preparation of the training data is."""

    done: int
    total: int


class Task(Generic[Part]):
    """What an application adds to the engine: data, a network to fit to it, and its evaluation.

    The engine calls the methods in the order in which they stand here. A subclass gives `open`,
    `build`, `batches`, `validate` and `finish`; the rest has defaults.
    """

    recipe: Recipe
    classes: list[str]  #: of the data, set by `open`; a resumed run must have the same
    panels: Sequence[Mapping[str, str]] = ()  #: of the curves, see `plot_curves`
    objective: Objective[Part]  #: set by the engine, as `build` gave it
    report: Report | None = None  #: set by the engine, in the main process only

    def open(self) -> None:
        """Open the data and refuse what cannot be used, before anything is written."""
        raise NotImplementedError

    def arguments(self) -> dict[str, Any]:
        """Plain values that a resumed run needs besides its recipe, for `arguments.json`."""
        return {}

    def build(self, device: torch.device) -> Objective[Part]:
        """The network with random weights, and how it learns. The RNG is seeded before."""
        raise NotImplementedError

    def warm_start(self) -> None:
        """Load initial weights; in new runs only."""

    def prepare(self, run: Run) -> None:
        """Store or read what a resumed run needs besides the checkpoint; note what is amiss."""

    def batches(self, run: Run, start: int, size: int) -> Iterator[Part]:
        """Endless parts of batches of this process: `size` examples, from part number `start`."""
        raise NotImplementedError

    def due(self, n: int) -> bool:
        """Whether to validate after n steps."""
        total = sum(self.objective.steps())
        return n == total or n % (self.recipe.validate_every or total) == 0

    def validate(self, run: Run, n: int) -> Record:
        """Evaluate the network after n steps, for `metrics.jsonl`."""
        raise NotImplementedError

    def score(self, record: Record) -> float | None:
        """What keeping the best goes by, larger is better; None: not a candidate."""
        return None

    def after_validation(self, run: Run) -> None:
        """React to a validation, for example lower the learning rate on a plateau."""

    def finish(self, run: Run, stream: Iterator[Part], command: str) -> dict[str, Any]:
        """Write weights and images of the network; return the summary of its evaluation."""
        raise NotImplementedError


def train(
    task: Task[Part],
    output: str | Path,
    *,
    resume: bool = False,
    tensorboard: bool = False,
    device: str = "auto",
    command: str = "",
    report: Report | None = None,
) -> dict[str, Any]:
    """Train a task; `unpool.training.run` describes the run folder.

    Under `torchrun` the processes share the work; every one returns the same summary.

    Args:
        task: what is trained.
        output: the run folder; it must be new unless `resume`.
        resume: go on from the last checkpoint; the result is that of an uninterrupted run.
        tensorboard: write records for TensorBoard as well.
        device: "auto", "cpu", "cuda" or "cuda:n".
        command: the command line, for the model card.
        report: called with every record, in the main process.

    Returns:
        The summary of the final evaluation. Its `notes` are the warnings of the run.

    Raises:
        DataError, ImageError, OptionError, WeightsError: input that cannot be used.
        TrainingError: the run failed, or its folder cannot be written to.
    """
    where, folder = find_device(distributed.local(device)), Path(output)
    task.open()
    with distributed.join(where):
        task.report = report if distributed.rank() == 0 else None
        parts = parts_of(task.recipe)
        torch.manual_seed(task.recipe.seed)
        task.objective = task.build(where)
        if not begun(folder):  # weights that are refused leave no run folder
            task.warm_start()
        run = Run(
            folder,
            task.recipe,
            task.classes,
            task.objective.learner,
            resume=resume,
            tensorboard=tensorboard,
            arguments=task.arguments(),
        )
        with closing(run):
            task.prepare(run)
            if missing := curves_missing():
                run.note(missing)
            stream = task.batches(run, run.state.step * parts, task.recipe.batch // parts)
            _fit(task, run, stream)
            run.load_best()
            summary = task.finish(run, stream, command)
            if distributed.rank() == 0:
                with writing(folder):
                    write_json(folder / "eval/summary.json", summary)
                    if not curves_missing():
                        plot_curves(folder, task.panels)
            distributed.barrier()
            return summary


def _fit(task: Task[Part], run: Run, stream: Iterator[Part]) -> None:
    """Do the remaining steps; validate, keep the best and save in between."""
    if run.stopped_early:
        return
    total = sum(task.objective.steps())
    for step in fit(task.objective, stream, run.state, run.optimizer_state):
        run.log(step, task.report)
        if due := task.due(step.n):
            distributed.copy_from_first(run.learner)
            record = task.validate(run, step.n)
            run.log(record, task.report)
            score = task.score(record)
            if score is not None:
                run.keep_best(score)
            task.after_validation(run)
        if due or step.n == total or step.n % task.recipe.save_every == 0:
            run.save()
        if run.stopped_early:
            return
