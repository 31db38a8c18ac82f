"""What a training run has written."""

import json


def files(folder):
    """The names of all files below a folder."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in paths}


def records(folder):
    """The records of a run, without the seconds that its steps took."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in record.items() if k != "seconds"} for record in lines]
