"""Training runs and their folders, on a tiny network and synthetic images."""

import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tests.runs import files
from unpool import Segmenter, evaluate, train
from unpool.data import check_data, open_data
from unpool.errors import DataError, ImageError, OptionError
from unpool.models import from_pretrained
from unpool.recipes import SegmentationRecipe
from unpool.recipes.segment import DECONVNET, Phase
from unpool.segment.train import scaled_to
from unpool.training.loop import Step
from unpool.training.task import Preparation
from unpool.vision.images import read_image, read_mask, write_mask

TINY = SegmentationRecipe(
    "tiny",
    phases=(
        Phase("coarse", stages=1, steps=3, lr=1e-2),
        Phase("fine", stages=2, steps=4, lr=1e-2, older_lr=1e-3, trunk_lr=1e-3),
    ),
    trunk=((1, 6), (1, 8)),
    code=None,
    size=32,
    batch=2,
    crop_long_side=(32, 64),
    balance=0.5,
    dropout=0.2,
    validate_every=2,
    save_every=2,
    statistics_passes=2,
    long_side=48,
)
FILES = {
    "config.json",
    "arguments.json",
    "env.json",
    "metrics.jsonl",
    "checkpoints/last.pt",
    "checkpoints/best.pt",
    "weights/card.json",
    "weights/model.safetensors",
    "eval/summary.json",
    "plots/predictions.png",
    "plots/curves.png",
}


def weights(folder):
    return (folder / "weights/model.safetensors").read_bytes()


def test_a_run_writes_all_files_and_its_weights_segment(data, tmp_path):
    records = []
    summary = train(data, tmp_path / "run", TINY, report=records.append, command="unpool train …")
    run = tmp_path / "run"
    assert files(run) == FILES
    assert summary["images"] == 2  # every fifth image
    assert summary["notes"] == []
    assert json.loads((run / "eval/summary.json").read_text())["miou"] == summary["miou"]
    assert SegmentationRecipe.from_json(json.loads((run / "config.json").read_text())) == TINY
    assert "torch" in json.loads((run / "env.json").read_text())
    written = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert written == [record._asdict() for record in records]
    assert [r["n"] for r in written if "loss" in r] == [1, 2, 3, 4, 5, 6, 7]
    assert [r["n"] for r in written if "miou" in r] == [2, 4, 6, 7]
    assert read_image(run / "plots/predictions.png").ndim == 3
    card = json.loads((run / "weights/card.json").read_text())
    assert card["classes"] == ["background", "square"]
    assert card["command"] == "unpool train …"
    found = Segmenter.from_pretrained(run / "weights")(read_image(data / "images/0.png"))
    assert found.labels.shape == (40, 52)


def test_a_recipe_may_take_the_sizes_of_the_images(data, tmp_path, stopped_at):
    """And the run is resumed with what it found."""
    recipe = dataclasses.replace(TINY, long_side=0, crop_long_side=(0, 0))
    with stopped_at(3) as report:
        train(data, tmp_path / "run", recipe, report=report)
    train(data, tmp_path / "run", recipe, resume=True)
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (config["long_side"], config["crop_long_side"]) == (52, [30, 61])
    assert json.loads((tmp_path / "run/weights/card.json").read_text())["long_side"] == 52
    wide = dataclasses.replace(recipe, long_side=120)
    assert scaled_to(open_data(data, "train"), wide).crop_long_side == (70, 140)
    for path in (data / "images").iterdir():
        Image.fromarray(np.zeros((700, 2000, 3), np.uint8)).save(path)
    assert scaled_to(open_data(data, "train"), recipe).long_side == 640


def test_a_resumed_run_equals_an_uninterrupted_one(data, tmp_path, stopped_at):
    train(data, tmp_path / "whole", TINY)

    for stop in (1, 3, 5, 7):  # before, between and after checkpoints; 3 ends a phase
        folder = tmp_path / f"stopped-{stop}"
        with stopped_at(stop) as report:
            train(data, folder, TINY, report=report)
        train(data, folder, TINY, resume=True)
        assert weights(folder) == weights(tmp_path / "whole")
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        steps = [json.loads(line)["n"] for line in lines if "loss" in line]
        assert steps == [1, 2, 3, 4, 5, 6, 7]


def test_a_run_is_not_overwritten_nor_resumed_as_another(data, tmp_path):
    train(data, tmp_path / "run", TINY)
    with pytest.raises(OptionError, match="holds a run already; pass resume=True"):
        train(data, tmp_path / "run", TINY)
    other = dataclasses.replace(TINY, batch=3)
    with pytest.raises(OptionError, match="started with another recipe"):
        train(data, tmp_path / "run", other, resume=True)


def test_early_stopping(data, tmp_path, monkeypatch):
    found = iter([0.3, 0.5, 0.5, 0.4])
    monkeypatch.setattr("unpool.segment.evaluate.mean_iou", lambda *_: next(found))
    recipe = dataclasses.replace(TINY, phases=(Phase("all", 2, 20, 1e-2),), patience=2)
    records = []
    train(data, tmp_path / "run", recipe, report=records.append)
    assert [r.n for r in records if isinstance(r, Step)] == list(range(1, 9))
    best = torch.load(tmp_path / "run/checkpoints/best.pt")["model"]
    kept, _ = from_pretrained(tmp_path / "run/weights")
    for name, parameter in kept.named_parameters():
        assert torch.equal(parameter, best[f"net.{name}"]), name
    before = weights(tmp_path / "run")
    train(data, tmp_path / "run", recipe, resume=True, report=records.append)  # it has ended
    assert len([r for r in records if isinstance(r, Step)]) == 8
    assert weights(tmp_path / "run") == before


def test_tensorboard_has_every_step_once(data, tmp_path, stopped_at):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with stopped_at(5) as report:
        train(data, tmp_path / "run", TINY, report=report, tensorboard=True)
    train(data, tmp_path / "run", TINY, resume=True, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    assert [e.step for e in events.Scalars("loss")] == [1, 2, 3, 4, 5, 6, 7]
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    validations = [r for r in map(json.loads, lines) if "miou" in r]
    found = [(e.step, e.value) for e in events.Scalars("miou")]
    assert found == [(r["n"], pytest.approx(r["miou"])) for r in validations]


def test_without_matplotlib_only_the_curves_are_missing(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = r"curves\.png is left out, because matplotlib is missing: pip install matplotlib"
    records = []
    with pytest.warns(UserWarning, match=message) as warned:
        summary = train(data, tmp_path / "run", TINY, report=records.append)
    assert warned[0].filename == __file__
    assert files(tmp_path / "run") == FILES - {"plots/curves.png"}
    assert summary["notes"] == [str(warned[0].message)]
    assert json.loads((tmp_path / "run/eval/summary.json").read_text())["notes"] == summary["notes"]


# ---- bad data ------------------------------------------------------------------------------------


def test_weights_of_classes_count_in_the_loss(data, tmp_path):
    losses = []
    for i, changes in enumerate([{}, {"class_weights": (0.0, 4.0)}, {"median_frequency": 1.0}]):
        records = []
        recipe = dataclasses.replace(TINY, coarse_weight=0.0, **changes)
        train(data, tmp_path / str(i), recipe, report=records.append)
        losses.append(records[0].loss)
    assert len(set(losses)) == 3
    wrong = dataclasses.replace(TINY, class_weights=(1.0, 2.0, 3.0))
    with pytest.raises(OptionError, match="got 3 class_weights for 2 classes; wanted as many"):
        train(data, tmp_path / "wrong", wrong)


def test_classes_that_are_not_distilled_are_known_or_do_not_matter(data, tmp_path):
    recipe = dataclasses.replace(TINY, distill_without=("squares",))
    train(data, tmp_path / "run", dataclasses.replace(recipe, phases=TINY.phases[1:]))
    (tmp_path / "soft").mkdir()
    np.save(tmp_path / "soft/1.npy", np.zeros((2, 5, 6), np.float32))
    distilled = dataclasses.replace(recipe, distill=1.0)
    message = r"got distill_without with 'squares'; did you mean 'square'\?.* set distill_without="
    with pytest.raises(OptionError, match=message):
        train(data, tmp_path / "other", distilled, soft=tmp_path / "soft")
    assert not (tmp_path / "other").exists()


def test_classes_without_training_pixels_are_noted(data, tmp_path):
    (data / "classes.txt").write_text("background\nsquare\ncircle\nstar\n")
    message = "no mask of train shows circle, star, which cannot be learned"
    with pytest.warns(UserWarning, match=message):
        summary = train(data, tmp_path / "run", TINY)
    assert summary["notes"] == [message]
    assert list(summary["iou"]) == ["background", "square", "circle", "star"]


def test_names_that_were_assumed_are_noted(data, tmp_path):
    (data / "images").rename(data / "JPEGImages")
    (data / "masks").rename(data / "SegmentationClass")
    (data / "classes.txt").unlink()
    (data / "ImageSets/Segmentation").mkdir(parents=True)
    for split, numbers in (("train", range(8)), ("val", (8, 9))):
        text = "".join(f"{i}\n" for i in numbers)
        (data / f"ImageSets/Segmentation/{split}.txt").write_text(text)
    wide = dataclasses.replace(TINY, trunk=((1, 24), (1, 24)))
    with (
        pytest.warns(UserWarning, match="the ids 0, 1 are taken for PASCAL VOC's background, aero"),
        pytest.warns(UserWarning, match="no mask of train shows bicycle"),
    ):
        summary = train(data, tmp_path / "run", wide)
    assert "if they are other classes, name them in classes.txt" in summary["notes"][0]


def test_masks_are_read_by_color(data, tmp_path):
    reorder_palettes(data)
    assert not [f for f in check_data(data, by_color=True).findings if f.level == "error"]
    summary = train(data, tmp_path / "run", TINY, by_color=True)
    assert "masks are read by color: those of PASCAL VOC; " in summary["protocol"]
    again = evaluate(tmp_path / "run", data, by_color=True)
    assert again["iou"] == summary["iou"]
    with pytest.raises(DataError, match="by_color=True, or trust the indices with by_color=False"):
        evaluate(tmp_path / "run", data)


def make_rgb(data):
    Image.new("RGB", (52, 40), (90, 0, 0)).save(data / "masks/3.png")


def add_ids(data):
    write_mask(data / "masks/3.png", np.full((40, 52), 7, np.uint8))


def make_smaller(data):
    write_mask(data / "masks/3.png", np.zeros((39, 52), np.uint8))


def spoil_val(data):
    write_mask(data / "masks/4.png", np.full((40, 52), 2, np.uint8))


def empty_val(data):
    for i in range(10):
        (data / f"images/{i}.png").rename(data / f"images/train-{i}.png")
        (data / f"masks/{i}.png").rename(data / f"masks/train-{i}.png")
    (data / "train.txt").write_text("".join(f"train-{i}\n" for i in range(10)))
    (data / "val.txt").write_text("")


def reorder_palettes(data, numbers=(3, 4)):
    for i in numbers:
        image = Image.fromarray(1 - read_mask(data / f"masks/{i}.png"))
        image.putpalette([128, 0, 0, 0, 0, 0])
        image.save(data / f"masks/{i}.png")


def make_white(data, numbers=range(10)):
    for i in numbers:
        write_mask(data / f"masks/{i}.png", read_mask(data / f"masks/{i}.png") * 255)


def make_white_val(data):
    make_white(data, (4, 9))


def make_empty(data):
    for i in range(10):
        write_mask(data / f"masks/{i}.png", np.zeros((40, 52), np.uint8))


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (
            reorder_palettes,
            DataError,
            r"3\.png: has \(128, 0, 0\) at index 0, where .*masks/0\.png",
        ),
        (make_white, DataError, r"masks of train in .* contain only 0 \(background\) and 255 \("),
        (make_white_val, DataError, r"masks of val in .* contain only 0 \(background\) and 255 \("),
        (make_empty, DataError, r"masks of train in .* contain only 0 \(background\) and 255 \("),
        (make_rgb, ImageError, r"3\.png: has mode RGB, as a color-coded mask does"),
        (add_ids, DataError, r"3\.png has the ids 7; wanted 0 to 1, or 255 for void"),
        (make_smaller, DataError, r"3\.png is 52 x 40 \(upright\) but its mask .* is 52 x 39"),
        (spoil_val, DataError, r"4\.png has the ids 2; wanted 0 to 1"),
        (empty_val, DataError, r"split 'val' of .*"),
    ],
)
def test_bad_data_is_found_before_the_first_step(data, tmp_path, spoil, error, message):
    spoil(data)
    with pytest.raises(error, match=message):
        train(data, tmp_path / "run", dataclasses.replace(TINY, balance=0.0))
    assert not (tmp_path / "run").exists()


def test_a_run_resumes_after_a_damaged_image_is_restored(data, tmp_path):
    train(data, tmp_path / "whole", TINY)
    shutil.copytree(data / "images", tmp_path / "images")

    def spoil(record):
        if record.n == 3:
            for path in (data / "images").iterdir():
                path.write_bytes(path.read_bytes()[:-500])

    with pytest.raises(ImageError, match=r"images/\d\.png"):
        train(data, tmp_path / "run", TINY, report=spoil)
    shutil.copytree(tmp_path / "images", data / "images", dirs_exist_ok=True)
    train(data, tmp_path / "run", TINY, resume=True)
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_both_published_stages_by_one_recipe(data, tmp_path):
    """The constant `deconvnet` on a tiny network with a code, which sees squares alone."""
    first, second = DECONVNET.phases
    recipe = dataclasses.replace(
        DECONVNET,
        phases=tuple(dataclasses.replace(p, stages=2, steps=2) for p in (first, second)),
        trunk=((1, 6), (1, 8)), code=12, size=32, enlarged=36, batch=8, accumulate=4,
        statistics_passes=2, validate_every=2, save_every=2,
    )  # fmt: skip
    records = []
    summary = train(data, tmp_path / "run", recipe, report=records.append)
    assert summary["images"] == 2
    assert [r.phase for r in records if isinstance(r, Step)] == ["stage 1"] * 2 + ["stage 2"] * 2
    prepared = [r for r in records if isinstance(r, Preparation)]
    assert prepared[-1] == Preparation(8, 8, "finding proposals")
    assert (tmp_path / "run/proposals.npz").exists()
    card = json.loads((tmp_path / "run/weights/card.json").read_text())
    assert card["arguments"]["code"] == 12
    found = Segmenter.from_pretrained(tmp_path / "run/weights")(
        read_image(data / "images/0.png"), mode="instance", proposals=3
    )
    assert found.labels.shape == (40, 52)


def test_the_presence_threshold_is_on_the_card(data, tmp_path):
    train(data, tmp_path / "run", dataclasses.replace(TINY, presence_threshold=0.5))
    assert Segmenter.from_pretrained(tmp_path / "run/weights").presence_threshold == 0.5
