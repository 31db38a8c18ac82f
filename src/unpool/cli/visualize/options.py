"""The shape that all commands of `unpool visualize` share: options, model, progress, report."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property, partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unpool.cli import console
from unpool.cli.images import Record, each_image, find_inputs, output_option
from unpool.cli.options import (
    DEVICE,
    JSON,
    QUIET,
    Option,
    all_of,
    choice,
    make_folder,
    several_units,
    typed,
)
from unpool.errors import OptionError

if TYPE_CHECKING:
    from unpool import Progress
    from unpool.vision.sources import Source
    from unpool.visualize.evolution import Checkpoint
    from unpool.visualize.preprocessing import LoadedModel


def only_one(given: Mapping[str, object]) -> None:
    """Refuse options, values by flag, that exclude one another."""
    if len(flags := [flag for flag, value in given.items() if value]) > 1:
        raise OptionError(f"got {' and '.join(flags)}; leave one of them out")


def _activations(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> Any:
    named = dict(item.split("=", 1) for item in given if "=" in item)
    if named and len(named) != len(given):
        wanted = "name a function in each, such as silu=relu, or give one for all"
        raise OptionError(f"got --activations {' '.join(given)}; {wanted}")
    return named or (given[-1] if given else None)


def activations_option(text: str) -> Option:
    """The treatment of functions without a rule: one word for all, or a mapping by name."""
    kinds = "[NAME=]relu|gradient|constant"
    return click.option(
        "--activations", multiple=True, callback=_activations, metavar=kinds, help=text
    )


MODEL: tuple[Option, ...] = (
    click.option(
        "--weights",
        metavar="NAME|FOLDER",
        help="Weights that ship with the package, or a folder of weights.  [default: objects]",
    ),
    click.option(
        "--torch-model",
        metavar="PACKAGE.MODULE:FACTORY",
        help="Any PyTorch model instead: a function without arguments that returns it. The module "
        "may be in the current folder; its code is run.",
    ),
    click.option(
        "--size",
        type=click.IntRange(1, 4096),
        help="Side in pixels of the center square that the network sees.  [default: that of the "
        "card, or else 224]",
    ),
    choice(
        "--preprocess",
        ["imagenet", "caffe", "none"],
        "Input of --torch-model: imagenet is RGB normalized by ImageNet's mean and standard "
        "deviation, caffe is BGR minus the mean, none is RGB from 0 to 1.  [default: that of the "
        "factory, or else imagenet]",
    ),
)
LABELED: tuple[Option, ...] = (
    click.option(
        "--data",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="Instead of INPUTS, labeled images in a layout that `unpool evaluate` reads.",
    ),
    click.option("--split", metavar="NAME", help="The split of --data to use.  [default: all]"),
)
SEED = click.option(
    "--seed", type=click.IntRange(min=0), metavar="NUMBER", help="Random seed.  [default: 0]"
)
LIST_LAYERS = click.option("--list-layers", is_flag=True, help="List the layers and exit.")


def layer_options(default: str = "the last of each stage") -> tuple[Option, ...]:
    """The options for several layers."""
    text = f"A layer, see --list-layers; repeatable.  [default: {default}]"
    layers = click.option("--layer", "layers", multiple=True, metavar="NAME", help=text)
    return layers, LIST_LAYERS


def from_one(name: str, text: str, default: object, *names: str) -> Option:
    """An option for a number from 1."""
    number = click.IntRange(min=1)
    return click.option(name, *names, type=number, help=f"{text}  [default: {default}]")


def units_options(default: str, shown: int) -> tuple[Option, ...]:
    """The options for the maps of each layer that are shown."""
    return (
        several_units(f"A map to show; repeatable.  [default: {default}]"),
        from_one("--shown", "Number of maps shown per layer.", shown),
    )


RULE = click.option(
    "--rule",
    metavar="deconvnet|guided|saliency|CODE",
    help="How signals pass backward through ReLU and pooling; a code is one of Mahendran and "
    "Vedaldi's, such as TTF.  [default: deconvnet]",
)
PROJECTION: tuple[Option, ...] = (
    RULE,
    choice(
        "--overlap",
        ["sum", "overwrite", "center"],
        "Where pooling windows share their maximum: sum the signals, or overwrite by the last; "
        "center uses no switches.  [default: that of the rule]",
    ),
    click.option(
        "--from",
        "start",
        type=click.Choice(["activation", "one"]),
        help="The value that is propagated: the activation, or 1.  [default: activation]",
    ),
    activations_option(
        "Treatment of functions that have no rule, such as silu: as a ReLU, by their derivative, "
        "or with nothing passing through; for all, or by name. Repeatable."
    ),
    click.option(
        "--color/--gray",
        default=None,
        help="Projections in color, or the sum of their channels.  [default: color]",
    ),
)


@dataclass(frozen=True)
class Job:
    """What a command works on: checkpoints of a network, inputs and an output folder."""

    checkpoints: "list[Checkpoint]"  #: a single one, except for the command evolve
    inputs: tuple[str, ...]
    output: Path
    as_json: bool
    quiet: bool
    redo: bool = False  #: also what an earlier run finished
    unusable: dict[str, str] = field(default_factory=dict)  #: inputs without images, and why
    start: float = field(default_factory=time.perf_counter)

    @cached_property
    def loaded(self) -> "LoadedModel":
        """The model, at the first checkpoint."""
        return self.checkpoints[0].load()

    def labeled_images(self, options: dict[str, Any]) -> list[Path]:
        """The files of INPUTS or of --data, which is taken out of the options with --split."""
        from unpool.data import open_data

        only_one({"--unit": options["units"], "--shown": options.get("shown")})
        data, split = options.pop("data", None), options.pop("split", None)
        if data is not None:
            only_one({"images": self.inputs, "--data": data})
            return [s.image for s in open_data(data, split or "all", self.unusable).samples]
        if split is not None:
            raise OptionError("got --split without --data; add that, or leave it out")
        return self.images()

    def images(self) -> list[Path]:
        """The files of INPUTS; those that cannot be used are noted in `unusable`."""
        from unpool.vision.sources import find_images

        found = find_images(self.inputs, self.output)
        if any(source.path is None for source in found.sources):
            raise OptionError("got - for an image, and each is read twice; name files or folders")
        for unread in found.unread:
            console.print_error(str(unread))
        self.unusable.update(found.unusable)
        return [source.path for source in found.sources if source.path]

    def working(self, what: str) -> AbstractContextManager[console.Update]:
        """Make the output folder and show the progress of an analysis."""
        make_folder(self.output)
        return console.progress(what, self.quiet)

    def report(
        self,
        facts: Mapping[str, Any],
        failed: Mapping[str, str],
        line: str,
        table: Sequence[Sequence[str]] = (),
    ) -> int:
        """Print the result of an analysis; returns the exit code, 3 if some inputs failed.

        Args:
            facts: the result as plain values, for --json.
            failed: images that could not be read, and why.
            line: without --json, the last line.
            table: likewise, before it; its first row is the header.
        """
        failed = {**self.unusable, **failed}
        if self.as_json:
            seconds = round(time.perf_counter() - self.start, 3)
            known = {"output": str(self.output), "seconds": seconds}
            console.print_json({**known, **facts, "failed": failed})
        else:
            for reason in failed.values():
                console.print_error(reason)
            if table and not self.quiet:
                console.print_table(table)
            if not self.quiet:
                click.echo(line)
        return 3 if failed else 0

    def each_image(
        self,
        what: str,
        make: Callable[["Source", Path, "Progress"], Record],
        text: Callable[[Record], str],
        files: Callable[[Path], Iterable[Path]],
    ) -> int:
        """Work image by image, as `unpool.cli.images.each_image` does; returns the exit code.

        `make` also gets the path of the results without a suffix. `files` are those that may be
        written for such a path, so that no input is overwritten.
        """
        found, shown = find_inputs(self.inputs, self.output, files), (self.as_json, self.quiet)
        again: dict[str, Any] = {"network": self.loaded.digest(), "redo": self.redo}
        return each_image(found, self.output, make, text, what, *shown, **again)


def pop_given(options: dict[str, Any], *names: str) -> dict[str, Any]:
    """Remove some options from a dictionary; returns those that were in it."""
    return {name: options.pop(name) for name in names if name in options}


def _checkpoints(options: dict[str, Any]) -> "list[Checkpoint]":
    """The model that the options of `MODEL` name; they are removed."""
    from unpool.visualize.evolution import Checkpoint
    from unpool.visualize.preprocessing import load_model

    given = pop_given(options, "weights", "torch_model", "preprocess", "size", "device")
    only_one({"--weights": given.get("weights"), "--torch-model": given.get("torch_model")})
    return [Checkpoint("", partial(load_model, **given))]


def command(
    output: str,
    *options: Option,
    model: tuple[Option, ...] = MODEL,
    checkpoints: Callable[[dict[str, Any]], "list[Checkpoint]"] = _checkpoints,
) -> Callable[[Callable[..., int]], click.Command]:
    """Make a command of a function `(job, **options)`, which returns the exit code.

    Only options that were typed are passed on; the defaults are those of the application.

    Args:
        output: the default output folder.
        options: besides those that all commands have.
        model: the options that name the model.
        checkpoints: finds the checkpoints, and removes the options that it uses.
    """
    inputs = click.argument("inputs", nargs=-1)
    decorators = (inputs, *options, *model, output_option(output), DEVICE, JSON, QUIET)

    def decorate(function: Callable[..., int]) -> click.Command:
        @wraps(function)
        def run(
            inputs: tuple[str, ...],
            output: Path,
            as_json: bool,
            quiet: bool,
            list_layers: bool = False,
            redo: bool = False,
            **options: Any,
        ) -> int:
            given = typed(options)
            job = Job(checkpoints(given), inputs, output, as_json, quiet, redo)
            return _print_layers(job) if list_layers else function(job, **given)

        return click.command()(all_of(*decorators)(run))

    return decorate


def _print_layers(job: Job) -> int:
    from unpool.visualize.activations import list_layers

    found = list_layers(job.loaded.model, job.loaded.trial_image())
    if job.as_json:
        for layer in found:
            console.print_json({**layer._asdict(), "shape": list(layer.shape)})
    else:
        rows = [[layer.name, layer.kind, " x ".join(map(str, layer.shape))] for layer in found]
        console.print_table([["layer", "kind", "shape"], *rows])
    return 0
