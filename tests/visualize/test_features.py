"""Features, class probabilities and the choice of layers, on small networks."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from unpool.errors import ImageError, OptionError
from unpool.visualize.features import FeatureExtractor, choose_layers, mean_color, read_inputs
from unpool.visualize.preprocessing import LoadedModel, Preprocessing

SIDE = 32


def test_reading_skips_what_is_unreadable(write_images):
    files = write_images(3)
    files[1].write_bytes(b"")
    loaded = LoadedModel(nn.Identity(), "none", Preprocessing(SIDE, SIDE))
    seen = []
    inputs = read_inputs(loaded, files, lambda *step: seen.append(step[:2]))
    assert inputs.images == [files[0], files[2]]
    assert list(inputs.failed) == [str(files[1])]
    assert inputs.shapes == [(40, 48)] * 2
    assert seen == [(1, 3), (2, 3), (3, 3)]
    for path, crop in zip(inputs.images, inputs.crops, strict=True):
        assert np.array_equal(crop, loaded.preprocessing.crop(np.asarray(Image.open(path))))
    assert [len(batch) for batch in inputs.batches(loaded, 1)] == [1, 1]
    (batch,) = inputs.batches(loaded, 5)
    assert torch.equal(batch, loaded.prepare(inputs.crops))
    with pytest.raises(ImageError, match="none of 1 images can be used"):
        read_inputs(loaded, files[1:2])


def test_the_mean_color_is_zero_for_the_model():
    inputs = Preprocessing(4, 4, mean=(104, 117, 124), std=(1,), order="BGR", range=255)
    loaded = LoadedModel(nn.Identity(), "caffe", inputs)
    assert mean_color(loaded) == (124, 117, 104)
    crop = np.full((4, 4, 3), mean_color(loaded), np.uint8)
    assert not loaded.prepare([crop]).any()


def test_models_without_stages():
    loaded = LoadedModel(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), "mlp", Preprocessing(4, 4))
    with pytest.raises(OptionError, match="got no layers, and mlp has no stages"):
        choose_layers(loaded)


def test_models_that_segment_give_the_mean_over_the_image():
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 1))
    loaded = LoadedModel(net, "segments", Preprocessing(SIDE, SIDE))
    crop = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    _, probability = FeatureExtractor(loaded, ["0"])([crop])
    with torch.no_grad():
        wanted = net(loaded.prepare([crop])).softmax(1).mean((2, 3))
    assert torch.allclose(probability, wanted)
    assert choose_layers(loaded)[1] == "1"
    ended = LoadedModel(nn.Sequential(net, nn.Softmax(1)), "ended", Preprocessing(SIDE, SIDE))
    assert torch.allclose(FeatureExtractor(ended, ["0"])([crop])[1], wanted, atol=1e-6)


def test_layers_with_as_many_maps_as_classes():
    """Only those at the end give the scores."""
    convolutions = nn.Conv2d(3, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 8, 3), nn.ReLU()
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    for end, top in ((), "5"), ((nn.Softmax(1),), "5"), ((nn.ReLU(), nn.Linear(5, 5)), "8"):
        net = nn.Sequential(*convolutions, *head, *end)
        loaded = LoadedModel(net, "five", Preprocessing(SIDE, SIDE))
        assert choose_layers(loaded) == (["1", "4"], top)
    scores = nn.Conv2d(8, 5, 1), nn.ConvTranspose2d(5, 5, 2, 2), nn.Upsample(SIDE)
    loaded = LoadedModel(
        nn.Sequential(*convolutions, *scores), "segments", Preprocessing(SIDE, SIDE)
    )
    assert choose_layers(loaded) == (["1", "4"], "4")
