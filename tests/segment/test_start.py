"""Warm starts, and weight averaging with them."""

import dataclasses
import json
import shutil

import pytest
import torch

from tests.models.test_fcn import NARROW, THIN, layers
from tests.segment.test_networks import TINY_FCN
from unpool import train
from unpool.errors import OptionError, WeightsError
from unpool.models import (
    CRFRNN,
    FCN,
    DeconvNet,
    SegNet,
    SqueezeNet,
    from_pretrained,
    load_vgg,
    save_pretrained,
)
from unpool.models.fast import fold
from unpool.models.fcn import Interpolation
from unpool.recipes import SegmentationRecipe
from unpool.recipes.segment import Phase
from unpool.segment.start import transfer_weights, trunk_of
from unpool.training.loop import Step
from unpool.training.run import load_state, save_state

SMALL = ((1, 4), (2, 6))
TINY = SegmentationRecipe(
    "tiny",
    phases=(Phase("all", 2, 3, 1e-2, 1e-2, 1e-2),),
    trunk=((1, 6), (1, 8)),
    code=None,
    size=32,
    batch=2,
    crop_long_side=(32, 64),
    coarse_weight=0.0,
    validate_every=3,
    statistics_passes=2,
    long_side=48,
)


@pytest.fixture
def start(data, tmp_path):
    train(data, tmp_path / "first", TINY)
    return tmp_path / "first/weights"


def test_a_warm_start_keeps_the_license_and_aggregation_of_its_weights(data, start, tmp_path):
    card = json.loads((start / "card.json").read_text())
    card |= {"license": "research use", "aggregate": "mean"}
    (start / "card.json").write_text(json.dumps(card))
    (data / "classes.txt").write_text("background\nsquare\nowl\n")  # a score layer of its own
    phase = Phase("all", 2, 1, 1e-9, 1e-9)
    recipe = dataclasses.replace(TINY, start=str(start), phases=(phase,))
    with pytest.warns(UserWarning, match="owl"):
        train(data, tmp_path / "second", recipe)
    (old, _), (new, card) = (from_pretrained(tmp_path / n / "weights") for n in ("first", "second"))
    for name, tensor in old.trunk.state_dict().items():
        torch.testing.assert_close(new.trunk.state_dict()[name], tensor)
    assert new.classes == 3
    assert card.aggregate == "mean"
    assert card.license.endswith(f"initialized from {start}: research use")


def test_the_finished_weights_are_averaged_with_the_initial_ones(data, start, tmp_path):
    recipe = dataclasses.replace(TINY, start=str(start))
    runs = {fraction: tmp_path / f"fraction-{fraction}" for fraction in (0, 0.25, 1)}
    for fraction, folder in runs.items():
        train(data, folder, dataclasses.replace(recipe, average_with_start=fraction))
    old = from_pretrained(start)[0].state_dict()
    learned, mean, same = (from_pretrained(f / "weights")[0].state_dict() for f in runs.values())
    for name, tensor in old.items():
        if "running" in name or not tensor.is_floating_point():
            continue  # batch norm's statistics are taken anew, of the mean
        torch.testing.assert_close(mean[name], 0.75 * learned[name] + 0.25 * tensor)
        assert torch.equal(same[name], tensor), name
    scores = "seg-score-voc.weight"
    assert (learned[scores] - old[scores]).abs().max() > 1e-3


def refused(data, tmp_path, recipe, error, message, **options):
    """That a training run is refused before any step, and leaves no run folder."""
    with pytest.raises(error, match=message):
        train(data, tmp_path / "refused", recipe, **options)
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("background\nowl\n", "class 1 is square, and data whose class 1 is owl"),
        ("background\nsquare\nowl\n", "class 2 is not named, and data whose class 2 is owl"),
    ],
)
def test_averaging_with_weights_of_other_classes_is_refused(data, start, tmp_path, names, message):
    (data / "classes.txt").write_text(names)
    recipe = dataclasses.replace(TINY, start=str(start), average_with_start=0.5)
    refused(
        data, tmp_path, recipe, OptionError, f"{message}; .*same names.*set average_with_start=0"
    )


def test_averaging_with_weights_whose_card_names_no_classes_is_refused(data, start, tmp_path):
    card = json.loads((start / "card.json").read_text())
    (start / "card.json").write_text(json.dumps(card | {"classes": None}))
    recipe = dataclasses.replace(TINY, start=str(start), average_with_start=0.5)
    refused(data, tmp_path, recipe, OptionError, "class 0 is not named.*write the same names")


def test_averaging_two_architectures_is_refused(data, start, tmp_path):
    recipe = dataclasses.replace(TINY, start=str(start), average_with_start=0.5, code=8)
    message = r"of another architecture.*set average_with_start=0"
    refused(data, tmp_path, recipe, OptionError, message)


def test_averaging_with_other_trunk_weights_is_refused(data, start, tmp_path):
    recipe = dataclasses.replace(TINY, start=str(start), average_with_start=0.5)
    message = r"leave trunk_weights out, or set average_with_start=0"
    (tmp_path / "vgg.pth").touch()
    refused(data, tmp_path, recipe, OptionError, message, trunk_weights=tmp_path / "vgg.pth")


@pytest.mark.parametrize("fraction", [0, 0.5])
@pytest.mark.parametrize("other", [SqueezeNet, FCN])
def test_a_warm_start_from_another_network_is_refused(data, tmp_path, other, fraction):
    net = SqueezeNet(2) if other is SqueezeNet else FCN(2, TINY.trunk, 8, stride=4)
    save_pretrained(net, tmp_path / "other", {})
    recipe = dataclasses.replace(TINY, start=str(tmp_path / "other"), average_with_start=fraction)
    message = f"got {other.__name__} weights to start from, .*; set start to DeconvNet weights"
    refused(data, tmp_path, recipe, OptionError, message)


def test_a_warm_start_of_an_fcn_from_a_trunk_with_batch_norm_is_refused(data, start, tmp_path):
    recipe = dataclasses.replace(TINY, network="FCN", stride=4, code=8, start=str(start))
    message = "got DeconvNet weights to start from, .*; set start to FCN weights"
    refused(data, tmp_path, recipe, OptionError, message)


def test_layers_that_the_start_does_not_fit_are_noted(data, tmp_path):
    card = {"classes": ["background", "square"]}
    recipe = dataclasses.replace(TINY_FCN, phases=(Phase("all", 1, 1, 1e-9),))
    for code in (recipe.code, 5):
        net = FCN(2, recipe.trunk, code, recipe.stride, recipe.pad, recipe.window, at_once=True)
        given = dataclasses.replace(
            recipe, start=str(save_pretrained(net, tmp_path / f"{code}", card))
        )
        if code == recipe.code:
            assert train(data, tmp_path / "fitting", given)["notes"] == []
            continue
        with pytest.warns(UserWarning, match="does not fit fc6, fc7, which keep their first weig"):
            notes = train(data, tmp_path / "run", given)["notes"]
        assert len(notes) == 1


@pytest.mark.parametrize("trunk", [((1, 6), (1, 9)), ((1, 6),)])
def test_a_warm_start_from_another_trunk_is_refused(data, start, tmp_path, trunk):
    phase = Phase("all", len(trunk), 1, 1e-3)
    recipe = dataclasses.replace(TINY, start=str(start), trunk=trunk, phases=(phase,))
    refused(data, tmp_path, recipe, OptionError, r"another trunk; set trunk=\[\[1,6\],\[1,8\]\]$")


def test_a_warm_start_from_missing_weights_is_refused(data, tmp_path):
    recipe = dataclasses.replace(TINY, start=str(tmp_path / "none"))
    refused(data, tmp_path, recipe, WeightsError, "none")


@pytest.mark.parametrize("classes", [7, ["background", None], "background, square"])
def test_a_card_with_classes_that_are_no_names_is_refused(data, start, tmp_path, classes):
    card = json.loads((start / "card.json").read_text()) | {"classes": classes}
    (start / "card.json").write_text(json.dumps(card))
    recipe = dataclasses.replace(TINY, start=str(start), average_with_start=0.5)
    refused(data, tmp_path, recipe, WeightsError, "classes .* in the card of .*wanted 2 names")


@pytest.fixture
def mean(start):
    """Of two steps, with a checkpoint after the first."""
    phase = Phase("all", 2, 2, 1e-2, 1e-2, 1e-2)
    return dataclasses.replace(
        TINY, start=str(start), average_with_start=0.5, phases=(phase,), save_every=1
    )


def ended(run):
    """The weights that a training run has made, tensors and card."""
    return [(run / f"weights/{name}").read_bytes() for name in ("model.safetensors", "card.json")]


@pytest.mark.parametrize("fraction", [0, 0.5])
@pytest.mark.parametrize("loss", ["changed", "gone"])
def test_a_run_resumes_although_its_initial_weights_have_changed(
    data, start, mean, tmp_path, loss, fraction, stopped_at
):
    recipe = dataclasses.replace(mean, average_with_start=fraction)
    train(data, tmp_path / "whole", recipe)
    with stopped_at(2) as report:
        train(data, tmp_path / "stopped", recipe, report=report)
    if loss == "gone":
        shutil.rmtree(start)
    else:
        net, card = from_pretrained(start)
        with torch.no_grad():
            for tensor in net.parameters():
                tensor.add_(1)
        other = dataclasses.replace(card, license="another", classes=["", "owl"])
        save_pretrained(net, start, other)
    with pytest.raises(OptionError, match="holds a run already; pass resume=True"):
        train(data, tmp_path / "stopped", recipe)
    train(data, tmp_path / "stopped", recipe, resume=True)
    assert ended(tmp_path / "stopped") == ended(tmp_path / "whole")


def test_a_run_without_a_checkpoint_starts_over(data, start, mean, tmp_path, stopped_at):
    with stopped_at(1) as report:
        train(data, tmp_path / "run", dataclasses.replace(mean, save_every=9), report=report)
    assert (tmp_path / "run/checkpoints/start.pt").exists()
    net, card = from_pretrained(start)
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.mul_(1.5)
    save_pretrained(net, start, card)
    for name in ("run", "new"):
        train(data, tmp_path / name, mean)
    assert ended(tmp_path / "run") == ended(tmp_path / "new")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("removed", r"start\.pt is missing, the initial weights of the run"),
        ("cut", r"cannot read the checkpoint .*start\.pt"),
        ("last", r"start\.pt does not hold the initial weights of the run"),
        ("without tensors", r"start\.pt does not hold the initial weights of the run"),
    ],
)
def test_unreadable_initial_weights_are_refused_before_any_step(
    data, mean, tmp_path, damage, message, stopped_at
):
    with stopped_at(2) as report:
        train(data, tmp_path / "run", mean, report=report)
    path = tmp_path / "run/checkpoints/start.pt"
    if damage == "removed":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "last":
        shutil.copy(path.with_name("last.pt"), path)
    else:
        save_state(path, load_state(path) | {"model": {}})
    steps = []
    with pytest.raises(WeightsError, match=f"{message}.*put back a copy, or start a new run"):
        train(data, tmp_path / "run", mean, resume=True, report=steps.append)
    assert not [record for record in steps if isinstance(record, Step)]


@torch.no_grad()
@pytest.mark.parametrize("kind", [DeconvNet, FCN])
def test_the_trunk_of_a_trained_network_is_taken(kind, filled, tmp_path):
    """Also one with batch norm, which is folded."""
    own = {"stride": 4, "pad": 1} if kind is FCN else {"size": 32}
    trained = filled(kind(3, SMALL, None, **own)).eval()
    folder = save_pretrained(trained, tmp_path / "net", {})
    net = DeconvNet(5, SMALL, None, 32).eval()
    assert load_vgg(net, trunk_of(folder)) == ["conv1_1", "conv2_1", "conv2_2"]
    x = torch.randn(2, 3, 16, 20)
    wanted = trained.trunk(x)[0]
    assert wanted.std() > 0.01
    assert torch.allclose(net.trunk(x)[0], wanted, rtol=1e-4, atol=1e-4)


def test_the_trunk_of_another_kind_of_network_is_refused(tmp_path):
    folder = save_pretrained(SqueezeNet(4), tmp_path / "net", {})
    with pytest.raises(WeightsError, match=r"weights of a SqueezeNet; wanted .* that segments"):
        trunk_of(folder)


def test_an_fcn_starts_a_crf_rnn_whose_crf_stays(filled):
    sizes = {"trunk": ((1, 4), (1, 8), (1, 8)), "code": 8, "stride": 4, "pad": 1, "window": 3}
    fcn, net = filled(FCN(3, **sizes)), CRFRNN(3, **sizes, iterations=(0, 0)).eval()
    transfer_weights(net, fcn)
    x = 50 * torch.randn(2, 3, 40, 40)
    assert torch.equal(net(x), fcn(x))
    assert torch.equal(net.crf.spatial, 3 * torch.eye(3))
    other = CRFRNN(4, **sizes)
    transfer_weights(other, net)
    assert torch.equal(other.net.fc.fc6.weight, fcn.fc.fc6.weight)
    assert torch.equal(other.crf.spatial, 3 * torch.eye(4))
    with pytest.raises(OptionError, match=r"got CRFRNN weights to start from, .* network FCN"):
        transfer_weights(fcn, net)
    with pytest.raises(OptionError, match=r"got SegNet .*; set start to CRFRNN or FCN weights"):
        transfer_weights(net, SegNet(3, sizes["trunk"]))


def test_stages_of_training(filled):
    """FCN-16s takes FCN-32s, FCN-8s takes FCN-16s: all but what is new, which is zero."""
    trunk = [n for n in layers(FCN(2, NARROW, 4)) if n.startswith(("conv", "fc"))]
    coarse = filled(FCN(2, NARROW, 4, 32))
    middle, fine = FCN(2, NARROW, 4, 16), FCN(2, NARROW, 4, 8)
    assert middle.take(coarse) == [*trunk, "score_fr"]
    x = torch.randn(1, 3, 40, 40)
    by_pool5 = Interpolation(2, 16)(Interpolation(2, 2)(layers(coarse)["score_fr"](
        coarse.code(coarse.trunk.pooled(x)[-1]))))  # fmt: skip
    assert torch.allclose(middle.eval()(x), by_pool5[:, :, 27:67, 27:67], atol=1e-5)
    with torch.no_grad():
        middle.score["score_pool4"].weight.fill_(2)
    assert fine.take(middle) == [*trunk, "score_fr", "score_pool4"]
    for name, layer in layers(fine).items():
        if name in layers(middle) and not name.startswith("upscore"):
            assert torch.equal(layer.weight, layers(middle)[name].weight)
            assert torch.equal(layer.bias, layers(middle)[name].bias)
    assert not fine.score["score_pool3"].weight.any()


def test_learned_interpolation_is_taken_where_it_is_learned(filled):
    learned = filled(FCN(2, THIN, 4, 16, learned=True))
    again, fixed = FCN(2, THIN, 4, 8, learned=True), FCN(2, THIN, 4, 8)
    bilinear = fixed.score["upscore2"].weight.clone()
    assert "upscore2" in again.take(learned)
    assert torch.equal(again.score["upscore2"].weight, learned.score["upscore2"].weight)
    assert "upscore2" not in fixed.take(learned)
    assert torch.equal(fixed.score["upscore2"].weight, bilinear)
    assert "upscore8" not in again.take(learned)


def test_takes_what_fits_whole_layers(filled):
    other = filled(FCN(5, THIN, 4))
    net = FCN(2, THIN, 6)
    assert net.take(other) == [f"conv{i}_1" for i in range(1, 6)]
    assert not net.code.fc7.bias.any()
    with pytest.raises(WeightsError, match="got a FCN whose layers do not fit; take"):
        FCN(3, ((1, 3), (1, 3)), None, 4).take(other)


def test_takes_a_folded_deconvnet(filled):
    deconvnet = filled(DeconvNet(2, THIN, 4, 96))
    net = FCN(2, THIN, 4, pad=1, window=3)
    with pytest.raises(WeightsError, match=r"got a DeconvNet with normalization.*fold\(net\)"):
        net.take(deconvnet)
    folded = fold(deconvnet)
    assert net.take(folded) == [*(f"conv{i}_1" for i in range(1, 6)), "fc6", "fc7"]
    x = torch.randn(1, 3, 96, 96)
    assert torch.allclose(net.trunk.pooled(x)[-1], deconvnet.trunk(x)[0], atol=1e-5)
