"""The training loop, on a tiny network and synthetic images."""

import copy
import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unpool.data.crops import Batch, Views, batches, draw_views
from unpool.data.datasets import open_data
from unpool.errors import TrainingError
from unpool.models import CRFRNN, FCN, DeconvNet, prepare
from unpool.recipes import RECIPES, SegmentationRecipe, override
from unpool.recipes.segment import DECONVNET, Phase
from unpool.segment.fit import (
    SegmentationObjective,
    distillation_loss,
    estimate_statistics,
    pixel_loss,
)
from unpool.segment.learner import GrowingLearner, Learner, MeanFieldLearner
from unpool.training import loop
from unpool.vision.images import VOID

TRUNK = ((1, 6), (1, 8))
TINY = SegmentationRecipe(
    "tiny", (Phase("coarse", 1, 3, 1e-2),), trunk=TRUNK, code=None, size=32, batch=2
)


def fit(learner, stream, recipe):
    return loop.fit(SegmentationObjective(learner, recipe), stream)


def test_the_loss_falls_and_a_frozen_trunk_stays(data):
    torch.manual_seed(0)
    growing = GrowingLearner(DeconvNet(2, TRUNK, None, 32))
    before = {k: v.clone() for k, v in growing.net.trunk.state_dict().items()}
    recipe = dataclasses.replace(
        TINY, phases=(Phase("coarse", 1, 40, 1e-2),), dropout=0.0, bf16=False
    )
    stream = batches(draw_views(open_data(data, "train"), Views(32, (48, 64))), 4)
    losses = [step.loss for step in fit(growing, stream, recipe)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    for name, value in growing.net.trunk.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_a_loss_that_is_not_finite_stops_the_run(data):
    growing = GrowingLearner(DeconvNet(2, TRUNK, None, 32))
    with torch.no_grad():
        growing.heads[0].bias.fill_(torch.nan)
    stream = batches(draw_views(open_data(data, "train"), Views(32, (48, 64))), 2)
    with pytest.raises(TrainingError, match=r"the loss is nan .*\(coarse, learning rate"):
        next(fit(growing, stream, TINY))


def test_statistics_are_the_mean_over_the_batches(data):
    """Against the mean of each batch's own moments, taken by hooks."""
    net = DeconvNet(2, TRUNK, None, 32)
    norm = net.get_submodule("decoder.1.debn1_1")
    seen = []

    def hook(module, inputs):
        x = inputs[0].float()
        seen.append((x.mean((0, 2, 3)), x.var((0, 2, 3), correction=1)))

    handle = norm.register_forward_pre_hook(hook)
    net.train()
    draw = draw_views(open_data(data, "train"), Views(32, (32, 64)))
    estimate_statistics(net, batches(draw, 3), 4)
    handle.remove()
    assert len(seen) == 4
    mean, variance = (torch.stack(parts).mean(0) for parts in zip(*seen, strict=True))
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(norm.running_var, variance, rtol=1e-2, atol=1e-3)
    assert not net.training


def random_batches(size=3, side=8, classes=3):
    rng = np.random.default_rng(0)
    while True:
        images = rng.integers(0, 256, (size, side, side, 3), dtype=np.uint8)
        labels = rng.integers(0, classes, (size, side, side), dtype=np.uint8)
        labels[rng.random(labels.shape) < 0.3] = VOID
        yield Batch(images, labels)


def caffe_steps(net, stream, phase, iter_size, steps, lr, gamma=0.1, decay=0.0005, momentum=0.9):
    """`SGDSolver` of HyeonwooNoh/caffe, written down in NumPy; gradients from autograd."""
    weights = {k: p.detach().numpy().astype(np.float64) for k, p in net.named_parameters()}
    history = {k: np.zeros_like(v) for k, v in weights.items()}
    for iteration in range(steps):
        rate = lr * gamma ** (iteration // phase.drop_every)
        diff = {k: np.zeros_like(v) for k, v in weights.items()}
        for _ in range(iter_size):
            batch = next(stream)
            net.train().zero_grad()
            scores = net(prepare(torch.from_numpy(batch.images)))
            truth = torch.from_numpy(batch.labels).long()
            F.cross_entropy(scores, truth, ignore_index=VOID).backward()
            for k, p in net.named_parameters():
                diff[k] += p.grad.double().numpy()
        for k in weights:
            bias = k.endswith("bias") and "bn" not in k
            lr_mult, decay_mult = (2, 0) if bias else (1, 1)
            diff[k] += decay * decay_mult * weights[k]
            history[k] = momentum * history[k] + rate * lr_mult / iter_size * diff[k]
            weights[k] -= history[k]
        with torch.no_grad():
            for k, p in net.named_parameters():
                p.copy_(torch.from_numpy(weights[k]))
    return weights


def test_the_published_update_equals_the_authors_solver():
    torch.manual_seed(0)
    net = DeconvNet(3, ((1, 4), (1, 6)), code=5, size=8, eps=1e-5)
    nn.init.normal_(net.score.weight, std=0.1)
    phase = dataclasses.replace(DECONVNET.phases[0], stages=2, steps=5, drop_every=2)
    recipe = dataclasses.replace(DECONVNET, phases=(phase,), accumulate=4, batch=12, bf16=False)
    recipe = dataclasses.replace(recipe, weight_decay=0.0005 / 4)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    wanted = caffe_steps(copy.deepcopy(net), random_batches(), phase, 4, 5, phase.lr)
    growing = GrowingLearner(net)
    steps = list(fit(growing, random_batches(), recipe))
    assert [step.lr for step in steps] == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4])
    for name, parameter in net.named_parameters():
        found = parameter.detach().numpy()
        np.testing.assert_allclose(found, wanted[name], rtol=0, atol=1e-6, err_msg=name)
        assert not torch.equal(parameter, before[name]), name


def labeled_batches():
    return (batch._replace(labels=batch.labels % VOID) for batch in random_batches())


def test_the_published_update_of_a_crf_rnn_equals_the_authors_solver():
    """Theirs sums the loss over the pixels; the recipe has the rates of a mean over 500²."""
    torch.manual_seed(0)
    net = CRFRNN(3, ((1, 4), (1, 6), (1, 8)), 8, 4, pad=1, window=3, dropout=0.0).train()
    nn.init.normal_(net.net.score["score_fr"].weight, std=0.1)
    published, enlarge = RECIPES["crfrnn"], 1e9  # so that three steps can be seen
    pixels = 3 * 8**2  # of a batch, of which none is void
    rate, decay = 1e-13 * enlarge, 5e-4
    scale = enlarge * pixels / 500**2
    phase = published.phases[0]
    phase = dataclasses.replace(
        *(phase,), steps=3, lr=phase.lr * scale, older_lr=phase.older_lr * scale,
        trunk_lr=phase.trunk_lr * scale,
    )  # fmt: skip
    recipe = dataclasses.replace(
        *(published,), phases=(phase,), bf16=False, dropout=0.0,
        weight_decay=published.weight_decay * 500**2 / pixels,
    )  # fmt: skip
    theirs, history = copy.deepcopy(net), {}
    for batch in itertools.islice(labeled_batches(), 3):
        theirs.zero_grad()
        truth = torch.from_numpy(batch.labels).long()
        scores = theirs(prepare(torch.from_numpy(batch.images)))
        F.cross_entropy(scores, truth, reduction="sum").backward()
        with torch.no_grad():
            for name, p in theirs.named_parameters():
                if p.requires_grad:
                    matrix = {"crf.spatial": 1e4, "crf.bilateral": 1e4, "crf.compatibility": 1e3}
                    mult = matrix.get(name, 2 if name.endswith("bias") else 1)
                    filters = name.endswith("weight")
                    diff = p.grad + (decay * p if filters else 0)
                    history[name] = 0.99 * history.get(name, 0) + rate * mult * diff
                    p -= history[name]
    before = copy.deepcopy(net.state_dict())
    list(fit(MeanFieldLearner(net), labeled_batches(), recipe))
    for name, p in net.named_parameters():
        moved = theirs.state_dict()[name] - before[name]
        assert moved.any() == p.requires_grad
        torch.testing.assert_close(p - before[name], moved, rtol=2e-3, atol=1e-7, msg=name)


def test_parts_of_a_batch_add_up_to_the_whole():
    """Without batch norm's statistics of each part, four parts give the gradient of one batch."""
    nets = [DeconvNet(3, ((1, 4),), None, 8, eps=None) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    labels = rng.integers(0, 3, (8, 8, 8), dtype=np.uint8)
    phase = Phase("all", 1, 1, 0.1, trunk_lr=0.1)
    base = dataclasses.replace(
        TINY, phases=(phase,), batch=8, optimizer="sgd", warmup=0, bf16=False, clip=None
    )
    for net, parts in zip(nets, (1, 4), strict=True):
        size = 8 // parts
        stream = (
            Batch(images[i : i + size], labels[i : i + size]) for i in itertools.count(0, size)
        )
        list(fit(GrowingLearner(net), stream, dataclasses.replace(base, accumulate=parts)))
    for one, four in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(one, four, rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_and_their_norm_is_reported():
    torch.manual_seed(0)
    recipe = override(TINY, ["clip=0.01", "bf16=false", "optimizer=sgd", "weight_decay=0"])
    recipe = override(recipe, ["warmup=0", "phases.0.lr=1"])
    growing = GrowingLearner(DeconvNet(3, TRUNK, None, 32))
    before = {k: v.clone() for k, v in growing.state_dict().items()}
    step = next(fit(growing, random_batches(), recipe))
    assert step.gradient > 0.02
    moved = [v.detach() - before[k] for k, v in growing.named_parameters()]
    norm = float(torch.cat([m.flatten() for m in moved]).norm())
    assert norm == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda: GrowingLearner(DeconvNet(3, ((2, 6), (1, 8)), code=5, size=16)),
        lambda: Learner(FCN(3, ((2, 6), (1, 8)), code=5, stride=4, pad=1, window=3, dropout=0.5)),
    ],
    ids=["DeconvNet", "FCN"],
)
def test_activation_checkpointing_changes_nothing(make, bf16):
    """Weights, gradients, statistics and losses of three steps of two parts, odd sizes, dropout."""
    recipe = SegmentationRecipe(
        "again",
        (Phase("all", 2, 3, 1e-2, older_lr=1e-2, trunk_lr=1e-2),),
        batch=6,
        accumulate=2,
        dropout=0.3,
        trunk_norm=True,
        bf16=bf16,
    )
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        learner = make()
        for layer in learner.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
        recipe = dataclasses.replace(recipe, checkpointing=checkpointing)
        losses = [step.loss for step in fit(learner, random_batches(3, 19), recipe)]
        gradients = {k: p.grad for k, p in learner.named_parameters() if p.grad is not None}
        found.append((losses, learner.state_dict(), gradients))
    (losses, state, gradients), (losses_again, state_again, gradients_again) = found
    assert losses == losses_again
    assert gradients.keys() == gradients_again.keys()
    for name, gradient in gradients.items():
        assert torch.equal(gradient, gradients_again[name]), name
    for name, value in state.items():
        assert torch.equal(value, state_again[name]), name
        if name.endswith("num_batches_tracked"):
            assert value == 6, name


@pytest.mark.parametrize(
    ("changes", "scale", "shift"),
    [
        ({}, 0, 0),
        ({"decay_norm": True}, 0.5, 0.5),
        ({"decay_norm": True, "decay_shift": False}, 0.5, 0),
    ],
)
def test_what_decays(changes, scale, shift):
    learner = GrowingLearner(DeconvNet(2, TRUNK, None, 32))
    recipe = dataclasses.replace(TINY, weight_decay=0.5, bias_lr=2.0, **changes)
    found = {}
    for group in SegmentationObjective(learner, recipe).groups():
        found |= {id(p): (group["weight_decay"], group["lr"] / 1e-2) for p in group["params"]}
    layers = dict(learner.net.decoder[0].named_children())
    deconv, norm = layers["deconv2_1"], layers["debn2_1"]
    assert [found[id(p)] for p in (deconv.weight, deconv.bias)] == [(0.5, 1), (0, 2)]
    assert [found[id(p)] for p in (norm.weight, norm.bias)] == [(scale, 1), (shift, 1)]


def test_a_batch_that_is_all_void_has_no_loss():
    found = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = pixel_loss(found, torch.full((1, 4, 4), VOID))
    loss.backward()
    assert loss.item() == 0
    assert not found.grad.any()


def test_weighted_losses_are_the_golden_ones():
    """The sum of the weighted losses by the number of pixels, not by their weights."""
    golden = np.load(Path(__file__).parents[1] / "golden/segnet.npz")
    y, x = np.ogrid[:45, :30]
    truth = np.stack([(x // 5 + y // 7) % 4, (x // 6 + y // 5 + 1) % 4])
    truth = torch.from_numpy(np.where(truth == 3, VOID, truth))
    scores, weights = torch.from_numpy(golden["basic_scores"]), torch.tensor([0.5, 1.0, 4.0])
    found = float(pixel_loss(scores, truth, weights))
    assert found == pytest.approx(float(golden["loss_caffe"][0]), rel=1e-5)
    assert found != pytest.approx(float(golden["loss_torch_mean"][0]), rel=0.1)
    plain = float(pixel_loss(scores, truth))
    assert plain == pytest.approx(float(golden["loss_unweighted"][0]), rel=1e-5)
    for weight in (1.0, 2.0):
        found = float(pixel_loss(scores, truth, torch.full((3,), weight)))
        assert found == pytest.approx(weight * plain)


@pytest.mark.parametrize("size", [(33, 41), (33, 33)])
def test_scores_on_a_grid_are_compared_at_its_pixels(size):
    """DeepLab's, of every eighth pixel. The authors interpolate labels, which on this grid is the
    same."""
    truth = torch.randint(0, 4, (2, *size)).masked_fill(torch.rand(2, *size) < 0.2, VOID)
    truth = truth.masked_fill(truth == 3, VOID)
    scores = torch.randn(2, 3, (size[0] + 7) // 8, (size[1] + 7) // 8)
    expected = F.cross_entropy(scores, truth[:, ::8, ::8], ignore_index=VOID)
    torch.testing.assert_close(pixel_loss(scores, truth), expected)
    theirs = F.interpolate(
        truth[:, None].double(), scores.shape[2:], mode="bilinear", align_corners=True
    )
    assert torch.equal(theirs[:, 0].long(), truth[:, ::8, ::8])


def test_scores_of_cells_are_not_on_a_grid():
    """64 - 1 = 9 * (8 - 1), but each of the 8 scores is that of 8 pixels, not of every ninth."""
    truth, scores = torch.randint(0, 3, (2, 64, 64)), torch.randn(2, 3, 8, 8)
    large = F.interpolate(scores, (32, 32), mode="bilinear")
    expected = F.cross_entropy(large, truth[:, 1::2, 1::2])
    torch.testing.assert_close(pixel_loss(scores, truth), expected)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_distillation_against_a_loop_over_pixels(temperature):
    random = np.random.default_rng(0)
    scores, soft = random.normal(size=(2, 4, 5, 5)), random.normal(size=(2, 4, 5, 5))
    truth = random.integers(0, 4, (2, 40, 40))
    soft[1, :, :, 3:] = np.nan  # outside the image, say
    losses = []
    for n, y, x in itertools.product(range(2), range(5), range(5)):
        # class 2 takes no part, and its pixels are left out
        if np.isfinite(soft[n, :, y, x]).all() and truth[n, 8 * y + 4, 8 * x + 4] != 2:
            ours, theirs = (softmax(m[n, [0, 1, 3], y, x] / temperature) for m in (scores, soft))
            losses.append(temperature**2 * (theirs * np.log(theirs / ours)).sum())
    found = distillation_loss(*map(torch.tensor, (scores, soft, truth)), temperature, [2])
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-9)


@pytest.mark.parametrize("side", [3, 6, 12, 48])
def test_distillation_pulls_heads_of_any_size(side):
    """Coarser and finer than the soft labels; no gradient once the predictions agree."""
    soft = torch.zeros(1, 3, 6, 6)
    soft[:, 1] = 3
    truth = torch.zeros(1, 48, 48, dtype=torch.long)
    scores = torch.zeros(1, 3, side, side, requires_grad=True)
    distillation_loss(scores, soft, truth).backward()
    assert (scores.grad[:, 1] < 0).all()
    assert (scores.grad[:, [0, 2]] > 0).all()
    alike = (soft[:, :, :1, :1].expand(1, 3, side, side) + 5).clone().requires_grad_()
    distillation_loss(alike, soft, truth).backward()
    assert alike.grad.abs().max() < 1e-6


def test_soft_labels_that_say_nothing_have_no_loss():
    scores = torch.randn(1, 3, 4, 4, requires_grad=True)
    soft = torch.full((1, 3, 4, 4), float("nan"))
    loss = distillation_loss(scores, soft, torch.zeros(1, 32, 32, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert not scores.grad.any()


def test_the_matrices_of_a_crf_have_rates_of_their_own_and_no_decay():
    learner = MeanFieldLearner(CRFRNN(2, ((1, 4), (1, 6), (1, 8)), 8, 4, pad=1, window=3))
    phase = Phase("all", 1, 3, 1e-2, 1e-4, 1e-5, 2)
    recipe = dataclasses.replace(TINY, phases=(phase,), weight_decay=0.5, bias_lr=2.0)
    found = {}
    for group in SegmentationObjective(learner, recipe).groups():
        found |= {id(p): (group["weight_decay"], group["lr"]) for p in group["params"]}
    net, crf = learner.net, learner.net.crf
    assert [found[id(p)] for p in (crf.spatial, crf.bilateral)] == [(0, 1e-2)] * 2
    assert found[id(crf.compatibility)] == (0, pytest.approx(1e-3))
    filters, biases = net.fc.fc6.parameters()
    assert (found[id(filters)], found[id(biases)]) == ((0.5, 1e-4), (0, 2e-4))
    assert found[id(net.trunk.stages[1][0].weight)] == (0.5, 1e-5)
    assert id(net.trunk.stages[0][0].weight) not in found
    assert id(net.net.score["upscore4"].weight) not in found


def test_published_recipes_equal_the_prototxts():
    first, second = DECONVNET.phases
    assert (first.steps, second.steps) == (20_000, 40_000)
    assert (first.drop_every, second.drop_every) == (9_000, 10_000)
    assert (first.sources, second.sources) == (("objects",), ("proposals",))
    assert DECONVNET.weight_decay == 6.25e-5
    assert DECONVNET.batch // DECONVNET.accumulate == 8
