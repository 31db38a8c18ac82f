import dataclasses
import itertools

import pytest
import torch
from torch import nn

from unpool.errors import OptionError, TrainingError, WeightsError
from unpool.recipes import Recipe
from unpool.training import loop

RECIPE = Recipe("line", batch=4, bf16=False)


class Objective(loop.Objective):
    """A line with dropout, fitted in two phases; keeps the phases that were entered."""

    def __init__(self, recipe=RECIPE):
        torch.manual_seed(0)
        super().__init__(nn.Linear(2, 1), recipe)
        self.entered = []

    def steps(self):
        return [2, 3]

    def groups(self):
        return loop.filters_and_biases(self.learner, 0.1, self.recipe)

    def losses(self, part):
        loss = (self.network(nn.functional.dropout(part)) - 1).square().mean()
        return loss, loss

    def enter(self, first):
        self.entered.append(self.phase)


def stream(start=0):
    for n in itertools.count(start):
        yield torch.rand(4, 2, generator=torch.Generator().manual_seed(n))


def test_a_resumed_loop_equals_an_uninterrupted_one():
    whole, broken, state = Objective(), Objective(), loop.LoopState()
    steps = list(loop.fit(whole, stream()))
    assert [step.n for step in steps] == [1, 2, 3, 4, 5]
    assert whole.entered == [0, 1]
    for step in loop.fit(broken, stream(), state):
        if step.n == 3:
            break
    saved = state.optimizer.state_dict()
    rest = list(loop.fit(broken, stream(3), loop.LoopState(3), saved))
    assert [step.loss for step in rest] == [step.loss for step in steps[3:]]
    assert broken.entered == [0, 1]  # not again by the resumed loop
    for a, b in zip(whole.learner.parameters(), broken.learner.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.clear(),
        lambda s: s.update(state=3),
        lambda s: s["param_groups"].pop(),
        lambda s: s["param_groups"][0].pop("peak"),
        lambda s: s["param_groups"][0].pop("momentum"),
        lambda s: s["param_groups"][0].update(peak="0.1"),
        lambda s: s["param_groups"][0].update(momentum=float("nan")),
        lambda s: s["param_groups"][0].update(params=[0, 1, 2]),
        lambda s: s["state"][0].update(momentum_buffer=torch.zeros(3, 4)),
    ],
)
def test_the_optimizer_state_of_another_network_is_refused(change):
    objective, state = Objective(), loop.LoopState()
    next(loop.fit(objective, stream(), state))
    saved = state.optimizer.state_dict()
    change(saved)
    with pytest.raises(WeightsError, match="optimizer state does not fit the network"):
        next(loop.fit(Objective(), stream(1), loop.LoopState(1), saved))


def test_every_phase_has_a_new_optimizer():
    state, seen = loop.LoopState(), []
    for _ in loop.fit(Objective(), stream(), state):
        if state.optimizer not in seen:
            seen.append(state.optimizer)
    assert len(seen) == 2


def test_a_loss_that_is_not_finite_changes_nothing():
    objective = Objective()
    before = [p.clone() for p in objective.learner.parameters()]
    with pytest.raises(TrainingError, match=r"the loss is nan .* such as a tenth of lr"):
        next(loop.fit(objective, iter([torch.full((4, 2), torch.nan)] * 2)))
    assert all(map(torch.equal, before, objective.learner.parameters()))


def test_the_seed_of_a_step_is_its_own_and_the_callers_stays():
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    drawn = []
    for step in (0, 1, 0):
        with loop.seeded(3, step):
            drawn.append(float(torch.rand(1)))
    assert drawn[0] == drawn[2] != drawn[1]
    assert torch.equal(torch.rand(1), wanted)


def test_a_batch_that_cannot_be_divided_is_refused():
    assert loop.parts_of(dataclasses.replace(RECIPE, accumulate=2)) == 2
    with pytest.raises(OptionError, match=r"a batch of 4 for 3 parts .* multiple of 3"):
        loop.parts_of(dataclasses.replace(RECIPE, accumulate=3))


def test_biases_do_not_decay_and_have_their_own_rate():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    recipe = dataclasses.replace(RECIPE, weight_decay=0.5, bias_lr=2.0)
    filters, others = loop.filters_and_biases(module, 0.1, recipe)
    assert [p.dim() for p in filters["params"]] == [4]
    assert (filters["lr"], filters["weight_decay"]) == (0.1, 0.5)
    assert len(others["params"]) == 3
    assert (others["lr"], others["weight_decay"]) == (0.2, 0.0)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", [1, 1, 1, 1]),
        ("linear", [1, 0.5, 0.25, 0.02]),
        ("cosine", [1, 0.5, 0.1464466, 0.02]),
    ],
)
def test_schedules_fall_to_two_percent(schedule, factors):
    found = [loop.scheduled(schedule, n, 100) for n in (0, 50, 75, 100)]
    assert found == pytest.approx(factors)


def test_momentum_across_a_drop_is_that_of_caffe():
    """Caffe: v = momentum * v + lr * gradient; w = w - v."""
    parameter = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = torch.optim.SGD([loop.parameter_group([parameter], 0.1)], momentum=0.9)
    w, v = parameter.detach().clone(), torch.zeros(2, dtype=torch.float64)
    for n in range(6):
        lr = loop.set_learning_rate(optimizer, loop.dropped(n, 3))
        assert lr == pytest.approx(0.1 if n < 3 else 0.01)
        parameter.grad = 2 * parameter.detach()
        v = 0.9 * v + lr * 2 * w
        w = w - v
        optimizer.step()
        torch.testing.assert_close(parameter.detach(), w)


def test_lowered_peaks_stay_in_the_optimizers_state():
    objective = Objective()
    first, second = (loop.make_optimizer(objective.groups(), RECIPE) for _ in range(2))
    loop.lower_peaks(first)
    second.load_state_dict(first.state_dict())
    assert loop.set_learning_rate(second, loop.RateFactor(0.5)) == pytest.approx(0.005)
