"""Progressive growing, warm starts, and weight averaging with them."""

import dataclasses
import json
import shutil

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unpool import train
from unpool.errors import OptionError, WeightsError
from unpool.models import (
    CRFRNN,
    FCN,
    DeconvNet,
    DeepLab,
    SegNet,
    SqueezeNet,
    from_pretrained,
    load_vgg,
    save_pretrained,
)
from unpool.recipes import SegmentationRecipe
from unpool.recipes.relatives import DEEPLAB, DEEPLAB_LARGEFOV
from unpool.recipes.segment import OBJECTS, Phase
from unpool.segment.fit import SegmentationObjective
from unpool.segment.learner import (
    GridLearner,
    GrowingLearner,
    Learner,
    MeanFieldLearner,
    build,
    transfer_weights,
    trunk_of,
)
from unpool.training.loop import Step
from unpool.training.run import load_state, save_state

TABLE = ((1, 24), (2, 48), (2, 96))
SMALL = ((1, 4), (2, 6))


def made(kind):
    own = {"code": None, "size": 64} if kind is DeconvNet else {}
    return kind(3, TABLE, **own)


@pytest.fixture(params=[DeconvNet, SegNet])
def growing(request):
    torch.manual_seed(0)
    growing = GrowingLearner(made(request.param))
    for head in growing.heads:
        nn.init.normal_(head.weight, std=0.3)
        nn.init.normal_(head.bias)
    return growing.eval()


def images(count=4, side=64):
    """Smooth images, so that a score upsampled looks like the score."""
    noise = torch.randn(
        count, 3, side // 16, side // 16, generator=torch.Generator().manual_seed(1)
    )
    return F.interpolate(noise, size=(side, side), mode="bicubic") * 50


def test_every_stage_has_scores_and_the_last_head_is_the_networks_own(growing):
    x = images()
    assert [tuple(s.shape) for s in growing(x, 3)] == [
        (4, 3, 16, 16),
        (4, 3, 32, 32),
        (4, 3, 64, 64),
    ]
    assert len(growing(x, 2)) == 2
    assert growing.head(2) is growing.net.score
    torch.testing.assert_close(growing(x, 3)[-1], growing.net(x))
    (finest,) = growing(x, 3, last=True)
    torch.testing.assert_close(finest, growing.net(x))


@pytest.mark.parametrize("kernel", [2, 3])
def test_a_deeplab_learns_the_labels_of_its_grid(kernel, filled):
    net = filled(DeepLab(3, SMALL[:1] * 5, 8, kernel=kernel))
    learner, side = GridLearner(net).train(), 41 + net.first
    x = 50 * torch.randn(2, 3, side, side)
    truth = torch.arange(side).expand(2, side, side)
    (scores,) = learner(x, 1)
    assert scores.shape == (2, 3, 6, 6)
    seen = learner.targets(truth)[:, ::8, ::8]
    assert seen[0, 0].tolist() == [net.first + 8 * i for i in range(6)]
    (whole,) = learner.eval()(x[..., :30], 1)
    torch.testing.assert_close(whole, net(x[..., :30]))


def test_the_scores_of_a_deeplab_learn_ten_times_as_fast():
    for recipe in (DEEPLAB, DEEPLAB_LARGEFOV):
        small = dataclasses.replace(recipe, trunk=((1, 4),) * 5, code=8)
        learner = build(small, 3)
        groups = SegmentationObjective(learner, small).groups()
        found = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
        for name, parameter in learner.net.named_parameters():
            lr = 0.01 if "fc8" in name else 0.001
            expected = (lr, 0.0005) if parameter.dim() > 1 else (2 * lr, 0)
            assert found[id(parameter)] == pytest.approx(expected), name


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_stages_are_newest_older_or_unused(growing, stages):
    parts = [growing.newest(stages), growing.older(stages), growing.unused(stages)]
    decoder = [[m for m in part if m in list(growing.net.decoder)] for part in parts]
    assert [len(d) for d in decoder] == [1, stages - 1, 3 - stages]
    assert growing.head(stages - 1) in parts[0]


def test_more_classes_than_a_new_stage_has_channels_are_refused_at_once():
    """VGG's last decoder stage has 64 channels: the recipe `objects` grows it after 790 steps."""
    assert isinstance(build(OBJECTS, 64), GrowingLearner)
    with pytest.raises(OptionError, match=r"got 65 classes, .* of 64 channels .* phases\.0\.stage"):
        build(OBJECTS, 65)
    phases = (dataclasses.replace(OBJECTS.phases[0], stages=5),)
    assert isinstance(build(dataclasses.replace(OBJECTS, phases=phases), 65), GrowingLearner)


def test_a_plain_network_learns_as_a_whole():
    net = FCN(3, TABLE, None, stride=4, pad=1).eval()
    learner = Learner(net)
    x = images()
    (scores,) = learner(x, 1)
    torch.testing.assert_close(scores, net(x))
    learning = {id(p) for part in learner.newest(1) for p in part.parameters()}
    assert not learning & {id(p) for p in net.trunk.parameters()}
    assert learner.fixed  # the interpolation
    assert learner.fixed < learning


def test_of_a_crf_rnn_the_crf_is_newest_and_the_fcn_older():
    learner = MeanFieldLearner(CRFRNN(3, TABLE, 8, stride=4, pad=1, window=3))
    parts = learner.newest(1), learner.older(1), [learner.net.trunk]
    newest, older, trunk = ({id(p) for m in part for p in m.parameters()} for part in parts)
    assert newest == {id(p) for p in learner.net.crf.parameters()}
    assert len(learner.fixed) == 1
    assert learner.fixed < older
    assert newest | older | trunk == {id(p) for p in learner.net.parameters()}
    assert newest.isdisjoint(older)
    assert trunk.isdisjoint(older)


def test_an_fcn_starts_a_crf_rnn_whose_crf_stays(filled):
    sizes = {"trunk": TABLE, "code": 8, "stride": 4, "pad": 1, "window": 3}
    fcn, net = filled(FCN(3, **sizes)), CRFRNN(3, **sizes, iterations=(0, 0)).eval()
    transfer_weights(net, fcn)
    assert torch.equal(net(images()), fcn(images()))
    assert torch.equal(net.crf.spatial, 3 * torch.eye(3))
    other = CRFRNN(4, **sizes)
    transfer_weights(other, net)
    assert torch.equal(other.net.fc.fc6.weight, fcn.fc.fc6.weight)
    assert torch.equal(other.crf.spatial, 3 * torch.eye(4))
    with pytest.raises(OptionError, match=r"got CRFRNN weights to start from, .* network FCN"):
        transfer_weights(fcn, net)


@pytest.mark.parametrize("growing", [DeconvNet], indirect=True)
def test_tied_filters_are_those_of_the_mirror_image(growing):
    growing.tie()
    net = growing.net
    for mirrored, layer in [
        ("trunk.stages.2.conv3_2", "decoder.0.deconv3_1"),
        ("trunk.stages.2.conv3_1", "decoder.0.deconv3_2"),
        ("trunk.stages.1.conv2_2", "decoder.1.deconv2_1"),
        ("trunk.stages.1.conv2_1", "decoder.1.deconv2_2"),
    ]:
        tied, filters = net.get_submodule(layer).weight, net.get_submodule(mirrored).weight
        assert torch.equal(tied, filters)
    assert net.get_submodule("decoder.2.deconv1_1").weight.std() > 0.01  # no mirror image: He


@torch.no_grad()
def test_tied_filters_of_segnet_are_the_transposes_of_those_with_the_same_name():
    """By their effect: <conv(x), y> = <x, tied(y)>, without biases."""
    net = SegNet(3, ((2, 4), (2, 6)), wide_head=True)
    GrowingLearner(net).tie()
    for name in ("2_2", "2_1", "1_2"):
        conv = net.trunk.get_submodule(f"stages.{int(name[0]) - 1}.conv{name}")
        tied = net.decoder.get_submodule(f"{2 - int(name[0])}.conv{name}_D")
        x, y = torch.randn(1, conv.in_channels, 9, 8), torch.randn(1, conv.out_channels, 9, 8)
        forth = (F.conv2d(x, conv.weight, padding=1) * y).sum()
        back = (x * F.conv2d(y, tied.weight, padding=1)).sum()
        torch.testing.assert_close(forth, back, rtol=1e-4, atol=1e-4)
    last = net.decoder.get_submodule("1.conv1_1_D")  # its mirror image has three channels: He
    assert abs(last.weight.std() / (2 / 36) ** 0.5 - 1) < 0.3


def test_segnet_has_its_own_dropout_during_training():
    """The recipe's is the network's, so nothing is dropped twice, or from a SegNet without."""
    torch.manual_seed(0)
    learner = GrowingLearner(made(SegNet)).train()
    x = images(2)
    torch.testing.assert_close(learner(x, 3, dropout=0.9)[-1], learner(x, 3)[-1])


@pytest.mark.parametrize("stage", [1, 2])
def test_a_grown_stage_says_what_the_stage_before_it_says(growing, stage):
    """The refinement begins as the coarser scores, upsampled; not exactly, but closely."""
    growing.tie()
    x = images(8)
    before = growing(x, stage)[-1]
    for grown in range(1, stage):
        growing.grow(grown, x)
        before = growing(x, stage)[-1]
    growing.grow(stage, x)
    after = growing(x, stage + 1)[-1]
    wanted = F.interpolate(before, scale_factor=2, mode="bilinear")
    together = torch.stack([after.flatten(), wanted.flatten()])
    assert torch.corrcoef(together)[0, 1] > 0.8
    difference = (after - wanted).abs().mean() / wanted.std()
    assert difference < 0.5
    centered = (after - wanted).mean((0, 2, 3)) / wanted.std()
    assert centered.abs().max() < 0.15  # the shifts through batch norm are made good


@pytest.mark.parametrize("trunk_norm", [False, True])
def test_a_frozen_trunk_keeps_its_statistics_and_its_dropout(trunk_norm):
    net = SegNet(3, TABLE, dropout=0.5)
    phase = Phase("all", 3, 1, 1e-3)
    recipe = SegmentationRecipe("tiny", (phase,), trunk=TABLE, trunk_norm=trunk_norm)
    SegmentationObjective(GrowingLearner(net), recipe).set_mode()
    kinds = {
        kind: {m.training for m in net.trunk.modules() if isinstance(m, kind)}
        for kind in (nn.Dropout, nn.BatchNorm2d)
    }
    assert kinds == {nn.Dropout: {True}, nn.BatchNorm2d: {trunk_norm}}


def test_growing_leaves_the_coarser_stages_alone(growing):
    x = images()
    before = growing(x, 1)[0]
    growing.grow(1, x)
    torch.testing.assert_close(growing(x, 1)[0], before, rtol=0, atol=0)


# ---- initial weights -----------------------------------------------------------------------------


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


@pytest.mark.parametrize("trunk", [((1, 6), (1, 9)), ((1, 6),)])
def test_a_warm_start_from_another_trunk_is_refused(data, start, tmp_path, trunk):
    phase = Phase("all", len(trunk), 1, 1e-3)
    recipe = dataclasses.replace(TINY, start=str(start), trunk=trunk, phases=(phase,))
    refused(data, tmp_path, recipe, OptionError, "another trunk")


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
    with pytest.raises(WeightsError, match=r"weights of a SqueezeNet; wanted those of a DeconvNet"):
        trunk_of(folder)
