"""How far a run is, by what its output folder holds: the manifest of its inputs, and the ledger.

`OUTPUT/.unpool/manifest/` has a file for each procedure and shard: a line about the run, and one
with the name of each item. The content of an item is only known when it is worked on, and then its
digest is in the ledger: of millions of images, reading all twice would take as long as the work.
"""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unpool.batch.ledger import Ledger, lines
from unpool.errors import DataError
from unpool.files import HIDDEN, atomic, json_line, read_json_lines

if TYPE_CHECKING:
    from unpool.vision.sources import Shard

_WINDOW = 600.0
"""Seconds up to the last image, over which the rate is measured."""

_SHOWN = 20


def write_manifest(
    ledger: Ledger, command: str, names: Iterable[str], shard: "Shard | None" = None
) -> None:
    """Note what a run is to do, in place of the last one with the same procedure.

    Args:
        ledger: of the output folder.
        command: its name.
        names: of the results of each item.
        shard: the part of all items that these are.
    """
    name = ledger.procedure + (f"-{shard}" if shard else "")
    head = {"command": command, "procedure": ledger.procedure, "shard": shard and [*shard]}
    path = ledger.output / HIDDEN / "manifest" / f"{name}.jsonl"
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(f"{json_line({**head, 'time': round(time.time(), 3)})}\n")
        file.writelines(f"{json_line({'name': name})}\n" for name in names)


def status(output: Path) -> dict[str, Any]:
    """How far the newest run into a folder is, with all shards of it.

    The images and results are not read, so a mask that was removed counts as done until the run
    goes on.

    Args:
        output: the folder with the results.

    Returns:
        `command`; `images`, `done`, `failed` (and `given_up` among them), `left`; `rate` (images a
        second over the last ten minutes of the run; None if it is not known), `seconds_left`,
        `seconds_since_last`; `shards` ([started, all] or None); and `failures`, up to 20 with
        `name` and `error`.

    Raises:
        DataError: no run has written into the folder.
    """
    manifests = _manifests(output)
    head, names = manifests[0][1], set[str]()
    for path, _ in manifests:
        names.update(line["name"] for _, line in read_json_lines(path, DataError) if "name" in line)
    last: dict[str, dict[str, Any]] = {}
    times = []
    for line in lines(output, head["procedure"]):
        if line["name"] in names:
            facts = ("error", "attempts", "time")
            last[line["name"]] = {k: line[k] for k in facts if k in line}
            if isinstance(line.get("time"), float):
                times.append(line["time"])
    failures = [{"name": k, "error": v["error"]} for k, v in last.items() if "error" in v]
    left = len(names) - len(last)
    end = max(times, default=0.0)
    recent = [at for at in times if at > max(end - _WINDOW, head["time"])]
    span = end - min(recent, default=end)
    rate = (len(recent) - 1) / span if span > 0 else None
    shard = head["shard"]
    return {
        "command": head["command"],
        "images": len(names),
        "done": len(last) - len(failures),
        "failed": len(failures),
        "given_up": sum("attempts" in facts for facts in last.values()),
        "left": left,
        "rate": rate and float(f"{rate:.4g}"),
        "seconds_left": round(left / rate) if rate else None,
        "seconds_since_last": round(time.time() - end) if times else None,
        "shards": shard and [len(manifests), shard[1]],
        "failures": failures[:_SHOWN],
    }


def newest(output: Path) -> dict[str, Any]:
    """The newest run into a folder: its `command`, `procedure`, `shard` and `time`.

    Raises:
        DataError: no run has written into the folder.
    """
    return _manifests(output)[0][1]


def _manifests(output: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The newest manifest with its first line, and those of the other shards of its run."""
    found = []
    for path in (output / HIDDEN / "manifest").glob("*.jsonl"):
        head = next((line for _, line in read_json_lines(path, DataError)), {})
        if {"command", "procedure", "shard", "time"} <= head.keys():
            found.append((path, head))
    if not found:
        raise DataError(f"got {output}, where no run has left its notes; name the folder after -o")
    found.sort(key=lambda one: one[1]["time"], reverse=True)
    newest = found[0][1]

    def key(head: dict[str, Any]) -> tuple[Any, ...]:
        return head["procedure"], head["shard"] and head["shard"][1]

    return [one for one in found if key(one[1]) == key(newest)]
