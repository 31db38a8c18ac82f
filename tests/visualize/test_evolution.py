"""Evolution: the strongest activations of each checkpoint, against brute force."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from unpool.errors import ImageError, OptionError
from unpool.models import ZFNet
from unpool.vision.drawing import to_images
from unpool.vision.figures import patch
from unpool.vision.images import read_image
from unpool.visualize.checkpoints import Checkpoint
from unpool.visualize.evolution import evolve
from unpool.visualize.preprocessing import LoadedModel, Preprocessing
from unpool.visualize.projection import project

SIDE = 32


@pytest.fixture
def files(write_images):
    return write_images(7, "in")


@pytest.fixture
def states(filled_net, build):
    """Three states of one network; a unit of the second is never active."""
    loaded_models = []
    for seed in range(3):
        net = filled_net(build("overlapping"), seed)
        if seed == 1:
            with torch.no_grad():
                net[3].bias[4] = -1e4
        loaded_models.append(LoadedModel(net, f"state {seed}", Preprocessing(SIDE, SIDE)))
    return [Checkpoint(loaded.name, lambda s=loaded: s) for loaded in loaded_models]


def test_against_brute_force(states, files):
    files[2].write_bytes(b"")
    found = evolve(states, files, ["4", "8"], units=[4, 1], batch=2)
    good = [path for path in files if path != files[2]]
    assert (found.images, list(found.failed)) == (good, [str(files[2])])
    assert found.checkpoints == ["state 0", "state 1", "state 2"]
    for growth, end in zip(found.layers, (5, 9), strict=True):
        assert growth.units == [4, 1]
        for column, state in enumerate(states):
            loaded = state.load()
            images = loaded.prepare([loaded.preprocessing.crop(read_image(path)) for path in good])
            with torch.no_grad():
                maps = loaded.model[:end](images)
            for row, unit in enumerate(growth.units):
                strongest = maps[:, unit].amax((1, 2))
                value, image = float(strongest.max()), int(strongest.argmax())
                assert growth.values[row, column] == pytest.approx(value, rel=1e-5)
                assert growth.images[row, column] == (image if value > 0 else -1)
                if value > 0:
                    one = project(loaded.model, images[image : image + 1], growth.layer, unit)
                    wanted = patch(to_images(one.signal)[0], growth.boxes[row, column])
                    assert np.abs(growth.projections[row, column].astype(int) - wanted).max() <= 1
    dead = found.layers[0]
    assert dead.images[0, 1] == -1
    assert (dead.projections[0, 1] == 128).all()


def test_random_units(states, files):
    one, again = (evolve(states[:1], files[:2], ["4", "8"], shown=3) for _ in range(2))
    units = [growth.units for growth in one.layers]
    assert units == [growth.units for growth in again.layers]
    assert all(len(set(chosen)) == 3 and chosen == sorted(chosen) for chosen in units)
    other = evolve(states[:1], files[:2], ["4", "8"], shown=3, seed=5)
    assert units != [growth.units for growth in other.layers]


def test_saving(states, files, tmp_path):
    seen = []
    found = evolve(
        states, files, ["1", "4", "8"], units=[4], progress=lambda *step: seen.append(step[:2])
    )
    assert seen[-1] == (28, 28)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    image, text = found.save(tmp_path / "out")
    saved = json.loads(text.read_text())
    for growth, layer in zip(found.layers, saved["layers"], strict=True):
        (unit,) = layer["units"]
        last = None
        for state, number in zip(unit["states"], growth.images[0], strict=True):
            assert state["image"] == (None if number < 0 else str(files[number]))
            assert state["jump"] == (number >= 0 and last is not None and last != number)
            last = number if number >= 0 else last
    assert any(s["jump"] for layer in saved["layers"] for s in layer["units"][0]["states"])
    bars = (np.asarray(Image.open(image)) == (213, 94, 0)).all(2).sum()
    assert bars >= 4 * 64 * sum(int(growth.jumps.sum()) for growth in found.layers)


def test_messages(states, files):
    with pytest.raises(OptionError, match="got no checkpoints"):
        evolve([], files)
    with pytest.raises(OptionError, match="did you mean '8'"):
        evolve(states, files, ["88"])
    with pytest.raises(OptionError, match="got unit 9"):
        evolve(states, files, ["8"], units=[9])
    files[0].write_bytes(b"")
    with pytest.raises(ImageError, match="none of 1"):
        evolve(states, files[:1], ["8"])


def test_inactive_units_are_gray(states, files):
    """Even if projections start from 1 instead of the activation."""
    found = evolve(states, files, ["4"], units=[4], start="one")
    (growth,) = found.layers
    assert growth.images[0, 1] == -1
    assert (growth.projections[0, 1] == 128).all()
    assert all((growth.projections[0, i] != 128).any() for i in (0, 2))


def test_checkpoints_of_other_networks(files):
    def checkpoint(name, widths):
        net = ZFNet(3, widths, 8, 47).eval()
        return Checkpoint(name, lambda: LoadedModel(net, name, Preprocessing(47)))

    first, other = checkpoint("first", (4,) * 5), checkpoint("other", (4, 6, 4, 4, 4))
    with pytest.raises(OptionError, match=r"got checkpoint other.*pass checkpoints of one tr"):
        evolve([first, other], files, ["features.relu2"])


def test_long_names_are_shortened_in_the_middle(states, files):
    long = [Checkpoint(f"checkpoint_{i:03}", states[0].load) for i in (1, 2)]
    figure = evolve(long, files[:1], ["4"], units=[1]).figure()
    first, second = figure[20:40, :68], figure[20:40, 76:144]
    assert (first < 255).any()
    assert not np.array_equal(first, second)
