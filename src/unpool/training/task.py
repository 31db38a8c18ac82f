"""`Task`, what an application adds to the engine, and `train`, which runs a task."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, NamedTuple

import torch

from unpool import distributed
from unpool.devices import find_device
from unpool.errors import OptionError, WeightsError, require_path, require_type
from unpool.files import write_json
from unpool.recipes import Recipe, find_recipe
from unpool.recipes.overrides import differences
from unpool.training.loop import Objective, Part, Step, fit, parts_of
from unpool.training.progress import Lines
from unpool.training.run import (
    Record,
    Run,
    has_checkpoint,
    read_arguments,
    read_metrics,
    require_run,
)
from unpool.vision.figures import plot

CURVES = "plots/curves.png"


class Plan(NamedTuple):
    """A description of the run, reported before the first step."""

    text: str


class Preparation(NamedTuple):
    """Progress of the preparation of the training data."""

    done: int
    total: int
    what: str


Report = Callable[[Any], None]
"""Called with the `Plan`, if any, and each `Preparation`, `Step` and record of a validation."""


class Task(Generic[Part]):
    """An application's part of training: the data, a network and its objective, the evaluation.

    The engine calls `open` to `batches` once, in this order, then `due` after every step: if it is
    true, `validate`, `score` and `after_validation` follow. `finish` comes last. `describe` and
    `figures` are for display.

    A subclass implements `open`, `build`, `batches`, `validate` and `finish`. Its constructor takes
    `data`, `recipe` and the recipe's `options` by keyword, and keeps them under these names.
    """

    recipe: Recipe
    classes: list[str]  #: of the data, set by `open`; a resumed run must have the same
    panels: Sequence[Mapping[str, str]] = ()  #: of the curves, see `plot_curves`
    usage = ""  #: a command line that uses the weights, which are appended to it
    objective: Objective[Part]  #: set by the engine to the result of `build`
    report: Report | None = None  #: set by the engine, in the main process only

    @property
    def steps(self) -> int:
        """The number of optimizer steps of the whole run."""
        return sum(self.objective.steps())

    def open(self) -> None:
        """Open the data and refuse what cannot be used, before anything is written."""
        raise NotImplementedError

    def build(self, device: torch.device) -> Objective[Part]:
        """The network with random weights, and its objective. The RNG is seeded before."""
        raise NotImplementedError

    def warm_start(self) -> None:
        """Load initial weights; called in new runs only."""

    def prepare(self, run: Run) -> None:
        """Store or read what a resumed run needs besides the checkpoint; note problems."""

    def plan(self) -> str:
        """Describe the run for the user before the first step, in a line or not at all."""
        return ""

    def batches(self, run: Run, start: int, size: int) -> Iterator[Part]:
        """Endless parts of batches of this process: `size` examples, from part number `start`."""
        raise NotImplementedError

    def due(self, n: int) -> bool:
        """Whether to validate after n steps."""
        return n == self.steps or n % (self.recipe.validate_every or self.steps) == 0

    def validate(self, run: Run, n: int) -> Record:
        """Evaluate the network after n steps, for `metrics.jsonl`."""
        raise NotImplementedError

    def describe(self, record: Record) -> str:
        """A record of a validation as a line of text."""
        return str(record)

    def score(self, record: Record) -> float | None:
        """The value by which the best network is kept, larger is better; None: no candidate."""
        return None

    def after_validation(self, run: Run) -> None:
        """React to a validation, for example lower the learning rate on a plateau."""

    def finish(self, run: Run, stream: Iterator[Part], command: str) -> dict[str, Any]:
        """Write weights and images of the network; return the summary of its evaluation."""
        raise NotImplementedError

    def figures(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """The figures of a summary to show, by title; floats are fractions of 1."""
        return {}


def train(
    task: Task[Part],
    output: str | Path,
    *,
    resume: bool = False,
    tensorboard: bool = False,
    device: str = "auto",
    command: str = "",
    report: Report | bool | None = None,
) -> dict[str, Any]:
    """Train a task; `unpool.training.run` describes the run folder.

    Under `torchrun` the processes share the work, and each returns the same summary.

    Args:
        task: data, network and evaluation of an application.
        output: the run folder; it must be new unless `resume`.
        resume: continue from the last checkpoint, with the result of an uninterrupted run; the
            folder must hold a run.
        tensorboard: write records for TensorBoard as well.
        device: "auto", "cpu", "cuda" or "cuda:n".
        command: the command line, for the model card.
        report: see `Report`; called in the main process. None prints the plan, the validations and
            a line of progress every ten seconds to standard error; False is silent.

    Returns:
        The summary of the final evaluation. Its `notes` are the warnings of the run.

    Raises:
        DataError, ImageError, OptionError, WeightsError: input that cannot be used.
        TrainingError: the run failed, or its folder cannot be written to.
    """
    require_type("resume", resume, bool, "True or False")
    require_type("tensorboard", tensorboard, bool, "True or False")
    callback = _callback(task, report)
    where, folder = find_device(distributed.local(device)), require_path("output", output)
    if folder.is_file():
        raise OptionError(f"got output {folder}, which is a file; name a folder for the run")
    if resume:
        require_run(folder)
    task.open()
    with distributed.join(where):
        task.report = callback if distributed.is_main_process() else None
        parts = parts_of(task.recipe)
        # the same first weights in all processes, and in runs with the same recipe
        torch.manual_seed(task.recipe.seed)
        task.objective = task.build(where)
        if not has_checkpoint(folder):  # weights that are refused leave no run folder
            task.warm_start()
        run = Run(
            folder,
            task.recipe,
            task.classes,
            task.objective.learner,
            resume=resume,
            tensorboard=tensorboard,
            arguments=_arguments(task),
        )
        with closing(run):
            _require_step(run, task.steps)
            task.prepare(run)
            if not can_plot():
                run.note(
                    f"{CURVES} is left out, because matplotlib is missing: pip install matplotlib"
                )
            if task.report is not None and (text := task.plan()):
                task.report(Plan(text))
            stream = task.batches(run, run.state.step * parts, task.recipe.batch // parts)
            _fit(task, run, stream)
            run.load_best()
            summary = task.finish(run, stream, command)
            if run.is_main:
                with run.writing():
                    write_json(folder / "eval/summary.json", summary)
                    if can_plot():
                        plot_curves(folder, task.panels)
            distributed.barrier()
            return summary


def _require_step(run: Run, steps: int) -> None:
    """Refuse a checkpoint that is later than the end of the recipe."""
    if run.state.step > steps:
        raise WeightsError(
            f"got {run.checkpoint} of step {run.state.step} of {steps}; put back a copy, or start "
            "a new run in another folder"
        )


def _callback(task: Task[Part], report: Report | bool | None) -> Report | None:
    if report is None:
        return reporter(task, Lines("training"), lambda text, _: print(text, file=sys.stderr))
    if callable(report):
        return report
    if report is False:
        return None
    raise OptionError(
        f"got report={report!r}; wanted a function of one argument, or report=False for silence"
    )


def reporter(
    task: Task[Part],
    show: Callable[[float, int, str], None],
    write: Callable[[str, Record | None], None],
) -> Report:
    """A `Report` that separates progress from what is to be kept.

    Args:
        task: the task that is trained.
        show: a progress callback, for steps and preparations.
        write: called with the text of the plan and None, then with that of each validation and its
            record.
    """

    def report(event: Any) -> None:
        match event:
            case Step():
                text = f"{event.phase}, loss {event.loss:.3g}, lr {event.lr:.1e}"
                show(event.n, task.steps, text)
            case Preparation():
                show(*event)
            case Plan():
                write(event.text, None)
            case _:
                write(task.describe(event), event)

    return report


def resumed_task(
    run: Path, recipe: str | Recipe | None, values: Mapping[str, Any], given: Mapping[str, Any]
) -> Task[Any]:
    """The task of an interrupted run, from its folder; all else must agree with it.

    Args:
        run: the run folder.
        recipe: that of the run, or None.
        values: of the recipe, see `find_recipe`.
        given: `data`, `output` and options of the task; None stands for those of the run.

    Raises:
        OptionError: the folder holds no run, or it was started with other values.
        WeightsError: its files are damaged.
    """
    stored, arguments = read_arguments(run)
    if recipe is not None:
        _require_recipe(run, stored, find_recipe(recipe), values)
    wanted = find_recipe(stored, **values)
    options = {name: value for name, value in given.items() if value is not None}
    output = Path(options.pop("output", run))
    task: Task[Any] = stored.make_task(**{**arguments, **options})
    started = {**stored.to_json(), **arguments, "output": str(run.resolve())}
    now = {**wanted.to_json(), **_arguments(task), "output": str(output.resolve())}
    for name, before, value in differences(started, now):
        raise OptionError(
            f"got {name}={value} to resume {run}, which was started with {name}={before}; leave it "
            "out, or start a new run"
        )
    return task


def _require_recipe(run: Path, stored: Recipe, given: Recipe, values: Mapping[str, Any]) -> None:
    """Refuse a recipe that is not that of the run; `values` replace those of both."""
    name = f"got the recipe {given.name} to resume {run}, which was started with"
    cure = "leave the recipe out, or start a new run"
    if given.name != stored.name:
        raise OptionError(f"{name} the recipe {stored.name}; {cure}")
    before, now = (find_recipe(r, **values).to_json() for r in (stored, given))
    for field, value, own in differences(before, now):
        raise OptionError(f"{name} {field}={value}, not the recipe's {own}; {cure}")


def _arguments(task: Task[Part]) -> dict[str, Any]:
    """The arguments of a task besides its recipe, as plain values."""
    values = {name: getattr(task, name, None) for name in ("data", *task.recipe.options)}
    # a run may be resumed from another folder
    return {k: str(v.resolve()) if isinstance(v, Path) else v for k, v in values.items()}


def _fit(task: Task[Part], run: Run, stream: Iterator[Part]) -> None:
    """Do the remaining steps; validate, keep the best and save in between."""
    if run.stopped_early:
        return
    for step in fit(task.objective, stream, run.state, run.optimizer_state):
        run.log(step, task.report)
        if due := task.due(step.n):
            # each process evaluates some of the images, and statistics of batch norm differ
            distributed.copy_from_first(run.learner)
            record = task.validate(run, step.n)
            run.log(record, task.report)
            score = task.score(record)
            if score is not None:
                run.keep_best(score)
            task.after_validation(run)
        # after a validation, too, so that the checkpoint knows the score of the network kept as
        # best
        if due or step.n == task.steps or step.n % task.recipe.save_every == 0:
            run.save()
        if run.stopped_early:
            return


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def plot_curves(folder: Path, panels: Sequence[Mapping[str, str]]) -> None:
    """Plot the `metrics.jsonl` of a run folder. Needs matplotlib.

    Args:
        folder: of the run.
        panels: for each panel beside that of the loss, names in `metrics.jsonl` and their titles.
    """
    panels = [{"loss": "loss"}, *panels]
    records = [*read_metrics(folder)]
    size = 4.5 * len(panels), 3.5
    with plot(folder / CURVES, size, columns=len(panels), squeeze=False) as grid:
        for axes, names in zip(grid[0], panels, strict=True):
            for name, title in names.items():
                values = [(r["n"], r.get(name)) for r in records]
                points = [(n, v) for n, v in values if isinstance(v, int | float)]
                if points:
                    marker = "" if name == "loss" else "."
                    axes.plot(*zip(*points, strict=True), linewidth=1, marker=marker, label=title)
            axes.set(xlabel="step", title=", ".join(names.values()))
            axes.grid(alpha=0.3)
            if len(axes.get_lines()) > 1:
                axes.legend()
