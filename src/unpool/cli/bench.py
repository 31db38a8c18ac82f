"""`unpool bench`: how quick things are on this machine, and what bounds them."""

from collections.abc import Callable, Mapping
from typing import Any

import click

from unpool.cli import console
from unpool.cli.options import FROM_ONE, JSON, QUIET, typed
from unpool.cli.progress import progress

Table = Callable[[dict[str, Any]], list[list[str]]]


@click.group()
def bench() -> None:
    """Measure how quick things are on this machine, beside what bounds them.

    What is compared is run in turn, in one process, after a round that is not counted; figures
    are medians and ranges over the rounds, and of processes of their own for memory. With --json,
    there is one object. benchmarks/README.md tells how to read them.

    \b
    Example: unpool bench segment --threads 1 --crops 50 --json
    """


def _shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of all subjects."""
    threads = click.option(
        "--threads", type=FROM_ONE, help="Of the processor.  [default: as many as PyTorch takes]"
    )
    rounds = click.option("--rounds", type=FROM_ONE, help="How many are counted.  [default: 5]")
    return threads(rounds(JSON(QUIET(command))))


@bench.command()
@click.option("--crops", type=FROM_ONE, help="Crops of a round.  [default: 50]")
@click.option(
    "--weights",
    metavar="NAME|FOLDER",
    help="Weights of a DeconvNet.  [default: the published network, with random weights]",
)
@click.option("--memory/--no-memory", default=None, help="Whether to measure it.  [default: yes]")
@_shared
def segment(**options: Any) -> None:
    """Seconds a crop: as written, and in the fast form in fp32 and bf16.

    With --json, ratio and ratio_fp32 tell how many times as quick as the network as written the
    fast form is; share_of_peak (in bf16) and share_of_peak_fp32, how near it comes to the largest
    rate of a convolution in the same run.

    \b
    Example: unpool bench segment --threads 1 --crops 50 --json
    """
    from unpool.bench.segment import measure

    _run("segment", measure, _of_segment, options)


@bench.command()
@_shared
def crf(**options: Any) -> None:
    """Seconds an image of the dense CRF, beside pydensecrf where it is installed.

    \b
    Example: unpool bench crf --threads 1
    """
    from unpool.bench.crf import measure

    _run("crf", measure, _of_crf, options)


@bench.command()
@_shared
def proposals(**options: Any) -> None:
    """Seconds an image of the search for objects, by size.

    \b
    Example: unpool bench proposals --threads 1
    """
    from unpool.bench.proposals import measure

    _run("proposals", measure, _of_proposals, options)


@bench.command()
@click.option("--batch", type=click.IntRange(min=2), help="Images of a step.  [default: 4]")
@click.option("--full", is_flag=True, default=None, help="The published network; takes 6 GB.")
@click.option(
    "--measure",
    "processes",
    is_flag=True,
    default=None,
    help="Compare the memory of processes that train with 8 images to what is computed, too.",
)
@_shared
def train(**options: Any) -> None:
    """Seconds an image of a training step, and the memory of a step with 64 images.

    The network is a quarter as wide as the published one, unless --full is given.

    \b
    Example: unpool bench train --full --measure --json
    """
    from unpool.bench.training import measure

    _run("train", measure, _of_train, options)


@bench.command()
@click.option("--images", type=FROM_ONE, help="Images of a round.  [default: 32]")
@_shared
def mining(**options: Any) -> None:
    """Seconds an image of finding the strongest activations of all maps of VGG-16.

    With --json, ratio tells how many times as long as a plain forward pass that takes.

    \b
    Example: unpool bench mining --threads 1 --images 500 --rounds 1 --json
    """
    from unpool.bench.mining import measure

    _run("mining", measure, _of_mining, options)


@bench.command()
@click.option(
    "--weights",
    metavar="NAME|FOLDER",
    help="Weights of a network that draws.  [default: chairs, or else the published network]",
)
@click.option("--batch", type=FROM_ONE, help="Views of a batch.  [default: 16]")
@_shared
def draw(**options: Any) -> None:
    """Seconds a view of drawing an object, one at a time and in a batch.

    \b
    Example: unpool bench draw --threads 1 --json
    """
    from unpool.bench.drawing import measure

    _run("draw", measure, _of_draw, options)


@bench.command()
@click.option(
    "--full",
    is_flag=True,
    default=None,
    help="Let the plain loop and Captum take all positions, too, and not every fourth in both "
    "directions; takes many minutes.",
)
@_shared
def occlusion(**options: Any) -> None:
    """Seconds a position of occlusion with VGG-16: incremental, plain, and Captum's.

    With --json, ratio_plain and ratio_captum tell how many times as quick as our plain loop, and
    as the better one of Captum's, the incremental way is; different, by how much results differ.

    \b
    Example: unpool bench occlusion --threads 1 --json
    """
    from unpool.bench.occlusion import measure

    _run("occlusion", measure, _of_occlusion, options)


@bench.command("import")
@_shared
def import_(**options: Any) -> None:
    """Seconds until anything happens: imports, and the help.

    \b
    Example: unpool bench import
    """
    from unpool.bench.starting import measure

    _run("import", measure, _of_import, options)


def _run(
    subject: str, measure: Callable[..., dict[str, Any]], table: Table, options: dict[str, Any]
) -> None:
    from unpool.bench import machine

    as_json, quiet, threads = (options.pop(name) for name in ("as_json", "quiet", "threads"))
    with progress("measuring", quiet) as show, machine.threads(threads):
        found = measure(progress=show, **typed(options))
    if as_json:
        console.print_json({"subject": subject, **found})
    elif not quiet:
        console.print_table(table(found))
        click.echo()
        console.print_facts({**_rest(found), **found["machine"]})


def _rest(found: Mapping[str, Any]) -> dict[str, Any]:
    """What has no place in a table."""
    names = ["network", "crops", "gflop_per_crop", "batch", "rounds", "processor_share"]
    names += ["size", "parameters", "gflop_per_view", "images", "maps"]
    names += ["occluder", "stride", "positions"]
    rest = {name.replace("_", " "): found.get(name) for name in names}
    peak = found.get("peak", {})
    limits = {kind: f"{limit['rate']:.4g} {_unit(kind)}" for kind, limit in peak.items()}
    return {**rest, "limits": limits} if limits else rest


def _unit(kind: str) -> str:
    return "GB/s" if kind == "copy" else "GFLOP/s"


def _of_segment(found: dict[str, Any]) -> list[list[str]]:
    rows = [
        ["", "s a crop", "range", "times as quick", "fraction of limit", "GB loading", "GB after"]
    ]
    ratios = {"fp32": found["ratio_fp32"], "bf16": found["ratio"]}
    shares = {"fp32": found["share_of_peak_fp32"], "bf16": found["share_of_peak"]}
    for name, seconds in found["seconds_per_crop"].items():
        held = found["memory_gb"].get(name, {})
        rows.append(
            [
                name,
                *_seconds(seconds),
                _number(ratios.get(name)),
                console.percent(shares.get(name)) + " %" * (name in shares),
                *(_number(held.get(part)) for part in ("loading", "segmenting")),
            ]
        )
    return rows


def _of_crf(found: dict[str, Any]) -> list[list[str]]:
    rows = [["", "s an image", "range", "times pydensecrf", "other labels"]]
    for preset, result in found["presets"].items():
        for way, seconds in result["seconds"].items():
            ratio = result.get("ratio", {}).get(way, {})
            other = result.get("different", {}).get(way)
            share = "-" if other is None else f"{100 * other:.3f} %"
            rows.append(
                [f"{preset}, {way}", *_seconds(seconds), _number(ratio.get("median")), share]
            )
    return rows


def _of_proposals(found: dict[str, Any]) -> list[list[str]]:
    rows = [["", "s an image", "range", "boxes"]]
    for size, methods in found["sizes"].items():
        for method, result in methods.items():
            boxes = ", ".join(map(str, sorted(set(result["boxes"]))))
            rows.append([f"{size}, {method}", *_seconds(result["seconds"]), boxes])
    return rows


def _of_train(found: dict[str, Any]) -> list[list[str]]:
    batch, small = found["memory_batch"], found["check_batch"]
    check = found["check_gb"]
    head = ["", "s an image", "range", "times as quick", f"GB kept of {batch}", f"GB for {batch}"]
    rows = [head + [f"GB for {small}", "GB of a process"] * bool(check)]
    for name, memory in found["memory_gb"].items():
        seconds = found["seconds_per_image"].get(name)
        row = [name, *(_seconds(seconds) if seconds else ["-", "-"])]
        row += [_number(found["ratio"].get(name, {}).get("median"))]
        row += [_number(memory["kept"]), _number(memory["peak"])]
        if check:
            row += [_number(check[name]["computed"]), _number(check[name]["process"])]
        rows.append(row)
    return rows


def _of_mining(found: dict[str, Any]) -> list[list[str]]:
    rows = [["", "s an image", "range", "times as long"]]
    ratios = {"mining": found["ratio"]}
    for name, seconds in found["seconds_per_image"].items():
        rows.append([name, *_seconds(seconds), _number(ratios.get(name))])
    return rows


def _of_draw(found: dict[str, Any]) -> list[list[str]]:
    rows = [["", "s a view", "range"]]
    return rows + [
        [name, *_seconds(seconds)] for name, seconds in found["seconds_per_view"].items()
    ]


def _of_occlusion(found: dict[str, Any]) -> list[list[str]]:
    rows = [["", "s a position", "range", "times as long"]]
    ratios = {"plain": found["ratio_plain"], found["captum"]: found["ratio_captum"]}
    for name, seconds in found["seconds_per_position"].items():
        rows.append([name, *_seconds(seconds), _number(ratios.get(name))])
    return rows


def _of_import(found: dict[str, Any]) -> list[list[str]]:
    rows = [["", "s", "range"]]
    return rows + [[name, *_seconds(seconds)] for name, seconds in found["seconds"].items()]


def _seconds(found: Mapping[str, float]) -> list[str]:
    """Median and range."""
    return [f"{found['median']:.3g}", f"{found['low']:.3g} to {found['high']:.3g}"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
