"""`unpool bench`: speed and memory on this machine, and what limits them."""

from collections.abc import Callable, Mapping
from typing import Any

import click

from unpool.cli import console
from unpool.cli.options import FROM_ONE, JSON, PRECISION, QUIET, choice, numbers, typed

_FACTS = (
    *("network", "crops", "gflop_per_crop", "gflop_per_view", "parameters", "size", "images"),
    *("maps", "occluder", "stride", "positions", "batch", "rounds", "processor_fraction"),
)


@click.group()
def bench() -> None:
    """Measure speed and memory on this machine, and what limits them.

    Variants take turns in one process, after a warm-up round. Times are medians and ranges over
    the rounds; memory is measured in a process per variant. With --json, the result is one object.
    benchmarks/README.md explains the figures.

    \b
    Example: unpool bench segment --threads 1 --crops 50 --json
    """


def _shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of all subjects."""
    threads = click.option(
        "--threads", type=FROM_ONE, help="Number of threads.  [default: as many as PyTorch uses]"
    )
    rounds = click.option("--rounds", type=FROM_ONE, help="Rounds that count.  [default: 5]")
    return threads(rounds(JSON(QUIET(command))))


@bench.command()
@click.option("--crops", type=FROM_ONE, help="Crops per round.  [default: 50]")
@click.option(
    "--weights",
    metavar="NAME|FOLDER",
    help="Weights to measure.  [default: the published DeconvNet with random weights]",
)
@choice("--precision", ["auto", "int8"], "int8 is measured, too.  [default: auto]")
@click.option("--memory/--no-memory", default=None, help="Measure the memory.  [default: memory]")
@_shared
def segment(**options: Any) -> None:
    """Seconds per crop of a network as written, and of its fast form in fp32, bf16 and int8.

    With --json, ratio and ratio_fp32 are how many times as fast as the network as written the fast
    form is in bf16 and fp32; fraction_of_peak and fraction_of_peak_fp32 are its rates as fractions
    of the fastest convolution in the same run. With int8, ratio and fraction_of_peak are its own,
    those of bf16 are ratio_bf16 and fraction_of_peak_bf16, and ratio_to_bf16 is how many times as
    fast as bf16 int8 is.

    \b
    Example: unpool bench segment --threads 1 --crops 50 --precision int8 --json
    """
    from unpool.bench.segment import measure

    _run("segment", measure, _of_segment, options)


@bench.command()
@_shared
def crf(**options: Any) -> None:
    """Seconds per image of the dense CRF, beside pydensecrf if it is installed.

    \b
    Example: unpool bench crf --threads 1
    """
    from unpool.bench.crf import measure

    _run("crf", measure, _of_crf, options)


@bench.command()
@click.option("--batch", type=click.IntRange(min=2), help="Images per step.  [default: 4]")
@click.option("--full", is_flag=True, default=None, help="Use the published network (6 GB).")
@click.option(
    "--measure",
    "processes",
    is_flag=True,
    default=None,
    help="Also train with 8 images in separate processes, and compare their memory with the "
    "computed one.",
)
@_shared
def train(**options: Any) -> None:
    """Seconds per image of a training step, and the memory of a step with 64 images.

    Without --full, the network is a quarter as wide as the published one.

    \b
    Example: unpool bench train --full --measure --json
    """
    from unpool.bench.training import measure

    _run("train", measure, _of_train, options)


@bench.command()
@click.option(
    "--full",
    is_flag=True,
    default=None,
    help="Compute all positions by the plain loop and Captum, too, instead of every fourth in both "
    "directions; takes many minutes.",
)
@_shared
def occlusion(**options: Any) -> None:
    """Seconds per position of occlusion with VGG-16: incremental, a plain loop, and Captum.

    With --json, ratio_plain and ratio_captum are how many times as fast as the plain loop, and as
    the faster Captum variant, the incremental method is; different is the largest relative
    difference of the results.

    \b
    Example: unpool bench occlusion --threads 1 --json
    """
    from unpool.bench.occlusion import measure

    _run("occlusion", measure, _of_occlusion, options)


@bench.command()
@click.option("--images", type=click.IntRange(min=3), help="Images.  [default: 40]")
@click.option(
    "--workers",
    callback=numbers("0,1,2"),
    metavar="N,...",
    help="Numbers of processes; 0 is the plain loop.  [default: 0,1,2]",
)
@click.option("--engine", type=click.Choice(["processes", "ray"]), help="[default: processes]")
@click.option("--weights", metavar="NAME|FOLDER", help="Weights.  [default: objects]")
@PRECISION
@click.option(
    "--broken",
    type=click.FloatRange(0, 0.5),
    help="Fraction of the images that cannot be read.  [default: 0.03]",
)
@click.option("--rounds", type=FROM_ONE, help="Rounds that count.  [default: 3]")
@JSON
@QUIET
def scale(workers: tuple[float, ...] | None, **options: Any) -> None:
    """Images a second of `unpool segment` by the number of workers; time to start, and memory.

    With --json, rate, start, cpu and memory_gb by variant, and the ratio of the rates to the first.

    \b
    Example: unpool bench scale --workers 0,1,2 --json
    """
    from unpool.bench.scale import measure

    chosen = workers and [int(count) for count in workers]
    _run("scale", measure, _of_scale, {**options, "workers": chosen, "threads": None})


def _run(
    subject: str,
    measure: Callable[..., dict[str, Any]],
    table: Callable[[dict[str, Any]], list[list[str]]],
    options: dict[str, Any],
) -> None:
    from unpool.bench.harness import threads

    as_json, quiet, count = (options.pop(name) for name in ("as_json", "quiet", "threads"))
    with console.progress("measuring", quiet) as show, threads(count):
        found = {"subject": subject, **measure(progress=show, **typed(options))}
    if as_json or not quiet:
        print_result(found, None if as_json else table(found))


def print_result(found: Mapping[str, Any], table: list[list[str]] | None) -> None:
    """Print the result of a benchmark: a table and the facts beside it, or JSON without a table."""
    if table is None:
        console.print_json(found)
        return
    console.print_table(table)
    click.echo()
    facts = {name.replace("_", " "): found.get(name) for name in _FACTS}
    if peak := found.get("peak"):
        units = {kind: "GB/s" if kind == "copy" else "GFLOP/s" for kind in peak}
        facts["limits"] = {kind: f"{peak[kind]['rate']:.4g} {units[kind]}" for kind in peak}
    console.print_facts({**facts, **found["machine"]})


def _of_segment(found: dict[str, Any]) -> list[list[str]]:
    head = ["", "s a crop", "range", "times as fast", "fraction of limit", "GB loading", "GB after"]
    rows = [head]
    *_, best = found["seconds_per_crop"]
    names = {"fp32": "_fp32", "bf16": "_bf16", best: "" if best != "fp32" else "_fp32"}
    ratios = {name: found.get(f"ratio{suffix}") for name, suffix in names.items()}
    fractions = {name: found.get(f"fraction_of_peak{suffix}") for name, suffix in names.items()}
    for name, seconds in found["seconds_per_crop"].items():
        fraction = console.percent(fractions.get(name)) + " %" * (name in fractions)
        row = [name, *seconds_cells(seconds), _number(ratios.get(name)), fraction]
        held = found["memory_gb"].get(name, {})
        rows.append(row + [_number(held.get(part)) for part in ("loading", "segmenting")])
    return rows


def _of_crf(found: dict[str, Any]) -> list[list[str]]:
    rows = [["", "s an image", "range", "times pydensecrf", "other labels"]]
    for preset, result in found["presets"].items():
        for name, seconds in result["seconds"].items():
            ratio = result.get("ratio", {}).get(name, {}).get("median")
            different = result.get("different", {}).get(name)
            other = "-" if different is None else f"{100 * different:.3f} %"
            rows.append([f"{preset}, {name}", *seconds_cells(seconds), _number(ratio), other])
    return rows


def _of_train(found: dict[str, Any]) -> list[list[str]]:
    batch, small, check = found["memory_batch"], found["check_batch"], found["check_gb"]
    head = ["", "s an image", "range", "times as fast", f"GB kept of {batch}", f"GB for {batch}"]
    rows = [head + [f"GB for {small}", "GB of a process"] * bool(check)]
    for name, memory in found["memory_gb"].items():
        seconds = found["seconds_per_image"].get(name)
        row = [name, *(seconds_cells(seconds) if seconds else ["-", "-"])]
        row.append(_number(found["ratio"].get(name, {}).get("median")))
        row += [_number(memory["kept"]), _number(memory["peak"])]
        if check:
            row += [_number(check[name]["computed"]), _number(check[name]["process"])]
        rows.append(row)
    return rows


def _of_scale(found: dict[str, Any]) -> list[list[str]]:
    rows = [["", "images/s", "range", "times as fast", "s to start", "CPU s", "GB"]]
    for name, rate in found["rate"].items():
        others = [f"{found[kind][name]['median']:.3g}" for kind in ("start", "cpu", "memory_gb")]
        ratio = found["ratio"].get(name, {}).get("median")
        rows.append([name, *seconds_cells(rate), _number(ratio), *others])
    return rows


def _of_occlusion(found: dict[str, Any]) -> list[list[str]]:
    rows = [["", "s a position", "range", "times as long"]]
    ratios = {"plain": found["ratio_plain"], found["captum"]: found["ratio_captum"]}
    for name, seconds in found["seconds_per_position"].items():
        rows.append([name, *seconds_cells(seconds), _number(ratios.get(name))])
    return rows


def seconds_cells(seconds: Mapping[str, float]) -> list[str]:
    """The median and the range of some times, as two cells of a table.

    >>> seconds_cells({"median": 0.25, "low": 0.2, "high": 1})
    ['0.25', '0.2 to 1']
    """
    return [f"{seconds['median']:.3g}", f"{seconds['low']:.3g} to {seconds['high']:.3g}"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
