"""A JSON file of results that an interrupted experiment continues from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unpool.bench.harness import describe
from unpool.errors import OptionError
from unpool.files import write_json


class ResultsFile:
    """Results by name; each is written as soon as it is known and never computed again.

    Args:
        path: the JSON file, created with the first result.
        protocol: the settings that the results depend on.

    Raises:
        OptionError: the file is damaged, or its results follow another protocol.
    """

    def __init__(self, path: Path, protocol: Mapping[str, Any]) -> None:
        self.path, self.protocol = path, dict(protocol)
        self.results: dict[str, dict[str, Any]] = {}
        self.machine = describe()
        if not path.exists():
            return
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            known, self.results = before["protocol"], dict(before["results"])
            self.machine = before["machine"]
        except (ValueError, TypeError, KeyError):
            raise OptionError(f"{path} is damaged; move it away to start over") from None
        if known != self.protocol:
            raise OptionError(
                f"{path} has results of {_listed(known)}; wanted {_listed(self.protocol)}: "
                "use the same settings, or another folder"
            )

    def add(self, name: str, result: dict[str, Any]) -> None:
        """Add a result and write the file."""
        self.results[name] = result
        self.write()

    def write(self, **summary: Any) -> None:
        """Write the file, with a summary of the results."""
        contents = {"protocol": self.protocol, "machine": self.machine, "results": self.results}
        write_json(self.path, {**contents, **summary})


def _listed(protocol: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in dict(protocol).items())
