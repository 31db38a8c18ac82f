"""`unpool visualize evolve`, on small networks."""

import json
from pathlib import Path

import pytest
import torch

from tests.cli.visualize.files import names
from unpool.models import ZFNet, save_pretrained


@pytest.fixture
def epochs(nets, tmp_path):
    """Two files of tensors of the model, one after the other."""
    scope = {}
    exec(Path(f"{nets}.py").read_text(), scope)
    for i in range(2):
        net = scope["layers"]()
        with torch.no_grad():
            net[3].weight.mul_(1 - 2 * i)
        torch.save(net.state_dict(), tmp_path / f"e{i}.pt")
    return "--checkpoint e0.pt --checkpoint e1.pt"


def test_evolve(run, epochs):
    Path("in/3.png").write_bytes(b"")
    text = f"evolve in {epochs} MODEL --layer 1 --layer 4 --shown 2 -o out"
    code, out, err = run(f"{text} --json")
    assert (code, err, len(out)) == (3, [], 1)
    result = json.loads(out[0])
    assert (result["checkpoints"], result["images"]) == (["e0", "e1"], 5)
    assert list(result["failed"]) == ["in/3.png"]
    assert [(layer["layer"], len(layer["units"])) for layer in result["layers"]] == [
        ("1", 2),
        ("4", 2),
    ]
    assert names("out") == {"evolution.png", "evolution.json"}
    code, out, err = run(f"{text} --gray --rule guided --from one")
    assert (code, len(err)) == (3, 1)
    assert out[0].split() == ["layer", "maps", "jumps"]
    assert out[-1] == "5 images, into out/evolution.png"


def test_evolve_weights(run, tmp_path):
    for i in range(2):
        torch.manual_seed(i)
        save_pretrained(ZFNet(3, (4,) * 5, 8, 47), tmp_path / f"{i}/weights", {})
    text = "evolve in --checkpoint 0/weights --checkpoint 1/weights --layer features.relu2"
    assert run(f"{text} --unit 1 --quiet") == (0, [], [])
    result = json.loads(Path("evolution/evolution.json").read_text())
    assert result["checkpoints"] == ["0", "1"]
    code, out, _ = run("evolve --list-layers --checkpoint 0/weights")
    assert code == 0
    assert out[1].split() == ["features.conv1", "Conv2d", "4", "x", "22", "x", "22"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("evolve in MODEL", "got neither --run nor --checkpoint"),
        ("evolve in --run in --checkpoint in", "got --run and --checkpoint"),
        ("evolve in --run in", "which has no checkpoints/epochs"),
        ("evolve in --run in MODEL", "got --torch-model and --size with --run"),
        ("evolve in --checkpoint e.pt", "name their model with --torch-model"),
        ("evolve in --checkpoint e.pt MODEL", "e.pt"),
    ],
)
def test_unusable_options(refused, args, message):
    assert message in refused(args)
