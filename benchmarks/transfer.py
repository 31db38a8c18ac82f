"""What a network knows of views of objects that it has seen from few sides.

Target styles are seen from 1, 2, 4, 8 or 16 azimuths, at both elevations; all views of the other
styles are seen, too (with transfer), or nothing else (without). What counts is the error of the
targets at 15 azimuths that are never seen: the mean squared error of RGB inside the mask over all
pixels, 0 to 1. The baselines see what the network sees of the targets: the nearest view, and the
two neighbors blended pixel by pixel. Every style is seen equally often, and no picture is
transformed.

Trainings take turns, the largest differences first, and each is kept as soon as it is done: begun
again, the program goes on where it was stopped.

usage: python benchmarks/transfer.py --data FOLDER [--steps N] [--targets N] [--seeds N] [-o docs]
writes transfer.json and transfer.png

Dosovitskiy, Springenberg, Brox 2015, section on the transfer of knowledge.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from unpool.bench.machine import describe
from unpool.data.chairs import AZIMUTHS, Chairs, open_chairs
from unpool.files import atomic
from unpool.generate import Generator
from unpool.generate.baselines import baselines, draw_views, errors, premultiplied
from unpool.generate.lessons import Views, lessons, load_views
from unpool.generate.training import build, fit
from unpool.recipes import Generation, Rate

SIZE = 64
COUNTS = (1, 2, 4, 8, 16)
WAYS = ("with transfer", "without transfer")
UNSEEN = range(1, 31, 2)  # numbers of the azimuths on which everything is measured


def recipe_of(steps: int, seed: int) -> Generation:
    """A compact network, for a minute or so on two cores."""
    return Generation(
        "transfer",
        (Rate(steps, 1e-3),),
        size=SIZE,
        code=128,
        shared=256,
        widths=(96, 64, 32),
        mask_widths=(32, 24, 16),
        mask_maps=1,
        initialization="xavier",
        batch=32,
        plain=1.0,
        optimizer="adamw",
        bias_lr=1.0,
        warmup=min(50, steps),
        falling=True,
        seed=seed,
    )


def choose_targets(styles: int, count: int, seed: int) -> list[int]:
    """Other targets for every seed."""
    order = np.random.default_rng(0).permutation(styles)
    return sorted(order[count * seed : count * (seed + 1)].tolist())


def seen_azimuths(count: int) -> list[int]:
    """Numbers of azimuths evenly around, none of `UNSEEN`; those of fewer are among those of more.

    >>> seen_azimuths(4)
    [0, 8, 16, 24]
    """
    return list(range(0, 31, 32 // count))[:count]


def numbers_of(chairs: Chairs, styles: Sequence[int], azimuths: Sequence[int]) -> list[int]:
    """The views of some styles from some azimuths."""
    chosen = {AZIMUTHS[a] for a in azimuths}
    wanted = set(styles)
    return [i for i, v in enumerate(chairs.views) if v.style in wanted and v.azimuth in chosen]


def balanced(chairs: Chairs, numbers: Sequence[int]) -> NDArray[np.int64]:
    """The views, those of styles that have few repeated until all have about as many."""
    by_style: dict[int, list[int]] = {}
    for i in numbers:
        by_style.setdefault(chairs.views[i].style, []).append(i)
    most = max(map(len, by_style.values()))
    return np.array([i for own in by_style.values() for i in own * round(most / len(own))])


def train(
    views: Views, chairs: Chairs, learned: NDArray[np.int64], recipe: Generation
) -> Generator:
    """A network that has learned from these views."""
    torch.manual_seed(recipe.seed)
    net = build(recipe, len(chairs.styles)).to(memory_format=torch.channels_last)
    for step in fit(net, lessons(views, learned, recipe, recipe.batch), recipe):
        if step.n % 100 == 0:
            print(f"  step {step.n}: loss {step.loss:.1f}", flush=True)
    return Generator(net, list(chairs.styles), device="cpu")


def measure(generator: Generator, chairs: Chairs, views: Views, tested: Sequence[int]) -> float:
    """The error of a network on views."""
    chosen = [chairs.views[i] for i in tested]
    columns = zip(*((v.style, v.azimuth, v.elevation) for v in chosen), strict=True)
    drawn = draw_views(generator, *map(list, columns))
    return float(errors(drawn, premultiplied(views.pictures[list(tested)])).mean())


def points(chairs: Chairs, views: Views, options: dict[str, Any], known: dict[str, Any]) -> Any:
    """All errors, by name; those that are known are not measured again."""
    styles = range(len(chairs.styles))
    for seed in range(options["seeds"]):
        targets = choose_targets(len(styles), options["targets"], seed)
        tested = numbers_of(chairs, targets, UNSEEN)
        for count in COUNTS:
            seen = numbers_of(chairs, targets, seen_azimuths(count))
            names = {way: f"{way}, {count} views, seed {seed}" for way in (*WAYS, "baselines")}
            if names["baselines"] not in known:
                made = baselines(chairs, views.pictures, seen, tested)
                truth = premultiplied(views.pictures[tested])
                yield (
                    names["baselines"],
                    {w: float(errors(p, truth).mean()) for w, p in made.items()},
                )
            for way in WAYS:
                if names[way] in known:
                    continue
                sources = [s for s in styles if s not in targets] if way == WAYS[0] else []
                learned = balanced(chairs, seen + numbers_of(chairs, sources, range(31)))
                start = time.perf_counter()
                network = train(views, chairs, learned, recipe_of(options["steps"], seed))
                error = measure(network, chairs, views, tested)
                yield names[way], {"mse": error, "seconds": round(time.perf_counter() - start, 1)}


def summary(known: dict[str, Any], seeds: int) -> dict[str, dict[str, list[float]]]:
    """By curve the mean over the seeds, and each, for every number of views that is complete."""
    found: dict[str, dict[str, list[float]]] = {}
    for curve in (*WAYS, "nearest", "blending"):
        for count in COUNTS:
            keys = [f"{curve}, {count} views, seed {s}" for s in range(seeds)]
            if curve not in WAYS:
                keys = [key.replace(curve, "baselines", 1) for key in keys]
            values = [known[key]["mse" if curve in WAYS else curve] for key in keys if key in known]
            if len(values) == seeds:
                found.setdefault(curve, {})[str(count)] = [float(np.mean(values)), *values]
    return found


def plot(path: Path, curves: dict[str, dict[str, list[float]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for (name, found), style in zip(curves.items(), ("o-", "s-", "^:", "v:"), strict=False):
        counts = [int(count) for count in found]
        axes.plot(counts, [values[0] for values in found.values()], style, label=name)
        for values, count in zip(found.values(), counts, strict=True):
            axes.plot([count] * len(values[1:]), values[1:], "_", color="gray")
    axes.set(xscale="log", yscale="log", xlabel="azimuths seen of a target")
    axes.set_ylabel("error at azimuths never seen (MSE)")
    axes.set_xticks(COUNTS, labels=map(str, COUNTS))
    axes.minorticks_off()
    axes.legend(frameon=False)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--steps", type=click.IntRange(min=1), default=800, help="Of each training.")
@click.option("--targets", type=click.IntRange(min=1), default=6, help="Styles of a seed.")
@click.option("--seeds", type=click.IntRange(min=1), default=2)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("docs"))
def main(data: Path, output: Path, **options: int) -> None:
    """Measure, write, and print the curves."""
    file = output / "transfer.json"
    chairs = open_chairs(data)
    if options["targets"] * options["seeds"] >= len(chairs.styles):
        raise SystemExit(f"{data} has {len(chairs.styles)} styles, too few for these targets")
    protocol = {**options, "styles": len(chairs.styles), "size": SIZE}
    known: dict[str, Any] = {}
    if file.exists():
        before = json.loads(file.read_text())
        if before["protocol"] != protocol:
            raise SystemExit(f"{file} is of {before['protocol']}; move it away, or take the same")
        known = before["points"]
    views = load_views(chairs, SIZE)
    for name, found in points(chairs, views, options, known):
        print(f"{name}: {found}", flush=True)
        known[name] = found
        told = {"protocol": protocol, "machine": describe(), "points": known}
        with atomic(file) as temporary:
            temporary.write_text(
                json.dumps({**told, "curves": summary(known, options["seeds"])}, indent=1)
            )
    curves = summary(known, options["seeds"])
    plot(output / "transfer.png", curves)
    for name, found in curves.items():
        print(f"{name:17}", *(f"{count}: {v[0]:.5f}" for count, v in found.items()), sep="  ")
    print(json.dumps({"protocol": protocol, "curves": curves}))


if __name__ == "__main__":
    main()
