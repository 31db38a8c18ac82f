"""SqueezeNet: as released, layer by layer, and with the released weights."""

from importlib import resources
from pathlib import Path

import pytest
import torch

from unpool.errors import ShapeError
from unpool.models import SqueezeNet, load_tensors, prepare
from unpool.vision.boxes import Crops
from unpool.vision.images import read_image

WEIGHTS = Path(__file__).parents[2].parent / "shared/data/weights/squeezenet1_1.pth"


def built():
    with torch.device("meta"):
        return SqueezeNet()


def test_the_layers_of_squeezenet_are_those_of_release_1_1():
    x, found = torch.zeros(1, 3, 227, 227, device="meta"), []
    for layer in built().features:
        x = layer(x)
        found.append(tuple(x.shape[1:]))
    assert found == [
        (64, 113, 113), (64, 113, 113), (64, 56, 56), (128, 56, 56), (128, 56, 56),
        (128, 28, 28), (256, 28, 28), (256, 28, 28),
        (256, 14, 14), (384, 14, 14), (384, 14, 14), (512, 14, 14), (512, 14, 14),
    ]  # fmt: skip


def test_squeezenet_has_the_names_of_torchvision():
    fires = [3, 4, 6, 7, 9, 10, 11, 12]
    parts = [
        f"features.{i}.{name}" for i in fires for name in ("squeeze", "expand1x1", "expand3x3")
    ]
    wanted = {
        f"{name}.{kind}"
        for name in ["features.0", *parts, "classifier.1"]
        for kind in ("weight", "bias")
    }
    assert set(built().state_dict()) == wanted
    assert len(wanted) == 52


@pytest.mark.skipif(not WEIGHTS.exists(), reason="the weights of SqueezeNet 1.1 are not at hand")
@pytest.mark.parametrize(("name", "label"), [("chelsea", 285), ("coffee", 967)])
def test_squeezenet_knows_cats_and_cups(name, label):
    """By their numbers in ImageNet: Egyptian cat and espresso."""
    net = SqueezeNet().eval()
    load_tensors(net, WEIGHTS)
    image = read_image(str(resources.files("skimage") / f"data/{name}.png"))
    crop = Crops(227, 227).center(image)
    scores = net(prepare(torch.from_numpy(crop[None]), net.mean))
    assert scores.argmax().item() == label


def test_squeezenet_takes_any_image_that_is_large_enough():
    net = SqueezeNet(5, 6, (((2, 4),), ((3, 5), (2, 6))), size=40).eval()
    assert net(torch.zeros(1, 3, net.least, 50)).shape == (1, 5)
    with pytest.raises(ShapeError, match=rf"takes \(N, 3, H, W\) with H and W from {net.least} up"):
        net(torch.zeros(1, 3, net.least - 1, 50))
    with pytest.raises(RuntimeError):
        net.features(torch.zeros(1, 3, net.least - 1, 50))
