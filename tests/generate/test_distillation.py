"""Learning from what other networks draw, on tiny ones."""

import dataclasses

import numpy as np
import pytest
import torch

from experiments.compact import COMPACT
from unpool import distributed
from unpool.cards import read_card
from unpool.errors import WeightsError
from unpool.generate.batches import Views, as_targets, view_batches
from unpool.generate.distillation import average_output, distill, load_teachers
from unpool.generate.evaluate import generate
from unpool.generate.train import build
from unpool.models import ZFNet, save_pretrained
from unpool.recipes import RECIPES, GenerationRecipe, override
from unpool.recipes.generate import CHAIRS_DISTILLED
from unpool.rendering.dataset import AZIMUTHS

CPU = torch.device("cpu")
STYLES = ("round", "square")
TINY = {"size": 16, "code": 8, "shared": 12, "widths": (8,), "mask_widths": (6,)}
DISTILLED = dataclasses.replace(COMPACT, name="taught", batch=8, plain=0.0, bf16=False, **TINY)


def some_views(count=12):
    rng = np.random.default_rng(0)
    return Views(
        rng.integers(0, 256, (count, 16, 16, 4), dtype=np.uint8),
        np.arange(count) % 2,
        np.array(AZIMUTHS[:count]),
        np.full(count, 20.0),
    )


def network(seed=0):
    """Weights large enough that a mask is neither 0 nor 1 everywhere."""
    torch.manual_seed(seed)
    net = build(DISTILLED, 2)
    for values in net.parameters():
        torch.nn.init.normal_(values, 0.05, 0.3)
    return net.eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folders = [tmp_path_factory.mktemp(f"teacher{n}") for n in range(2)]
    for n, folder in enumerate(folders):
        save_pretrained(network(n), folder, {"styles": list(STYLES)})
    return tuple(str(folder) for folder in folders)


def test_drawings_are_the_mean_of_the_teachers():
    """To the rounding of 8 bits; colors brighter than the mask allows are cut to it."""
    nets, views = [network(0), network(1)], some_views()
    drawn = [torch.cat(generate(net, views), 1) for net in nets]
    mean = (drawn[0] + drawn[1]) / 2
    wanted = torch.cat([mean[:, :3].minimum(mean[:, 3:]), mean[:, 3:]], 1)
    found = as_targets(average_output(nets, views), CPU)
    assert 0.1 < float(wanted[:, 3].mean()) < 0.9
    assert float((found - wanted).abs().max()) < 1.01 / 255


def test_teachers_draw_a_share_of_each_part_between_the_views():
    nets, recipe = [network()], dataclasses.replace(DISTILLED, teacher_fraction=0.25)
    views, learned = some_views(), np.arange(12)
    plain = view_batches(views, learned, recipe, 8)
    changed = distill(view_batches(views, learned, recipe, 8), nets, recipe, 8, (20.0, 30.0))
    before = views.images.copy()
    for _ in range(3):
        a, b = next(plain), next(changed)
        assert torch.equal(a.vectors, b.vectors)
        assert np.array_equal(a.views.styles, b.views.styles)
        assert np.array_equal(a.views.images[2:], b.views.images[2:])
        assert np.array_equal(a.views.azimuths[2:], b.views.azimuths[2:])
        assert not np.isin(b.views.azimuths[:2], AZIMUTHS).any()
        assert ((b.views.elevations[:2] > 20) & (b.views.elevations[:2] < 30)).all()
        rgb, mask = generate(nets[0], b.views.take(np.arange(2)))
        wanted = torch.cat([rgb.minimum(mask), mask], 1)
        found = as_targets(b.views.images[:2], CPU)
        assert float((found - wanted).abs().max()) < 1.01 / 255
    assert np.array_equal(views.images, before)


def test_parts_depend_on_their_number_alone():
    nets, views, learned = [network()], some_views(), np.arange(12)
    stream = distill(view_batches(views, learned, DISTILLED, 4), nets, DISTILLED, 4, (20.0, 30.0))
    first = [next(stream) for _ in range(6)]
    stream = distill(
        view_batches(views, learned, DISTILLED, 4, 5), nets, DISTILLED, 4, (20.0, 30.0), 5
    )
    later = next(stream)
    assert np.array_equal(later.views.images, first[5].views.images)
    assert np.array_equal(later.views.azimuths, first[5].views.azimuths)
    assert not np.array_equal(first[4].views.azimuths, first[5].views.azimuths)


@pytest.mark.parametrize("size", [1, 2])
def test_parts_are_together_what_a_whole_batch_is(size, monkeypatch):
    """Passed one after the other, and shared by two processes; also where one part has none."""
    nets, recipe = [network()], dataclasses.replace(DISTILLED, batch=4)
    views, learned = some_views(), np.arange(12)

    def stream(size):
        return distill(view_batches(views, learned, recipe, size), nets, recipe, size, (20.0, 30.0))

    whole = stream(4)
    monkeypatch.setattr(distributed, "world", lambda: 2)
    ranks = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        parts = stream(size)
        ranks.append([next(parts) for _ in range(3 * 4 // size // 2)])
    monkeypatch.undo()
    parts = [part.views for both in zip(*ranks, strict=True) for part in both]
    for _ in range(3):
        some, parts = parts[: 4 // size], parts[4 // size :]
        wanted = next(whole).views
        for field in ("styles", "azimuths", "elevations"):
            found = np.concatenate([getattr(part, field) for part in some])
            assert np.array_equal(found, getattr(wanted, field))
        found = np.concatenate([part.images for part in some]).astype(int)
        assert abs(found - wanted.images).max() <= 1  # the teachers draw other batches


def test_teachers_do_not_learn(weights):
    nets = load_teachers(dataclasses.replace(DISTILLED, teachers=weights), STYLES, CPU)
    assert len(nets) == 2
    assert not any(p.requires_grad or net.training for net in nets for p in net.parameters())


@pytest.mark.parametrize(
    ("styles", "size", "message"),
    [
        (("round", "oval"), 16, "generates square in place of oval; wanted the 2 styles"),
        (("square", "round"), 16, "generates round in place of square; .* in their order"),
        ((*STYLES, "oval"), 16, "generates nothing in place of oval"),
        (STYLES, 32, "generates 16 pixels; wanted 32: set size=16"),
    ],
)
def test_teachers_of_something_else_are_refused(weights, styles, size, message):
    recipe = dataclasses.replace(DISTILLED, teachers=weights, size=size)
    with pytest.raises(WeightsError, match=message):
        load_teachers(recipe, styles, CPU)


def test_teachers_that_do_not_draw_are_refused(tmp_path):
    save_pretrained(ZFNet(4, (4,) * 5, 8, 64), tmp_path, {"classes": list("abcd")})
    recipe = dataclasses.replace(DISTILLED, teachers=(str(tmp_path),))
    with pytest.raises(WeightsError, match="of a ZFNet, which generates no images"):
        load_teachers(recipe, STYLES, CPU)


def test_weights_to_begin_with_that_do_not_draw_are_refused(tmp_path):
    save_pretrained(ZFNet(4, (4,) * 5, 8, 64), tmp_path, {"classes": list("abcd")})
    with pytest.raises(WeightsError, match="of a ZFNet, which generates no images"):
        build(dataclasses.replace(DISTILLED, start=str(tmp_path)), 2)


def test_teachers_that_are_missing_are_told(tmp_path):
    recipe = override(DISTILLED, [f'teachers=["{tmp_path}/chairs-longer/weights"]'])
    cure = f"train the recipe chairs-longer into {tmp_path}/chairs-longer first"
    with pytest.raises(WeightsError, match=rf"^teachers of the recipe taught: .*{cure}"):
        load_teachers(recipe, STYLES, CPU)


def test_weights_to_begin_with_that_are_missing_are_told(tmp_path):
    recipe = dataclasses.replace(DISTILLED, start=str(tmp_path / "mine/weights"))
    with pytest.raises(
        WeightsError, match=r"^start of the recipe taught: .*; set start='FOLDER'"
    ) as told:
        build(recipe, 2)
    assert "train the recipe" not in str(told.value)  # no recipe makes these


@pytest.mark.parametrize("before", [None, {}, {"held_out": [3]}, {"held_out": "all"}])
def test_what_may_have_seen_the_views_held_out_is_refused(tmp_path, before):
    save_pretrained(network(), tmp_path, {"styles": list(STYLES), "recipe": before})
    recipe = dataclasses.replace(DISTILLED, teachers=(str(tmp_path),), held_out=(3, 5))
    with pytest.raises(WeightsError, match=r"may have been trained on the azimuths \[.*5\], which"):
        load_teachers(recipe, STYLES, CPU)
    with pytest.raises(WeightsError, match=r"^start of the recipe"):
        build(dataclasses.replace(recipe, start=str(tmp_path)), 2)


def test_what_has_not_seen_them_is_taken(tmp_path):
    card = {"styles": list(STYLES), "recipe": {"held_out": [3, 5, 7]}}
    save_pretrained(network(), tmp_path, card)
    recipe = dataclasses.replace(DISTILLED, teachers=(str(tmp_path),), held_out=(3, 5))
    assert len(load_teachers(recipe, STYLES, CPU)) == 1


def test_the_default_weights_learn_from_recipes_of_their_own():
    """Whoever begins with nothing can train all that is needed, in this order."""
    known = set()
    for name in ("", "-longer", "-ranges", "-one-stream", "-distilled"):
        recipe = RECIPES[f"chairs{name}"]
        needed = {*recipe.teachers, *([recipe.start] if recipe.start else [])}
        assert needed <= known
        assert recipe.held_out == CHAIRS_DISTILLED.held_out
        known.add(f"runs/{recipe.name}/weights")
    assert len(CHAIRS_DISTILLED.teachers) == 3


def test_the_card_of_the_default_weights_has_their_recipe():
    """So that it can be read, and run again."""
    assert GenerationRecipe.from_json(read_card("chairs").recipe) == CHAIRS_DISTILLED
