"""The generator: encoding, prediction, and notes beyond the training data."""

import json

import numpy as np
import pytest
import torch

import unpool
from unpool.errors import OptionError, ShapeError, WeightsError
from unpool.generate import Generator, parse_style
from unpool.generate.transformations import Ranges, Transformation, random_transformations
from unpool.models import DeconvNet, encode_view, save_pretrained
from unpool.recipes.generate import CHAIRS

NAMES = ["armchair", "bar_stool", "folding_chair", "stool"]


def test_a_view_is_the_clipped_output_of_the_network(any_generator):
    net = any_generator.model
    angles = torch.tensor([40.0]), torch.tensor([25.0])
    with torch.no_grad():
        rgb, mask = net(torch.eye(4)[2:3], encode_view(*angles), torch.zeros(1, 28))
    image = any_generator.view("folding_chair", azimuth=40, elevation=25)
    color = rgb[0].permute(1, 2, 0).numpy().clip(0, 1)
    alpha = mask[0].permute(1, 2, 0).numpy().clip(0, 1).mean(2)
    assert np.abs(image.rgba[:, :, :3] / 255 - color).max() <= 0.5 / 255 + 1e-6
    assert np.abs(image.rgba[:, :, 3] / 255 - alpha).max() <= 0.5 / 255 + 1e-6
    assert image.rgba[:, :, 3].std() > 10  # there is an object
    assert image.note == ""


def test_azimuths_are_wrapped(generator):
    plain = generator.view(0, azimuth=30).rgba
    for azimuth in (390, -330, 30 + 3600):
        assert np.array_equal(generator.view(0, azimuth=azimuth).rgba, plain)
    assert np.array_equal(generator.view(0, azimuth=360).rgba, generator.view(0).rgba)
    assert not np.array_equal(generator.view(0, azimuth=210).rgba, plain)


def test_style_codes_are_linear_in_the_fractions(generator):
    one = torch.eye(4)
    mixed = generator.style_code({"stool": 1, "armchair": -1, 1: 0.5})
    assert torch.equal(mixed, one[3] - one[0] + 0.5 * one[1])
    assert torch.equal(generator.style_code("stool"), one[3])
    assert torch.equal(generator.style_code(mixed), mixed)
    assert torch.equal(generator.style_code({"stool": 1, 3: 1}), 2 * one[3])
    # and so is the first layer
    layer = generator.model.style.fc1
    parts = [
        layer(generator.style_code(n)) - layer.bias for n in ("stool", "armchair", "bar_stool")
    ]
    expected = parts[0] - parts[1] + 0.5 * parts[2] + layer.bias
    torch.testing.assert_close(layer(mixed), expected)
    same = generator.view({"stool": 0.5, 3: 0.5}).rgba
    assert np.array_equal(same, generator.view("stool").rgba)


def test_a_batch_is_its_images(generator):
    styles, azimuths = ["stool", 0, {"stool": 1, "armchair": 1}], [0, 20.5, 100]
    changes = [None, Transformation(angle=0.3), Transformation(zoom_x=1.4, hue=1)]
    images = generator.generate(styles, azimuths, 20, changes)
    for one, style, azimuth, change in zip(images, styles, azimuths, changes, strict=True):
        alone = generator.view(style, azimuth=azimuth, transformation=change)
        assert np.abs(one.rgba.astype(int) - alone.rgba).max() <= 1
    assert len(generator.generate("stool", np.linspace(0, 300, 40))) == 40  # more than one pass
    (first, *_), (*_, last) = generator.grid(["stool", "armchair"], [0, 90, 180], 30)
    assert np.abs(first.rgba.astype(int) - generator.view(3, elevation=30).rgba).max() <= 1
    wanted = generator.view(0, azimuth=180, elevation=30).rgba
    assert np.abs(last.rgba.astype(int) - wanted).max() <= 1


def test_transformations_are_encoded(generator):
    change = Transformation(dx=0.1, zoom_x=1.5, brightness=0.5)
    images = generator.view(1, transformation=change).rgba
    assert np.array_equal(images, generator.view(1, transformation=change.encode()).rgba)
    assert np.array_equal(images, generator.view(1, transformation=change.encode().tolist()).rgba)
    none = generator.view(1, transformation=Transformation()).rgba
    assert np.array_equal(none, generator.view(1).rgba)
    assert not np.array_equal(none, images)
    with pytest.raises(ShapeError, match=r"a transformation of \(9,\); this network takes 28"):
        generator.view(1, transformation=[0.0] * 9)


def test_elevations_beyond_the_training_are_noted(generator):
    notes = [images.note for images in generator.generate(0, 0, [20, 30, 45, -5])]
    assert notes[:2] == ["", ""]
    assert notes[2] == "elevation 45 is beyond the 20 to 30 of the training"
    assert notes[3].startswith("elevation -5 is beyond")


def test_transformations_beyond_the_training_are_noted(generator):
    trained = Ranges(translate=0.1, rotate=0.2, zoom=0.3, squeeze=0.1, zoom_mean=0.2)
    generator = Generator(generator.model, NAMES, ranges=trained, device="cpu")
    images = random_transformations(50, 1.0, trained, False, torch.Generator().manual_seed(0))
    assert not any(one.note for one in generator.generate(0, transformation=list(images)))
    one = generator.view(0, elevation=35, transformation=Transformation(angle=-0.3, zoom_x=0.5))
    assert one.note == (
        "elevation 35 is beyond the 20 to 30; angle -0.3 is beyond the -0.2 to 0.2; "
        "zoom -0.69 is beyond the -0.2 to 0.6 of the training"
    )


def test_fractions_that_do_not_add_up_to_one_are_noted(generator):
    assert generator.view({"stool": 1, "armchair": -1, 2: 1}).note == ""
    assert generator.view({"stool": 9}).note == ("the fractions of the styles add up to 9, not 1")


@pytest.mark.parametrize(
    ("style", "message"),
    [
        ("stol", r"got style 'stol'; did you mean 'stool'\? The choices are armchair, bar_stool"),
        ("chair", "did you mean 'folding_chair'"),
        ("xyzzy", "got style 'xyzzy'; the choices are armchair"),
        (4, "got style 4; wanted an index, 0 to 3"),
        (-1, "got style -1"),
        ({}, "wanted a finite number for each style"),
        ({"stool": float("nan")}, "wanted a finite number for each style"),
        ({"stol": 1}, "did you mean 'stool'"),
    ],
)
def test_unknown_styles(generator, style, message):
    with pytest.raises(OptionError, match=message):
        generator.view(style)


def test_unusable_arguments(generator):
    with pytest.raises(OptionError, match="got 2, 3, 1, 1 styles, azimuths, elevations and"):
        generator.generate(["stool", 0], [1, 2, 3])
    with pytest.raises(OptionError, match="got 0, 1, 1, 1 styles"):
        generator.generate([])
    with pytest.raises(OptionError, match="got azimuth=inf; wanted finite degrees"):
        generator.view(0, azimuth=float("inf"))
    with pytest.raises(OptionError, match="got elevation=None; wanted finite degrees"):
        generator.view(0, elevation=None)
    with pytest.raises(OptionError, match="got the style None; wanted a name, an index"):
        generator.view(None)
    with pytest.raises(ShapeError, match=r"got fractions of shape \(3,\); wanted \(4,\)"):
        generator.view(torch.ones(3))
    with pytest.raises(OptionError, match="got 3 different names for a network of 4 styles"):
        Generator(generator.model, ["a", "b", "c", "a"])


def test_saved_weights(generator, tmp_path):
    card = {"styles": NAMES, "elevations": [10, 40]}
    folder = save_pretrained(generator.model, tmp_path / "tiny", card)
    found = unpool.Generator.from_pretrained(folder, device="cpu")
    assert found.styles == NAMES
    assert found.view("stool", elevation=40).note == ""
    assert found.ranges is None
    card["recipe"] = CHAIRS.to_json()
    folder = save_pretrained(generator.model, tmp_path / "recipe", card)
    ranges = Generator.from_pretrained(folder, device="cpu").ranges
    assert (ranges.rotate, ranges.hue) == (0.2 * CHAIRS.spread[1], 1.5 * CHAIRS.spread[1])
    assert np.array_equal(found.view("stool").rgba, generator.view("stool").rgba)
    bare = save_pretrained(generator.model, tmp_path / "bare", {})
    assert Generator.from_pretrained(bare, device="cpu").styles[3] == "style 3"
    entries = json.loads((bare / "card.json").read_text())
    for wrong in (["a"], ["a"] * 4, "abcd"):
        (bare / "card.json").write_text(json.dumps(entries | {"styles": wrong}))
        with pytest.raises(WeightsError, match="wanted 4 different names"):
            Generator.from_pretrained(bare)
    (bare / "card.json").write_text(json.dumps(entries | {"elevations": ["high"]}))
    with pytest.raises(WeightsError, match="wanted degrees"):
        Generator.from_pretrained(bare)
    other = save_pretrained(DeconvNet(2, ((1, 4),), None, 32), tmp_path / "other", {})
    with pytest.raises(WeightsError, match="weights of a DeconvNet, which generates no images"):
        Generator.from_pretrained(other)


def test_styles_are_parsed():
    assert parse_style("stool") == "stool"
    assert parse_style("a=1, 3=-0.5,a = 1") == {"a": 2.0, "3": -0.5}
    with pytest.raises(OptionError, match="got 'b' in the style 'a=1,b'; wanted NAME=FRACTION"):
        parse_style("a=1,b")


def test_values_that_are_not_finite_give_no_image(any_generator):
    bias = any_generator.model.style.fc1.bias.data
    before = bias.clone()
    bias[0] = torch.nan
    with pytest.raises(WeightsError, match="got an image with NaN or infinity"):
        any_generator.view(0)
    bias.copy_(before)
