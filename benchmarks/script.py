"""What the scripts share: their options, and a table or one JSON object as the result."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from unpool.bench.harness import require_positive, threads
from unpool.cli.bench import print_result
from unpool.cli.console import progress
from unpool.cli.messages import error_message
from unpool.errors import UnpoolError

Result = dict[str, Any]


def run(
    measure: Callable[..., Result],
    table: Callable[[Result], list[list[str]]],
    argv: Sequence[str] | None = None,
    **defaults: Any,
) -> int:
    """Measure with the options of the command line, and print the result.

    Args:
        measure: takes the options by keyword, and `progress`.
        table: rows of cells, the header first.
        argv: the arguments; those of the process by default.
        **defaults: options besides --threads, --rounds and --json, with their default values.

    Returns:
        The exit code: 0, or 2 after an error of the user.
    """
    parser = argparse.ArgumentParser(description=(measure.__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, help="default: as many as PyTorch uses")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    for name, default in {"rounds": 5, **defaults}.items():
        kind = str if default is None else type(default)
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"default: {default}")
    options = vars(parser.parse_args(argv))
    as_json, count = options.pop("json"), options.pop("threads")
    try:
        require_positive(**{k: v for k, v in options.items() if isinstance(v, int)})
        with progress("measuring") as show, threads(count):
            found = measure(progress=show, **options)
    except UnpoolError as error:
        print(f"{parser.prog}: {error_message(error)}", file=sys.stderr)
        return 2
    print_result(found, None if as_json else table(found))
    return 0
