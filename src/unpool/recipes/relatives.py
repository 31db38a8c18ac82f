"""Recipes of the networks beside DeconvNet and FCN, by their authors and ours."""

from dataclasses import replace
from typing import Any

from unpool.recipes.segment import FCN8S, Phase, SegmentationRecipe


def _segnet(name: str, network: str, steps: int, lr: float, **changes: Any) -> SegmentationRecipe:
    """The solver of the authors' tutorial for CamVid, with their weights of the classes."""
    return SegmentationRecipe(
        name,
        (Phase("all", 1, steps, lr, trunk_lr=lr, sources=("images",)),),
        network=network,
        code=None,
        centered=False,
        batch=4,
        flip=False,
        color=0.0,
        class_weights=_CAMVID,
        optimizer="sgd",
        weight_decay=0.0005,
        decay_norm=True,
        bias_lr=2.0,
        warmup=0,
        schedule="constant",
        clip=None,
        coarse_weight=0.0,
        trunk_norm=True,
        validate_every=500,
        save_every=500,
        statistics_passes=94,
        long_side=480,
        **changes,
    )


_CAMVID = (
    *(0.2595, 0.1826, 4.5640, 0.1417, 0.9051, 0.3826, 9.6446, 1.8418, 0.6823, 6.2478, 7.3614),
)  # sky, building, pole, road, pavement, tree, sign, fence, car, pedestrian, bicyclist

SEGNET = _segnet("segnet", "SegNet", 40_000, 0.001, decay_shift=False)
"""SegNet on CamVid, from VGG-16. Badrinarayanan, Kendall, Cipolla 2017; the released tutorial."""

SEGNET_BASIC = _segnet(
    *("segnet-basic", "SegNetBasic", 10_000, 0.1), trunk=((1, 64),) * 4, window=7
)
"""SegNet-Basic on CamVid, from random weights; the same sources."""

BAYESIAN_SEGNET = _segnet(
    *("bayesian-segnet", "SegNet", 60_000, 0.001), decay_shift=False, dropout=0.5
)
"""Bayesian SegNet on CamVid. Kendall, Badrinarayanan, Cipolla 2015; the released tutorial."""

CRFRNN = SegmentationRecipe(
    name="crfrnn",
    phases=(Phase("all", 1, 100_000, 2.5e-4, 2.5e-8, 2.5e-8),),
    network="CRFRNN",
    dropout=0.5,
    size=500,
    crop_long_side=(500, 500),
    aspect=0.0,
    flip=False,
    color=0.0,
    batch=1,
    optimizer="sgd",
    momentum=0.99,
    weight_decay=2e-9,
    bias_lr=2.0,
    warmup=0,
    schedule="constant",
    clip=None,
    coarse_weight=0.0,
    validate_every=4000,
    save_every=1000,
    long_side=500,
)
"""CRF-RNN on whole images, to be started from an FCN-8s, `start=`. Zheng et al. 2015; the released
solver, whose loss is a sum over 500² pixels: times its rates of 1e-13, 1e-9 for the kernels and
1e-10 for the compatibility, by its decay of 5e-4. The number of steps is ours."""

CRFRNN_SMALL = replace(
    FCN8S,
    name="crfrnn-small",
    network="CRFRNN",
    start="objects-fcn8s",
    dropout=0.3,
    batch=4,
    size=192,
    crop_long_side=(320, 448),
    color=0.1,
    presence_threshold=0.85,
    warmup=10,
    validate_every=75,
    save_every=25,
    phases=(Phase("all", 1, 150, 1e-2, 1e-5, 1e-5, 4),),
)
"""The same from the weights `objects-fcn8s`, narrow, on crops, with AdamW: minutes on a CPU."""
