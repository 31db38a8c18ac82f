"""Checkpoints of run folders, of folders of weights, and of files of tensors."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from unpool.errors import OptionError, WeightsError
from unpool.models import ZFNet, save_pretrained
from unpool.recipes import ZFNET_SMALL, override
from unpool.visualize.checkpoints import checkpoints_of_run, named_checkpoints
from unpool.visualize.evolution import evolve


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
