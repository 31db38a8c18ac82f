"""The page of results: what is chosen on the images that it reports."""

import numpy as np

from experiments.results import by_others
from unpool.segment.evaluate import Measured


def drawn(rng, images, ways):
    """Counts of three classes in images, by ways that are good at some of them."""
    counts = rng.integers(0, 30, (ways, images, 3, 3)) + np.diag([40, 0, 0])
    for way in range(ways):
        counts[way, way::ways] += 60 * np.eye(3, dtype=int)
    return [[Measured(str(i), m, 0.0) for i, m in enumerate(way)] for way in counts]


def mean_iou(matrices):
    total = sum(matrices)
    return np.mean(
        [total[k, k] / (total[k].sum() + total[:, k].sum() - total[k, k]) for k in range(3)]
    )


def test_each_image_is_in_the_way_that_is_best_on_the_other_tenths():
    ways = drawn(np.random.default_rng(0), 37, 4)
    chosen = set()
    for i, one in enumerate(by_others(ways)):
        others = [j for j in range(37) if j % 10 != i % 10]
        best = np.argmax([mean_iou([way[j].matrix for j in others]) for way in ways])
        assert one is ways[best][i]
        chosen.add(best)
    assert len(chosen) > 1


def test_a_image_has_no_say_in_its_own_way():
    ways = drawn(np.random.default_rng(1), 37, 4)

    def way_of_the_fifth():
        (chosen,) = (n for n, way in enumerate(ways) if way[5] is by_others(ways)[5])
        return chosen

    before = way_of_the_fifth()
    for way in ways:
        way[5] = Measured("5", 10_000 * np.ones((3, 3), np.int64), 0.0)
    ways[before - 1][5] = Measured("5", 10_000 * np.eye(3, dtype=np.int64), 0.0)  # now far better
    assert way_of_the_fifth() == before
