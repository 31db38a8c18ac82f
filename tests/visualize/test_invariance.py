"""Transformations against scikit-image, and what they do to features and probabilities."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from unpool.errors import ImageError, OptionError
from unpool.visualize.features import mean_color
from unpool.visualize.invariance import TRANSFORMS, measure_invariance, transform
from unpool.visualize.preprocessing import LoadedModel, Preprocessing

SIDE = 32
VALUES = {"translation": [-4.0, 0.0, 4.0], "scale": [1.0, 1.5], "rotation": [0.0, 90.0, 360.0]}


def smooth(seed=0, shape=(40, 44)):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC))


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        Image.fromarray(smooth(i)).save(path)
    return paths


@pytest.fixture
def loaded(build, filled_net):
    head = filled_net(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)))
    return LoadedModel(nn.Sequential(build("vgg"), head), "small", Preprocessing(SIDE, SIDE + 4))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("translation", 3),
        ("translation", -2.5),
        ("scale", 1.3),
        ("rotation", 30),
        ("rotation", 200),
    ],
)
def test_transform_is_that_of_scikit_image(kind, value):
    skimage = pytest.importorskip("skimage.transform")
    image = smooth(3, (33, 41))
    center = np.array([(41 - 1) / 2, (33 - 1) / 2])
    if kind == "translation":
        affine = skimage.AffineTransform(translation=(0, value))
    else:
        about = {"scale": value} if kind == "scale" else {"rotation": -np.deg2rad(value)}
        affine = (
            skimage.AffineTransform(translation=-center)
            + skimage.AffineTransform(**about)
            + skimage.AffineTransform(translation=center)
        )
    wanted = skimage.warp(image, affine.inverse, order=1, preserve_range=True, cval=100)
    found = transform(image, kind, value, (100, 100, 100)).astype(float)
    inside = skimage.warp(np.ones((33, 41)), affine.inverse, order=1) > 0.999
    assert inside.mean() > 0.5
    assert np.abs(found - wanted)[inside].max() <= 3  # OpenCV takes 1/32 of a pixel
    outside = skimage.warp(np.ones((33, 41)), affine.inverse, order=1) == 0
    assert (found[outside] == 100).mean() > 0.95 if outside.any() else True


def test_the_identity_changes_nothing():
    image = smooth()
    for kind, value in (("translation", 0), ("scale", 1), ("rotation", 0), ("rotation", 360)):
        assert np.array_equal(transform(image, kind, value), image)
    square = smooth(1, (20, 20))
    assert np.array_equal(transform(square, "rotation", 90), np.rot90(square))
    for kind, value in (("shear", 1), ("scale", 0), ("scale", float("nan"))):
        with pytest.raises(OptionError, match="wanted one of translation, scale, rotation"):
            transform(image, kind, value)


def test_the_identity_gives_no_distance(loaded, files):
    found = measure_invariance(loaded, files, values=VALUES)
    assert found.layers == ("0.3", "1.0")
    for kind, at in (("translation", 1), ("scale", 0), ("rotation", 0), ("rotation", 2)):
        curves = found.curves[kind]
        assert (curves.first[:, at] == 0).all()
        assert (curves.top[:, at] == 0).all()
        assert (curves.probability[:, at] == found.curves["scale"].probability[:, 0]).all()
    assert (found.curves["scale"].first[:, 1] > 0).all()


def test_distances_and_probabilities(loaded, files):
    found = measure_invariance(loaded, files, ["0.1", "1"], values=VALUES, label=2)
    assert found.classes == [2, 2, 2]
    fill = mean_color(loaded)
    for i, path in enumerate(files):
        crop = loaded.preprocessing.crop(np.asarray(Image.open(path)))
        pair = [loaded.prepare([c]) for c in (crop, transform(crop, "rotation", 90.0, fill))]
        with torch.no_grad():
            low = [loaded.model[0][:2](x).numpy() for x in pair]
            top = [loaded.model(x).numpy() for x in pair]
        curves = found.curves["rotation"]
        assert curves.first[i, 1] == pytest.approx(np.sqrt(((low[0] - low[1]) ** 2).sum()))
        assert curves.top[i, 1] == pytest.approx(np.linalg.norm(top[0] - top[1]))
        exp = np.exp(top[1][0])
        assert curves.probability[i, 1] == pytest.approx(exp[2] / exp.sum(), rel=1e-5)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_shift_by_the_stride_shifts_the_maps(stride):
    """Equivariance: what is inside the border moves by one place, and is the same otherwise."""
    net = nn.Conv2d(3, 4, 5, stride)
    loaded = LoadedModel(net, "one", Preprocessing(SIDE, SIDE))
    crop = smooth(2, (SIDE, SIDE))
    shifted = transform(crop, "translation", stride, mean_color(loaded))
    with torch.no_grad():
        before, after = (net(loaded.prepare([c])) for c in (crop, shifted))
    assert torch.allclose(after[:, :, 2:], before[:, :, 1:-1], atol=1e-5)
    assert not torch.allclose(after, before, atol=1e-2)


def test_models_without_scores_have_distances_only(build, files):
    loaded = LoadedModel(build("vgg"), "trunk", Preprocessing(SIDE, SIDE))
    found = measure_invariance(loaded, files, ["1", "8"], values=VALUES)
    assert found.classes is None
    assert all(curves.probability is None for curves in found.curves.values())
    assert found.to_dict()["curves"]["scale"]["probability"] is None
    with pytest.raises(OptionError, match="that gives no scores of classes"):
        measure_invariance(loaded, files, ["1", "8"], label=0)


def test_save(loaded, files, tmp_path):
    files[1].write_bytes(b"")
    seen = []
    found = measure_invariance(loaded, files, values=VALUES, progress=lambda *now: seen.append(now))
    assert [now[:2] for now in seen] == [(i, 16) for i in range(1, 17)]
    assert found.images == [files[0], files[2]]
    image, text = found.save(tmp_path / "out")
    assert np.asarray(Image.open(image)).shape[1] > 900
    record = json.loads(text.read_text())
    assert list(record["curves"]) == list(TRANSFORMS)
    assert record["failed"] == {str(files[1]): found.failed[str(files[1])]}
    assert np.allclose(record["curves"]["rotation"]["top"], found.curves["rotation"].top, rtol=1e-5)


def test_errors(loaded, files):
    for layers, message in ((["0"], "got 1 layers"), (["0.1", "0.44"], "did you mean '0.4'")):
        with pytest.raises(OptionError, match=message):
            measure_invariance(loaded, files, layers)
    with pytest.raises(OptionError, match="got class 5 of a model that has classes 0 to 4"):
        measure_invariance(loaded, files, label=5)
    with pytest.raises(OptionError, match="without values"):
        measure_invariance(loaded, files, values={"scale": []})
    files[0].write_bytes(b"")
    with pytest.raises(ImageError, match="none of 1 images can be used"):
        measure_invariance(loaded, files[:1])


def test_damaged_weights_are_refused(loaded, files):
    net = loaded.model[1][2]
    with torch.no_grad():
        net.bias[1] = float("inf")
    with pytest.raises(OptionError, match="the model gives values that are not finite"):
        measure_invariance(loaded, files, ["0.1", "0.3"], values=VALUES)
    with torch.no_grad():
        loaded.model[0][0].weight[2] = float("nan")
    with pytest.raises(OptionError, match=r"layer '0.1' gives values that are not finite"):
        measure_invariance(loaded, files, ["0.1", "0.3"], values=VALUES)
