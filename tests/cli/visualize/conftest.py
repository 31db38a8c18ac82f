"""Small networks and images, and the commands of `unpool visualize` with them."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unpool.cli import main
from unpool.models import DeconvNet, save_pretrained

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.act, self.pool = activation(), nn.MaxPool2d(3, 2)
        self.deep = nn.Conv2d(6, 8, 3)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.pool(self.act(self.stem(x)))
        x = nn.functional.relu(self.deep(x))
        return self.head(x.amax((2, 3)))

def build():
    torch.manual_seed(0)
    return Net(nn.ReLU)

def prepared():
    from unpool.visualize import Preprocessing

    return build(), Preprocessing(24, mean=(0.5,), std=(0.5, 0.5, 0.5))

def smooth():
    torch.manual_seed(0)
    return Net(nn.SiLU)

def layers():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 25, 5), nn.ReLU(), nn.Linear(5, 4),
    )

def chain():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 5, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )

def smooth_chain():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 5, 2), nn.GELU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(294, 4)
    )

class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = chain()

    def forward(self, x):
        return {"scores": self.net(x), "maps": x}
"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, filled) -> str:
    net = filled(DeconvNet(3, ((1, 4), (1, 6)), None, 32))
    return str(save_pretrained(net, tmp_path_factory.mktemp("visualized") / "tiny", {}))


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """The name of a module with networks, in the current folder, where there are images, too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    name = f"nets_{tmp_path.name}"  # another one for each test, since modules are imported once
    Path(f"{name}.py").write_text(NETS)
    Path("in").mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((50, 40)).save(f"in/{i}.png")
    return name


@pytest.fixture
def run(capsys, nets):
    """Run a command, given as one text or as its words; returns the code and both streams."""
    model = f"--torch-model {nets}:layers --size 24"

    def run(*args):
        capsys.readouterr()
        words = args[0].replace("MODEL", model).split() if len(args) == 1 else map(str, args)
        code = main(["visualize", *(word.replace("NETS", nets) for word in words)])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


@pytest.fixture
def refused(run):
    """Run a command that is refused; returns the message."""

    def refused(*args):
        code, out, err = run(*args)
        assert (code, out, len(err)) == (2, [], 1), (out, err)
        return err[0]

    return refused
