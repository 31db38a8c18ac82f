"""Ray Data as an engine: workers on all machines of a cluster, which share the output folder.

Ray hands out the items, keeps few of them under way, and starts workers again that have died, or
whose machine has. It does an item at least once; that it is noted once is up to the process that
reads the outcomes. Only names and records travel; images are read where they are worked on.
"""

import logging
import os
import pickle
import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from unpool.batch.engines import portable, use_threads
from unpool.errors import OptionError

if TYPE_CHECKING:
    from unpool.batch.work import Item, Outcome, Work

_BLOCK = 8
"""Items that Ray hands out together: those of a worker that dies are done again."""

_STORE = 256 * 2**20
"""Bytes of the object store of a cluster that is started here."""

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_memory_monitor_refresh_ms": "0",  # in a container it reads the memory of the host
}


def ray_data(
    work: "Work", items: Iterable["Item"], workers: int, gpu: bool = False
) -> Iterator["Outcome"]:
    """Work on items on the Ray cluster at RAY_ADDRESS, or on one that is started on this machine.

    Args:
        work: must be picklable; its paths are those of all machines.
        items: all are read before the first is handed out.
        workers: the number of actors, each with one core, or with a GPU.
        gpu: each worker needs a GPU.

    Raises:
        OptionError: Ray is not installed.
        Exception: an error that ends the run, from `work`.
    """
    rows = [{"item": pickle.dumps(item)} for item in items]
    if not rows:
        return
    ray = _start(workers)
    try:
        blocks = max(1, -(-len(rows) // _BLOCK))
        needs = {"num_gpus": 1} if gpu else {"num_cpus": 1}
        dataset = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
            _Actor,
            fn_constructor_args=(pickle.dumps(work), os.getcwd()),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
            **needs,
        )
        rows_done = iter(dataset.iter_rows())
        while row := _next(rows_done):
            answer = pickle.loads(row["outcome"])
            if isinstance(answer, Exception):
                raise answer
            yield answer
    finally:
        ray.shutdown()


def _next(rows: Iterator[dict[str, Any]]) -> dict[str, Any] | None:
    """The next row, while what Ray prints goes to standard error; ours is for results."""
    with redirect_stdout(sys.stderr):
        return next(rows, None)


class _Actor:
    """A worker of Ray."""

    def __init__(self, data: bytes, folder: str) -> None:
        os.chdir(folder)  # paths are relative to that of the run, wherever the cluster was started
        use_threads(1)
        self._work: Work = pickle.loads(data)
        self._work.prepare()
        use_threads(1)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        return {"outcome": [self._outcome(item) for item in batch["item"]]}

    def _outcome(self, item: bytes) -> bytes:
        try:
            return pickle.dumps(self._work(pickle.loads(item)))
        except Exception as error:  # as a row: Ray would try again
            return pickle.dumps(portable(error))


def _start(workers: int) -> Any:
    os.environ.update({name: value for name, value in _QUIET.items() if name not in os.environ})
    try:
        import ray
        import ray.data
    except ImportError:
        raise OptionError("got engine='ray', which needs Ray: pip install 'unpool[ray]'") from None
    if not ray.is_initialized():
        own = {"num_cpus": workers, "object_store_memory": _STORE, "include_dashboard": False}
        joined = "RAY_ADDRESS" in os.environ
        variables = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        ray.init(
            **({} if joined else own),
            log_to_driver=False,
            configure_logging=False,
            runtime_env={"env_vars": {**variables, "OMP_NUM_THREADS": "1"}},
        )
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = 0  # with -1, Ray waits for ever for an actor that has died
    return ray
