"""The weights that a training begins with, and with which its result is a mean."""

import dataclasses
import json

import pytest
import torch

from unpool.errors import OptionError, WeightsError
from unpool.fitting import Step
from unpool.models import from_pretrained, save_pretrained
from unpool.recipes import Phase, Recipe
from unpool.train import train

TINY = Recipe(
    "tiny",
    phases=(Phase("all", 2, 3, 1e-2, 1e-2, 1e-2),),
    trunk=((1, 6), (1, 8)),
    code=None,
    size=32,
    batch=2,
    long_side=(32, 64),
    coarse_weight=0.0,
    validate_every=3,
    statistics_passes=2,
    whole_side=48,
)


@pytest.fixture
def start(data, tmp_path):
    train(data, tmp_path / "first", TINY)
    return tmp_path / "first/weights"


def test_a_run_may_begin_with_other_weights_and_keeps_their_terms(data, start, tmp_path):
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
    assert card["aggregate"] == "mean"
    assert card["license"].endswith(f"begun with {start}: research use")


def test_the_finished_weights_are_a_mean_with_those_of_the_beginning(data, start, tmp_path):
    recipe = dataclasses.replace(TINY, start=str(start))
    runs = {share: tmp_path / f"share-{share}" for share in (0, 0.25, 1)}
    for share, folder in runs.items():
        train(data, folder, dataclasses.replace(recipe, start_share=share))
    old = from_pretrained(start)[0].state_dict()
    learned, mean, same = (from_pretrained(f / "weights")[0].state_dict() for f in runs.values())
    for name, tensor in old.items():
        if "running" in name or not tensor.is_floating_point():
            continue  # batch norm's statistics are taken anew, of the mean
        torch.testing.assert_close(mean[name], 0.75 * learned[name] + 0.25 * tensor)
        assert torch.equal(same[name], tensor), name
    scores = "seg-score-voc.weight"
    assert (learned[scores] - old[scores]).abs().max() > 1e-3


@pytest.mark.parametrize("names", ["background\nowl\n", "background\nsquare\nowl\n"])
def test_a_mean_with_weights_of_other_classes_leaves_nothing(data, start, tmp_path, names):
    (data / "classes.txt").write_text(names)
    recipe = dataclasses.replace(TINY, start=str(start), start_share=0.5)
    with pytest.raises(OptionError, match=r"of the classes.*owl; .*set start_share=0"):
        train(data, tmp_path / "second", recipe)
    assert not (tmp_path / "second").exists()


def test_a_mean_of_two_architectures_is_refused_before_any_step(data, start, tmp_path):
    recipe = dataclasses.replace(TINY, start=str(start), start_share=0.5, code=8)
    steps = []
    with pytest.raises(OptionError, match=r"of another architecture.*set start_share=0"):
        train(data, tmp_path / "second", recipe, report=steps.append)
    assert not [record for record in steps if isinstance(record, Step)]


def test_a_mean_is_with_the_weights_of_the_beginning_whatever_became_of_them(data, start, tmp_path):
    recipe = dataclasses.replace(TINY, start=str(start), start_share=0.5)
    train(data, tmp_path / "run", recipe)
    weights = tmp_path / "run/weights/model.safetensors"
    before = weights.read_bytes()
    net, card = from_pretrained(start)
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.add_(1)
    save_pretrained(net, start, card)
    train(data, tmp_path / "run", recipe, resume=True)  # the end once more
    assert weights.read_bytes() == before


def test_a_mean_takes_no_other_trunk(data, start, tmp_path):
    recipe = dataclasses.replace(TINY, start=str(start), start_share=0.5)
    with pytest.raises(OptionError, match=r"leave --trunk-weights out, or set start_share=0"):
        train(data, tmp_path / "second", recipe, trunk_weights=tmp_path / "vgg.pth")


def test_a_start_that_is_not_there_leaves_nothing(data, tmp_path):
    recipe = dataclasses.replace(TINY, start=str(tmp_path / "none"))
    with pytest.raises(WeightsError, match="none"):
        train(data, tmp_path / "run", recipe)
    assert not (tmp_path / "run").exists()


def test_weights_of_another_trunk_are_no_beginning(data, start, tmp_path):
    for trunk in (((1, 6), (1, 9)), ((1, 6),)):
        phase = Phase("all", len(trunk), 1, 1e-3)
        recipe = dataclasses.replace(TINY, start=str(start), trunk=trunk, phases=(phase,))
        with pytest.raises(OptionError, match="another trunk"):
            train(data, tmp_path / f"second-{len(trunk)}", recipe)
