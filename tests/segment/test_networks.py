"""Each network of the recipes in a training run, on tiny trunks."""

import dataclasses

import pytest
import torch

from tests.segment.test_train import FILES, TINY, files, weights
from unpool import Segmenter, train
from unpool.errors import OptionError
from unpool.models import FCN, from_pretrained
from unpool.recipes.segment import Phase
from unpool.vision.images import read_image

TINY_FCN = dataclasses.replace(
    TINY,
    name="tiny-fcn",
    network="FCN",
    phases=(Phase("all", 1, 4, 1e-2, trunk_lr=1e-3),),
    trunk=((1, 6), (1, 8), (1, 8)),
    code=8,
    stride=4,
    window=3,
    pad=1,
    at_once=True,
    checkpointing=True,
)


TINY_DEEPLAB = dataclasses.replace(
    TINY_FCN,
    name="tiny-deeplab",
    network="DeepLab",
    phases=(Phase("all", 1, 2, 1e-2, 1e-3, trunk_lr=1e-3, sources=("crops",)),),
    size=33,
    dilation=2,
)


def test_an_fcn_writes_the_same_files_and_its_weights_segment(data, tmp_path, stopped_at):
    train(data, tmp_path / "run", TINY_FCN)
    assert files(tmp_path / "run") == FILES
    net, card = from_pretrained(tmp_path / "run/weights")
    assert isinstance(net, FCN)
    assert net.at_once
    assert card.recipe["network"] == "FCN"
    found = Segmenter.from_pretrained(tmp_path / "run/weights")(read_image(data / "images/0.png"))
    assert found.labels.shape == (40, 52)
    with stopped_at(3) as report:
        train(data, tmp_path / "again", TINY_FCN, report=report)
    train(data, tmp_path / "again", TINY_FCN, resume=True)
    assert weights(tmp_path / "again") == weights(tmp_path / "run")
    plain = dataclasses.replace(TINY_FCN, checkpointing=False)
    train(data, tmp_path / "plain", plain)
    assert weights(tmp_path / "plain") == weights(tmp_path / "run")


@pytest.mark.parametrize("network", ["SegNet", "SegNetBasic"])
def test_whole_images_train_a_segnet(data, tmp_path, stopped_at, network):
    trunk = {"SegNet": ((2, 6), (1, 8)), "SegNetBasic": ((1, 6), (1, 6))}[network]
    recipe = dataclasses.replace(
        *(TINY,),
        network=network,
        trunk=trunk,
        window=3,
        phases=(Phase("all", 2, 4, 1e-2, trunk_lr=1e-2, sources=("images",)),),
        centered=False,
        trunk_norm=True,
        image_size=(40, 56),
        median_frequency=1.0,
    )
    train(data, tmp_path / "run", recipe)
    net, card = from_pretrained(tmp_path / "run/weights")
    assert type(net).__name__ == network
    assert net.dropout == 0.2
    assert card.mean == (0, 0, 0)
    norms = [layer for layer in net.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert all((norm.running_mean != 0).any() for norm in norms)  # the trunk's, too
    found = Segmenter.from_pretrained(tmp_path / "run/weights")(read_image(data / "images/0.png"))
    assert found.labels.shape == (40, 52)
    with stopped_at(3) as report:
        train(data, tmp_path / "again", recipe, report=report)
    train(data, tmp_path / "again", recipe, resume=True)
    assert weights(tmp_path / "again") == weights(tmp_path / "run")


def test_an_fcn_starts_a_crf_rnn_that_is_trained_through_its_crf(data, tmp_path, stopped_at):
    train(data, tmp_path / "fcn", TINY_FCN)
    recipe = dataclasses.replace(
        *(TINY_FCN,),
        network="CRFRNN",
        phases=(Phase("all", 1, 2, 1e-2, 1e-3, 1e-3),),
        start=str(tmp_path / "fcn/weights"),
        iterations=(2, 3),
    )
    train(data, tmp_path / "run", recipe)
    assert files(tmp_path / "run") == FILES | {"checkpoints/start.pt"}
    (before, _), (net, card) = (from_pretrained(tmp_path / n / "weights") for n in ("fcn", "run"))
    assert net.iterations == (2, 3)
    assert card.recipe["network"] == "CRFRNN"
    moved = {name: (p - q).abs().max() for (name, p), q in
             zip(net.net.named_parameters(), before.parameters(), strict=True)}  # fmt: skip
    assert [name for name, most in moved.items() if not 0 < most < 0.01] == [
        "score.upscore4.weight"
    ]
    crf = [p.diagonal().detach().numpy() for p in net.crf.parameters()]
    steps = [abs(p - q).max() for p, q in zip(crf, (3, 5, 1), strict=True)]
    assert steps[0] > 5 * steps[2] > 0  # at a tenth of the rate
    found = Segmenter.from_pretrained(tmp_path / "run/weights")(read_image(data / "images/0.png"))
    assert found.labels.shape == (40, 52)
    with stopped_at(1) as report:
        train(data, tmp_path / "again", recipe, report=report)
    train(data, tmp_path / "again", recipe, resume=True)
    assert weights(tmp_path / "again") == weights(tmp_path / "run")


@pytest.mark.parametrize("changes", [{}, {"pool_kernel": 2, "size": 34}, {"multi_scale": True}])
def test_a_deeplab_is_trained_on_its_grid(data, tmp_path, stopped_at, changes):
    recipe = dataclasses.replace(TINY_DEEPLAB, **changes)
    train(data, tmp_path / "run", recipe)
    net, card = from_pretrained(tmp_path / "run/weights")
    assert type(net).__name__ == card.recipe["network"] == "DeepLab"
    assert net.kernel == recipe.pool_kernel
    assert bool(net.branches) == recipe.multi_scale
    found = Segmenter.from_pretrained(tmp_path / "run/weights")(read_image(data / "images/0.png"))
    assert found.labels.shape == (40, 52)
    with stopped_at(1) as report:
        train(data, tmp_path / "again", recipe, report=report)
    train(data, tmp_path / "again", recipe, resume=True)
    assert weights(tmp_path / "again") == weights(tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 34}, r"got size=34 for a DeepLab, .* of 2n \+ 1 pixels; set size=33 or size=35"),
        ({"pool_kernel": 2}, r"got size=33 .* of 2n \+ 2 pixels; set size=32 or size=34"),
        ({"image_size": (41, 60), "phases": (Phase("all", 1, 2, 1e-2, sources=("images",)),)},
         r"got image_size\.1=60 .* set image_size\.1=59 or image_size\.1=61"),
        ({"code": None}, "code"),
    ],
)  # fmt: skip
def test_crops_beside_the_grid_of_a_deeplab_are_refused(data, tmp_path, changes, message):
    with pytest.raises(OptionError, match=message):
        train(data, tmp_path / "run", dataclasses.replace(TINY_DEEPLAB, **changes))


def test_a_segnet_basic_has_one_width(data, tmp_path):
    recipe = dataclasses.replace(TINY, network="SegNetBasic", phases=TINY.phases[:1])
    with pytest.raises(OptionError, match="wanted one convolution a stage, all of as many maps"):
        train(data, tmp_path / "run", recipe)


@pytest.mark.parametrize("deep", [{"stages": 3}, {"trunk_from": 3}])
def test_more_stages_than_the_trunk_has_are_refused(data, tmp_path, deep):
    phase = dataclasses.replace(TINY.phases[0], **deep)
    with pytest.raises(OptionError, match=r"phase 'coarse'\); this trunk has 2 stages"):
        train(data, tmp_path / "run", dataclasses.replace(TINY, phases=(phase,)))
    assert not (tmp_path / "run").exists()
