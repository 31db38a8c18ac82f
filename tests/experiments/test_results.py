"""The page of results: cross-validation of the threshold, and the page itself."""

import json
from pathlib import Path

import numpy as np

from experiments.results import by_others, page
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


def test_each_image_uses_what_is_best_on_the_other_tenths():
    ways = drawn(np.random.default_rng(0), 37, 4)
    chosen = set()
    for i, one in enumerate(by_others(ways)):
        others = [j for j in range(37) if j % 10 != i % 10]
        best = np.argmax([mean_iou([way[j].matrix for j in others]) for way in ways])
        assert one is ways[best][i]
        chosen.add(best)
    assert len(chosen) > 1


def test_an_image_does_not_affect_its_own_threshold():
    ways = drawn(np.random.default_rng(1), 37, 4)

    def way_of_the_fifth():
        (chosen,) = (n for n, way in enumerate(ways) if way[5] is by_others(ways)[5])
        return chosen

    before = way_of_the_fifth()
    for way in ways:
        way[5] = Measured("5", 10_000 * np.ones((3, 3), np.int64), 0.0)
    ways[before - 1][5] = Measured("5", 10_000 * np.eye(3, dtype=np.int64), 0.0)  # now far better
    assert way_of_the_fifth() == before


def test_the_page_is_what_the_script_makes_of_the_measurements():
    docs = Path(__file__).parents[2] / "docs"
    parts = json.loads((docs / "results.json").read_text(encoding="utf-8"))
    made = page({name: rows for name, rows in parts.items() if name != "about"}, parts["about"])
    assert made == (docs / "results.md").read_text(encoding="utf-8")
