"""Activations by layer name, against forward hooks on the model."""

import threading

import pytest
import torch
from torch import nn

from unpool.errors import OptionError, ShapeError
from unpool.visualize import ActivationRecorder, Layer, list_layers
from unpool.visualize.activations import chain_layers, stage_ends


def by_hooks(model, images):
    """The first output of every module, copied at once."""
    found, handles = {}, []

    def note(name):
        def hook(module, inputs, output):
            found.setdefault(name, output.detach().clone())

        return hook

    for name, module in model.named_modules():
        handles.append(module.register_forward_hook(note(name)))
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return found


def test_outputs_of_layers(style, build, images):
    model = build(style, inplace=True)
    expected = by_hooks(model, images)
    listed = list_layers(model, images)
    names = [layer.name for layer in listed if ":" not in layer.name]
    assert names == [name for name in expected if name]  # in the order in which they finish
    for layer in listed:
        module = model.get_submodule(layer.name.partition(":")[0])
        assert layer.kind == type(module).__name__
    found = ActivationRecorder(model, names)(images)
    assert list(found) == names
    for layer in listed:
        if layer.name in found:
            assert torch.equal(found[layer.name], expected[layer.name])
            assert layer.shape == found[layer.name].shape[1:]


def test_a_module_that_runs_twice(build, images):
    model = build("resnet")
    names = [layer.name for layer in list_layers(model, images) if "relu" in layer.name]
    assert names == ["4.relu", "4.relu:2", "5.relu", "5.relu:2"]
    seen = []
    model[4].relu.register_forward_hook(lambda m, i, o: seen.append(o.detach().clone()))
    with torch.no_grad():
        found = ActivationRecorder(model, ["4.relu:2", "4.relu"])(images)
        model(images)
    assert list(found) == ["4.relu", "4.relu:2"]
    assert torch.equal(found["4.relu"], seen[-2])
    assert torch.equal(found["4.relu:2"], seen[-1])


def test_it_stops_at_the_deepest_layer(images):
    class Refuses(nn.Module):
        def forward(self, x):
            raise AssertionError("one layer too many")

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), Refuses())
    recorder = ActivationRecorder(model, ["1", "0"])
    for _ in range(2):
        assert list(recorder(images)) == ["0", "1"]
    with pytest.raises(ShapeError, match=r"cannot be run on .*: one layer too many"):
        list_layers(model, images)


def test_visitors_see_maps_at_once(build, images):
    model, seen = build("vgg", inplace=True), []
    ActivationRecorder(model, ["0", "3", "4"]).visit(
        images, lambda name, maps: seen.append((name, maps))
    )
    assert [name for name, _ in seen] == ["0", "3", "4"]
    expected = by_hooks(model, images)
    assert torch.equal(seen[0][1], expected["1"])  # the ReLU works in place, but later
    assert torch.equal(seen[-1][1], expected["4"])


def test_weights_are_shared(images):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    recorder = ActivationRecorder(model, ["0"])
    with torch.no_grad():
        model[0].weight.mul_(2)
        assert torch.equal(recorder(images)["0"], model[0](images))


def test_several_tensors_and_none(images):
    class Several(nn.Module):
        def forward(self, x):
            return {"count": 3, "maps": x + 1, "more": x}

    class Word(nn.Module):
        def forward(self, x):
            return "a word"

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.several, self.word, self.unused = Several(), Word(), nn.ReLU()
            self.lstm = nn.LSTM(9, 4)

        def forward(self, x):
            self.word(x)
            return self.lstm(self.several(x)["maps"].flatten(2)[:, :, :9])

    model = Model()
    listed = list_layers(model, images)
    assert listed == [Layer("several", "Several", (3, 31, 33)), Layer("lstm", "LSTM", (3, 4))]
    assert torch.equal(ActivationRecorder(model, ["several"])(images)["several"], images + 1)
    for name in ("word", "unused"):
        with pytest.raises(OptionError, match=f"layer '{name}' of the model did not run"):
            ActivationRecorder(model, [name])(images)


def test_messages(build, images):
    model = build("squeezenet")
    with pytest.raises(OptionError, match=r"got layer '3.expand', .* did you mean '3.expand\dx\d'"):
        ActivationRecorder(model, ["3.expand"])
    with pytest.raises(OptionError, match=r"got layer 'conv1', .* have; the choices are 0, 1, 2"):
        ActivationRecorder(model, ["conv1"])
    with pytest.raises(OptionError, match=r"got layer '3.relu:x', which the model does not have"):
        ActivationRecorder(model, ["3.relu:x"])
    with pytest.raises(OptionError, match=r"layer '3.relu:2' of the model did not run"):
        ActivationRecorder(model, ["3.relu:2"])(images)
    with pytest.raises(OptionError, match="got no layers; name one or more"):
        ActivationRecorder(model, [])
    with pytest.raises(OptionError, match="which the model does not have; the choices are none"):
        ActivationRecorder(nn.ReLU(), ["relu"])
    with pytest.raises(ShapeError, match=r"cannot be run on \(1, 1, 9, 9\) float32 on cpu: .*"):
        list_layers(model, torch.zeros(1, 1, 9, 9))


@pytest.mark.parametrize("error", [AssertionError, IndexError, TypeError])
def test_errors_of_models_for_unfit_images(error, images):
    class Refuses(nn.Module):
        def forward(self, x):
            raise error

    with pytest.raises(
        ShapeError, match=rf"cannot be run on .*: {error.__name__}; .*set size=N of the"
    ):
        list_layers(nn.Sequential(Refuses()), images)


def test_other_errors_of_the_model_pass(images):
    class Breaks(nn.Module):
        def forward(self, x):
            raise KeyError("own error")

    with pytest.raises(KeyError, match="own error"):
        list_layers(nn.Sequential(Breaks()), images)


def test_a_model_that_catches_everything(images):
    class Catches(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            try:
                return self.conv(x)
            except Exception:
                raise AssertionError("nothing was wrong") from None

    assert list(ActivationRecorder(Catches(), ["conv"])(images)) == ["conv"]


def test_threads_share_a_model(build):
    model = build("squeezenet", inplace=True)
    images = [torch.randn(2, 3, 33, 33) for _ in range(4)]
    expected = [by_hooks(model, x)["4.squeeze"] for x in images]
    found = [None] * 4

    def look(i):
        for _ in range(10):
            found[i] = ActivationRecorder(model, ["4.squeeze"])(images[i])["4.squeeze"].detach()

    threads = [threading.Thread(target=look, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(map(torch.equal, found, expected))


def test_chains():
    relu = nn.ReLU()
    inner = nn.Sequential(nn.Conv2d(4, 4, 1), relu)
    names = [name for name, _ in chain_layers(nn.Sequential(nn.Conv2d(3, 4, 3), relu, inner))]
    assert names == ["0", "1", "2.0", "2.1"]  # the ReLU comes twice


def test_stages_of_other_networks():
    def layers(*shapes):
        return [Layer(str(i), "", shape) for i, shape in enumerate(shapes)]

    growing = layers((4, 8, 8), (4, 4, 4), (8, 4, 4), (4, 8, 8), (4, 4, 4))
    assert stage_ends(growing) == ["0", "2"]
    assert stage_ends(layers((4, 8, 8), (4, 8, 8))) == ["1"]
    assert stage_ends(layers((4, 11, 11), (4, 9, 9), (4, 4, 4), (4, 3, 3))) == ["1", "3"]
    assert stage_ends(layers((10,))) == []
