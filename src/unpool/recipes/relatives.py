"""Recipes of SegNet, CRF-RNN and DeepLab: the authors' and ours."""

from dataclasses import replace
from typing import Any

from unpool.recipes.segment import CAFFE, FCN8S, Phase, SegmentationRecipe


def _segnet(
    name: str, network: str, stages: int, steps: int, lr: float, **changes: Any
) -> SegmentationRecipe:
    """The solver of the authors' tutorial for CamVid, with their class weights."""
    return SegmentationRecipe(
        name,
        (Phase("all", stages, steps, lr, lr, lr, sources=("images",)),),
        network=network,
        tied=False,
        code=None,
        centered=False,
        batch=4,
        flip=False,
        class_weights=_CAMVID,
        weight_decay=0.0005,
        decay_norm=True,
        coarse_weight=0.0,
        trunk_norm=True,
        validate_every=500,
        save_every=500,
        statistics_passes=94,
        long_side=480,
        **CAFFE,
        **changes,
    )


_CAMVID = (
    *(0.2595, 0.1826, 4.5640, 0.1417, 0.9051, 0.3826, 9.6446, 1.8418, 0.6823, 6.2478, 7.3614),
)  # sky, building, pole, road, pavement, tree, sign, fence, car, pedestrian, bicyclist

SEGNET = _segnet("segnet", "SegNet", stages=5, steps=40_000, lr=0.001, decay_shift=False)
"""SegNet on CamVid, from VGG-16. Badrinarayanan, Kendall, Cipolla 2017; the released tutorial."""

SEGNET_BASIC = _segnet(
    "segnet-basic", "SegNetBasic", stages=4, steps=10_000, lr=0.1, trunk=((1, 64),) * 4, window=7
)
"""SegNet-Basic on CamVid, from random weights; the same sources."""

BAYESIAN_SEGNET = _segnet(
    name="bayesian-segnet",
    network="SegNet",
    stages=5,
    steps=60_000,
    lr=0.001,
    decay_shift=False,
    dropout=0.5,
    wide_head=True,
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
    batch=1,
    momentum=0.99,
    weight_decay=2e-9,
    coarse_weight=0.0,
    validate_every=4000,
    save_every=1000,
    long_side=500,
    **CAFFE,
)
"""CRF-RNN on whole images; set `start` to an FCN-8s. Zheng et al. 2015; the released solver.

Its loss is a sum over 500² pixels, with learning rates of 1e-13, 1e-9 for the kernels and 1e-10 for
the compatibility, and a weight decay of 5e-4. Here the loss is a mean, so rates are multiplied by
500² and the decay is divided by it. The number of steps is ours."""

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
"""A narrow CRF-RNN from the weights `objects-fcn8s`, on crops, with AdamW: minutes on a CPU."""


def _camvid(name: str, *phases: Phase, **changes: Any) -> SegmentationRecipe:
    """Networks for the road scenes of CamVid, trained on 367 images in hours on a CPU."""
    return SegmentationRecipe(
        name,
        phases,
        code=None,
        batch=6,
        crop_long_side=(360, 640),
        median_frequency=0.5,
        long_side=480,
        validate_every=200,
        save_every=20,
        **changes,
    )


_FROM_COARSE_TO_FINE = (
    Phase("1/16", 1, 80, 1e-3),
    Phase("1/16, trunk", 1, 80, 5e-4, trunk_lr=5e-5, trunk_from=4),
    Phase("1/8", 2, 150, 2e-4, 2e-4, 5e-5, 4),
    Phase("1/4", 3, 100, 2e-4, 2e-4, 3e-5, 4),
    Phase("1/2", 4, 100, 2e-4, 2e-4, 3e-5, 4),
    Phase("1/1", 5, 290, 3e-4, 2e-4, 3e-5, 4),
)

SEGNET_CAMVID = _camvid("segnet-camvid", *_FROM_COARSE_TO_FINE, network="SegNet")
"""SegNet on CamVid, from VGG-16, trained from coarse to fine in a few hours on a CPU."""

DECONVNET_CAMVID = _camvid("deconvnet-camvid", *_FROM_COARSE_TO_FINE, dropout=0.2)
"""DeconvNet without code layers on CamVid, trained in the same way."""

BAYESIAN_SEGNET_CAMVID = _camvid(
    "bayesian-segnet-camvid",
    Phase("all", 5, 250, 2e-4, 2e-4, 2e-5, 4),
    network="SegNet",
    dropout=0.5,
    coarse_weight=0.0,
)
"""Adds dropout, in six places as published, to a SegNet trained without it, given as `start`."""


def _deeplab(name: str, batch: int, size: int, **changes: Any) -> SegmentationRecipe:
    """The authors' solver for PASCAL VOC: the last layer learns ten times as fast."""
    phase = Phase(
        "all", 1, 6_000, 0.01, 0.001, trunk_lr=0.001, sources=("crops",), drop_every=2_000
    )
    return SegmentationRecipe(
        name,
        (phase,),
        network="DeepLab",
        batch=batch,
        size=size,
        dropout=0.5,
        weight_decay=0.0005,
        validate_every=500,
        save_every=500,
        long_side=500,
        **CAFFE,
        **changes,
    )


DEEPLAB = _deeplab(
    "deeplab", batch=20, size=306, window=4, dilation=4, pool_kernel=2, pool_average=False
)
"""DeepLab with 4 x 4 taps ("vgg128_noup"), from VGG-16. Chen et al. 2015; the released solver."""

DEEPLAB_LARGEFOV = _deeplab("deeplab-largefov", batch=30, size=321, code=1024, window=3)
"""DeepLab-LargeFOV, with the same solver; from VGG-16 with every fourth filter of fc6 and fc7."""

DEEPLAB_SMALL = replace(
    FCN8S,
    name="deeplab-small",
    network="DeepLab",
    dilation=6,
    size=225,
    phases=(
        Phase("frozen", 1, 400, 1e-3, 1e-3, sources=("views", "pasted")),
        Phase("all", 1, 200, 2e-4, 2e-4, trunk_lr=1e-5, trunk_from=4),
    ),
)
"""A narrow DeepLab-LargeFOV, for few images on a CPU."""
