import statistics

import numpy as np
import pytest

from unpool.bench import rounds
from unpool.errors import OptionError


def test_works_take_turns_and_the_first_round_does_not_count():
    seen, said = [], []

    def work(name, seconds):
        return lambda: seen.append(name) or seconds[seen.count(name) - 1]

    works = {"a": work("a", [9, 1, 2]), "b": work("b", [9, 3, 4])}
    found = rounds.in_turn(works, 2, progress=lambda *update: said.append(update))
    assert (found, seen) == ({"a": [1, 2], "b": [3, 4]}, list("ababab"))
    assert said == [(i, 6, name) for i, name in enumerate("ababab")]
    seen.clear()
    assert rounds.in_turn({"a": work("a", [5])}, 1, warm=False) == {"a": [5]}


def test_spread_and_pairs():
    values = list(np.random.default_rng(0).uniform(1, 9, 11))
    found = rounds.spread(values)
    wanted = [statistics.median(values), min(values), max(values)]
    assert list(found.values()) == pytest.approx(wanted, rel=1e-3)
    # a machine that slows down for a while, for all that take turns, changes no ratio
    slowed = np.array([1, 1, 5, 5, 1.0])
    assert set(rounds.paired(list(3 * slowed), list(slowed)).values()) == {3.0}


def test_a_call_among_several_takes_its_share():
    calls = []
    assert rounds.timed(lambda: calls.append(1), calls=4)() < 10
    assert len(calls) == 4


def test_numbers_below_one_are_refused():
    with pytest.raises(OptionError, match="got rounds=0; wanted 1 or more"):
        rounds.in_turn({}, 0)
    with pytest.raises(OptionError, match="got crops=-1; wanted 1 or more"):
        rounds.require_positive(batch=2, crops=-1)
