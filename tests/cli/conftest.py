"""Small networks and labeled images, and the command line run with them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.files import CLASSES, photo, save
from unpool.cli import main
from unpool.models import DeconvNet, save_pretrained


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> str:
    """Weights of a network that is small enough to be used many times."""
    torch.manual_seed(0)
    net = DeconvNet(len(CLASSES), ((1, 4), (1, 6)), None, 32)
    card = {"classes": CLASSES, "long_side": 64, "license": "none"}
    return str(save_pretrained(net, tmp_path_factory.mktemp("weights") / "tiny", card))


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run the command line in an empty folder; gives the code, and the lines of each stream."""
    monkeypatch.chdir(tmp_path)
    # a line every ten seconds would make what stderr holds depend on the machine
    monkeypatch.setattr("unpool.training.progress.PERIOD", 600.0)

    def run(*args: object) -> tuple[int, list[str], list[str]]:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out.splitlines(), err.splitlines()

    return run


@pytest.fixture
def refused(run):
    """Run what must be refused, with one line."""

    def refused(*args: object) -> str:
        code, out, err = run(*args)
        assert (code, out, len(err)) == (2, [], 1), err
        assert err[0].startswith("unpool: ")
        return err[0]

    return refused


@pytest.fixture
def labeled(run) -> Path:
    """Six labeled images in the plain layout."""
    Path("data").mkdir()
    Path("data/classes.txt").write_text("\n".join(CLASSES))
    for i in range(6):
        save(f"data/images/{i}.jpg", photo(48, 32, seed=i))
        labels = np.zeros((32, 48), np.uint8)
        labels[8:24, 4 * i : 20 + 4 * i] = 1
        labels[:, 0] = 255
        save(f"data/masks/{i}.png", Image.fromarray(labels))
    return Path("data")
