"""The front door: every call of `import unpool` that users make first, and many that are wrong."""

from importlib import resources

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import unpool
from unpool.recipes.segment import FINETUNE

PHOTO = str(resources.files("skimage") / "data/chelsea.png")


@pytest.fixture(scope="module")
def segmenter():
    return unpool.load("objects", precision="fp32", device="cpu")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3), nn.ReLU()
    ).eval()


def test_images_of_every_kind_give_the_same_labels(segmenter):
    small = Image.open(PHOTO).convert("RGB").resize((60, 48))
    array = np.asarray(small)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    kinds = [small, array, tensor, tensor[None], tensor.float() / 255, small.convert("RGBA")]
    results = segmenter(kinds)
    assert isinstance(results, list)
    for result in results:
        assert np.array_equal(result.labels, results[0].labels)
    assert results[0].labels.shape == (48, 60)


def test_a_segmentation(segmenter, tmp_path):
    result = segmenter(PHOTO)
    assert result.labels.shape == result.probabilities.shape[1:] == result.logits.shape[1:]
    assert result.classes[0] == "background"
    assert result.probabilities.sum(0) == pytest.approx(1, abs=1e-5)
    result.save(tmp_path / "photo.png")
    assert (tmp_path / "photo.png").exists()
    assert result.to_dict()["labels"] == result.fractions()
    assert result._repr_png_().startswith(b"\x89PNG")


def test_a_preset_of_load_is_that_of_instance_wise_calls():
    loaded = unpool.load("objects", preset="reference", device="cpu")
    assert "preset reference, max" in loaded.describe("instance")
    assert repr(loaded) == f"Segmenter(21 classes, {loaded.describe()})"


def test_the_image_itself_is_not_overwritten(segmenter, tmp_path):
    photo = tmp_path / "photo.png"
    Image.open(PHOTO).resize((40, 30)).save(photo)
    before = photo.read_bytes()
    with pytest.raises(unpool.OptionError, match="is the image; choose another"):
        segmenter(photo).save(tmp_path / "." / "photo.png")
    assert photo.read_bytes() == before
    assert segmenter(photo).save(tmp_path / "mask.png").exists()


def test_train_then_load_and_evaluate_the_run(data, tmp_path, monkeypatch):
    run = tmp_path / "runs/mine"
    tiny = {"start": None, "trunk": "vgg11", "size": 32, "crop_long_side": (32, 64), "batch": 2}
    steps = {"steps": 5, "statistics_passes": 1, "validate_every": 5, "long_side": 48}
    summary = unpool.train(data, run, "finetune", device="cpu", bf16=False, **tiny, **steps)
    assert unpool.evaluate(run, data, split="val", mode="whole", device="cpu")["miou"] == (
        pytest.approx(summary["miou"])
    )
    assert unpool.load(run, device="cpu").classes == ["background", "square"]
    assert FINETUNE.phases[0].steps != 1  # the recipe itself is as it was
    assert unpool.train(resume=str(run), device="cpu", report=False) == summary
    assert unpool.train(data, resume=run, batch=2, split="train", report=False) == summary
    for other in ({"batch": 4}, {"split": "val"}, {"data": tmp_path}, {"recipe": "objects"}):
        with pytest.raises(unpool.OptionError, match=r"got .* to resume .*, which was started"):
            unpool.train(resume=run, **other)


def test_project_by_module_and_by_name(model, tmp_path):
    x = torch.rand(1, 3, 20, 20)
    found = unpool.project(model, x, model[4], unit=7)
    assert torch.equal(found.signal, unpool.project(model, x, "4", unit=7).signal)
    assert found.save(tmp_path / "unit7.png").exists()
    assert found.to_dict()["units"] == [7]
    assert repr(found) == "Projection('4', units [7], 1 x 3 x 20 x 20)"
    shown = unpool.project(model, [PHOTO, PHOTO], model[4], unit=7, preprocess="caffe")
    assert shown.signal.shape == (2, 3, 224, 224)
    assert shown.order == "BGR"


def test_generate_a_view(tmp_path):
    generator = unpool.load("chairs", device="cpu")
    assert repr(generator) == "Generator(65 styles, 128 x 128, cpu)"
    image = generator.view(0, azimuth=30)
    image.save(tmp_path / "chair.png")
    assert (tmp_path / "chair.png").exists()


def test_read_image_turns_every_kind_into_rgb():
    assert unpool.read_image(PHOTO).shape == (300, 451, 3)
    assert unpool.read_image(Image.new("L", (5, 4), 7)).tolist()[0][0] == [7, 7, 7]


NOISE = np.zeros((8, 8, 3), np.uint8)
SMALL = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
BATCH = torch.rand(1, 3, 12, 12)

WRONG = [
    (lambda s, d: unpool.load("objcts"), "wanted a folder with card.json"),
    (lambda s, d: unpool.load(5), "wanted a name, or the path of a folder"),
    (lambda s, d: unpool.load(None), "wanted a name, or the path of a folder"),
    (lambda s, d: unpool.load("nowhere.onnx"), "make it with unpool export"),
    (lambda s, d: unpool.load("net.caffemodel"), "does not exist; check the path"),
    (lambda s, d: unpool.load("objects", exact="yes"), "wanted True or False"),
    (lambda s, d: unpool.load("objects", presence_threshold=True), "wanted a probability"),
    (lambda s, d: unpool.load("objects", device=None), "or leave it out"),
    (lambda s, d: unpool.load("objects", preset="edeconvnet", mode="whole"), "option 'mode'"),
    (lambda s, d: unpool.load(d), "wanted a folder with card.json"),
    (lambda s, d: unpool.load("objects", device="tpu"), "this machine has cpu"),
    (lambda s, d: unpool.load("objects", precision="int3"), "precision"),
    (lambda s, d: unpool.load("objects", mode="wole"), "did you mean 'whole'"),
    (lambda s, d: unpool.load("objects", presence_threshold=2), "wanted a probability"),
    (lambda s, d: unpool.load("objects", preset="papr"), "did you mean 'paper'"),
    (lambda s, d: unpool.load("objects", ensemble="mean"), "set preset='edeconvnet'"),
    (lambda s, d: unpool.load("objects", colour=1), "the choices are"),
    (lambda s, d: unpool.load("chairs", mode="whole"), "the choices are device"),
    (lambda s, d: unpool.load("chairs", device=0), "set device="),
    (lambda s, d: unpool.load("chairs").view([1, 2]), "call generate"),
    (lambda s, d: unpool.load("chairs").view(0, transformation="a"), "its 28 numbers"),
    (lambda s, d: s("nowhere.jpg"), "nowhere.jpg"),
    (lambda s, d: s(5), "wanted a path, a Pillow image, an array"),
    (lambda s, d: s(None), "convert it to one"),
    (lambda s, d: s({"image": NOISE}), "convert it to one"),
    (lambda s, d: s(NOISE[..., :2]), r"wanted"),
    (lambda s, d: s(NOISE.astype(np.float32) + 7), r"0 to 1|0 and 1"),
    (lambda s, d: s(torch.zeros(2, 3, 8, 8)), "of a batch pass list"),
    (lambda s, d: s(torch.zeros(8, 8, 3)), "pass image.permute"),
    (lambda s, d: s(NOISE, mode="hole"), "did you mean 'whole'"),
    (lambda s, d: s(NOISE, crf="densecrff"), "densecrf"),
    (lambda s, d: s(NOISE, size=3), "got the option 'size'"),
    (lambda s, d: s(NOISE, presence_threshold=-1), "0 keeps all"),
    (lambda s, d: s(NOISE, mode="instance", proposals=0), "wanted 1 or more"),
    (lambda s, d: s(NOISE, mode="instance", aggregate="sum"), "the choices are|one of"),
    (lambda s, d: s(NOISE, mode="instance", proposals="many"), "1 or more, an integer"),
    (lambda s, d: s(NOISE, mode="instance", proposals=2.5), "1 or more, an integer"),
    (lambda s, d: s(NOISE, mode="instance", batch="a"), "1 or more, an integer"),
    (lambda s, d: s(NOISE, proposals=5), "pass mode='instance', or leave that option out"),
    (lambda s, d: s(NOISE, proposals=-4), "1 or more, an integer"),
    (lambda s, d: s(NOISE, method="nonsense"), "the choices are edgeboxes"),
    (lambda s, d: s(NOISE, aggregate="nonsense"), "the choices are max"),
    (lambda s, d: s(NOISE, preset="nonsense"), "the choices are paper"),
    (lambda s, d: s(NOISE, preset="reference"), "in mode='whole', which is that of the weights"),
    (lambda s, d: s(NOISE, preset="edeconvnet"), "load both: unpool.load"),
    (lambda s, d: s(NOISE, progress=3), "wanted a function"),
    (lambda s, d: s(NOISE, crf=5), "wanted a DenseCRF, or one of"),
    (lambda s, d: s(NOISE, crf=True), "wanted a DenseCRF, or one of"),
    (lambda s, d: s(NOISE, crf=["deeplab"]), "wanted a DenseCRF, or one of"),
    (lambda s, d: s(NOISE, modes="whole"), "The choices are .*crf"),
    (lambda s, d: s(NOISE).save(None), "wanted a path"),
    (lambda s, d: s(NOISE).save(d / "images/0.png/x.png"), "0.png is a file"),
    (lambda s, d: s([NOISE, 5]), "convert it to one"),
    (lambda s, d: unpool.read_image(3), "convert it to one"),
    (lambda s, d: unpool.read_image(b"no image"), "image"),
    (lambda s, d: unpool.evaluate(s, "nowhere"), "nowhere"),
    (lambda s, d: unpool.evaluate(s, 5), "wanted a path"),
    (lambda s, d: unpool.evaluate(s, d), "evaluate on data with the same classes"),
    (lambda s, d: unpool.evaluate(s, d, split="vall"), "vall"),
    (lambda s, d: unpool.evaluate("chairs", d), "wanted weights that segment images"),
    (lambda s, d: unpool.evaluate(3.5, d), "wanted a name, or the path"),
    (lambda s, d: unpool.evaluate(s, d, device="cpu"), "set it in unpool.load"),
    (lambda s, d: unpool.evaluate("nowhere.onnx", d), "does not exist"),
    (lambda s, d: unpool.train(d, d / "images/0.png", "finetune"), "which is a file"),
    (lambda s, d: unpool.train(d, d / "run", "finetune", resume=True), "holds no run"),
    (lambda s, d: unpool.train(d, d / "run", "finetune", resume="yes"), "holds no run"),
    (lambda s, d: unpool.train(d, d / "run", "finetune", trunk_inputs="foo"), "caffe"),
    (lambda s, d: unpool.train(d, d / "run", "finetune", trunk_weights=3), "wanted a path"),
    (lambda s, d: unpool.train(d, d / "run", "finetun"), "did you mean 'finetune'"),
    (lambda s, d: unpool.train(d, d / "run", 7), "wanted a Recipe or a name"),
    (lambda s, d: unpool.train(d, d / "run", "finetune", bach=2), "did you mean 'batch'"),
    (lambda s, d: unpool.train(d, d / "run", "finetune", batch="two"), "wanted"),
    (lambda s, d: unpool.train(d, d / "run", "finetune", batch=0), "wanted 1 or more"),
    (lambda s, d: unpool.train(d, d / "run", "finetune", stepz=3), "did you mean 'steps'"),
    (lambda s, d: unpool.train("nowhere", d / "run", "finetune"), "nowhere"),
    (lambda s, d: unpool.train(5, d / "run", "finetune"), "wanted a path"),
    (lambda s, d: unpool.train(d, 5, "finetune"), "wanted a path"),
    (lambda s, d: unpool.train(d, None, "finetune"), "got no output; wanted train"),
    (lambda s, d: unpool.train(d), "got no output and recipe; .* train.resume=folder"),
    (lambda s, d: unpool.train(resume=5), "got resume of type int; wanted a path"),
    (lambda s, d: unpool.train(resume=d), "holds no run to resume; pass the folder"),
    (lambda s, d: unpool.train(d, d / "run", "finetune", report=3), "report=False for silence"),
    (lambda s, d: unpool.project(SMALL, BATCH, "1").save(None), "wanted a path"),
    (lambda s, d: unpool.project("objcts", BATCH, "4"), "wanted a folder with card.json"),
    (lambda s, d: unpool.project(5, BATCH, "4"), "wanted a torch module"),
    (lambda s, d: unpool.project(SMALL, BATCH, "relu"), "the choices are"),
    (lambda s, d: unpool.project(SMALL, BATCH, nn.ReLU()), "layer"),
    (lambda s, d: unpool.project(SMALL, BATCH, "1", unit=99), "99"),
    (lambda s, d: unpool.project(SMALL, BATCH, "1", rul="guided"), "did you mean 'rule'"),
    (lambda s, d: unpool.project(SMALL, BATCH, "1", rule="guide"), "guided"),
    (lambda s, d: unpool.project(SMALL, 5, "1"), "convert it to one"),
    (lambda s, d: unpool.project(s, BATCH, "1"), r"such as project\('objects'"),
    (lambda s, d: unpool.project(SMALL, [NOISE, 5], "1"), "convert it to one"),
    (lambda s, d: unpool.project(SMALL, BATCH[:, :2], "1"), "set size=N of the preprocessing"),
    (lambda s, d: unpool.project(SMALL, BATCH, "1", unit="7"), "counted from 0"),
    (lambda s, d: unpool.project(SMALL, BATCH, "1", place=4), r"\(row, column\)"),
    (lambda s, d: unpool.project(SMALL, BATCH, "1", place=(1, 2, 3)), r"\(row, column\)"),
    (lambda s, d: unpool.project(SMALL, BATCH, "1", place=("a", "b")), r"\(row, column\)"),
    (lambda s, d: unpool.project(SMALL, BATCH, "1", rule=3), "wanted a Rule"),
    (lambda s, d: unpool.project(SMALL, BATCH, "1", activations=3), "'silu': 'relu'"),
    (lambda s, d: unpool.project(SMALL, BATCH, "1", preprocess="foo"), "the choices are imagenet"),
    (lambda s, d: unpool.project(SMALL, BATCH, "1").save(None), "wanted a path"),
    (lambda s, d: unpool.load("chairs").view(0).save(None), "wanted a path"),
    (lambda s, d: unpool.load("chairs").view(0).save("x.png", scale=1.5), "an integer"),
    (lambda s, d: unpool.project(SMALL, BATCH, "1").save(PHOTO + "/x.png"), "is a file"),
    (lambda s, d: unpool.project(SMALL, NOISE, "1", preprocess="caff"), "did you mean 'caffe'"),
]


@pytest.mark.parametrize(("call", "cure"), WRONG)
def test_wrong_calls_say_what_to_do(call, cure, segmenter, data):
    with pytest.raises(unpool.UnpoolError, match=cure):
        call(segmenter, data)
