"""Evolution: the strongest activations of each checkpoint, against brute force; checkpoints."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from unpool.errors import ImageError, OptionError, WeightsError
from unpool.models import ZFNet, save_pretrained
from unpool.recipes import override
from unpool.recipes.classify import ZFNET_SMALL
from unpool.vision.drawing import to_images
from unpool.vision.figures import patch
from unpool.vision.images import read_image
from unpool.visualize.evolution import Checkpoint, checkpoints_of_run, evolve, named_checkpoints
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


def test_epochs_of_a_run(tmp_path):
    recipe = override(ZFNET_SMALL, ["widths=[4,4,4,4,4]", "code=8", "size=47", "enlarged=50"])
    run = tmp_path / "run"
    (run / "checkpoints/epochs").mkdir(parents=True)
    nets = {}
    for epoch in (10, 2):
        nets[epoch] = ZFNet(3, recipe.widths, recipe.code, recipe.size).eval()
        save_file(nets[epoch].state_dict(), run / f"checkpoints/epochs/{epoch:03}.safetensors")
    with pytest.raises(WeightsError, match=r"config\.json or first epoch cannot be used"):
        checkpoints_of_run(run, "cpu")
    for damaged in ([1], recipe.to_json() | {"code": "8"}, recipe.to_json() | {"size": 10**9}):
        (run / "config.json").write_text(json.dumps(damaged))
        with pytest.raises(WeightsError, match=r"config\.json or first epoch cannot be used"):
            checkpoints_of_run(run, "cpu")
    (run / "config.json").write_text(json.dumps(recipe.to_json()))
    found = checkpoints_of_run(run, "cpu")
    assert [state.name for state in found] == ["epoch 2", "epoch 10"]
    for state, net in zip(found, (nets[2], nets[10]), strict=True):
        loaded = state.load()
        p = loaded.preprocessing
        assert (p.size, p.enlarged, p.order, p.range) == (47, 50, "BGR", 255)
        x = torch.rand(1, 3, 47, 47)
        assert torch.equal(loaded.model(x), net(x))
    Image.new("RGB", (60, 60), "teal").save(tmp_path / "teal.png")
    evolution = evolve(found, [tmp_path / "teal.png"], shown=1)
    assert evolution.checkpoints == ["epoch 2", "epoch 10"]
    with pytest.raises(WeightsError, match="has no checkpoints/epochs"):
        checkpoints_of_run(tmp_path)


def test_named_checkpoints(tmp_path):
    nets = [ZFNet(3, (4,) * 5, 8, 47).eval() for _ in range(2)]
    folders = [save_pretrained(net, tmp_path / f"{i}/weights", {}) for i, net in enumerate(nets)]
    found = named_checkpoints(folders, device="cpu")
    assert [state.name for state in found] == ["0", "1"]
    tensors = tmp_path / "later.pt"
    torch.save(nets[1].state_dict(), tensors)
    (later,) = named_checkpoints([tensors], weights=folders[0], device="cpu")
    x = torch.rand(1, 3, 47, 47)
    for state, net in ((found[0], nets[0]), (found[1], nets[1]), (later, nets[1])):
        assert torch.equal(state.load().model(x), net(x))
    with pytest.raises(OptionError, match="name their model with torch_model="):
        named_checkpoints([tensors])
    with pytest.raises(OptionError, match="leave out torch_model='a:b'"):
        named_checkpoints(folders, torch_model="a:b")


def test_names_are_unique(tmp_path):
    def names(*paths):
        made = [tmp_path / path for path in paths]
        for path in made:
            path.parent.mkdir(exist_ok=True)
            path.touch()
        return [state.name for state in named_checkpoints(made, torch_model="a:b")]

    assert names("e1/model.pt", "e2/model.pt") == ["e1/model", "e2/model"]
    assert names("e1/a.pt", "e2/b.pt") == ["a", "b"]
    assert names("e1/a.pt", "e1/a.safetensors") == ["a.pt", "a.safetensors"]
    assert names("e1/a.pt", "e1/a.pt") == ["a", "a"]
