"""How depth, streams and width of a network that draws show in its error.

Each variant learns the same views of the same styles, as long, in the same order; what counts is
the error at azimuths that are held out: MSE of RGB inside the mask and IoU of the mask, see
`unpool.generate.training.measure`. Sizes and trainings are small: what is
compared is the variants with each other, not with the paper.

Begun again, the program goes on where it was stopped.

usage: python benchmarks/capacity.py --data FOLDER [--steps N] [--styles N] [-o docs]
writes capacity.json
"""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from unpool.bench.machine import describe
from unpool.data.chairs import open_chairs, read_views
from unpool.files import atomic
from unpool.generate.training import Views, build, fit, lessons, measure, split_views
from unpool.recipes import Generation, Rate

BASE = Generation(
    "capacity",
    (Rate(1, 1e-3),),
    size=64,
    code=128,
    shared=256,
    widths=(96, 64, 32),
    mask_widths=(32, 24, 16),
    mask_maps=1,
    initialization="xavier",
    batch=32,
    held_out=(4, 9, 14, 19, 24, 29),
    plain=1.0,
    optimizer="adamw",
    bias_lr=1.0,
    falling=True,
)

VARIANTS: dict[str, dict[str, Any]] = {
    "two streams": {},
    "two streams, half as wide": {
        "code": 64,
        "shared": 128,
        "widths": (48, 32, 16),
        "mask_widths": (16, 12, 8),
    },
    "two streams, twice as wide": {
        "code": 256,
        "shared": 512,
        "widths": (192, 128, 64),
        "mask_widths": (64, 48, 32),
    },
    "one stream, deep": {"streams": 1, "mask_widths": None},
    "one stream, deep, half as wide": {
        "streams": 1,
        "mask_widths": None,
        "code": 64,
        "shared": 128,
        "widths": (48, 32, 16),
    },
}


def train(recipe: Generation, views: Views, chairs: Any) -> dict[str, float]:
    """The figures of a variant after its training."""
    learned, held = split_views(chairs, recipe.held_out)
    torch.manual_seed(recipe.seed)
    net = build(recipe, len(chairs.styles)).to(memory_format=torch.channels_last)
    start, loss = time.perf_counter(), float("nan")
    for step in fit(net, lessons(views, learned, recipe, recipe.batch), recipe):
        loss = step.loss
    found = measure(net, views.take(held))
    return {
        "parameters": sum(p.numel() for p in net.parameters()),
        **found._asdict(),
        "last_loss": loss,
        "seconds": round(time.perf_counter() - start, 1),
    }


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--steps", type=click.IntRange(min=1), default=800, help="Of each training.")
@click.option("--styles", type=click.IntRange(min=1), default=20, help="The first so many.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("docs"))
def main(data: Path, steps: int, styles: int, output: Path) -> None:
    """Train every variant, write, and print one JSON object."""
    chairs = open_chairs(data)
    few = tuple(view for view in chairs.views if view.style < styles)
    chairs = chairs._replace(styles=chairs.styles[:styles], views=few)
    columns = zip(*((v.style, v.azimuth, v.elevation) for v in few), strict=True)
    views = Views(read_views(chairs, BASE.size), *(np.array(column) for column in columns))
    protocol = {"steps": steps, "styles": len(chairs.styles), "size": BASE.size}
    file, known = output / "capacity.json", {}
    if file.exists():
        before = json.loads(file.read_text())
        if before["protocol"] != protocol:
            raise SystemExit(f"{file} is of {before['protocol']}; move it away, or take the same")
        known = before["variants"]
    rates = (Rate(steps, 1e-3),)
    for name, changed in VARIANTS.items():
        if name not in known:
            recipe = dataclasses.replace(BASE, rates=rates, warmup=min(50, steps), **changed)
            known[name] = train(recipe, views, chairs)
            print(f"{name}: {known[name]}", flush=True)
            told = {"protocol": protocol, "machine": describe(), "variants": known}
            with atomic(file) as temporary:
                temporary.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps({"protocol": protocol, "variants": known}))


if __name__ == "__main__":
    main()
