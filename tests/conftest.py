"""Small networks that behave like trained ones, small data, and a training run that is left."""

import math
import shutil
import subprocess
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image
from torch import nn

from unpool.devices import require_bf16
from unpool.errors import OptionError
from unpool.models import FCN, DeconvNet, save_pretrained
from unpool.rendering.dataset import AZIMUTHS, view_name
from unpool.training.loop import Step
from unpool.vision.images import write_mask

# a busy machine is no fault of a test
settings.register_profile("unpool", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unpool")

torch.set_num_threads(1)  # such small maps are not worth sharing, least of all on a busy machine


def _filled(net: DeconvNet, seed: int = 0) -> DeconvNet:
    """In evaluation mode, every layer and its statistics filled; the same on every machine."""
    random = np.random.RandomState(seed)  # this stream of numbers is frozen
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(random.standard_normal(tensor.shape) / 4))
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            fan = layer.weight.numel() / layer.out_channels
            layer.weight.mul_(6 / math.sqrt(fan))
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.add_(1)
            layer.running_var.abs_().add_(0.5)
    return net.eval()


@pytest.fixture(scope="session")
def filled():
    """Fill a network with weights and statistics of some variety."""
    return torch.no_grad()(_filled)


@pytest.fixture(scope="session")
def pair(tmp_path_factory, filled) -> str:
    """Weights of a small DeconvNet whose card names an FCN as their partner."""
    root, trunk = tmp_path_factory.mktemp("pair"), ((1, 4), (1, 6))
    card = {"classes": ["background", "cat", "dog"], "long_side": 64}
    save_pretrained(filled(FCN(3, trunk, None, stride=4, pad=1), seed=1), root / "fcn8s", card)
    net = filled(DeconvNet(3, trunk, None, 32), seed=2)
    return str(save_pretrained(net, root / "net", {**card, "partner": "../fcn8s"}))


@pytest.fixture(scope="session")
def has_bf16():
    """Whether the processor computes in bfloat16."""
    try:
        require_bf16(torch.device("cpu"))
    except OptionError:
        return False
    return True


@pytest.fixture
def bf16(has_bf16):
    """Skip a test that computes in bfloat16 where the processor cannot."""
    if not has_bf16:
        pytest.skip("the processor cannot compute in bfloat16")


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", "size=64k", "none", str(disk)]
    mounted = shutil.which("mount") and subprocess.run(["mount", *options], capture_output=True)
    if not mounted or mounted.returncode:
        pytest.skip("only root may mount a disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


class _StopError(Exception):
    pass


@pytest.fixture(scope="session")
def stopped_at():
    """Leave a run after a step: `with stopped_at(3) as report: train(..., report=report)`."""

    @contextmanager
    def stopped(n):
        def report(record):
            if isinstance(record, Step) and record.n == n:
                raise _StopError

        with pytest.raises(_StopError):
            yield report

    return stopped


@pytest.fixture
def data(tmp_path):
    """Ten images with a bright square on dark ground."""
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    for i in range(10):
        image = rng.integers(0, 60, (40, 52, 3), dtype=np.uint8)
        labels = np.zeros((40, 52), np.uint8)
        y, x = rng.integers(2, 16, 2)
        image[y : y + 20, x : x + 20] += 150
        labels[y : y + 20, x : x + 20] = 1
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / "images" / f"{i}.png")
        write_mask(root / "masks" / f"{i}.png", labels)
    (root / "classes.txt").write_text("background\nsquare\n")
    return root


@pytest.fixture(scope="session")
def turning_bars(tmp_path_factory):
    """Rendered views of five styles from all around: bars, each of its own color, that turn."""
    root = tmp_path_factory.mktemp("bars")
    y, x = np.mgrid[:16, :16] - 7.5
    for style in range(5):
        (root / f"bar_{style}" / "renders").mkdir(parents=True)
        for number, azimuth in enumerate(AZIMUTHS):
            angle = np.radians(azimuth)
            rgba = np.full((16, 16, 4), [50 * style, 100, 200, 0], np.uint8)
            rgba[..., 3] = 255 * (abs(np.cos(angle) * y + np.sin(angle) * x) < 2 + style / 2)
            path = root / f"bar_{style}" / "renders" / view_name(number, azimuth, 20.0)
            Image.fromarray(rgba).save(path)
    return root
