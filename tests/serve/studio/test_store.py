"""Things in memory: by age, by size, by type."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unpool.serve.refusals import Refusal
from unpool.serve.studio.store import Store


def gone(store, name, kind=str):
    with pytest.raises(Refusal, match="not kept any more") as refused:
        store.get(name, kind)
    return refused.value.status == 404


def test_ids_are_random_and_long():
    store = Store()
    names = {store.add("a", 1) for _ in range(100)}
    assert len(names) == 100
    assert min(map(len, names)) >= 22  # 128 bits in base 64


def test_age_counts_from_the_last_use():
    now = [0.0]
    store = Store(seconds=10, clock=lambda: now[0])
    used, idle = store.add("used", 1), store.add("idle", 1)
    now[0] = 8
    assert store.get(used, str) == "used"
    now[0] = 12
    assert store.get(used, str) == "used"
    assert gone(store, idle)
    assert store.size == 1


def test_types_and_fixed_things():
    store = Store(most=5, fixed={"sample": "cat"})
    assert gone(store, store.add(7, 1))
    assert gone(store, "../../etc/passwd")
    store.add("a", 5)
    store.add("b", 5)
    assert store.get("sample", str) == "cat"
    with pytest.raises(Refusal, match="6 bytes") as refused:
        store.add("c", 6)
    assert refused.value.status == 413


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 20)), max_size=60))
def test_the_size_is_bounded_and_the_last_used_stay(steps):
    """Compared with a list of all things that were added, the last used one at the end."""
    store, order = Store(most=100), []
    for size, back in steps:
        if order and back < len(order):
            entry = order.pop(-1 - back)
            assert store.get(entry[0], int) == entry[1]
            order.append(entry)
        order.append((store.add(size, size), size))
        while sum(size for _, size in order) > 100:
            del order[0]
        assert store.size == sum(size for _, size in order) <= 100
        assert all(name in store for name, _ in order)
