"""Sequences: their ends are plain views, and their codes lie in between."""

import math

import numpy as np
import pytest
import torch

from unpool.errors import OptionError
from unpool.generate import (
    CHANGES,
    MORPH_FRACTIONS,
    interpolate,
    morph,
    morph_fractions,
    turntable,
    vary,
)
from unpool.generate.sequences import encode_changes
from unpool.generate.transformations import Transformation


def same(a, b):
    return np.abs(a.rgba.astype(int) - b.rgba).max() <= 1


def test_a_morph_starts_and_ends_with_plain_views(generator):
    images = morph(generator, "stool", "armchair", azimuth=40)
    assert len(images) == len(MORPH_FRACTIONS) == 7
    assert same(images[0], generator.view("stool", azimuth=40))
    assert same(images[-1], generator.view("armchair", azimuth=40))
    middle = generator.view({"stool": 0.5, "armchair": 0.5}, azimuth=40)
    assert same(images[3], middle)
    assert not same(images[0], images[-1])
    both = {"stool": 0.5, "armchair": 0.5}
    assert same(morph(generator, both, "stool", [1, 0], azimuth=40)[0], middle)


def test_interpolated_views(generator):
    images = interpolate(generator, 1, (350, 370), (20, 40), 5)
    assert same(images[2], generator.view(1, azimuth=0, elevation=30))
    assert same(images[4], generator.view(1, azimuth=10, elevation=40))
    assert [bool(d.note) for d in images] == [False, False, False, True, True]


def test_a_turntable_does_not_repeat_its_first_view(generator):
    images = turntable(generator, 1, 30, 8)
    for i, one in enumerate(images):
        assert same(one, generator.view(1, azimuth=45 * i, elevation=30))


def test_animated_morphs_are_slow_in_the_middle():
    fractions = morph_fractions(33)
    assert fractions[0] == 1
    assert fractions[-1] == 0
    assert sum(0.35 <= fraction <= 0.65 for fraction in fractions) == 17
    steps = -np.diff(fractions)
    assert (steps > 0).all()
    np.testing.assert_allclose(np.add(fractions, fractions[::-1]), 1)


AS_TRANSFORMATIONS = {
    "translate-x": lambda a: Transformation(dx=a),
    "translate-y": lambda a: Transformation(dy=a),
    "angle": lambda a: Transformation(angle=a),
    "zoom": lambda a: Transformation(zoom_x=math.exp(a), zoom_y=math.exp(a)),
    "stretch": lambda a: Transformation(zoom_x=math.exp(a), zoom_y=math.exp(-a)),
    "saturation": lambda a: Transformation(saturation_1=math.exp(a), saturation_2=math.exp(a)),
    "brightness": lambda a: Transformation(brightness=math.exp(a)),
    "hue": lambda a: Transformation(hue=a),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_the_authors(generator, change):
    ends = {"translate-x": 0.2, "translate-y": 0.2, "angle": 0.5, "saturation": 5, "hue": 3}
    ends |= {"brightness": 2, "zoom": math.log(1.8), "stretch": math.log(1.5)}
    found = CHANGES[change]
    assert max(abs(found.low), abs(found.high)) == ends[change]
    assert abs(found.low) == (0 if change == "zoom" else ends[change])
    for amount in (found.low, found.high, 0.1):
        wanted = AS_TRANSFORMATIONS[change](amount).encode()
        torch.testing.assert_close(encode_changes([(change, amount)]), wanted)
    images = vary(generator, 2, change, azimuth=10)
    assert len(images) == 7
    last = AS_TRANSFORMATIONS[change](found.high)
    assert same(images[-1], generator.view(2, azimuth=10, transformation=last))
    if change not in ("zoom",):
        assert same(images[3], generator.view(2, azimuth=10))
    short = vary(generator, 2, change, 2, ends=(0, 0.1), azimuth=10)
    assert same(short[0], generator.view(2, azimuth=10))


def test_changes_add_up():
    both = encode_changes([("zoom", 0.2), ("stretch", 0.1), ("hue", 1)])
    wanted = Transformation(zoom_x=math.exp(0.3), zoom_y=math.exp(0.1), hue=1)
    torch.testing.assert_close(both, wanted.encode())


def test_refusals(generator):
    for work in (
        lambda: vary(generator, 0, "zoom", 1),
        lambda: turntable(generator, 0, count=1),
        lambda: interpolate(generator, 0, count=1),
        lambda: morph_fractions(1),
    ):
        with pytest.raises(OptionError, match="got count=1; wanted 2 images or more"):
            work()
    with pytest.raises(OptionError, match="got the change 'twist'; the choices are translate-x"):
        vary(generator, 0, "twist")
