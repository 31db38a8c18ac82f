"""DecoupledNet in training: what each part learns from and changes, and runs as a whole."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from unpool import Segmenter, train
from unpool.data.subsets import Example, stack
from unpool.errors import DataError
from unpool.models import DecoupledNet, from_pretrained
from unpool.recipes.decoupled import DecoupledRecipe
from unpool.segment.decoupled import DecoupledLearner, DecoupledObjective
from unpool.training.loop import fit
from unpool.vision.images import read_image, write_image, write_mask

TINY = DecoupledRecipe(
    "tiny",
    trunk=((1, 6), (1, 8)),
    code=8,
    seg_code=8,
    size=32,
    window=3,
    stages=1,
    classify_steps=3,
    classify_lr=1e-2,
    classify_trunk_lr=1e-3,
    segment_steps=4,
    segment_lr=1e-2,
    batch=2,
    enlarged=36,
    color=0.1,
    dropout=0.2,
    statistics_passes=2,
    bf16=False,
    validate_every=2,
    save_every=2,
)
CLASSES = ["background", "square", "bar"]


def scene(i, rng):
    """A bright square, or a dark bar, or both."""
    image = np.full((40, 52, 3), 120, np.uint8)
    labels = np.zeros((40, 52), np.uint8)
    if i % 3 != 1:
        y, x = rng.integers(2, 20, 2)
        image[y : y + 14, x : x + 14], labels[y : y + 14, x : x + 14] = 250, 1
    if i % 3:
        y = rng.integers(22, 34)
        image[y : y + 5], labels[y : y + 5] = 10, 2
    return image, labels


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Ten images with masks in train and val, and two of which only the classes are known."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for i in range(12):
        image, labels = scene(i, rng)
        write_image(root / f"images/{i}.png", image)
        if i < 10:
            write_mask(root / f"masks/{i}.png", labels)
    (root / "classes.txt").write_text("\n".join(CLASSES))
    (root / "train.txt").write_text("\n".join(map(str, [0, 1, 2, 3, 4, 5, 10, 11])))
    (root / "val.txt").write_text("\n".join("6789"))
    (root / "image_classes.txt").write_text("10: bar\n11: square, bar\n")
    return root


def batch(strong, count=3, seed=0):
    rng, examples = np.random.default_rng(seed), []
    for _ in range(count):
        image = rng.integers(0, 256, (32, 32, 3), np.uint8)
        labels = rng.integers(0, 2, (32, 32)).astype(np.uint8)
        shown = rng.integers(0, 2, 2).astype(np.float32)
        examples.append(Example(image, shown, labels if strong else None))
    return stack(examples)


def objective(recipe=TINY):
    torch.manual_seed(0)
    net = DecoupledNet(3, recipe.trunk, 8, 8, 32, 3, recipe.stages)
    return DecoupledObjective(DecoupledLearner(net, recipe.dropout), recipe)


def test_each_part_changes_what_it_trains():
    learned = objective()
    net = learned.learner.net

    def copies():
        return {k: v.clone() for k, v in net.state_dict().items() if "num_batches" not in k}

    stream = (batch(strong=n >= 3, seed=n) for n in range(7))
    before, names = copies(), []
    for step in fit(learned, stream):
        if step.n in (3, 7):
            after = copies()
            changed = {k.partition(".")[0] for k in after if not torch.equal(before[k], after[k])}
            names.append((step.phase, changed))
            before = after
    assert names == [
        ("classification", {"classifier", "trunk"}),
        ("segmentation", {"norms", "fc", "decoder", "seg-score-voc"}),
    ]


def test_a_frozen_trunk_stays():
    learned = objective(dataclasses.replace(TINY, classify_trunk_lr=0.0))
    learned.groups()
    net = learned.learner.net
    assert not any(p.requires_grad for p in net.trunk.parameters())
    assert all(p.requires_grad for p in net.classifier.parameters())


def test_the_losses_are_those_of_the_paper():
    learned = objective(dataclasses.replace(TINY, dropout=0.0))
    net = learned.learner.net
    for strong in (False, True):
        part = batch(strong)
        loss, reported = learned.losses(part)
        assert loss is reported
        x = torch.from_numpy(part.images).flip(-1).permute(0, 3, 1, 2).float()
        x = x - torch.tensor([104.00698793, 116.66876762, 122.67891434]).view(3, 1, 1)
        shown = torch.from_numpy(part.shown)
        maps, switches = net.trunk(x)
        scores = net.classify(maps).scores
        if strong:
            values = scores.amax((2, 3)).sigmoid() * shown
            found = net.segment(maps, switches, net.bridge_by_autograd(maps, values))
            found = F.interpolate(found, size=(32, 32), mode="bilinear")
            expected = F.cross_entropy(found, torch.from_numpy(part.labels).long())
        else:
            p = scores.mean((2, 3)).sigmoid()
            expected = -torch.where(shown > 0, p, 1 - p).log().mean()
        torch.testing.assert_close(loss, expected)


def test_a_run_learns_from_both_kinds_of_labels(data, tmp_path):
    lines = []
    summary = train(data, tmp_path / "run", TINY, report=lines.append, command="unpool train …")
    run = tmp_path / "run"
    assert lines[0].text == "classes of 8 images, masks of 6 of them: 7 steps"
    written = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["phase"] for r in written if "loss" in r] == [
        *["classification"] * 3,
        *["segmentation"] * 4,
    ]
    assert [r["n"] for r in written if "miou" in r] == [4, 6, 7]
    assert summary["images"] == 4
    net, card = from_pretrained(run / "weights")
    assert isinstance(net, DecoupledNet)
    assert (card.classes, card.long_side) == (CLASSES, 32)
    assert card.more["command"] == "unpool train …"
    assert card.more["data"].endswith(" train: classes of 8 images, masks of 6 of them")
    found = Segmenter.from_pretrained(run / "weights")(read_image(data / "images/0.png"))
    assert found.labels.shape == (40, 52)


def test_an_interrupted_run_goes_on_as_if_nothing_had_been(data, tmp_path, stopped_at):
    recipe = dataclasses.replace(TINY, strong=1, accumulate=2)
    train(data, tmp_path / "whole", recipe, report=False)
    for n in (2, 5):
        run = tmp_path / f"stopped{n}"
        with stopped_at(n) as report:
            train(data, run, recipe, report=report)
        train(data, run, recipe, resume=True, report=False)
        weights = "weights/model.safetensors"
        assert (run / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


def test_statistics_are_those_of_training_crops(data, tmp_path):
    """Both norms at the input of the segmentation network saw two batches, and nothing else."""
    train(data, tmp_path / "run", dataclasses.replace(TINY, dropout=0.0), report=False)
    net, _ = from_pretrained(tmp_path / "run/weights")
    assert all(int(norm.num_batches_tracked) == 2 for norm in net.norms.values())
    assert (net.norms["pool5-bn"].running_mean > 0).any()
    assert not torch.equal(net.norms["pool5-bp-bn"].running_mean, torch.zeros(8))


def test_what_cannot_be_learned_is_noted_or_refused(data, tmp_path):
    other = tmp_path / "data"
    for name, image in (("a", 0), ("b", 1)):
        rgb, labels = scene(image, np.random.default_rng(0))
        write_image(other / f"images/{name}.png", rgb)
        write_mask(other / f"masks/{name}.png", labels)
    (other / "classes.txt").write_text("background\nsquare\nbar\nring")
    (other / "train.txt").write_text("a\nb")
    (other / "val.txt").write_text("a")
    (other / "rest.txt").write_text("b")
    with pytest.warns(UserWarning, match="no image of train shows ring"):
        summary = train(other, tmp_path / "run", TINY, report=False)
    assert summary["notes"] == ["no image of train shows ring, which cannot be learned"]
    with pytest.raises(DataError, match="with a mask to learn from"):
        train(other, tmp_path / "other", TINY, strong_split="val", split="rest")


@pytest.mark.slow
def test_a_few_masks_are_enough(tmp_path):
    """Three of each of two classes, and the classes of 45 images; half a minute."""
    rng = np.random.default_rng(0)
    for i in range(60):
        image, labels = scene(i, rng)
        write_image(tmp_path / f"data/images/{i}.png", image)
        write_mask(tmp_path / f"data/masks/{i}.png", labels)
    (tmp_path / "data/classes.txt").write_text("\n".join(CLASSES))
    for split, names in (("train", range(45)), ("val", range(45, 60))):
        (tmp_path / f"data/{split}.txt").write_text("\n".join(map(str, names)))
    recipe = dataclasses.replace(
        TINY, strong=3, trunk=((2, 8), (2, 16)), code=16, seg_code=16, stages=2, batch=8,
        classify_steps=150, classify_trunk_lr=1e-2, segment_steps=150, optimizer="adamw",
        warmup=10, schedule="linear", clip=5.0, color=0.0, dropout=0.0, statistics_passes=10,
        validate_every=50,
    )  # fmt: skip
    assert train(tmp_path / "data", tmp_path / "run", recipe, report=False)["miou"] > 0.7
