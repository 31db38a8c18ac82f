"""Training runs of an experiment: new, resumed, or finished before."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import unpool
from unpool.errors import WeightsError
from unpool.files import read_json
from unpool.recipes import Recipe
from unpool.training.run import has_checkpoint


def train_once(
    data: str | Path | Sequence[str], run: Path, recipe: Recipe, **options: Any
) -> dict[str, Any]:
    """Train, resume an interrupted run, or read the summary of a finished one.

    Args:
        data: see `unpool.train`.
        run: the run folder.
        recipe: how to train; a run that was started by another recipe is not resumed.
        **options: of `unpool.train`.

    Returns:
        The contents of `eval/summary.json`.

    Raises:
        WeightsError: the summary is damaged. And those of `unpool.train`.
    """
    summary = run / "eval/summary.json"
    if not summary.exists():
        unpool.train(data, run, recipe, resume=has_checkpoint(run), **options)
    return dict(read_json(summary, WeightsError))
